"""What all tests share: the switch of fast paths, one thread, and one fixture for every kind of tiny model."""

from __future__ import annotations

import gc

import huggingface_hub.constants
import huggingface_hub.hf_api
import pytest
import torch
from transformers import PreTrainedModel

from seqgan_hf.runs import hub as hub_module
from tests.tools.fake_hub import TOKEN, serve
from tests.tools.plain_paths import SETTINGS, fast_paths
from tests.tools.tiny import build_discriminator, build_generator


# Models of a few units are slower on two threads than on one.
torch.set_num_threads(1)


def pytest_addoption(parser):
    parser.addoption(
        "--fast-paths",
        choices=SETTINGS,
        default="auto",
        help="run the suite with every fast path on (in blocks of a few rows) or off (plain references)",
    )


def pytest_collection_finish():
    """What has been imported by now is left out of every later search for garbage, which would take a second each."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def chosen_fast_paths(request):
    with fast_paths(request.config.getoption("--fast-paths")):
        yield


@pytest.fixture(scope="session", autouse=True)
def power_that_stays():
    """Nothing waits for the disk, as a run does dozens of times. That files are flushed is tested by the calls."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.fsync", lambda descriptor: None)
        yield


@pytest.fixture(params=["lstm", "gru", "memory", "gpt2", "llama"])
def generator(request) -> PreTrainedModel:
    """Every kind of generator, in train mode with dropout where it has any."""
    return build_generator(request.param)


@pytest.fixture(params=["cnn", "relgan", "rnn", "per_token", "bert"])
def discriminator(request) -> PreTrainedModel:
    return build_discriminator(request.param)


@pytest.fixture
def without_pictures(monkeypatch):
    """Of cards and evaluations: to draw them takes as long as the rest of a tiny run."""
    monkeypatch.setattr("seqgan_hf.runs.card.draw_runs", lambda runs, picture: (False, []))
    monkeypatch.setattr("matplotlib.figure.Figure.savefig", lambda figure, *arguments, **options: None)


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A Hub of its own, to which the client of this process is logged in."""
    with serve() as server:
        constants = {"ENDPOINT": server.url, "HF_HUB_CACHE": str(tmp_path / "cache")}
        constants["HUGGINGFACE_CO_URL_TEMPLATE"] = server.url + "/{repo_id}/resolve/{revision}/{filename}"
        for name, value in constants.items():
            monkeypatch.setattr(huggingface_hub.constants, name, value)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        monkeypatch.setattr(huggingface_hub.hf_api.api, "endpoint", server.url)  # whose methods are the functions
        # transformers keeps the client that its first call made, with the address of that time
        monkeypatch.setattr("transformers.utils.hub._hf_api", None, raising=False)
        monkeypatch.setattr(hub_module, "WAITS", (0.0, 0.0))
        yield server
