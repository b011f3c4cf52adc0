"""The convolutional discriminator: equal to plain convolutions, blind to padding, regularized as the paper does."""

import math
import shutil
import time
from threading import Event, Thread, get_ident

import pytest
import torch
from huggingface_hub.errors import StrictDataclassClassValidationError, StrictDataclassFieldValidationError
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch import nn
from torch.nn import functional as F

from seqgan_hf.models import (
    CNNDiscriminatorConfig,
    CNNDiscriminatorForSequenceClassification,
    modeling_cnn_discriminator,
    modeling_products,
    modeling_sums,
    modeling_threads,
)
from seqgan_hf.models.modeling_threads import side_by_side
from tests.tools.plain_paths import ONEDNN


VOCAB = 23
CLOSE = {"atol": 1e-10, "rtol": 1e-10}


def make(seed=0, **kwargs):
    """A discriminator in double precision, small, with every parameter different from every other."""
    torch.manual_seed(seed)
    settings = {"embedding_size": 3, "filter_sizes": (1, 2, 4, 7), "num_filters": (3, 4, 5, 2), **kwargs}
    model = CNNDiscriminatorForSequenceClassification(CNNDiscriminatorConfig(vocab_size=VOCAB, **settings)).double()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.5)
    return model.eval()


def tokens(*shape, seed=0):
    return torch.randint(0, VOCAB, shape, generator=torch.Generator().manual_seed(seed))


def plain_logits(model, embedded):
    """The same network for sequences of one length, from `nn.Conv1d` and autograd: embeddings (B, T, E) -> (B, C)."""
    features = []
    for size, filters in zip(model.config.filter_sizes, model.filters, strict=True):
        weight = filters.weight.view(-1, size, model.config.embedding_size).transpose(1, 2)
        padded = F.pad(embedded.transpose(1, 2), (0, max(size - embedded.shape[1], 0)))
        features.append(F.conv1d(padded, weight, filters.bias).relu().amax(dim=2))
    features = torch.cat(features, dim=1)
    gate = model.highway_gate(features).sigmoid()
    features = gate * model.highway_transform(features).relu() + (1 - gate) * features
    return model.score(model.dropout(features))


# The arithmetic


@pytest.mark.parametrize("length", [1, 2, 3, 6, 7, 8, 15])
def test_logits_and_gradients_equal_plain_convolutions(length):
    model = make()
    embeds = torch.randn(5, length, 3, dtype=torch.float64, requires_grad=True)  # no two windows alike
    wanted = [embeds, *(parameter for name, parameter in model.named_parameters() if "embed_tokens" not in name)]
    logits, expected = model(inputs_embeds=embeds).logits, plain_logits(model, embeds)
    torch.testing.assert_close(logits, expected, **CLOSE)
    gradients = torch.autograd.grad(logits.square().sum(), wanted)
    references = torch.autograd.grad(expected.square().sum(), wanted)
    for gradient, reference in zip(gradients, references, strict=True):
        torch.testing.assert_close(gradient, reference, **CLOSE)


def test_token_ids_and_their_embeddings_score_alike():
    model, ids = make(), tokens(4, 9)
    one_hot = F.one_hot(ids, VOCAB).double().requires_grad_()
    logits = model(inputs_embeds=one_hot @ model.get_input_embeddings().weight).logits
    torch.testing.assert_close(logits, model(ids).logits, **CLOSE)
    logits[:, 1].sum().backward()
    assert one_hot.grad.abs().sum() > 0
    (gradient,) = torch.autograd.grad(model(ids).logits[:, 1].sum(), model.embed_tokens.weight)
    unused = torch.bincount(ids.flatten(), minlength=VOCAB) == 0
    assert not gradient[unused].any() and gradient[~unused].any()


def test_gradients_are_the_numerical_ones():
    model = make(filter_sizes=(1, 3), num_filters=(2, 2))
    mask = torch.tensor([[1, 1, 1, 1, 0], [1, 1, 0, 0, 0], [0, 1, 1, 1, 1]])
    embeds = torch.randn(3, 5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).requires_grad_()

    def function(x, *parameters):
        return model(inputs_embeds=x, attention_mask=mask).logits

    inputs = (embeds, model.filters[1].weight, model.filters[1].bias, model.highway_gate.weight)
    assert torch.autograd.gradcheck(function, inputs)
    assert torch.autograd.gradgradcheck(function, inputs)  # a gradient penalty needs the gradient of a gradient


