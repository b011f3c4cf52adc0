"""RelGAN, GSGAN and CatGAN: their losses by hand, invariances, schedules, the gradient penalty in closed form."""

from __future__ import annotations

import math
from itertools import product
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from transformers import GPT2Config, GPT2ForSequenceClassification

from seqgan_hf.data.tokenization import TokenizerConfig, build_tokenizer, encode_batch
from seqgan_hf.errors import UserError
from seqgan_hf.generation.sampling import sample
from seqgan_hf.generation.verdicts import realness
from seqgan_hf.generation.vocabulary import start_prompt
from seqgan_hf.objectives import GSGAN, CatGAN, Models, RelGAN
from seqgan_hf.objectives.catgan import relativistic_average
from seqgan_hf.objectives.gradient_penalty import gradient_penalty
from seqgan_hf.objectives.relgan import Verdicts
from seqgan_hf.samples import Samples
from tests.tools.tiny import BOS, PAD, VOCAB_SIZE, build_discriminator, build_generator
from tests.tools.two_processes import on_two


NOBODY = Models(None)


def verdicts(*scores: float | list[float]) -> Verdicts:
    """Of sequences that all begin with the start token alone."""
    tensor = torch.tensor([score if isinstance(score, list) else [score] for score in scores])
    ids = torch.zeros(len(scores), 1, dtype=torch.long)
    return Verdicts(tensor, torch.ones_like(tensor, dtype=torch.bool), Samples(ids, ids, ids == 0))


def softplus(x: float) -> float:
    return math.log(1 + math.exp(x))


# Of s_real = 0.5 and s_fake = -1.5: what D minimises, what G minimises.
R, F_ = 0.5, -1.5
CROSS_ENTROPY = softplus(-R) + softplus(F_)
EXPECTED = {
    "standard": (CROSS_ENTROPY, softplus(-F_)),
    "JS": (CROSS_ENTROPY, -softplus(F_)),
    "KL": (CROSS_ENTROPY, -F_),
    "hinge": ((1 - R) + 0.0, -F_),
    "tv": (math.tanh(F_) - math.tanh(R), -math.tanh(F_)),
    "LS": ((R - 1) ** 2 + F_**2, (F_ - 1) ** 2),
    "wgan-gp": (F_ - R, -F_),
    "RSGAN": (softplus(-(R - F_)), softplus(-(F_ - R))),
}


@pytest.mark.parametrize("loss", EXPECTED)
def test_the_losses_are_those_of_the_table(loss):
    objective = RelGAN(loss)
    found = [
        player(NOBODY, verdicts(R), verdicts(F_)) for player in (objective.of_discriminator, objective.of_generator)
    ]
    torch.testing.assert_close(torch.stack(found), torch.tensor(EXPECTED[loss]))


@pytest.mark.parametrize("loss", EXPECTED)
def test_losses_are_averaged_after_the_nonlinearity(loss):
    """Over all verdicts of a sequence, be they on its tokens or by its representations; not of their mean."""
    real, fake, objective = [0.5, 2.0, -1.0], [-1.5, 0.0, 3.0], RelGAN(loss)
    for player in (objective.of_discriminator, objective.of_generator):
        whole = player(NOBODY, verdicts(real), verdicts(fake))
        parts = [player(NOBODY, verdicts(r), verdicts(f)) for r, f in zip(real, fake, strict=True)]
        torch.testing.assert_close(whole, torch.stack(parts).mean())


def test_pairs_know_differences_only_and_both_players_play_the_same_game():
    objective, real, fake = RelGAN(), verdicts(0.5, 2.0), verdicts(-1.5, 3.0)
    loss = objective.of_discriminator(NOBODY, real, fake)
    shifted = [side._replace(scores=side.scores + 7) for side in (real, fake)]
    torch.testing.assert_close(objective.of_discriminator(NOBODY, *shifted), loss)
    torch.testing.assert_close(objective.of_generator(NOBODY, fake, real), loss)


