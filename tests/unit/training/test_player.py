"""Learning rates: of trunk and head, and how they fall; real text of the discriminator's own."""

from __future__ import annotations

import pytest
import torch
from transformers import TrainerCallback

from seqgan_hf.errors import UserError
from seqgan_hf.objectives import CoT, Reinforce, Turn
from seqgan_hf.training.schedule import totals
from tests.tools.small_runs import build, small_corpus
from tests.tools.tiny import build_discriminator, build_generator


class Rates(TrainerCallback):
    """The learning rates at every step of a player; `trainer` is set once it is built."""

    def __init__(self):
        self.found, self.trainer = {}, None

    def on_pre_optimizer_step(self, args, state, control, **kwargs):
        for name, player in self.trainer.parts.players.items():
            if any(p.grad is not None for p in player.model.parameters()):
                rates = tuple(round(group["lr"], 8) for group in player.optimizer.param_groups)
                seen = self.found.setdefault(name, [])
                if not seen or seen[-1] != rates:
                    seen.append(rates)


def rates_of(folder, **settings) -> dict[str, list]:
    seen = Rates()
    seen.trainer = build(small_corpus(), folder, Reinforce(), callbacks=[seen], **settings)
    seen.trainer.train()
    return seen.found


def test_rates_fall_over_the_units_of_each_player(tmp_path):
    """4 epochs; 2 rounds; 2 d-steps before them and 1 in each."""
    found = rates_of(
        tmp_path,
        pretrain_epochs=4,
        discriminator_steps=1,
        pretrain_learning_rate=0.4,
        generator_learning_rate=0.2,
        discriminator_learning_rate=0.8,
        pretrain_lr_scheduler="linear",
        generator_lr_scheduler="cosine",
        discriminator_lr_scheduler="linear",
    )
    assert found["pretrained"][:4] == [(0.4,), (0.3,), (0.2,), (0.1,)]
    assert found["generator"][-2:] == [(0.2,), (0.1,)]
    # set when a round begins, before its d-step: after 0 and 1 of 4 in the pretraining, then after 2 and 3
    assert found["discriminator"][-4:] == [(0.8,), (0.6,), (0.4,), (0.2,)]


def test_rates_stay_where_nobody_asks(tmp_path):
    found = rates_of(tmp_path)
    assert [len(set(rates)) for rates in found.values()] == [1, 1, 1]


def test_the_trunk_of_the_discriminator_has_a_rate_of_its_own(tmp_path):
    rates = {"discriminator_learning_rate": 0.5, "discriminator_trunk_learning_rate": 0.25}
    model = build_discriminator("bert")
    trainer = build(small_corpus(), tmp_path, Reinforce(), discriminator=model, **rates)
    head, trunk = trainer.parts.players["discriminator"].optimizer.param_groups
    assert head["lr"] == 0.5 and trunk["lr"] == 0.25
    assert {id(p) for p in head["params"]} == {id(p) for p in model.classifier.parameters()}
    assert {id(p) for p in trunk["params"]} == {id(p) for p in model.bert.parameters()}


def test_a_rate_of_a_trunk_needs_one(tmp_path):
    """Of the CNN it would be the rate of all that it has."""
    with pytest.raises(UserError, match="discriminator_trunk_learning_rate=0.25 for a CNNDiscriminator"):
        build(small_corpus(), tmp_path, Reinforce(), discriminator_trunk_learning_rate=0.25)


def test_a_run_is_counted_over_its_turns():
    """Units of a phase are counted through the run."""
    turns = [
        Turn("pretrain_generator", 3),
        Turn("pretrain_discriminator", 2),
        Turn("adversarial", 4, 1, 5),
        Turn("pretrain_generator", 5),
        Turn("adversarial", 5, 1, 1),
    ]
    assert totals(turns) == {"pretrain_generator": 5, "adversarial": 5, "discriminator_steps": 2 + 4 * 5 + 1}


@pytest.mark.parametrize(("kind", "objective"), [("cnn", Reinforce), ("lstm", CoT)])
def test_a_share_of_the_real_text_is_the_discriminators_alone(kind, objective, tmp_path):
    """48 rows: 12 of them are the discriminator's."""
    seen = {"generator": set(), "discriminator": set()}

    class Watched(objective):
        def generator_loss(self, models, real, fake):
            seen["generator"] |= set(map(tuple, real.ids.tolist()))
            return super().generator_loss(models, real, fake)

        def discriminator_loss(self, models, real, fake):
            seen["discriminator"] |= set(map(tuple, real.ids.tolist()))
            return super().discriminator_loss(models, real, fake)

    corpus = small_corpus()
    corpus.train.ids[:, :2] = torch.cartesian_prod(torch.arange(6), torch.arange(8))  # no row is there twice
    opponent = build_generator("lstm", None) if kind == "lstm" else build_discriminator(kind)
    settings = {"generator_steps": 6, "rounds": 3, "discriminator_share": 0.25}
    trainer = build(corpus, tmp_path, Watched(), discriminator=opponent, **settings)
    assert (len(trainer.data), len(trainer.real)) == (36, 12)
    trainer.train()
    assert len(seen["generator"]) == 36 and len(seen["discriminator"]) == 12
    assert not seen["generator"] & seen["discriminator"]
    assert torch.equal(
        trainer.real.samples.ids,
        build(corpus, tmp_path / "again", Reinforce(), discriminator_share=0.25).real.samples.ids,
    ), "the same seed divides alike"


def test_adam_updates_all_weights_of_a_player_at_once(tmp_path):
    trainer = build(small_corpus(), tmp_path, Reinforce())
    groups = [group for player in trainer.parts.players.values() for group in player.optimizer.param_groups]
    assert len(groups) == 3 and all(group["fused"] for group in groups)