def test_only_what_needs_a_gradient_gets_one():
    model, ids = make(), tokens(3, 6)
    model.requires_grad_(False)
    embeds = model.embed_tokens(ids).requires_grad_()
    model(inputs_embeds=embeds).logits.sum().backward()
    assert embeds.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in model.parameters())
    model.filters[2].requires_grad_(True)
    model(ids).logits.sum().backward()
    assert model.filters[2].weight.grad.abs().sum() > 0 and model.filters[1].weight.grad is None


def scores_and_gradients(model, embeds, mask):
    embeds = embeds.detach().requires_grad_()
    logits = model(inputs_embeds=embeds, attention_mask=mask).logits
    return logits, *torch.autograd.grad(logits.square().sum(), [embeds, *list(model.parameters())[1:]])


def test_blocks_of_rows_change_nothing(monkeypatch):
    model, mask = make(), torch.arange(9) < torch.tensor([9, 3, 1, 7, 9, 8, 2])[:, None]
    embeds = torch.randn(7, 9, 3, dtype=torch.float64)
    whole = scores_and_gradients(model, embeds, mask)
    for numbers in (1, 200):  # one row a block, and a few
        monkeypatch.setattr(modeling_cnn_discriminator, "BLOCK", numbers)
        for part, expected in zip(scores_and_gradients(model, embeds, mask), whole, strict=True):
            torch.testing.assert_close(part, expected, **CLOSE)


@pytest.mark.parametrize("length", [1, 3, 9])
@pytest.mark.parametrize("padded", ["none", "no mask", "right", "left"])
def test_widths_multiplied_together_are_those_multiplied_apart(monkeypatch, length, padded):
    """As on a GPU: the filters of all widths in one product; scores, gradients and those of a gradient's norm."""
    model, ends = make(), torch.arange(1, 6).clamp(max=length)[:, None]
    masks = {"right": torch.arange(length) < ends, "left": torch.arange(length) >= length - ends, "no mask": None}
    mask = masks.get(padded, torch.ones(5, length, dtype=torch.bool))
    embeds = torch.randn(5, length, 3, dtype=torch.float64)

    def found():
        given = embeds.clone().requires_grad_()
        logits = model(inputs_embeds=given, attention_mask=mask).logits
        (slope,) = torch.autograd.grad(logits.sum(), given, create_graph=True)
        loss = logits.square().sum() + slope.square().sum()
        return logits, slope, *torch.autograd.grad(loss, [given, *list(model.parameters())[1:]])

    apart = found()
    monkeypatch.setattr(modeling_cnn_discriminator, "SPLIT_BY_WIDTH", set())
    monkeypatch.setattr(modeling_cnn_discriminator, "max_over_windows", None)
    for one, other in zip(found(), apart, strict=True):
        torch.testing.assert_close(one, other, **CLOSE)
    monkeypatch.setattr(modeling_cnn_discriminator, "ONE_PRODUCT", 5 * length * 3 * min(length, 7) * 14 - 1)
    with pytest.raises(TypeError):  # a batch too large for it
        model(inputs_embeds=embeds)


def test_single_precision_and_either_matrix_library(monkeypatch):
    model, mask = make(), torch.arange(9) < torch.tensor([9, 3, 1, 7])[:, None]
    embeds = torch.randn(4, 9, 3, dtype=torch.float64)
    expected = scores_and_gradients(model, embeds, mask)
    for library in (ONEDNN, None):
        monkeypatch.setattr(modeling_products, "ONEDNN_LINEAR", library)
        for value, reference in zip(scores_and_gradients(model.float(), embeds.float(), mask), expected, strict=True):
            torch.testing.assert_close(value, reference.float(), atol=1e-4, rtol=1e-5)


def test_an_empty_batch_has_no_scores():
    assert make()(torch.empty(0, 9, dtype=torch.long)).logits.shape == (0, 2)