def test_verdicts_on_tokens_that_are_padding_do_not_count():
    """Of pairs, tokens count that both have."""
    real, fake = verdicts([1.0, 2.0, 9.0]), verdicts([-1.0, 8.0])
    real = real._replace(counted=torch.tensor([[True, True, False]]))
    fake = fake._replace(counted=torch.tensor([[True, False]]))
    torch.testing.assert_close(RelGAN().of_generator(NOBODY, real, fake), torch.tensor(softplus(2.0)))
    expected = softplus(-1.0) / 2 + softplus(-2.0) / 2 + softplus(-1.0)
    torch.testing.assert_close(RelGAN("standard").of_discriminator(NOBODY, real, fake), torch.tensor(expected))


def test_verdicts_on_the_tokens_of_a_sequence_make_one_in_catgan():
    """Their mean; padding does not count."""
    real, fake = verdicts([1.0, 2.0, 9.0]), verdicts([-1.0, 8.0])
    real = real._replace(counted=torch.tensor([[True, True, False]]))
    fake = fake._replace(counted=torch.tensor([[True, False]]))
    torch.testing.assert_close(CatGAN().of_discriminator(NOBODY, real, fake), torch.tensor(average([1.5], [-1.0])))


class Representations(nn.Module):
    """Three verdicts of a sequence, one by each feature of its embeddings."""

    def __init__(self):
        super().__init__()
        self.embedding, self.config = nn.Embedding(VOCAB_SIZE, 3), SimpleNamespace(pad_token_id=None)
        self.device = torch.device("cpu")

    def get_input_embeddings(self):
        return self.embedding

    def forward(self, input_ids=None, inputs_embeds=None, attention_mask=None):
        embedded = self.embedding(input_ids) if inputs_embeds is None else inputs_embeds
        each = embedded.sum(dim=1)
        return SimpleNamespace(logits=each.mean(dim=1, keepdim=True), representation_logits=each)


def test_each_representation_of_a_discriminator_is_a_pair():
    models, real, fake = players()
    whole = torch.ones_like(fake.mask)
    real, fake, judge = real._replace(mask=whole), fake._replace(mask=whole), Representations()
    loss = RelGAN(straight_through=True).generator_loss(Models(models.generator, judge), real, fake).value
    margins = judge.embedding(real.ids).sum(dim=1) - judge.embedding(fake.ids).sum(dim=1)
    torch.testing.assert_close(loss, F.softplus(margins).mean())


# --- Steps -----------------------------------------------------------------------------------------------------------


def players(kind: str = "cnn") -> tuple[Models, Samples, Samples]:
    models = Models(build_generator("lstm"), build_discriminator(kind))
    torch.manual_seed(0)
    real, fake = (sample(models.generator, start_prompt(models.generator, 4), 5) for _ in range(2))
    return models, real, fake


@pytest.mark.parametrize("loss", EXPECTED)
def test_real_sequences_count_in_the_generators_loss_only_in_pairs(loss):
    models, real, fake = players()
    models.discriminator.eval()
    found = []
    for row in (real, fake):
        torch.manual_seed(1)
        found.append(RelGAN(loss).generator_loss(models, row, fake).value)
    assert (found[0] == found[1]) == (loss != "RSGAN")


def test_at_large_beta_and_straight_through_the_loss_is_that_of_the_tokens(discriminator):
    models, real, fake = players()
    models = Models(models.generator, discriminator.eval())
    for settings in ({"straight_through": True, "beta_max": 1.0}, {"beta_max": 1e4, "adapt": "no"}):
        loss = RelGAN("KL", **settings).generator_loss(models, real, fake).value
        scores = realness(discriminator, fake)
        counted = fake.mask if scores.dim() == 2 else torch.ones_like(scores)
        torch.testing.assert_close(loss, -scores.sum() / counted.sum(), rtol=1e-2, atol=1e-3)


