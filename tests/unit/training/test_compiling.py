"""`torch_compile`: the same training, by a compiled forward pass, and clear words where it cannot be."""

from __future__ import annotations

import shutil

import pytest
import torch
import torch._inductor.config

from seqgan_hf.errors import UserError
from seqgan_hf.training.compiling import Compiled
from seqgan_hf.training.trainer import AdversarialTrainer
from tests.tools.small_runs import BRIEF, build, small_corpus
from tests.tools.tiny import build_discriminator, build_generator


def trainer(folder, players=("gpt2", "cnn"), **settings) -> AdversarialTrainer:
    models = build_generator(players[0], eos=None), build_discriminator(players[1])
    return build(small_corpus(), folder, None, None, *models, **(BRIEF | settings))


class Calls:
    """A backend that runs what it is given as it is, and counts."""

    def __init__(self):
        self.compiled = self.ran = 0

    def __call__(self, graph, inputs):
        self.compiled += 1

        def run(*arguments):
            self.ran += 1
            return graph(*arguments)

        return run


@pytest.mark.parametrize("players", [("gpt2", "cnn"), ("lstm", "rnn")], ids="-".join)
def test_a_compiled_run_is_the_same_training(players, tmp_path, monkeypatch):
    """Both players' steps, and those of pretraining."""
    torch._dynamo.reset()
    enter, entered = Compiled.__call__, []
    monkeypatch.setattr(Compiled, "__call__", lambda self: entered.append(self) or enter(self))
    calls = Calls()
    torch._dynamo.register_backend(calls, name=f"calls of {players}")
    plain = trainer(tmp_path / "plain", players)
    plain.train()
    compiled = trainer(tmp_path / "compiled", players, torch_compile=True, torch_compile_backend=f"calls of {players}")
    compiled.train()
    assert calls.compiled > 0 and calls.ran > 10
    assert {id(each) for each in entered if each.forward} == {id(p.compiled) for p in compiled.parts.players.values()}
    assert_the_same(plain, compiled)
    for model in plain.models.players().values():
        assert "forward" not in vars(model) and "forward" not in vars(model.base_model)


def assert_the_same(plain: AdversarialTrainer, compiled: AdversarialTrainer) -> None:
    ids = torch.randint(7, (20, 6), generator=torch.Generator().manual_seed(0))
    for name, model in plain.models.players().items():
        # not weights: Adam makes much of the last bits of a gradient that is zero, such as that of the keys' biases
        outputs = [each.eval()(ids).logits for each in (model, compiled.models.players()[name])]
        torch.testing.assert_close(*outputs, rtol=1e-3, atol=1e-4)


@pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")
@pytest.mark.parametrize("players", [("lstm", "cnn"), ("gpt2", "rnn")], ids="-".join)
def test_and_so_is_the_code_that_the_compiler_makes(players, tmp_path):
    """With torch's own random numbers: compiled code draws others for dropout, and samples follow those."""
    torch._dynamo.reset()
    plain = trainer(tmp_path / "plain", players)
    plain.train()
    compiled = trainer(tmp_path / "compiled", players, torch_compile=True)
    with torch._inductor.config.patch(fallback_random=True):
        compiled.train()
    assert torch._dynamo.utils.counters["inductor"], "nothing was compiled"
    assert_the_same(plain, compiled)


@pytest.mark.parametrize("wrong", [{"torch_compile_backend": "nope"}, {"torch_compile_mode": "fastest"}])
def test_what_torch_does_not_know_is_one_line(wrong, tmp_path):
    with pytest.raises(UserError, match="'(nope|fastest)'.*Choose others") as caught:
        trainer(tmp_path, torch_compile=True, **wrong)
    assert "\n" not in str(caught.value)


def test_a_compiler_that_fails_is_one_line(tmp_path):
    def fails(graph, inputs):
        raise OSError("g++ is missing\nand more")

    torch._dynamo.reset()
    torch._dynamo.register_backend(fails, name="fails")
    with pytest.raises(UserError, match="the compiler failed.*Install a C[+][+] compiler") as caught:
        trainer(tmp_path, torch_compile=True, torch_compile_backend="fails").train()
    assert "\n" not in str(caught.value)
