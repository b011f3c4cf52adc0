"""What `import seqgan_hf` does, and when. Orders of imports: `tests/unit/runs/test_hub.py`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import seqgan_hf


ROOT = Path(__file__).parents[2]


def test_the_package_alone_imports_nothing_heavy():
    code = "import sys, seqgan_hf; heavy = {'torch', 'transformers', 'numpy'} & {*sys.modules}; assert not heavy"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_every_public_name_is_there():
    for name in seqgan_hf.__all__:
        assert getattr(seqgan_hf, name).__name__ == name
    with pytest.raises(AttributeError, match="has no attribute 'SeqGam'"):
        getattr(seqgan_hf, "SeqGam")  # noqa: B009