def test_the_discriminators_step_leaves_the_generator_alone_and_logs_pairs():
    models, real, fake = players()
    loss = RelGAN("wgan-gp").discriminator_loss(models, real, fake)
    loss.value.backward()
    assert all(parameter.grad is None for parameter in models.generator.parameters())
    assert set(loss.metrics) == {
        "discriminator_accuracy", "discriminator_margin", "discriminator_loss", "gradient_penalty"
    }  # fmt: skip
    torch.testing.assert_close(loss.metrics["discriminator_loss"], -loss.metrics["discriminator_margin"])


def test_what_the_steps_log_is_what_they_are():
    """Accuracy: the share of pairs whose real sequence is the more real one, by however little."""
    models, real, fake = players()
    models.discriminator.eval()
    objective = RelGAN(straight_through=True, beta_max=9.0, beta_steps=2)
    objective.load_state_dict({"steps": 1})
    of_generator, of_discriminator = (
        getattr(objective, f"{player}_loss")(models, real, fake) for player in ("generator", "discriminator")
    )
    assert of_generator.metrics == {"generator_loss": of_generator.value.detach(), "beta": 3.0}
    margins = realness(models.discriminator, real) - realness(models.discriminator, fake)
    assert 0 < (margins > 0).float().mean() < 1 and margins.abs().max() < 1
    expected = {
        "accuracy": (margins > 0).float().mean(),
        "margin": margins.mean(),
        "loss": F.softplus(-margins).mean(),
    }
    for name, value in expected.items():
        torch.testing.assert_close(of_discriminator.metrics[f"discriminator_{name}"], value.detach())


def test_the_gradient_penalty_adds_to_the_loss_and_to_its_gradient_by_its_weight():
    models, real, fake = players()
    models.discriminator.eval()
    parameters = list(models.discriminator.parameters())
    found = []
    for weight in (0.0, 10.0):
        torch.manual_seed(1)
        loss = RelGAN("wgan-gp", gradient_penalty=weight).discriminator_loss(models, real, fake)
        found.append([loss.value, *torch.autograd.grad(loss.value, parameters)])
    torch.manual_seed(1)
    with torch.no_grad():
        soft = RelGAN("wgan-gp").relaxed(models, fake)
    penalties = gradient_penalty(models.discriminator, real, soft).mean()
    torch.testing.assert_close(loss.metrics["gradient_penalty"], penalties.detach())
    slopes = torch.autograd.grad(penalties, parameters, allow_unused=True, materialize_grads=True)
    assert penalties > 0 and max(float(slope.abs().max()) for slope in slopes) > 1e-2
    for without, by_ten, expected in zip(*found, [penalties, *slopes], strict=True):
        torch.testing.assert_close(by_ten - without, 10 * expected, rtol=1e-4, atol=1e-5)


def test_beta_follows_the_steps_of_the_generator_only():
    objective = RelGAN(beta_max=100.0, beta_steps=4)
    for player, steps in (("generator", 1), ("discriminator", 1), ("generator", 2)):
        objective.after_step(player, NOBODY)
        assert objective.state_dict()["steps"] == steps


@pytest.mark.parametrize("make", [lambda: RelGAN("wgan-gp"), lambda: RelGAN(straight_through=True), GSGAN, CatGAN])
def test_steps_in_mixed_precision_are_near_those_in_full(make):
    losses = []
    for enabled in (False, True):
        models, real, fake = players()
        models.discriminator.eval()
        for name in ("generator_loss", "discriminator_loss"):
            torch.manual_seed(1)
            with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
                loss = getattr(make(), name)(models, real, fake).value
            loss.backward()
            losses.append(loss.detach())
        assert all(parameter.grad.isfinite().all() for parameter in models.generator.parameters())
    assert all(loss.dtype == torch.float32 for loss in losses)
    torch.testing.assert_close(losses[2:], losses[:2], rtol=5e-2, atol=5e-2)


def test_dropout_in_generator_steps_is_the_discriminators():
    models, real, fake = players()
    models.discriminator.dropout.p = 0.5
    for kept in (False, True):
        models.discriminator.eval()
        losses = []
        for _ in range(2):
            torch.manual_seed(1)
            objective = RelGAN("KL", straight_through=True, dropout_in_generator_steps=kept)
            torch.rand(len(losses))  # other numbers for the noise, and for dropout
            losses.append(objective.generator_loss(models, real, fake).value)
        assert (losses[0] == losses[1]) != kept


