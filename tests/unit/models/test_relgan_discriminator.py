"""RelGAN's discriminator: equal to plain convolutions, blind to padding, a verdict on every representation."""

import math

import pytest
import torch
from huggingface_hub.errors import StrictDataclassClassValidationError, StrictDataclassFieldValidationError
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch import nn
from torch.nn import functional as F

from seqgan_hf.generation.verdicts import features, realness, verdicts
from seqgan_hf.models import (
    RelGANDiscriminatorConfig,
    RelGANDiscriminatorForSequenceClassification,
    modeling_relgan_discriminator,
)
from seqgan_hf.samples import Samples


VOCAB = 23
CLOSE = {"atol": 1e-10, "rtol": 1e-10}


def make(seed=0, **kwargs):
    """A discriminator in double precision: three representations of width 2, every parameter unlike every other."""
    torch.manual_seed(seed)
    sizes = {"embedding_size": 6, "num_representations": 3, "hidden_size": 5}
    sizes |= {"filter_sizes": (1, 2, 4, 7), "num_filters": (3, 4, 5, 2), **kwargs}
    model = RelGANDiscriminatorForSequenceClassification(RelGANDiscriminatorConfig(vocab_size=VOCAB, **sizes)).double()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.5)
    return model.eval()


def tokens(*shape, seed=0):
    return torch.randint(0, VOCAB, shape, generator=torch.Generator().manual_seed(seed))


def plain_logits(model, embedded):
    """The same network for sequences of one length, representation by representation: (B, T, E) -> (B, R)."""
    scores = []
    for part in embedded.chunk(model.config.num_representations, dim=2):
        found = []
        for size, filters in zip(model.config.filter_sizes, model.filters, strict=True):
            kernel = filters.weight.view(-1, size, part.shape[2]).transpose(1, 2)
            padded = F.pad(part.transpose(1, 2), (0, max(size - part.shape[1], 0)))
            found.append(F.conv1d(padded, kernel, filters.bias).relu().amax(dim=2))
        x = torch.cat(found, dim=1)
        gate = (x @ model.highway_gate.weight.T).sigmoid()
        x = gate * (x @ model.highway_transform.weight.T).relu() + (1 - gate) * x
        scores.append(model.score(model.hidden(x)))
    return torch.cat(scores, dim=1)


# The arithmetic


@pytest.mark.parametrize("length", [1, 3, 7, 15])
def test_verdicts_and_gradients_equal_plain_convolutions(length):
    model = make()
    embeds = torch.randn(5, length, 6, dtype=torch.float64, requires_grad=True)  # no two windows alike
    wanted = [embeds, *(parameter for name, parameter in model.named_parameters() if "embed_tokens" not in name)]
    each, expected = model(inputs_embeds=embeds).representation_logits, plain_logits(model, embeds)
    torch.testing.assert_close(each, expected, **CLOSE)
    gradients = torch.autograd.grad(each.square().sum(), wanted)
    references = torch.autograd.grad(expected.square().sum(), wanted)
    for gradient, reference in zip(gradients, references, strict=True):
        torch.testing.assert_close(gradient, reference, **CLOSE)


def test_logits_are_the_mean_over_representations_and_losses_are_averaged_after_the_nonlinearity():
    ids, labels = tokens(4, 9), torch.tensor([0, 1, 1, 0])
    for number in (1, 2):
        model = make(num_labels=number)
        outputs = model(ids, labels=labels)
        log_odds = outputs.logits[:, -1] - (outputs.logits[:, 0] if number == 2 else 0.0)
        assert outputs.logits.shape == (4, number) and outputs.representation_logits.shape == (4, 3)
        torch.testing.assert_close(log_odds, outputs.representation_logits.mean(dim=1), **CLOSE)
        signs = (1.0 - 2.0 * labels)[:, None]
        torch.testing.assert_close(outputs.loss, F.softplus(signs * outputs.representation_logits).mean(), **CLOSE)


def test_verdicts_realness_and_features_of_samples():
    model, ids = make(), tokens(3, 6)
    mask = torch.arange(6) < torch.tensor([6, 2, 4])[:, None]
    samples = Samples(torch.zeros(3, 1, dtype=torch.long), ids, mask)
    values, counted = verdicts(model, samples)
    assert values.shape == counted.shape == (3, 3) and counted.all()
    torch.testing.assert_close(realness(model, samples), values.mean(dim=1), **CLOSE)
    found = features(model, samples)
    assert found.shape == (3, 5)
    torch.testing.assert_close(model.score(found)[:, 0], realness(model, samples), **CLOSE)


def test_token_ids_and_their_embeddings_score_alike():
    model, ids = make(), tokens(4, 9)
    one_hot = F.one_hot(ids, VOCAB).double().requires_grad_()
    logits = model(inputs_embeds=one_hot @ model.get_input_embeddings().weight).logits
    torch.testing.assert_close(logits, model(ids).logits, **CLOSE)
    logits[:, 1].sum().backward()
    assert one_hot.grad.abs().sum() > 0


