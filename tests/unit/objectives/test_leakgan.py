"""LeakGAN: ranks, blocks, two losses that do not mix, and features that follow the discriminator."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F
from transformers import pipeline

from seqgan_hf.errors import UserError
from seqgan_hf.generation.likelihood import token_logprobs
from seqgan_hf.generation.rollouts import complete
from seqgan_hf.generation.verdicts import rewards
from seqgan_hf.objectives import LeakGAN, LeakPretraining, Models, Turn
from seqgan_hf.objectives.leakgan import goal_cosines, rescaled_ranks
from seqgan_hf.samples import Samples
from tests.tools.small_runs import BRIEF, build, small_corpus, text
from tests.tools.tiny import build_discriminator, build_generator
from tests.tools.two_processes import on_two


MANAGER = {"manager", "goal", "first_goal"}


def players(goal_steps: int = 2) -> Models:
    models = Models(build_generator("leak").eval(), build_discriminator("cnn").eval())
    with torch.no_grad():
        for parameter in models.discriminator.parameters():
            parameter.normal_(std=0.7)
    models.generator.take_features(models.discriminator)
    models.generator.config.goal_steps = goal_steps
    return models


def gradients(models: Models, loss: torch.Tensor) -> dict[str, torch.Tensor | None]:
    named = dict(models.generator.named_parameters())
    return dict(zip(named, torch.autograd.grad(loss, named.values(), allow_unused=True), strict=True))


# --- Ranks -----------------------------------------------------------------------------------------------------------


def ranks(values: list[float], counted: list[bool] | None = None, delta: float = 12.0) -> list[float]:
    column = torch.tensor(values)[:, None]
    mask = torch.ones_like(column, dtype=torch.bool) if counted is None else torch.tensor(counted)[:, None]
    return rescaled_ranks(column, mask, delta)[:, 0].tolist()


def test_rewards_are_rescaled_ranks():
    assert ranks([0.9, 0.1, 0.5, 0.3]) == pytest.approx([0.9526, 0.0025, 0.5, 0.0474], abs=1e-4)
    assert ranks([0.1, 0.9, 0.3, 0.5]) == pytest.approx([0.0025, 0.9526, 0.0474, 0.5], abs=1e-4)


def test_a_sequence_alone_is_the_last_of_one():
    found = rescaled_ranks(torch.tensor([[0.7]]), torch.tensor([[True]]), 12.0)
    torch.testing.assert_close(found, torch.tensor([[-6.0]]).sigmoid())


def test_any_increasing_function_of_the_verdicts_gives_the_same_ranks():
    values = torch.rand(8, 5, generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(values, dtype=torch.bool)
    assert torch.equal(rescaled_ranks(values, mask, 12.0), rescaled_ranks(values.logit() * 3 - 1, mask, 12.0))


def test_equal_values_have_the_mean_of_their_ranks_and_what_is_not_counted_has_no_rank():
    middle = torch.sigmoid(torch.tensor(12 * (0.5 - 2.5 / 4))).item()
    assert ranks([0.7, 0.4, 0.4, 0.1])[1:3] == pytest.approx([middle, middle])
    assert ranks([0.4, 0.9, 0.1], [True, False, True])[::2] == pytest.approx(ranks([0.4, 0.1]))
    assert ranks([0.9, 0.1, 0.5], delta=0.0) == [0.5] * 3, "the control: a constant reward"


# --- Credit ----------------------------------------------------------------------------------------------------------


def test_blocks_earn_what_their_completions_do(monkeypatch):
    """Blocks of two tokens; sequences end inside and at the end of a block."""
    models, samples = players(), text(12)
    objective = LeakGAN(rollouts=3)
    seen = []

    def recorded(*arguments, **settings):
        for part in complete(*arguments, **settings):
            seen.append(part)
            yield part

    monkeypatch.setattr("seqgan_hf.objectives.leakgan.complete", recorded)
    with torch.no_grad():
        values = objective.action_values(models, samples, samples)
        verdicts = rewards(models.discriminator, samples)
    assert {t for part in seen for t in part.prefix_length.tolist()} == {2, 4}, "ends of blocks"
    for row, length in enumerate(samples.lengths.tolist()):
        for token in range(1, length + 1):
            end = min(-(-token // 2) * 2, length)
            if end == length:
                expected = verdicts[row]
            else:
                of_end = [
                    rewards(models.discriminator, part.samples.select((part.row == row) & (part.prefix_length == end)))
                    for part in seen
                ]
                expected = torch.cat(of_end).mean()
            torch.testing.assert_close(values[row, token - 1], expected)


def test_the_worker_pays_for_leaving_its_start_and_the_manager_does_not():
    """beta log G / reference of a token and of what follows, less the mean of the others that reach it."""
    models, samples, objective = players(), text(6), LeakGAN(rollouts=0, kl=0.5)
    models = Models(models.generator, models.discriminator, objective.copies())
    models.begin()
    with torch.no_grad():
        for parameter in models["reference"].parameters():
            parameter.mul_(1.3)
        credit = objective.credit(models, samples, samples)
        free = LeakGAN(rollouts=0).credit(models, samples, samples)
        ratio = token_logprobs(models.generator, samples) - token_logprobs(models["reference"], samples)
    assert torch.equal(credit.samples.advantages, free.samples.advantages)
    price = ratio.flip(1).cumsum(1).flip(1)
    others = torch.zeros_like(price)
    for row, t in samples.mask.nonzero().tolist():
        beside = [price[other, t] for other in range(6) if other != row and samples.mask[other, t]]
        others[row, t] = torch.stack(beside).mean() if beside else 0.0
    found = objective.generator_loss(models, samples, credit.samples)
    plain = LeakGAN(rollouts=0).generator_loss(models, samples, free.samples)
    assert float(found.metrics["kl_reference"]) == pytest.approx(float(ratio.sum(dim=1).mean()), abs=1e-5)
    logprobs = token_logprobs(models.generator, samples)
    expected = gradients(models, (0.5 * (price - others) * logprobs).sum() / 6)
    with_price, without = gradients(models, found.value), gradients(models, plain.value)
    for name, gradient in with_price.items():
        if gradient is None:
            continue
        if MANAGER & set(name.split(".")):
            torch.testing.assert_close(gradient, without[name], msg=name)
        else:
            torch.testing.assert_close(gradient - without[name], expected[name], atol=1e-5, rtol=1e-4, msg=name)


def test_a_block_is_ranked_among_the_sequences_that_reach_it():
    models, samples = players(), text(12)
    values = torch.rand(12, 1, generator=torch.Generator().manual_seed(1)).expand(12, 5)
    found = LeakGAN().advantages(models, values, samples)
    for begin, columns in ((0, (0, 1)), (2, (2, 3)), (4, (4,))):
        rows = (samples.lengths > begin).nonzero().squeeze(1)
        expected = torch.tensor(ranks(values[rows, 0].tolist()))
        for column in columns:
            torch.testing.assert_close(found[rows, column], expected)


def test_without_rollouts_every_block_is_ranked_by_the_whole_sequence():
    models, samples = players(), text(6)
    values = LeakGAN(rollouts=0).action_values(models, samples, samples)
    torch.testing.assert_close(values, rewards(models.discriminator, samples)[:, None].expand(6, 5))


# --- Losses ----------------------------------------------------------------------------------------------------------


def by_hand(models: Models, samples: Samples) -> tuple[torch.Tensor, torch.Tensor]:
    """cos(f_t - f_nc, Gamma_n) (B, T) from the discriminator's own features, and the ends of blocks."""
    steps = models.generator.config.goal_steps
    features = models.discriminator.prefix_features(samples.ids, samples.mask.long())
    _, goals = models.generator.base_model.goals(samples.sequences)
    cosines, ends = torch.zeros_like(samples.ids, dtype=torch.float32), torch.zeros_like(samples.mask)
    for row, length in enumerate(samples.lengths.tolist()):
        for t in range(1, length + 1):
            begin = (t - 1) // steps * steps
            moved = features[row, t] - features[row, begin]
            cosines[row, t - 1] = F.cosine_similarity(moved, goals[row, begin], dim=0)
            ends[row, t - 1] = t % steps == 0 or t == length
    return cosines, ends


