"""The recurrent discriminator: equal to a plain recurrent network, blind to padding, causal where it scores tokens."""

import pytest
import torch
from huggingface_hub.errors import StrictDataclassClassValidationError, StrictDataclassFieldValidationError
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_padded_sequence

from seqgan_hf.models import RNNDiscriminatorConfig, RNNDiscriminatorForSequenceClassification


VOCAB = 23
CLOSE = {"atol": 1e-12, "rtol": 0}
KINDS = {
    "gru": {},
    "lstm, 2 layers": {"cell_type": "lstm", "num_hidden_layers": 2},
    "both directions": {"cell_type": "lstm", "bidirectional": True},
    "both directions, 3 layers": {"bidirectional": True, "num_hidden_layers": 3},
    "per token": {"per_token": True, "num_hidden_layers": 2},
}
EVERY_KIND = pytest.mark.parametrize("kind", KINDS)


def make(seed=0, **kwargs):
    torch.manual_seed(seed)
    config = RNNDiscriminatorConfig(vocab_size=VOCAB, embedding_size=4, hidden_size=5, initializer_range=0.8, **kwargs)
    return RNNDiscriminatorForSequenceClassification(config).double().eval()


def tokens(*shape, seed=0):
    return torch.randint(0, VOCAB, shape, generator=torch.Generator().manual_seed(seed))


def plain_rnn(model):
    """The recurrence as one torch module of several layers and directions, weights moved by renaming."""
    config = model.config
    rnn = {"lstm": nn.LSTM, "gru": nn.GRU}[config.cell_type](
        config.embedding_size,
        config.hidden_size,
        config.num_hidden_layers,
        batch_first=True,
        bidirectional=config.bidirectional,
    )
    weights = {}
    for layers, ending in ((model.forward_layers, ""), (model.backward_layers or [], "_reverse")):
        for index, layer in enumerate(layers):
            for name, value in layer.state_dict().items():
                weights[name.replace("_l0", f"_l{index}") + ending] = value
    rnn.load_state_dict(weights)
    return rnn.double()


@EVERY_KIND
def test_logits_equal_a_plain_torch_rnn_over_a_packed_batch(kind):
    model, ids = make(**KINDS[kind]), tokens(4, 7)
    lengths = torch.tensor([7, 3, 1, 6])
    mask = torch.arange(7) < lengths[:, None]
    packed = pack_padded_sequence(model.embed_tokens(ids), lengths, batch_first=True, enforce_sorted=False)
    outputs, state = plain_rnn(model)(packed)
    logits = model(ids, attention_mask=mask).logits
    if model.config.per_token:
        expected = torch.cat([model.score(row) for row in nn.utils.rnn.unpack_sequence(outputs)])
        assert logits.shape == (4, 7, 1)
        torch.testing.assert_close(logits[mask], expected, **CLOSE)
    else:
        h = state[0] if model.config.cell_type == "lstm" else state
        final = torch.cat([h[-2], h[-1]], dim=1) if model.config.bidirectional else h[-1]
        assert logits.shape == (4, 2)
        torch.testing.assert_close(logits, model.score(final), **CLOSE)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=15, deadline=None, derandomize=True)
