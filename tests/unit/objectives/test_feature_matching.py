"""TextGAN and FM-GAN: distances between features of real and relaxed sequences, and where each player pushes them."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F
from transformers import AutoConfig, AutoModelForSequenceClassification

from seqgan_hf.errors import UserError
from seqgan_hf.functional import squared_mmd, transport_plan
from seqgan_hf.generation.relaxation import relax
from seqgan_hf.generation.verdicts import features, realness
from seqgan_hf.objectives import FMGAN, Models, TextGAN
from seqgan_hf.objectives.base import frozen, penalty
from seqgan_hf.samples import Samples
from tests.tools.small_runs import text
from tests.tools.tiny import PAD, VOCAB_SIZE, build_discriminator, build_generator


KINDS = ["cnn", "rnn", "per_token", "bert"]
FEATURE_MATCHING = {"TextGAN": TextGAN(beta=2.0, weight_mmd=0.3), "FMGAN": FMGAN(beta=2.0)}


def players(kind: str = "cnn") -> tuple[Models, Samples, Samples]:
    """Both without dropout, 7 real sequences and 5 to stand for generated ones."""
    models = Models(build_generator("lstm").eval(), build_discriminator(kind).eval())
    return models, text(7, seed=1), text(5, seed=2)


def relaxed(models: Models, fake: Samples, beta: float = 2.0) -> Samples:
    torch.manual_seed(0)
    return relax(models.generator, fake, beta)


def mover_distance(ours: torch.Tensor, theirs: torch.Tensor, *settings) -> torch.Tensor:
    table = torch.stack([torch.stack([1 - F.cosine_similarity(x, y, dim=0) for y in theirs]) for x in ours])
    return (transport_plan(table, *settings) * table).sum()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", FEATURE_MATCHING)
def test_the_generator_minimises_the_distance_of_features(name, kind):
    models, real, fake = players(kind)
    objective, parameters = FEATURE_MATCHING[name], list(models.generator.parameters())
    soft, hard = (features(models.discriminator, part) for part in (relaxed(models, fake), real))
    distance = {"TextGAN": lambda *pair: squared_mmd(*pair, (1, 2, 5, 10, 20)), "FMGAN": mover_distance}[name]
    expected = distance(soft, hard)
    torch.manual_seed(0)
    with frozen(models.discriminator):
        loss = objective.generator_loss(models, real, fake)
    torch.testing.assert_close(loss.value, expected)
    assert list(loss.metrics) == [{"TextGAN": "mmd", "FMGAN": "feature_distance"}[name]]
    (logged,) = loss.metrics.values()
    assert not logged.requires_grad and torch.equal(logged, loss.value.detach())
    for ours, theirs in zip(*(torch.autograd.grad(one, parameters) for one in (loss.value, expected)), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("objective", "distance"),
    [
        (TextGAN(beta=2.0, unbiased=True), lambda *pair: squared_mmd(*pair, (1, 2, 5, 10, 20), unbiased=True)),
        (FMGAN(beta=2.0, ipot_beta=0.3, outer=3, inner=4), lambda *pair: mover_distance(*pair, 0.3, 3, 4)),
    ],
    ids=["TextGAN", "FMGAN"],
)
def test_settings_of_the_distance_count(objective, distance):
    models, real, fake = players()
    expected = distance(*(features(models.discriminator, part) for part in (relaxed(models, fake), real)))
    torch.manual_seed(0)
    torch.testing.assert_close(objective.generator_loss(models, real, fake).value, expected)


@pytest.mark.parametrize("name", FEATURE_MATCHING)
def test_a_few_steps_bring_the_features_nearer(name):
    models, real, fake = players()
    optimizer = torch.optim.Adam(models.generator.parameters(), lr=0.01)
    losses = []
    for _ in range(30):
        torch.manual_seed(0)
        loss = FEATURE_MATCHING[name].generator_loss(models, real, fake).value
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.9 * losses[0]


@pytest.mark.parametrize("kind", KINDS)
def test_the_discriminator_of_textgan_tells_apart_and_keeps_features_apart(kind):
    """What it is shown is soft, as in a generator's step; no gradient goes to the generator."""
    models, real, fake = players(kind)
    shown = relaxed(models, fake)
    of_real, of_fake = (realness(models.discriminator, part) for part in (real, shown))
    if kind == "per_token":
        of_real, of_fake = of_real[real.mask], of_fake[fake.mask]
    entropy = (F.softplus(-of_real).mean() + F.softplus(of_fake).mean()) / 2
    mmd = squared_mmd(*(features(models.discriminator, part) for part in (shown, real)), (1, 2, 5, 10, 20))
    torch.manual_seed(0)
    loss = TextGAN(beta=2.0, weight_mmd=0.3).discriminator_loss(models, real, fake)
    torch.testing.assert_close(loss.value, entropy - 0.3 * mmd + penalty(models.discriminator))
    torch.testing.assert_close(loss.metrics["discriminator_loss"], entropy.detach())
    loss.value.backward()
    assert all(parameter.grad is None for parameter in models.generator.parameters())
    torch.manual_seed(0)
    plain = TextGAN(beta=2.0, weight_mmd=0.0).discriminator_loss(models, real, fake)
    torch.testing.assert_close(plain.value, entropy + penalty(models.discriminator))