# --- Temperatures ----------------------------------------------------------------------------------------------------


def betas(objective: RelGAN, steps: int) -> list[float]:
    found = []
    for _ in range(steps):
        found.append(objective.beta)
        objective.after_step("discriminator", NOBODY)
        objective.after_step("generator", NOBODY)
    return found


@pytest.mark.parametrize("adapt", ["exp", "lin", "log", "sigmoid", "quad", "sqrt"])
def test_beta_grows_from_one_to_its_largest_and_stays(adapt):
    found = betas(RelGAN(beta_max=9.0, adapt=adapt, beta_steps=4), 7)
    assert math.isclose(found[0], 1.0, abs_tol=1e-3) and math.isclose(found[4], 9.0, abs_tol=1e-3)
    assert found[:5] == sorted(found[:5]) and found[4] == found[5] == found[6]
    halfway = {
        "exp": 3.0,
        "lin": 5.0,
        "log": 1 + 8 * math.log(3, 5),
        "sigmoid": 5.0,
        "quad": 3.0,
        "sqrt": 1 + 8 * 0.5**0.5,
    }
    assert math.isclose(found[2], halfway[adapt])


def test_beta_may_be_constant_and_survives_a_checkpoint():
    assert betas(RelGAN(beta_max=9.0, adapt="no"), 3) == [9.0] * 3
    one, other = RelGAN(), RelGAN()
    betas(one, 3)
    other.load_state_dict(one.state_dict())
    assert one.beta == other.beta == 100 ** (3 / 5000)


def test_the_temperature_of_soft_feedback_falls_in_a_straight_line():
    found = betas(GSGAN(tau_start=5.0, tau_end=1.0, tau_steps=4), 7)
    assert [round(1 / beta, 6) for beta in found] == [5, 4, 3, 2, 1, 1, 1]


def test_soft_feedback_writes_its_own_samples_after_the_same_prompts():
    models, real, fake = players()
    prompt = torch.tensor([[PAD, BOS, 4], [BOS, 5, 6]])
    given = Samples(prompt, torch.full((2, 5), 3), torch.ones(2, 5, dtype=torch.bool), prompt != PAD)
    found = GSGAN().relaxed(models, given)
    assert torch.equal(found.prompt, prompt) and torch.equal(found.prompt_mask, prompt != PAD)
    assert found.soft.shape == (2, 5, VOCAB_SIZE)
    GSGAN().generator_loss(models, given, given).value.backward()
    assert all(parameter.grad is not None for parameter in models.generator.parameters())


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_one_real_and_one_generated_sequence_of_a_class_are_compared_with_each_other(sign):
    """A class of which one side has nothing counts nothing."""
    real, fake, zero, one = torch.tensor([0.7]), torch.tensor([-0.2]), torch.tensor([0]), torch.tensor([1])
    found = relativistic_average(real, fake, zero, zero, 2, sign)
    torch.testing.assert_close(found, 2 * F.softplus(torch.tensor(-0.9 * sign)))
    assert relativistic_average(real, fake, zero, one, 2, sign) == 0


# --- The gradient penalty --------------------------------------------------------------------------------------------


class LinearJudge(nn.Module):
    """s = sum over tokens of <w_t, e_t>, whatever the mask."""

    def __init__(self, length: int = 5, per_token: bool = False):
        super().__init__()
        torch.manual_seed(2)
        self.embedding = nn.Embedding(VOCAB_SIZE, 3, dtype=torch.float64)
        self.slope = nn.Parameter(torch.randn(length, 3, dtype=torch.float64))
        self.config, self.device, self.per_token = SimpleNamespace(pad_token_id=None), torch.device("cpu"), per_token

    def get_input_embeddings(self):
        return self.embedding

    def forward(self, input_ids=None, inputs_embeds=None, attention_mask=None):
        embedded = self.embedding(input_ids) if inputs_embeds is None else inputs_embeds
        scores = (embedded * self.slope[: embedded.shape[1]]).sum(dim=2)
        return SimpleNamespace(logits=scores[..., None] if self.per_token else scores.sum(dim=1, keepdim=True))