@given(rows=st.lists(st.lists(st.booleans(), min_size=6, max_size=6).filter(any), min_size=1, max_size=4))
def test_padding_of_any_content_changes_no_score_and_no_gradient(kind, rows):
    model, mask = make(**KINDS[kind]), torch.tensor(rows)
    embeds = torch.randn(*mask.shape, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    embeds[~mask] *= 100.0
    embeds.requires_grad_()
    logits = model(inputs_embeds=embeds, attention_mask=mask).logits
    counted = logits[mask] if model.config.per_token else logits
    (gradient,) = torch.autograd.grad(counted.square().sum(), embeds)
    assert not gradient[~mask].any()
    for row, real in enumerate(mask):
        alone = embeds[row : row + 1, real].detach().requires_grad_()
        expected = model(inputs_embeds=alone).logits
        torch.testing.assert_close(logits[row, real] if logits.dim() == 3 else logits[row], expected[0], **CLOSE)
        (reference,) = torch.autograd.grad(expected.square().sum(), alone)
        torch.testing.assert_close(gradient[row, real], reference[0], **CLOSE)


@EVERY_KIND
def test_a_row_of_padding_depends_on_nothing(kind):
    model = make(**KINDS[kind])
    mask = torch.tensor([[0, 0, 0, 0], [1, 1, 1, 1]])
    one, other = (model(tokens(2, 4, seed=seed), attention_mask=mask).logits[0] for seed in (1, 2))
    if not model.config.per_token:
        assert torch.equal(one, other) and torch.equal(one, model.score.bias)


def test_a_token_s_score_does_not_see_what_follows():
    model, ids = make(per_token=True, num_hidden_layers=2), tokens(3, 6)
    changed = ids.clone()
    changed[:, 4:] = (changed[:, 4:] + 1) % VOCAB
    before, after = model(ids).logits, model(changed).logits
    assert torch.equal(before[:, :4], after[:, :4])
    assert (before[:, 4:] != after[:, 4:]).all()


def test_a_sequence_s_score_sees_every_token():
    for kind in ("gru", "both directions, 3 layers"):
        model, ids = make(**KINDS[kind]), tokens(1, 6)
        embeds = model.embed_tokens(ids).detach().requires_grad_()
        model(inputs_embeds=embeds).logits[0, 1].backward()
        assert (embeds.grad.abs().sum(dim=2) > 0).all()


def test_soft_tokens_score_like_token_ids():
    model, ids = make(), tokens(3, 6)
    soft = F.one_hot(ids, VOCAB).double() @ model.get_input_embeddings().weight
    torch.testing.assert_close(model(inputs_embeds=soft).logits, model(ids).logits, **CLOSE)


def test_losses():
    ids, mask = tokens(3, 4), torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0], [1, 1, 1, 0]])
    labels = torch.tensor([1, 0, 1])
    outputs = make()(ids, attention_mask=mask, labels=labels)
    torch.testing.assert_close(outputs.loss, F.cross_entropy(outputs.logits, labels))
    outputs = make(num_labels=1)(ids, attention_mask=mask, labels=labels)
    assert outputs.logits.shape == (3, 1)
    expected = F.binary_cross_entropy_with_logits(outputs.logits[:, 0], labels.double())
    torch.testing.assert_close(outputs.loss, expected)

    model, real = make(per_token=True), mask.bool()
    outputs = model(ids, attention_mask=mask, labels=labels)
    spread = labels[:, None].expand(3, 4)
    expected = F.binary_cross_entropy_with_logits(outputs.logits[..., 0][real], spread[real].double())
    torch.testing.assert_close(outputs.loss, expected)
    token_labels = torch.tensor([[1, 0, -100, 1], [0, 0, 1, 1], [-100, 1, 1, 0]])
    counts = real & (token_labels != -100)
    loss = model(ids, attention_mask=mask, labels=token_labels).loss
    expected = F.binary_cross_entropy_with_logits(outputs.logits[..., 0][counts], token_labels[counts].double())
    torch.testing.assert_close(loss, expected)


def test_dropout_works_in_training_only():
    model, ids = make(dropout=0.5, num_hidden_layers=2), tokens(3, 5)
    assert torch.equal(model(ids).logits, model(ids).logits)
    model.train()
    assert not torch.equal(model(ids).logits, model(ids).logits)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"per_token": True, "bidirectional": True}, ["per_token=True", "bidirectional=True", "has seen", "False"]),
        ({"cell_type": "rnn"}, ["cell_type='rnn'", "lstm, gru"]),
        ({"hidden_size": 0}, ["hidden_size=0", "at least 1"]),
        ({"num_hidden_layers": 0}, ["num_hidden_layers=0", "at least 1"]),
        ({"num_hidden_layers": "two"}, ["num_hidden_layers", "int", "two"]),
        ({"bidirectional": "yes"}, ["bidirectional", "bool", "yes"]),
        ({"dropout": -0.5}, ["dropout=-0.5", "[0, 1)"]),
        ({"initializer_range": 0}, ["initializer_range=0", "greater than 0"]),
    ],
)
def test_configuration_mistakes_name_field_value_and_remedy(settings, words):
    with pytest.raises((StrictDataclassClassValidationError, StrictDataclassFieldValidationError)) as caught:
        RNNDiscriminatorConfig(**settings)
    assert all(word in str(caught.value) for word in words), caught.value


@pytest.mark.parametrize("inputs", [{}, {"input_ids": tokens(1, 2), "inputs_embeds": torch.zeros(1, 2, 4)}])
def test_exactly_one_kind_of_input(inputs):
    with pytest.raises(ValueError, match="exactly one"):
        make()(**inputs)