@pytest.mark.parametrize("kind", KINDS)
def test_the_discriminator_of_fmgan_maximises_the_distance(kind):
    models, real, fake = players(kind)
    distance = mover_distance(*(features(models.discriminator, part) for part in (relaxed(models, fake), real)))
    torch.manual_seed(0)
    loss = FMGAN(beta=2.0).discriminator_loss(models, real, fake)
    torch.testing.assert_close(loss.value, penalty(models.discriminator) - distance)
    torch.testing.assert_close(dict(loss.metrics), {"discriminator_loss": -distance.detach()})
    loss.value.backward()
    assert all(parameter.grad is None for parameter in models.generator.parameters())


@pytest.mark.parametrize("name", FEATURE_MATCHING)
def test_nothing_is_left_to_do_where_the_generated_sequences_are_the_real_ones(name):
    """Nearly one-hot; what is left of the distance of FM-GAN is what its plan of 50 steps lacks."""
    models, real, _ = players()
    objective = {"TextGAN": TextGAN(beta=1e6), "FMGAN": FMGAN(beta=1e6, ipot_beta=0.01)}[name]
    different = real.select(slice(0, 5))
    torch.manual_seed(0)
    loss = objective.generator_loss(models, different, different.select(torch.tensor([3, 1, 0, 2, 4]))).value
    assert abs(float(loss.detach())) < 1e-4


@pytest.mark.parametrize("name", FEATURE_MATCHING)
def test_padding_and_the_order_of_rows_change_nothing(name):
    """With a beta so large that the noise of a row makes no difference."""
    models, real, fake = players()
    objective = {"TextGAN": TextGAN(beta=1e6), "FMGAN": FMGAN(beta=1e6)}[name]
    wider = [Samples(part.prompt, *(F.pad(field, (0, 3)) for field in (part.ids, part.mask))) for part in (real, fake)]
    order = torch.tensor([4, 2, 0, 1, 3])
    values = []
    for shown in ((real, fake), tuple(wider), (real, fake.select(order)), (real.select(order.flip(0)), fake)):
        torch.manual_seed(0)
        values.append(objective.generator_loss(models, *shown).value)
    torch.testing.assert_close(values[1], values[0])
    torch.testing.assert_close(values[2], values[0])
    assert (values[3] - values[0]).abs() > 1e-4, "two real sequences less"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: TextGAN(kernel_widths=()), r"kernel_widths=\[\]: expected one or more positive numbers"),
        (lambda: TextGAN(kernel_widths=[1.0, 0.0]), r"kernel_widths=\[1.0, 0.0\]: expected one or more positive"),
        (lambda: TextGAN(weight_mmd=-1.0), "weight_mmd=-1.0: expected a number from 0 on"),
        (lambda: TextGAN(beta=0.0), "beta=0.0: expected a positive number"),
        (lambda: FMGAN(beta=-1.0), "beta=-1.0: expected a positive number"),
        (lambda: FMGAN(ipot_beta=0.0), "ipot_beta=0.0: expected a positive number"),
        (lambda: FMGAN(outer=0), "outer=0, inner=1: expected at least 1 step each"),
        (lambda: FMGAN(inner=0), "outer=50, inner=0: expected at least 1 step each"),
        (
            lambda: TextGAN(unbiased=True).check(players()[0], 1, False),
            "unbiased=True with batches of 1: expected pairs",
        ),
    ],
)
def test_bad_settings_are_refused(make, message):
    with pytest.raises(ValueError, match=message) as error:
        make()
    assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize("name", FEATURE_MATCHING)
def test_a_discriminator_that_reads_no_soft_tokens_is_refused_before_training(name, monkeypatch):
    models, _, _ = players()
    FEATURE_MATCHING[name].check(models, 4, False)
    monkeypatch.setattr(type(models.discriminator), "get_input_embeddings", lambda self: None)
    with pytest.raises(UserError, match="cannot read soft tokens: its embeddings are no plain lookup"):
        FEATURE_MATCHING[name].check(Models(models.generator, build_discriminator("cnn")), 4, False)


@pytest.mark.parametrize("name", FEATURE_MATCHING)
def test_one_that_finds_the_end_by_its_ids_is_refused_where_sequences_end_early(name):
    models, _, _ = players()
    sizes = {"n_embd": 8, "n_layer": 1, "n_head": 2, "vocab_size": VOCAB_SIZE, "pad_token_id": PAD, "num_labels": 2}
    discriminator = AutoModelForSequenceClassification.from_config(AutoConfig.for_model("gpt2", **sizes))
    FEATURE_MATCHING[name].check(Models(build_generator("lstm", eos=None), discriminator), 4, False)
    with pytest.raises(UserError, match="finds a sequence's end by its ids"):
        FEATURE_MATCHING[name].check(Models(models.generator, discriminator), 4, False)