def test_defaults_are_the_paper_s():
    torch.manual_seed(0)
    model = CNNDiscriminatorForSequenceClassification(CNNDiscriminatorConfig())
    assert model.score.in_features == 1720
    assert {filters.weight.shape[1] // 64: len(filters.weight) for filters in model.filters} == {
        **{1: 100, 2: 200, 3: 200, 4: 200, 5: 200, 6: 100, 7: 100, 8: 100, 9: 100, 10: 100, 15: 160, 20: 160}
    }
    assert model.config.id2label == {0: "FAKE", 1: "REAL"} and model.config.label2id == {"FAKE": 0, "REAL": 1}
    assert model.dropout.p == 0.25 and model.config.l2_output == 0.2
    starts = {
        model.embed_tokens.weight: stats.uniform(-1, 2),
        model.filters[3].weight: stats.truncnorm(-2, 2, scale=0.1),
        model.score.weight: stats.truncnorm(-2, 2, scale=0.1),
        model.highway_gate.weight: stats.uniform(-math.sqrt(3 / 1720), 2 * math.sqrt(3 / 1720)),
        model.highway_transform.weight: stats.uniform(-math.sqrt(3 / 1720), 2 * math.sqrt(3 / 1720)),
    }
    for parameter, distribution in starts.items():
        values = parameter.detach().flatten()[:50_000].double().numpy()
        assert stats.kstest(values, distribution.cdf).pvalue > 1e-3
    assert (model.highway_gate.bias == -2.0).all() and (model.highway_transform.bias == 0.0).all()
    assert all((layer.bias == 0.1).all() for layer in [*model.filters, model.score])


def test_penalty_is_tensorflow_s_l2_loss_of_the_output_layer_and_part_of_the_loss():
    model, ids, labels = make(l2_output=0.3), tokens(6, 5), torch.tensor([0, 1, 1, 0, 1, 0])
    expected = 0.3 * sum((value**2).sum() / 2 for value in (model.score.weight, model.score.bias))
    torch.testing.assert_close(model.regularization(), expected)
    outputs = model(ids, labels=labels)
    torch.testing.assert_close(outputs.loss, F.cross_entropy(outputs.logits, labels) + expected)
    touched = torch.autograd.grad(model.regularization(), list(model.parameters()), allow_unused=True)
    names = [name for name, _ in model.named_parameters()]
    assert [n for n, g in zip(names, touched, strict=True) if g is not None] == ["score.weight", "score.bias"]
    model.config.l2_output = 0.0
    assert model.regularization() == 0.0


def test_a_single_logit_is_that_of_real():
    model, ids, labels = make(num_labels=1, l2_output=0.0), tokens(6, 5), torch.tensor([0, 1, 1, 0, 1, 0])
    outputs = model(ids, labels=labels)
    assert outputs.logits.shape == (6, 1)
    expected = F.binary_cross_entropy_with_logits(outputs.logits[:, 0], labels.double())
    torch.testing.assert_close(outputs.loss, expected)


def test_dropout_drops_features_in_training_only():
    model, ids = make(), tokens(400, 5)
    assert torch.equal(model(ids).logits, model(ids).logits)
    model.score.weight.data.fill_(0.0)
    model.score.weight.data[0, 0] = 1.0
    model.score.bias.data.zero_()
    whole = model(ids).logits[:, 0]
    dropped = model.train()(ids).logits[:, 0]
    kept = dropped != 0
    torch.testing.assert_close(dropped[kept], whole[kept] / 0.75, **CLOSE)
    assert stats.binomtest(int(kept.sum()), int((whole != 0).sum()), 0.75).pvalue > 1e-3


# Padding


@settings(max_examples=60, deadline=None, derandomize=True)
@given(data=st.data(), lengths=st.lists(st.integers(1, 11), min_size=1, max_size=5), extra=st.integers(0, 9))
def test_padding_of_any_content_changes_no_score_and_no_gradient(data, lengths, extra):
    """Rows of any length, padded anywhere with anything, against each row alone through plain convolutions."""
    model, width = make(), max(lengths) + extra
    embeds = torch.randn(len(lengths), width, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    mask = torch.zeros(len(lengths), width, dtype=torch.bool)
    for row, length in enumerate(lengths):
        mask[row, data.draw(st.permutations(range(width)))[:length]] = True
    embeds[~mask] *= 100.0
    embeds.requires_grad_()
    logits = model(inputs_embeds=embeds, attention_mask=mask).logits
    (gradient,) = torch.autograd.grad(logits.square().sum(), embeds)
    assert not gradient[~mask].any()
    for row, real in enumerate(mask):
        alone = embeds[row : row + 1, real].detach().requires_grad_()
        expected = plain_logits(model, alone)
        torch.testing.assert_close(logits[row : row + 1], expected, **CLOSE)
        (reference,) = torch.autograd.grad(expected.square().sum(), alone)
        torch.testing.assert_close(gradient[row, real], reference[0], **CLOSE)


def test_pad_ids_and_more_padding_change_nothing():
    model, ids = make(), tokens(3, 6)
    mask = torch.tensor([[1, 1, 1, 1, 1, 1], [1, 1, 0, 0, 0, 0], [1, 1, 1, 0, 0, 0]])
    expected = model(ids, attention_mask=mask).logits
    other = torch.where(mask.bool(), ids, tokens(3, 6, seed=9))
    torch.testing.assert_close(model(other, attention_mask=mask).logits, expected, **CLOSE)
    longer = model(F.pad(ids, (0, 20), value=5), attention_mask=F.pad(mask, (0, 20))).logits
    torch.testing.assert_close(longer, expected, **CLOSE)
    torch.testing.assert_close(model(ids[2:, :3]).logits, expected[2:], **CLOSE)


def test_not_a_number_under_the_mask_is_not_seen():
    model, ids = make(), tokens(2, 5)
    mask = torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]])
    embeds = model.embed_tokens(ids).detach()
    expected = model(inputs_embeds=embeds, attention_mask=mask).logits
    embeds[0, 3:] = math.nan
    assert torch.equal(model(inputs_embeds=embeds, attention_mask=mask).logits, expected)