@pytest.mark.parametrize("goal_steps", [2, 3])
def test_losses_of_manager_and_worker_are_the_papers(goal_steps):
    models, samples, rank = players(goal_steps=goal_steps), text(12), torch.rand(12, 5)
    cosines, ends = by_hand(models, samples)
    found, last = goal_cosines(models.generator, samples)
    torch.testing.assert_close(found.masked_fill(~samples.mask, 0.0), cosines)
    assert torch.equal(last, ends)
    loss, metrics, _ = LeakGAN().generator_loss(models, samples, samples._replace(advantages=rank))
    logprobs = token_logprobs(models.generator, samples)
    means = {
        "nll_policy": -logprobs.detach()[samples.mask].mean(),
        "goal_cosine": cosines.detach()[samples.mask].mean(),
    }
    torch.testing.assert_close(metrics, means)
    worker = -(cosines.detach() * logprobs).sum() / 12
    manager = -(cosines * rank)[ends].sum() / 12
    torch.testing.assert_close(loss, worker + manager)
    expected = gradients(models, worker + manager)
    for name, gradient in gradients(models, loss).items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("pretraining", [True, False])
def test_each_parameter_has_a_gradient_from_its_own_loss_only(pretraining):
    """With the reward of all blocks doubled, the Manager's gradients double and the Worker's stay."""
    models, samples = players(), text(12)
    if pretraining:
        loss = LeakPretraining().generator_loss(models, samples, None)
        tokens, (cosines, ends) = samples.mask.sum(), by_hand(models, samples)
        nll, manager = -token_logprobs(models.generator, samples).sum() / tokens, -cosines[ends].sum() / tokens
        torch.testing.assert_close(loss.value, nll + manager)
        means = {"nll_train": nll.detach(), "goal_cosine": cosines.detach()[samples.mask].mean()}
        assert loss.weight == tokens
        torch.testing.assert_close(loss.metrics, means)
        of_manager, of_worker = gradients(models, manager), gradients(models, nll)
        for name in of_manager:
            part = name.removeprefix("model.").split(".")[0]
            assert (of_worker[name] is None) == (part in MANAGER) == (of_manager[name] is not None), name
        return
    rank = torch.rand(12, 5)
    once, twice = (
        gradients(models, LeakGAN().generator_loss(models, samples, samples._replace(advantages=factor * rank)).value)
        for factor in (1, 2)
    )
    for name, gradient in once.items():
        factor = 2 if name.removeprefix("model.").split(".")[0] in MANAGER else 1
        assert gradient.abs().sum() > 0, name
        torch.testing.assert_close(twice[name], factor * gradient)


