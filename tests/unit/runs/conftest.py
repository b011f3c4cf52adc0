from __future__ import annotations

import huggingface_hub.constants
import pytest
from matplotlib.figure import Figure

from seqgan_hf.runs import hub as hub_module
from tests.tools.fake_hub import TOKEN, serve


@pytest.fixture
def figures(monkeypatch) -> list[Figure]:
    """Figures in place of their files."""
    kept: list[Figure] = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *arguments, **options: kept.append(figure))
    return kept


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A Hub of its own, to which the client of this process is logged in."""
    with serve() as server:
        constants = {"ENDPOINT": server.url, "HF_HUB_CACHE": str(tmp_path / "cache")}
        constants["HUGGINGFACE_CO_URL_TEMPLATE"] = server.url + "/{repo_id}/resolve/{revision}/{filename}"
        for name, value in constants.items():
            monkeypatch.setattr(huggingface_hub.constants, name, value)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        # transformers keeps the client that its first call made, with the address of that time
        monkeypatch.setattr("transformers.utils.hub._hf_api", None, raising=False)
        monkeypatch.setattr(hub_module, "WAITS", (0.0, 0.0))
        yield server
