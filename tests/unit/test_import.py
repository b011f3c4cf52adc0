"""What `import seqgan_hf` does, and when: each case in an interpreter of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import seqgan_hf
from seqgan_hf import RNNGeneratorConfig, RNNGeneratorForCausalLM


ROOT = Path(__file__).parents[2]


def interpret(code: str, *arguments: str) -> None:
    done = subprocess.run([sys.executable, "-c", code, *arguments], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("saved")
    RNNGeneratorForCausalLM(RNNGeneratorConfig(vocab_size=5, hidden_size=4)).save_pretrained(folder)
    return folder


IMPORTS = [
    "import seqgan_hf; from transformers import AutoModelForCausalLM",
    "from transformers import AutoModelForCausalLM; import seqgan_hf",
    "import transformers, seqgan_hf; AutoModelForCausalLM = transformers.AutoModelForCausalLM",
    # the module of the Auto classes is imported in the middle of another, whose names are not there yet
    "import seqgan_hf; from transformers import PreTrainedModel, AutoConfig as AutoModelForCausalLM",
]
# Each in a fork of one process that has imported what both need and what takes longest.
FORKS = """
import os, sys
import accelerate, datasets, matplotlib.figure, scipy.optimize, torch._dynamo, torch.distributed.tensor
for code in sys.argv[1:]:
    assert not {"transformers", "seqgan_hf"} & {*sys.modules}
    if not (child := os.fork()):
        exec(code)
        os._exit(0)
    assert not os.waitpid(child, 0)[1], code
"""


def test_the_models_are_registered_in_any_order_of_imports(saved):
    interpret(FORKS, *(f"{code}; assert AutoModelForCausalLM.from_pretrained({str(saved)!r})" for code in IMPORTS))


def test_the_package_alone_imports_nothing_heavy():
    interpret("import sys, seqgan_hf; heavy = {'torch', 'transformers', 'numpy'} & {*sys.modules}; assert not heavy")


def test_every_public_name_is_there():
    for name in seqgan_hf.__all__:
        assert getattr(seqgan_hf, name).__name__ == name
    with pytest.raises(AttributeError, match="has no attribute 'SeqGam'"):
        getattr(seqgan_hf, "SeqGam")  # noqa: B009