def test_half_the_reward_of_the_first_block_halves_the_gradient_of_the_first_goal_and_no_other():
    models, samples = players(), text(12)
    rank = torch.rand(12, 5)
    half = rank * torch.tensor([0.5, 0.5, 1.0, 1.0, 1.0])
    once, other = (
        gradients(models, LeakGAN().generator_loss(models, samples, samples._replace(advantages=each)).value)
        for each in (rank, half)
    )
    for name in once:
        factor = 0.5 if name == "model.first_goal" else 1.0
        torch.testing.assert_close(other[name], factor * once[name])


def test_real_text_adds_its_loss_of_pretraining_and_the_gradient():
    models, real, fake = players(), text(6, 1), text(6)._replace(advantages=torch.rand(6, 5))
    plain, more = (LeakGAN(likelihood_weight=weight).generator_loss(models, real, fake) for weight in (0.0, 0.3))
    of_real = LeakPretraining().generator_loss(models, real, None)
    expected = plain.value + 0.3 * of_real.value * real.mask.sum() / 6
    torch.testing.assert_close(more.value, expected)
    slopes = gradients(models, expected)
    for name, slope in gradients(models, more.value).items():
        torch.testing.assert_close(slope, slopes[name], rtol=1e-4, atol=1e-6)
    assert more.metrics.keys() - plain.metrics.keys() == {"nll_train"} and plain.metrics.keys() < more.metrics.keys()


def test_prompts_of_one_length_are_read_but_not_credited():
    """A prompt of two tokens behind the start token: the block of the first new token begins with it."""
    models, whole = players(), text(12).select(text(12).lengths == 5)
    split = Samples(torch.cat([whole.prompt, whole.ids[:, :2]], dim=1), whole.ids[:, 2:], whole.mask[:, 2:])
    found, ends = goal_cosines(models.generator, split)
    expected, all_ends = goal_cosines(models.generator, whole)
    torch.testing.assert_close(found, expected[:, 2:])
    assert torch.equal(ends, all_ends[:, 2:])
    padded = split._replace(prompt_mask=torch.arange(3).expand(len(split.prompt), 3) > 0)
    for call in (lambda: goal_cosines(models.generator, padded), lambda: LeakGAN().sample(models, padded, 3)):
        with pytest.raises(UserError, match="padded prompts for a generator with a Manager: expected prompts of one"):
            call()


# --- A run -----------------------------------------------------------------------------------------------------------


def test_pretraining_is_dealt_out_in_turns_with_the_discriminator_first():
    turns = [Turn("pretrain_generator", 5), Turn("pretrain_discriminator", 4), Turn("adversarial", 3, 1, 1)]
    found = LeakGAN(pretrain_cycles=3).schedule(turns)
    assert [turn.phase for turn in found] == ["pretrain_discriminator", "pretrain_generator"] * 3 + ["adversarial"]
    assert [turn.units for turn in found] == [1, 1, 1, 2, 2, 2, 3] and found[-1] == turns[-1]