def test_a_row_of_padding_scores_like_zero_vectors():
    model = make()
    logits = model(tokens(2, 4), attention_mask=torch.tensor([[0, 0, 0, 0], [1, 1, 1, 1]])).logits
    torch.testing.assert_close(logits[:1], plain_logits(model, torch.zeros(1, 1, 3, dtype=torch.float64)), **CLOSE)


def test_one_window_by_hand():
    """Width 3, the sequence (a, b): one window (a, b, 0), whatever a window further right would give."""
    model = make(embedding_size=1, filter_sizes=(3,), num_filters=(1,))
    model.filters[0].weight.data = torch.tensor([[-1.0, 2.0, 100.0]], dtype=torch.float64)
    model.filters[0].bias.data.fill_(0.5)
    model.embed_tokens.weight.data[:2] = torch.tensor([[3.0], [4.0]], dtype=torch.float64)
    seen = []
    model.highway_gate.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    model(torch.tensor([[0, 1, 1, 1]]), attention_mask=torch.tensor([[1, 1, 0, 0]]))
    assert seen[0].item() == -1.0 * 3.0 + 2.0 * 4.0 + 0.5


# Precision


def test_bfloat16_autocast_trains_close_to_float32():
    model, ids, labels = make().float(), tokens(64, 9), torch.arange(64) % 2
    gradients = []
    for enabled in (False, True):
        model.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            loss = model(ids, labels=labels).loss
        loss.backward()
        gradients.append(torch.cat([parameter.grad.flatten() for parameter in model.parameters()]))
        assert gradients[-1].dtype == torch.float32
    assert not torch.equal(*gradients)
    assert F.cosine_similarity(*gradients, dim=0) > 0.99


# Mistakes


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"filter_sizes": [1, 2]}, ["filter_sizes=[1, 2] (2 values)", "(12 values)", "same length"]),
        ({"filter_sizes": [], "num_filters": []}, ["filter_sizes=[]", "one or more"]),
        ({"filter_sizes": [0], "num_filters": [5]}, ["filter_sizes=[0]", "at least 1"]),
        ({"filter_sizes": [1], "num_filters": [0]}, ["num_filters=[0]", "at least 1"]),
        ({"filter_sizes": ["1"], "num_filters": [5]}, ["filter_sizes", "'1'", "int"]),
        ({"vocab_size": 0}, ["vocab_size=0", "at least 1"]),
        ({"embedding_size": "wide"}, ["embedding_size", "int", "wide"]),
        ({"num_labels": 3}, ["num_labels=3", "2 (0 = fake, 1 = real), or 1"]),
        ({"dropout": 1.5}, ["dropout=1.5", "[0, 1)"]),
        ({"l2_output": -0.1}, ["l2_output=-0.1", ">= 0"]),
        ({"embedding_range": 0.0}, ["embedding_range=0.0", "greater than 0"]),
        ({"initializer_range": -1.0}, ["initializer_range=-1.0", "greater than 0"]),
    ],
)
def test_configuration_mistakes_name_field_value_and_remedy(settings, words):
    with pytest.raises((StrictDataclassClassValidationError, StrictDataclassFieldValidationError)) as caught:
        CNNDiscriminatorConfig(**settings)
    assert all(word in str(caught.value) for word in words), caught.value


