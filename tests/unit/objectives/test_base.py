"""The parts of the contract that objectives share: copies, frozen players, samples, what a discriminator step logs."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from transformers.modeling_outputs import SequenceClassifierOutput

from seqgan_hf.errors import UserError
from seqgan_hf.objectives import MLE, Copy, Models, Reinforce
from seqgan_hf.objectives.base import frozen
from seqgan_hf.samples import Samples
from tests.tools.small_runs import text
from tests.tools.tiny import BOS, PAD, VOCAB_SIZE, build_discriminator, build_generator


def parameters(model) -> list[torch.Tensor]:
    return [parameter.detach().clone() for parameter in model.parameters()]


def test_a_copy_stays_frozen_where_the_generator_began_until_it_is_refreshed():
    generator = build_generator("lstm")
    models = Models(generator, copies={"reference": Copy(), "average": Copy(decay=0.75)})
    models.begin()
    reference, before = models["reference"], parameters(generator)
    assert not any(parameter.requires_grad for parameter in reference.parameters())
    assert all(parameter.requires_grad for parameter in generator.parameters())
    for parameter in generator.parameters():
        parameter.data += 1.0
    models.follow()
    models.begin()  # as after a resume: what is there stays
    assert models["reference"] is reference
    torch.testing.assert_close(parameters(reference), before)
    models.refresh("reference")
    torch.testing.assert_close(parameters(reference), parameters(generator))
    torch.testing.assert_close(parameters(models["average"]), [old + 0.25 for old in before])


def test_an_averaged_copy_has_the_buffers_of_the_generator_as_they_are_now():
    """Features that a generator holds of a discriminator are replaced, not trained: they have no average."""
    generator = build_generator("lstm")
    generator.register_buffer("features", torch.zeros(2))
    generator.register_buffer("count", torch.tensor(0))  # an integer, which has no average
    models = Models(generator, copies={"reference": Copy(), "average": Copy(decay=0.75)})
    models.begin()
    generator.features += 4.0
    generator.count += 1
    models.follow()
    assert models["average"].features.tolist() == [4.0, 4.0] and models["average"].count == 1
    assert models["reference"].features.tolist() == [0.0, 0.0] and models["reference"].count == 0


def test_a_checkpoint_holds_both_players_and_every_copy():
    generator, discriminator = build_generator("lstm"), build_discriminator("cnn")
    models = Models(generator, discriminator, {"reference": Copy()})
    models.begin()
    held = {"generator": generator, "discriminator": discriminator, "reference": models["reference"]}
    assert models.named() == held
    assert Models(generator).named() == {"generator": generator}


def test_frozen_models_pass_gradients_on_and_are_what_they_were_afterwards():
    """Even after an error, and without unfreezing what was frozen before."""
    first, second, inputs = nn.Linear(2, 2), nn.Linear(2, 1), torch.ones(1, 2, requires_grad=True)
    first.bias.requires_grad_(False)
    every = [*first.parameters(), *second.parameters()]
    with pytest.raises(RuntimeError, match="by the way"), frozen(first, None, second):
        second(first(inputs)).sum().backward()
        assert inputs.grad.abs().sum() > 0 and all(parameter.grad is None for parameter in every)
        raise RuntimeError("by the way")
    assert [parameter.requires_grad for parameter in every] == [True, False, True, True]


def test_a_padded_prompt_is_continued_as_if_it_were_alone():
    models, drawn = Models(build_generator("gpt2", eos=None)), []
    nothing = torch.zeros(1, 0).long()
    for prompt in ([PAD, PAD, PAD, BOS, 5], [BOS, 5]):
        given = torch.tensor([prompt])
        torch.manual_seed(0)
        real = Samples(given, nothing, nothing.bool(), given != PAD)
        drawn.append(Reinforce().sample(models, real, 20).ids)
    assert torch.equal(*drawn)


def test_a_discriminator_step_logs_the_share_it_tells_apart():
    """Undecided is wrong for either kind, and both kinds count alike."""

    class FirstToken(nn.Module):
        def forward(self, input_ids, attention_mask):
            return SequenceClassifierOutput(logits=(input_ids[:, :1].float() - 6) / 2)

    def of(*first: int) -> Samples:
        ids = torch.tensor(first)[:, None]
        return Samples(torch.full_like(ids, BOS), ids, torch.ones_like(ids, dtype=torch.bool))

    models = Models(build_generator("lstm"), FirstToken())
    loss = Reinforce().discriminator_loss(models, of(7, 6, 9, 3), of(5, 6, 7, 7, 8))
    torch.testing.assert_close(loss.metrics["discriminator_accuracy"], torch.tensor((2 / 4 + 1 / 5) / 2))


@pytest.mark.parametrize("decay", [-1.0, 1.0, 1.5, float("nan")])
def test_a_copy_that_could_not_follow_is_refused(decay):
    with pytest.raises(UserError, match=r"Copy\(decay=.*\) for 'average': expected a share in \[0, 1\)"):
        Models(build_generator("lstm"), copies={"average": Copy(decay)})


@pytest.mark.parametrize(("name", "value"), [("adversary", "judge"), ("updates", 2.5), ("updates", "3")])
def test_declarations_that_mean_nothing_are_refused(name, value):
    objective = type("Mine", (Reinforce,), {name: value})()
    with pytest.raises(UserError, match=f"Mine.{name}={value!r}: expected"):
        objective.check(Models(build_generator("lstm"), build_discriminator("cnn")), 4, conditional=False)


def test_a_generator_that_cannot_be_copied_is_named():
    generator = build_generator("lstm")
    generator.held = (number for number in range(3))
    models = Models(generator, copies={"reference": Copy()})
    with pytest.raises(
        UserError,
        match="cannot be copied as 'reference' .TypeError: cannot pickle 'generator' object.*Keep what cannot",
    ):
        models.begin()


@pytest.mark.parametrize("name", ["generator", "discriminator", "two words"])
def test_a_copy_has_a_name_of_its_own_that_a_folder_can_have(name):
    with pytest.raises(
        UserError, match=f"a copy named '{name}': expected a name of letters and digits that no player"
    ):
        Models(build_generator("lstm"), copies={name: Copy()})


def test_until_they_begin_copies_are_the_generator():
    generator = build_generator("lstm")
    models = Models(generator, copies={"reference": Copy()})
    assert models["reference"] is generator
    models.begin()
    assert models["reference"] is not generator
    with pytest.raises(KeyError):
        models["average"]


def test_what_is_never_trained_is_there_once():
    generator = build_generator("lstm")
    generator.lm_head.weight.requires_grad_(False)
    models = Models(generator, copies={"average": Copy(decay=0.75)})
    models.begin()
    models.follow()
    assert models["average"].lm_head.weight is generator.lm_head.weight
    assert models["average"].lm_head.bias is not generator.lm_head.bias


def test_an_objective_that_names_a_language_model_takes_no_other_opponent():
    objective, generator = type("Mine", (Reinforce,), {"adversary": "language_model"})(), build_generator("lstm")
    objective.check(Models(generator, build_generator("gpt2")), 4, conditional=False)
    for opponent in (None, build_discriminator("cnn")):
        with pytest.raises(UserError, match="for the objective Mine: expected a causal language model"):
            objective.check(Models(generator, opponent), 4, conditional=False)


def test_by_default_the_discriminator_is_shown_what_the_generator_learns_from_and_nothing_is_credited():
    models, real, drawn = Models(build_generator("lstm", eos=None)), text(6), []
    for draw in (MLE().sample, MLE().fakes):
        torch.manual_seed(0)
        drawn.append(draw(models, real, 4))
    assert torch.equal(drawn[0].ids, drawn[1].ids) and drawn[0].ids.shape == (6, 4)
    assert MLE().credit(models, real, drawn[0]) == (drawn[0], {})


@pytest.mark.parametrize("kind", ["cnn", "per_token"])
def test_soft_tokens_that_are_hard_are_judged_like_ids(kind):
    models, real, fake = Models(None, build_discriminator(kind).eval()), text(6), text(4, seed=1)
    soft = fake._replace(soft=nn.functional.one_hot(fake.ids, VOCAB_SIZE).float())
    found, expected = (MLE().discriminator_loss(models, real, shown) for shown in (soft, fake))
    torch.testing.assert_close(found.value, expected.value)
    torch.testing.assert_close(found.metrics, expected.metrics)