@pytest.mark.parametrize("normed", [False, True])
def test_gradients_of_both_orders_are_the_numerical_ones(normed):
    """A gradient penalty needs the gradient of a gradient."""
    model = make(filter_sizes=(2, 3), num_filters=(2, 2), spectral_norm=normed)
    mask = torch.tensor([[1, 1, 1, 1, 0], [1, 1, 0, 0, 0]])
    embeds = torch.randn(2, 5, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).requires_grad_()

    def function(x, *parameters):
        return model(inputs_embeds=x, attention_mask=mask).representation_logits

    inputs = (embeds, model.filters[1].bias, model.highway_gate.weight)
    if not normed:  # whose singular vectors stand still in the gradient
        inputs += (model.filters[1].weight,)
    assert torch.autograd.gradcheck(function, inputs)
    assert torch.autograd.gradgradcheck(function, inputs)


def test_blocks_of_rows_change_nothing(monkeypatch):
    model, ids = make(), tokens(7, 9)
    mask = torch.arange(9) < torch.tensor([9, 3, 1, 7, 9, 8, 2])[:, None]
    whole = model(ids, attention_mask=mask).representation_logits
    monkeypatch.setattr(modeling_relgan_discriminator, "BLOCK", 100)
    torch.testing.assert_close(model(ids, attention_mask=mask).representation_logits, whole, **CLOSE)
    assert model(tokens(0, 9)).logits.shape == (0, 2)


def test_defaults_are_the_paper_s():
    torch.manual_seed(0)
    model = RelGANDiscriminatorForSequenceClassification(RelGANDiscriminatorConfig())
    assert [tuple(filters.weight.shape) for filters in model.filters] == [(300, 2), (300, 3), (300, 4), (300, 5)]
    assert model.score.in_features == 100 and model.hidden.in_features == 1200 and model.dropout.p == 0.25
    assert model.config.id2label == {0: "FAKE", 1: "REAL"} and model.config.label2id == {"FAKE": 0, "REAL": 1}
    starts = {
        model.embed_tokens.weight: 5000**-0.5,
        model.filters[2].weight: (2 / 4) ** 0.5,
        model.highway_gate.weight: 1200**-0.5,
        model.highway_transform.weight: 1200**-0.5,
        model.hidden.weight: 1200**-0.5,
        model.score.weight: 100**-0.5,
    }
    for parameter, scale in starts.items():
        values = parameter.detach().flatten()[:50_000].double().numpy()
        assert stats.kstest(values, stats.truncnorm(-2, 2, scale=scale).cdf).pvalue > 1e-3
    assert not any(layer.bias.any() for layer in [*model.filters, model.hidden, model.score])
    assert model.highway_gate.bias is None and model.highway_transform.bias is None


def test_dropout_drops_features_in_training_only():
    model, ids = make(dropout=0.5), tokens(100, 5)
    assert torch.equal(model(ids).logits, model(ids).logits)
    seen = []
    model.hidden.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    model.eval()(ids), model.train()(ids)
    kept = seen[1] != 0
    torch.testing.assert_close(seen[1][kept], 2 * seen[0][kept], **CLOSE)
    assert 0.45 < kept.double().mean() / (seen[0] != 0).double().mean() < 0.55


# Spectral normalization


def test_after_many_passes_the_largest_singular_value_is_one():
    model, ids = make(spectral_norm=True).train(), tokens(2, 8)
    layers = [*model.filters, model.hidden, model.score]
    for _ in range(100):
        model(ids)
    for layer in layers:
        torch.testing.assert_close(torch.linalg.svdvals(layer.normed_weight())[0].item(), 1.0, atol=1e-6, rtol=0)
    for layer in (model.highway_gate, model.highway_transform, model.embed_tokens):
        assert torch.linalg.svdvals(layer.weight)[0] > 1.5  # exempt
    assert not any("singular" in name for name in make().state_dict())


def test_one_pass_is_one_power_iteration_which_train_mode_keeps():
    model, ids = make(spectral_norm=True), tokens(2, 8)
    layers = [*model.filters, model.hidden, model.score]
    starts = [layer.singular_vector.clone() for layer in layers]
    first, kept = model(ids).logits, []
    assert torch.equal(model(ids).logits, first)
    for layer, start in zip(layers, starts, strict=True):
        assert torch.equal(layer.singular_vector, start), "eval mode keeps none"
        right = F.normalize(layer.weight.T @ start, dim=0)
        left = F.normalize(layer.weight @ right, dim=0)
        torch.testing.assert_close(layer.normed_weight(), layer.weight / (left @ layer.weight @ right), **CLOSE)
        kept.append(left.detach())
    model.train()(ids)
    for layer, expected in zip(layers, kept, strict=True):
        torch.testing.assert_close(layer.singular_vector, expected, **CLOSE)