def one_hot(ids: torch.Tensor, mask: torch.Tensor | None = None) -> Samples:
    mask = torch.ones_like(ids, dtype=torch.bool) if mask is None else mask
    soft = F.one_hot(ids, VOCAB_SIZE).double() * mask[..., None]
    return Samples(torch.full((len(ids), 1), BOS), ids, mask, soft=soft)


@pytest.mark.parametrize("per_token", [False, True])
def test_the_penalty_of_a_linear_judge_has_a_closed_form(per_token):
    """The gradient by x (T, V) is E w_t at token t, at every x."""
    judge = LinearJudge(per_token=per_token)
    ids = torch.randint(VOCAB_SIZE, (4, 5))
    found = gradient_penalty(judge, one_hot(ids)._replace(soft=None), one_hot(ids.flip(0)))
    slope = judge.slope @ judge.embedding.weight.T / (5 if per_token else 1)
    torch.testing.assert_close(found, (slope.norm() - 1).square().expand(4))


def test_the_penalty_of_a_judge_that_sees_no_difference_is_one_and_has_a_gradient():
    """The root of its squared gradient, zero, has none."""
    judge, ids = LinearJudge(), torch.randint(VOCAB_SIZE, (4, 5))
    with torch.no_grad():
        judge.slope.zero_()
    found = gradient_penalty(judge, one_hot(ids)._replace(soft=None), one_hot(ids.flip(0)))
    torch.testing.assert_close(found, torch.ones(4, dtype=torch.float64), atol=1e-5, rtol=0)
    found.sum().backward()
    assert judge.slope.grad.isfinite().all()


