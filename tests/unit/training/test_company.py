"""With several threads, training steps of models that share out their work split no other operation."""

from __future__ import annotations

import pytest
import torch

from seqgan_hf.models import RNNGeneratorConfig, RNNGeneratorForCausalLM
from seqgan_hf.objectives import MLE, SeqGAN
from seqgan_hf.training import trainer as training
from tests.tools.small_runs import BRIEF, build, small_corpus
from tests.tools.tiny import build_discriminator, build_generator


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


class Watched(SeqGAN):
    """Notes how many threads torch splits an operation among: in both losses, and where samples are drawn."""

    def __init__(self):
        super().__init__(rollouts=2)
        self.seen: dict[str, set[int]] = {}

    def note(self, where: str) -> None:
        self.seen.setdefault(where, set()).add(torch.get_num_threads())

    def credit(self, *arguments):
        self.note("credit")
        return super().credit(*arguments)

    def generator_loss(self, *arguments):
        self.note("generator")
        return super().generator_loss(*arguments)

    def discriminator_loss(self, *arguments):
        self.note("discriminator")
        return super().discriminator_loss(*arguments)


class WatchedMLE(MLE):
    seen: set[int]

    def generator_loss(self, *arguments):
        self.seen.add(torch.get_num_threads())
        return super().generator_loss(*arguments)


@pytest.mark.parametrize(
    "players, step, pretraining",
    [(("lstm", "cnn"), 1, 1), (("gpt2", "cnn"), 2, 2), (("lstm", "bert"), 2, 1)],
)
def test_steps_are_unsplit_where_all_that_they_compute_is_shared_out(
    two_threads, tmp_path, players, step, pretraining
):
    objective, first = Watched(), WatchedMLE()
    first.seen = set()
    models = build_generator(players[0], eos=None), build_discriminator(players[1])
    run = build(small_corpus(), tmp_path, objective, None, *models, **BRIEF)
    run.pretraining = first
    run.train()
    assert objective.seen == {"credit": {2}, "generator": {step}, "discriminator": {step}}
    assert first.seen == {pretraining}
    assert torch.get_num_threads() == 2


def test_what_a_compiler_shares_out_is_split(two_threads, tmp_path):
    objective = Watched()
    build(small_corpus(), tmp_path, objective, torch_compile=True, torch_compile_backend="eager", **BRIEF).train()
    assert objective.seen["generator"] == objective.seen["discriminator"] == {2}


def test_the_step_of_the_optimizer_is_unsplit_as_well(two_threads, tmp_path, monkeypatch):
    seen, step = set(), training.Player.step
    monkeypatch.setattr(training.Player, "step", lambda player: seen.add(torch.get_num_threads()) or step(player))
    build(small_corpus(), tmp_path, **BRIEF).train()
    assert seen == {1}


@pytest.mark.parametrize("hidden, vocab_size, expected", [(128, 50, True), (129, 50, False), (128, 2**15 + 1, False)])
def test_a_generator_shares_out_its_work_while_its_recurrence_and_its_output_layer_are_small(
    hidden, vocab_size, expected
):
    with torch.device("meta"):
        config = RNNGeneratorConfig(vocab_size=vocab_size, hidden_size=hidden, bos_token_id=0, eos_token_id=None)
        model = RNNGeneratorForCausalLM(config)
    assert model.shares_out == expected