def test_the_generator_always_reads_the_features_of_the_discriminator(tmp_path):
    generator = build_generator("leak", eos=None)

    class Watched(LeakGAN):
        def sample(self, models, real, max_new_tokens):
            given, own = models.discriminator.state_dict(), models.generator.model.leak.state_dict()
            seen.append(all(torch.equal(given[name], tensor) for name, tensor in own.items()))
            return super().sample(models, real, max_new_tokens)

    seen: list[bool] = []
    trainer = build(small_corpus(), tmp_path / "run", Watched(2, pretrain_cycles=1), generator=generator, **BRIEF)
    before = [buffer.clone() for buffer in generator.buffers()]
    trainer.train()
    assert len(seen) > 2 and all(seen)
    assert not any(torch.equal(old, new) for old, new in zip(before, generator.buffers(), strict=True))
    write = pipeline("text-generation", model=str(tmp_path / "run" / "generator"))
    assert len(write("", num_return_sequences=2)) == 2, "without the discriminator"


def test_models_that_do_not_fit_are_refused(tmp_path):
    leak, corpus = build_generator("leak", eos=None), small_corpus()
    with pytest.raises(UserError, match="LeakGAN with the generator RNNGeneratorForCausalLM: expected one with a Man"):
        build(corpus, tmp_path / "a", LeakGAN())
    with pytest.raises(UserError, match="LeakGAN with the discriminator BertForSeq.*: expected one with features of"):
        build(corpus, tmp_path / "b", LeakGAN(), generator=leak, discriminator=build_discriminator("bert"))
    other = build_discriminator("cnn")
    other.text_reader = object()  # other token ids than the generator's
    with pytest.raises(UserError, match="LeakGAN with the discriminator CNNDisc.*: expected one with features of"):
        build(corpus, tmp_path / "e", LeakGAN(), generator=leak, discriminator=other)
    del other.text_reader
    other.prefix_features = lambda ids: 2 * type(other).prefix_features(other, ids)
    with pytest.raises(UserError, match="expected one with features of prefixes, which the generator can compute"):
        build(corpus, tmp_path / "d", LeakGAN(), generator=leak, discriminator=other)
    wider = build_discriminator("cnn", vocab_size=20)
    with pytest.raises(
        UserError, match=r"embed_tokens.weight of the discriminator .* \(20, 6\): expected .* \(13, 6\)"
    ):
        build(corpus, tmp_path / "c", LeakGAN(), generator=leak, discriminator=wider)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"rank_delta": -1.0}, "rank_delta=-1.0: expected a number from 0 on"),
        ({"rank_delta": float("inf")}, "rank_delta=inf"),
        ({"pretrain_cycles": 0}, "pretrain_cycles=0: expected at least 1 turn"),
        ({"exploration_temperature": 0.0}, "temperature=0.0: expected a positive number"),
        ({"rollouts": -1}, "rollouts=-1"),
    ],
)
def test_settings_that_mean_nothing_are_refused(settings, words):
    with pytest.raises(UserError, match=words):
        LeakGAN(**settings)


def test_completions_are_drawn_at_the_temperature_of_exploration(monkeypatch):
    given, models = [], Models(build_generator("leak"), build_discriminator("cnn"))
    monkeypatch.setattr("seqgan_hf.objectives.leakgan.complete", lambda *args, **settings: given.append(args) or ())
    list(LeakGAN(rollouts=3, exploration_temperature=0.5).completions(models, text(4)))
    assert given[0][2:] == (3, 0.5)


def test_exploration_is_colder_or_hotter():
    models = players()
    real = text(200)
    torch.manual_seed(0)
    entropies = []
    for temperature in (0.2, 5.0):
        drawn = LeakGAN(exploration_temperature=temperature).sample(models, real, 5)
        entropies.append(float(-token_logprobs(models.generator, drawn).detach().sum() / drawn.mask.sum()))
    assert entropies[0] < entropies[1] - 0.5


def _advantages_of_half(rank, folder):
    part = text(16).select(slice(8 * rank, 8 * rank + 8))
    values = torch.rand(16, 5, generator=torch.Generator().manual_seed(2))[8 * rank : 8 * rank + 8]
    return LeakGAN().advantages(players(), values, part)


def test_two_processes_rank_as_one(tmp_path):
    both = torch.cat(list(on_two(_advantages_of_half, tmp_path)))
    values = torch.rand(16, 5, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(both, LeakGAN().advantages(players(), values, text(16)))