@pytest.mark.parametrize("inputs", [{}, {"input_ids": tokens(1, 2), "inputs_embeds": torch.zeros(1, 2, 3)}])
def test_exactly_one_kind_of_input(inputs):
    with pytest.raises(ValueError, match="exactly one"):
        make()(**inputs)


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
def test_the_product_compiles():
    """By the default compiler, of a view, as the windows of width 1 are: the whole model takes it half a minute."""
    a, b = torch.randn(2, 3, 6), torch.randn(5, 6)
    compiled = torch.compile(lambda a, b: modeling_products.multiply(a.view(-1, 6), b))
    torch.testing.assert_close(compiled(a, b), a.view(-1, 6) @ b.T)


@pytest.mark.skipif("config.getoption('--fast-paths') == 'off'", reason="there, nothing is shared")
@torch.no_grad()
@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("length", [2, 3, 7, 12])
def test_completions_score_as_they_do_without_their_origin(length, padded, monkeypatch):
    """Prefixes of every length, shorter than some windows and longer than others; ends anywhere after the prefix."""
    model, generator = make().eval(), torch.Generator().manual_seed(length)
    sentences, rollouts = tokens(4, length), 3
    origin = torch.tensor([(row, t) for t in range(1, length) for _ in range(rollouts) for row in (2, 0, 3)])
    ids, (row, given) = tokens(len(origin), length, seed=1), origin.unbind(1)
    ids = torch.where(torch.arange(length) < given[:, None], sentences[row], ids)
    ends = given + 1 + (torch.rand(len(origin), generator=generator) * (length - given)).long()
    mask = (torch.arange(length) < ends[:, None]).long() if padded else None
    expected, spent = model(ids, mask).logits, []
    product = modeling_products.multiply

    def counted(a, b):
        spent.append(len(a) * b.numel())
        return product(a, b)

    monkeypatch.setattr(modeling_cnn_discriminator, "multiply", counted)
    costs = []
    for least in (9, 10):  # of each prefix length there are 9
        monkeypatch.setattr(modeling_cnn_discriminator, "SHARED_ROWS", least)
        spent.clear()
        torch.testing.assert_close(model(ids, mask, origin=origin).logits, expected)
        costs.append(sum(spent))
    spent.clear()
    model(ids, mask)
    assert costs[0] < costs[1] or length < 7  # where there is enough to share
    assert costs[1] == sum(spent)


@torch.no_grad()
@pytest.mark.parametrize("change", ["another token in a prefix", "nothing after a prefix", "origins in no order"])
def test_an_origin_that_is_wrong_changes_no_score(change, monkeypatch):
    """Whoever changes completions need not know of it."""
    monkeypatch.setattr(modeling_cnn_discriminator, "SHARED_ROWS", 1)
    model, ids = make().eval(), tokens(1, 9).repeat(6, 1)
    ids[:, 5:] = tokens(6, 4, seed=1)
    origin, mask = torch.tensor([[0, 5]] * 6), None
    if change == "another token in a prefix":
        ids[4, 2] = (ids[4, 2] + 1) % model.config.vocab_size
    elif change == "nothing after a prefix":
        mask = torch.arange(9) < torch.tensor([9, 5, 9, 9, 3, 9])[:, None]
    else:
        origin = torch.tensor([[0, 5], [0, 2], [0, 5], [0, 5], [0, 9], [0, 5]])
    torch.testing.assert_close(model(ids, mask, origin=origin).logits, model(ids, mask).logits)


# What tokens add to filters


MANY = modeling_sums.LEAST_READ * VOCAB  # tokens
needs_tables = pytest.mark.skipif("config.getoption('--fast-paths') == 'off'", reason="there are no tables")


def tables_of(model, ids=None):
    return modeling_sums.tables_for(model, model.config.filter_sizes, tokens(1, 1) if ids is None else ids)


def judged_both_ways(model, ids, mask=None):
    """Logits by products and by a table, without gradient."""
    with torch.no_grad():
        products = model(ids, mask).logits
        with model.looking_up(MANY):
            assert len(tables_of(model, ids)) == len(model.filters)
            by_table = model(ids, mask).logits
        assert tables_of(model) is None
    return products, by_table


@needs_tables
@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("length", [1, 3, 7, 12])
def test_entries_added_up_are_convolutions(length, padded, monkeypatch):
    """For rows longer and shorter than the windows, of all lengths and none, in blocks of few rows."""
    monkeypatch.setattr(modeling_sums, "BLOCK_OF_SUMS", 40)
    model, ids = make(), tokens(9, length)
    mask = (torch.rand(9, length, generator=torch.Generator().manual_seed(1)) < 0.6).long() if padded else None
    torch.testing.assert_close(*judged_both_ways(model, ids, mask), **CLOSE)