@pytest.mark.parametrize("enabled", [False, True])
def test_the_penalty_needs_no_embeddings_that_learn_and_is_summed_in_full_precision(enabled):
    judge, ids = LinearJudge().float(), torch.randint(VOCAB_SIZE, (4, 5))
    judge.embedding.requires_grad_(False)
    fake = one_hot(ids.flip(0))
    with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
        found = gradient_penalty(judge, one_hot(ids)._replace(soft=None), fake._replace(soft=fake.soft.float()))
    expected = ((judge.slope @ judge.embedding.weight.T).norm() - 1).square()
    torch.testing.assert_close(found, expected.expand(4), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", ["cnn", "rnn", "per_token", "bert"])
def test_the_penalty_is_that_of_a_gradient_by_one_hot_tokens(kind):
    """With a tensor over the vocabulary, and autograd; sequences of unequal length."""
    judge = build_discriminator(kind).double().eval()
    ids, mask = torch.randint(3, VOCAB_SIZE, (3, 6)), torch.arange(6) < torch.tensor([[6], [3], [4]])
    real, fake = one_hot(ids, mask)._replace(soft=None), one_hot(ids.flip(0)[:, :5], mask.flip(0)[:, :5])
    torch.manual_seed(4)
    found = gradient_penalty(judge, real, fake)
    torch.manual_seed(4)
    share, soft = torch.rand(3, 1, 1), F.pad(fake.soft, (0, 0, 0, 1))
    x = torch.lerp(one_hot(ids, mask).soft, soft, share.double()).detach().requires_grad_()
    either = mask | F.pad(fake.mask, (0, 1))
    scores = realness(judge, real._replace(mask=either, soft=x))
    scores = scores if scores.dim() == 1 else scores.sum(dim=1) / either.sum(dim=1)
    (slope,) = torch.autograd.grad(scores.sum(), x)
    torch.testing.assert_close(found, (slope.norm(dim=(1, 2)) - 1).square())


def test_the_penalty_counts_no_ids_that_the_generator_does_not_know():
    judge, ids, found = build_discriminator("cnn", vocab_size=VOCAB_SIZE + 2).eval(), torch.randint(13, (4, 5)), []
    for _ in range(2):
        torch.manual_seed(0)
        fake = one_hot(ids.flip(0))
        found.append(gradient_penalty(judge, one_hot(ids)._replace(soft=None), fake._replace(soft=fake.soft.float())))
        judge.set_input_embeddings(nn.Embedding.from_pretrained(judge.get_input_embeddings().weight[:VOCAB_SIZE]))
    torch.testing.assert_close(*found)


@pytest.mark.parametrize("kind", ["cnn", "rnn", "per_token", "bert"])
def test_the_penalty_does_not_depend_on_padding_of_the_prompt(kind):
    judge, ids, found = build_discriminator(kind).eval(), torch.tensor([[3, 4, 5, 6], [7, 8, 9, 3]]), []
    for padding in (0, 2):
        prompt = F.pad(torch.tensor([[BOS, 5], [BOS, 6]]), (padding, 0), value=PAD)
        real = Samples(prompt, ids, torch.ones_like(ids, dtype=torch.bool), prompt != PAD)
        fake = real._replace(soft=F.one_hot(ids.flip(0), VOCAB_SIZE).float())
        torch.manual_seed(0)
        found.append(gradient_penalty(judge, real, fake))
    torch.testing.assert_close(*found)


@pytest.mark.parametrize("kind", ["cnn", "rnn", "per_token", "bert"])
def test_the_penalty_can_be_differentiated(kind):
    """Its derivative by every parameter, along a random direction, is that of finite differences."""
    judge = build_discriminator(kind).double().eval()
    ids = torch.randint(3, VOCAB_SIZE, (3, 5), generator=torch.Generator().manual_seed(1))
    real, fake = one_hot(ids)._replace(soft=None), one_hot(ids.flip(0))
    parameters = list(judge.parameters())
    directions = [torch.randn_like(parameter) for parameter in parameters]

    def value(step: float = 0.0) -> torch.Tensor:
        torch.manual_seed(3)
        with torch.no_grad():
            for parameter, direction in zip(parameters, directions, strict=True):
                parameter += step * direction
        return gradient_penalty(judge, real, fake).sum()

    slopes = torch.autograd.grad(value(), parameters, allow_unused=True)
    along = sum((g * d).sum() for g, d in zip(slopes, directions, strict=True) if g is not None)
    step = 1e-5
    finite = (value(step) - value(-2 * step)) / (2 * step)
    torch.testing.assert_close(along.float(), finite.float(), rtol=1e-3, atol=1e-3)


def test_the_cnns_gradient_has_an_exact_gradient():
    judge = build_discriminator("cnn").double().eval()
    embedded = torch.randn(2, 5, 6, dtype=torch.float64, requires_grad=True)
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])

    def logits(embedded: torch.Tensor) -> torch.Tensor:
        return judge(inputs_embeds=embedded, attention_mask=mask).logits

    assert torch.autograd.gradcheck(logits, embedded) and torch.autograd.gradgradcheck(logits, embedded)


# --- Classes ---------------------------------------------------------------------------------------------------------


def average(real: list[float], fake: list[float], sign: float = 1.0) -> float:
    """RaGAN's loss, by hand."""
    mean_real, mean_fake = sum(real) / len(real), sum(fake) / len(fake)
    of_real = sum(softplus(-sign * (r - mean_fake)) for r in real) / len(real)
    return of_real + sum(softplus(sign * (f - mean_real)) for f in fake) / len(fake)


def test_one_class_is_the_relativistic_average_game():
    real, fake, objective = [0.5, 2.0, -1.0], [-1.5, 0.0, 1.0], CatGAN()
    loss = objective.of_discriminator(NOBODY, verdicts(*real), verdicts(*fake))
    torch.testing.assert_close(loss, torch.tensor(average(real, fake)))
    loss = objective.of_generator(NOBODY, verdicts(*real), verdicts(*fake))
    torch.testing.assert_close(loss, torch.tensor(average(real, fake, -1.0)))
    torch.testing.assert_close(loss, objective.of_discriminator(NOBODY, verdicts(*fake), verdicts(*real)))