def test_the_gradient_of_a_normed_weight_is_that_of_the_exact_norm():
    """Once the singular vectors have been found."""
    model = make(spectral_norm=True).train()
    for layer in [*model.filters, model.hidden, model.score]:
        for _ in range(300):
            layer.normed_weight()
        direction = torch.randn_like(layer.weight)
        found, expected = (
            torch.autograd.grad((direction * normed).sum(), layer.weight)[0]
            for normed in (layer.normed_weight(), layer.weight / torch.linalg.matrix_norm(layer.weight, 2))
        )
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


# Padding


@settings(max_examples=40, deadline=None, derandomize=True)
@given(data=st.data(), lengths=st.lists(st.integers(1, 11), min_size=1, max_size=5), extra=st.integers(0, 9))
def test_padding_of_any_content_changes_no_verdict_and_no_gradient(data, lengths, extra):
    """Rows of any length, padded anywhere with anything, against each row alone through plain convolutions."""
    model, width = make(), max(lengths) + extra
    embeds = torch.randn(len(lengths), width, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    mask = torch.zeros(len(lengths), width, dtype=torch.bool)
    for row, length in enumerate(lengths):
        mask[row, data.draw(st.permutations(range(width)))[:length]] = True
    embeds[~mask] *= 100.0
    embeds.requires_grad_()
    each = model(inputs_embeds=embeds, attention_mask=mask).representation_logits
    (gradient,) = torch.autograd.grad(each.square().sum(), embeds)
    assert not gradient[~mask].any()
    for row, real in enumerate(mask):
        alone = embeds[row : row + 1, real].detach().requires_grad_()
        expected = plain_logits(model, alone)
        torch.testing.assert_close(each[row : row + 1], expected, **CLOSE)
        (reference,) = torch.autograd.grad(expected.square().sum(), alone)
        torch.testing.assert_close(gradient[row, real], reference[0], **CLOSE)


def test_not_a_number_under_the_mask_is_not_seen():
    model, ids = make(), tokens(2, 5)
    mask = torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]])
    embeds = model.embed_tokens(ids).detach()
    expected = model(inputs_embeds=embeds, attention_mask=mask).logits
    embeds[0, 3:] = math.nan
    assert torch.equal(model(inputs_embeds=embeds, attention_mask=mask).logits, expected)


def test_a_row_of_padding_scores_like_zero_vectors():
    model = make()
    each = model(tokens(2, 4), attention_mask=torch.tensor([[0, 0, 0, 0], [1, 1, 1, 1]])).representation_logits
    torch.testing.assert_close(each[:1], plain_logits(model, torch.zeros(1, 1, 6, dtype=torch.float64)), **CLOSE)


# Precision and mistakes


def test_bfloat16_autocast_trains_close_to_float32():
    model, ids, labels = make().float(), tokens(64, 9), torch.arange(64) % 2
    gradients = []
    for enabled in (False, True):
        model.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            loss = model(ids, labels=labels).loss
        loss.backward()
        gradients.append(torch.cat([parameter.grad.flatten() for parameter in model.parameters()]))
    assert not torch.equal(*gradients)
    assert F.cosine_similarity(*gradients, dim=0) > 0.99


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"num_representations": 7}, ["embedding_size=64 with num_representations=7", "a multiple"]),
        ({"num_representations": 0}, ["num_representations=0", "at least 1"]),
        ({"hidden_size": 0}, ["hidden_size=0", "at least 1"]),
        ({"filter_sizes": [1, 2]}, ["filter_sizes=[1, 2] (2 values)", "(4 values)", "same length"]),
        ({"filter_sizes": [], "num_filters": []}, ["filter_sizes=[]", "one or more"]),
        ({"dropout": 1.0}, ["dropout=1.0", "[0, 1)"]),
        ({"spectral_norm": 1}, ["spectral_norm", "bool", "1"]),
        ({"pad_token_id": 5000}, ["pad_token_id=5000", "vocab_size=5000"]),
    ],
)
def test_configuration_mistakes_name_field_value_and_remedy(wrong, words):
    with pytest.raises((StrictDataclassClassValidationError, StrictDataclassFieldValidationError)) as caught:
        RelGANDiscriminatorConfig(**wrong)
    assert all(word in str(caught.value) for word in words), caught.value


@pytest.mark.parametrize("inputs", [{}, {"input_ids": tokens(1, 2), "inputs_embeds": torch.zeros(1, 2, 6)}])
def test_exactly_one_kind_of_input(inputs):
    with pytest.raises(ValueError, match="exactly one"):
        make()(**inputs)