@needs_tables
def test_entries_have_the_type_of_products():
    model, ids = make().float(), tokens(9, 8)
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad(), model.looking_up(MANY):
        assert all(table.dtype == torch.bfloat16 for table in tables_of(model))
        by_table = model(ids).logits
    torch.testing.assert_close(by_table.float(), model(ids).logits, atol=0.1, rtol=0.1)
    torch.testing.assert_close(*judged_both_ways(model, ids), atol=1e-5, rtol=1e-5)


@needs_tables
def test_entries_are_of_what_the_embedding_gives():
    """Of one whose outputs are changed on the way, and of a larger one in its place; ids beyond it are no padding."""
    model, ids, mask = make(), tokens(9, 8), torch.ones(9, 8)
    mask[3:, 5:] = 0
    model.embed_tokens.register_forward_hook(lambda module, inputs, output: output.roll(1, dims=-1) * 2)
    torch.testing.assert_close(*judged_both_ways(model, ids, mask), **CLOSE)
    model.embed_tokens = nn.Embedding(VOCAB + 3, 3).double()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(modeling_sums, "LEAST_READ", 0)
        torch.testing.assert_close(*judged_both_ways(model, ids + 3, mask), **CLOSE)
        with torch.no_grad(), model.looking_up(0), pytest.raises(IndexError):
            model(ids.clone().fill_(VOCAB + 3))


@needs_tables
def test_a_table_is_made_for_many_tokens_of_a_small_vocabulary_only(monkeypatch):
    model = make()
    monkeypatch.setattr(modeling_sums, "LEAST_READ", 2)
    entries = (VOCAB + 1) * (3 + 2 * 4 + 4 * 5 + 7 * 2)

    def is_made(count=2 * VOCAB):
        with torch.no_grad(), model.looking_up(count):
            return tables_of(model) is not None

    assert is_made() and not is_made(2 * VOCAB - 1)
    monkeypatch.setattr(modeling_sums, "MOST_ENTRIES", entries)
    assert is_made()
    monkeypatch.setattr(modeling_sums, "MOST_ENTRIES", entries - 1)
    assert not is_made()
    monkeypatch.undo()
    monkeypatch.setattr(modeling_sums, "LOOK_UP", set())
    assert not is_made()


@needs_tables
def test_gradients_and_embeddings_take_no_table():
    """And a table is gone once it is left, by an error, too: the weights may change."""
    model, other, ids = make(), make(1), tokens(4, 8)
    with model.looking_up(MANY), torch.no_grad():
        assert tables_of(model) is None  # gradients were wanted
    with pytest.raises(RuntimeError, match="left"), torch.no_grad(), model.looking_up(MANY):
        kept = tables_of(model)
        with other.looking_up(MANY):
            assert tables_of(model) is None and tables_of(other) is not None
        assert tables_of(model) is kept is not None and tables_of(other) is None
        embedded = model.embed_tokens(ids) * 2
        assert not torch.equal(model(inputs_embeds=embedded).logits, model(ids).logits)
        with pytest.raises(ValueError, match="exactly one"):
            model()
        with torch.enable_grad():
            model(ids).logits.sum().backward()
        raise RuntimeError("left")
    with torch.no_grad():
        assert tables_of(model) is None and model.embed_tokens.weight.grad.abs().sum() > 0


@needs_tables
def test_a_table_belongs_to_a_thread_and_those_that_share_its_work(monkeypatch):
    monkeypatch.setattr(modeling_threads, "_gain", modeling_threads._Gain())
    model, found = make(), {}
    entered, left = Event(), Event()

    def other():
        with torch.no_grad(), model.looking_up(MANY):
            entered.set()
            left.wait(10)
            found["theirs"] = tables_of(model)

    thread = Thread(target=other)
    with torch.no_grad():
        with model.looking_up(MANY):
            thread.start()
            assert entered.wait(10)
            mine = tables_of(model)
            shared = side_by_side(lambda piece: time.sleep(0.01) or (get_ident(), tables_of(model)), range(9), 3)
        assert len({thread for thread, _ in shared}) == 3 and all(tables is mine for _, tables in shared)
        left.set()
        thread.join()
        assert found["theirs"] is not None and found["theirs"] is not mine
        assert tables_of(model) is None