def test_gradients_flow_through_the_means():
    real, fake = (torch.tensor(scores, requires_grad=True) for scores in ([0.5, 2.0, -1.0], [-1.5, 0.0, 1.0]))
    one_class = torch.zeros(3, dtype=torch.long)
    ours = relativistic_average(real, fake, one_class, one_class, 1, 1.0)
    theirs = F.softplus(fake.mean() - real).mean() + F.softplus(fake - real.mean()).mean()
    for found, expected in zip(*(torch.autograd.grad(loss, (real, fake)) for loss in (ours, theirs)), strict=True):
        torch.testing.assert_close(found, expected)


def of_classes(scores: list[float], labels: list[int]) -> Verdicts:
    prompt = torch.tensor([[BOS, 7 + label] for label in labels])
    found = verdicts(*scores)
    return found._replace(samples=found.samples._replace(prompt=prompt))


@pytest.mark.parametrize("pooled", [False, True])
@pytest.mark.parametrize(("player", "sign"), [("of_discriminator", 1.0), ("of_generator", -1.0)])
def test_classes_are_judged_by_themselves(player, sign, pooled):
    real = of_classes([0.5, 2.0, -1.0, 4.0], [0, 1, 0, 1])
    fake = of_classes([-1.5, 0.0, 1.0], [1, 0, 1])
    loss = getattr(CatGAN([7, 8], pooled), player)(NOBODY, real, fake)
    expected = average([0.5, -1.0], [0.0], sign) + average([2.0, 4.0], [-1.5, 1.0], sign)
    expected += average([0.5, 2.0, -1.0, 4.0], [-1.5, 0.0, 1.0], sign) if pooled else 0.0
    torch.testing.assert_close(loss, torch.tensor(expected))


def test_classes_that_are_words_are_judged_as_their_tokens():
    tokenizer = build_tokenizer(TokenizerConfig(), lambda: [["good", "bad"] * 9])
    good, bad = (token for (token,) in encode_batch(tokenizer, ["good", "bad"]))
    prompt = torch.tensor([[BOS, good], [BOS, bad]])
    real, fake = (
        side._replace(samples=side.samples._replace(prompt=prompt))
        for side in (verdicts(0.5, 2.0), verdicts(-1.5, 0.0))
    )
    models = Models(None, tokenizer=tokenizer)
    for player in ("of_discriminator", "of_generator"):
        found, expected = (
            getattr(CatGAN(classes), player)(models, real, fake) for classes in (["good", "bad"], [good, bad])
        )
        torch.testing.assert_close(found, expected)


def test_equal_scores_cost_two_bits_a_class_and_a_class_of_one_kind_nothing():
    objective, both = CatGAN([7, 8]), of_classes([0.3] * 4, [0, 1, 0, 1])
    for player in (objective.of_discriminator, objective.of_generator):
        torch.testing.assert_close(player(NOBODY, both, both), torch.tensor(4 * math.log(2)))
        alone = player(NOBODY, both, of_classes([0.3, 0.3], [0, 0]))
        torch.testing.assert_close(alone, torch.tensor(2 * math.log(2)))


def scored() -> list[torch.Tensor]:
    torch.manual_seed(5)
    labels = torch.tensor([0, 1, 0, 0, 1, 1, 0, 0])
    return [torch.randn(8), torch.randn(8), labels, torch.tensor([1, 1, 0, 1, 1, 1, 0, 1])]


def slopes_of(share: slice) -> torch.Tensor:
    real, fake, *labels = (tensor[share] for tensor in scored())
    real, fake = real.requires_grad_(), fake.requires_grad_()
    relativistic_average(real, fake, *labels, 2, 1.0).backward()
    return torch.stack([real.grad, fake.grad])


def test_two_processes_share_the_means_of_classes_and_their_gradient():
    """Gradients of the mean of both losses, as the player averages them, are those of one batch."""
    halves = on_two(lambda rank: slopes_of(slice(4 * rank, 4 * rank + 4)))
    torch.testing.assert_close(torch.cat(halves, dim=1) / 2, slopes_of(slice(0, 8)))


def slopes_of_tokens(share: slice) -> dict[str, torch.Tensor]:
    """Of every loss by the verdicts on the tokens of some of 6 pairs, which are longer from the fourth on."""
    torch.manual_seed(6)
    lengths, scores = torch.tensor([[1, 2, 1, 4, 5, 3], [2, 1, 1, 5, 3, 4]]), torch.randn(2, 6, 5)
    found = {}
    for loss, player in product(EXPECTED, ("of_discriminator", "of_generator")):
        own = scores[:, share].clone().requires_grad_()
        counted = torch.arange(5) < lengths[:, share, None]
        real, fake = (Verdicts(*side, None) for side in zip(own, counted, strict=True))
        getattr(RelGAN(loss), player)(NOBODY, real, fake).backward()
        found[f"{loss}, {player}"] = own.grad
    return found


def test_a_token_counts_alike_on_two_processes_one_of_which_has_more():
    """Gradients of the mean of both losses, as the player averages them, are those of one batch."""
    halves = on_two(lambda rank: slopes_of_tokens(slice(3 * rank, 3 * rank + 3)))
    for name, slopes in slopes_of_tokens(slice(0, 6)).items():
        both = torch.cat([half[name] for half in halves], dim=1) / 2
        torch.testing.assert_close(both, slopes, msg=lambda text, name=name: f"{name}: {text}")


# --- Mistakes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RelGAN("wgan"), "loss='wgan': expected one of RSGAN, standard, JS, KL, hinge, tv, LS, wgan-gp"),
        (lambda: RelGAN(adapt="cosine"), "adapt='cosine': expected one of exp, lin, log, sigmoid, quad, sqrt, no"),
        (lambda: RelGAN(beta_max=0.0), "beta_max=0.0, beta_steps=5000: expected a positive beta"),
        (lambda: RelGAN(beta_steps=0), "beta_steps=0: expected a positive beta, and 1 or more steps"),
        (lambda: RelGAN(gradient_penalty=-1.0), "gradient_penalty=-1.0: expected a number of at least 0"),
        (lambda: GSGAN(tau_end=0.0), "tau_start=5.0, tau_end=0.0: expected positive temperatures"),
        (lambda: CatGAN([7]), r"classes=\[7\]: expected two or more different tokens"),
    ],
)
def test_settings_that_mean_nothing_are_refused(make, message):
    with pytest.raises(UserError, match=message):
        make()


class Deaf(nn.Module):
    """Reads ids only."""

    def __init__(self, like: nn.Module):
        super().__init__()
        self.embedding, self.config, self.can_generate = nn.Embedding(3, 2), like.config, like.can_generate

    def get_input_embeddings(self):
        return self.embedding

    def forward(self, input_ids, attention_mask=None):
        return SimpleNamespace(logits=None)


def test_classifiers_that_go_by_ids_are_refused_where_sequences_end_early():
    tokens = {"vocab_size": VOCAB_SIZE, "pad_token_id": PAD, "bos_token_id": BOS, "eos_token_id": 1, "num_labels": 2}
    judge = GPT2ForSequenceClassification(GPT2Config(n_positions=32, n_embd=8, n_layer=1, n_head=2, **tokens))
    RelGAN().check(Models(build_generator("lstm", eos=None), judge), 4, False)
    with pytest.raises(UserError, match="cannot read soft tokens with padding"):
        RelGAN().check(Models(build_generator("lstm"), judge), 4, False)


def test_models_that_read_no_soft_tokens_are_refused_before_training():
    models, _, _ = players()
    with pytest.raises(UserError, match="Deaf cannot read soft tokens"):
        RelGAN().check(Models(models.generator, Deaf(models.discriminator)), 4, False)
    with pytest.raises(UserError, match="Deaf cannot read soft tokens"):
        GSGAN().check(Models(Deaf(models.generator), models.discriminator), 4, False)
    with pytest.raises(UserError, match="classes=.* for sequences without prompts"):
        CatGAN([7, 8]).check(models, 4, False)
