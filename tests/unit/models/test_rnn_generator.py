"""The recurrent generator: its arithmetic, its padding, its cache, and every way to generate from it."""

import math

import pytest
import torch
from huggingface_hub.errors import StrictDataclassClassValidationError, StrictDataclassFieldValidationError
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch import nn
from torch.nn import functional as F
from transformers import DynamicCache

from seqgan_hf.models import RNNGeneratorConfig, RNNGeneratorForCausalLM


VOCAB = 23
CLOSE = {"atol": 1e-12, "rtol": 0}
CELLS = pytest.mark.parametrize("cell_type", ["lstm", "gru"])
SHAPES = pytest.mark.parametrize(("cell_type", "layers"), [("lstm", 1), ("lstm", 2), ("gru", 1), ("gru", 3)])


def make(cell_type="lstm", layers=1, seed=0, **kwargs):
    """A generator in double precision, with weights so wide that every token and every state matters."""
    torch.manual_seed(seed)
    settings = {"embedding_size": 6, "hidden_size": 7, "initializer_range": 0.8, **kwargs}
    config = RNNGeneratorConfig(vocab_size=VOCAB, cell_type=cell_type, num_hidden_layers=layers, **settings)
    return RNNGeneratorForCausalLM(config).double().eval()


def tokens(*shape, seed=0):
    return torch.randint(0, VOCAB, shape, generator=torch.Generator().manual_seed(seed))


def plain_rnn(generator):
    """The recurrence as one `torch.nn.LSTM` or `torch.nn.GRU` of several layers, weights moved by renaming."""
    config = generator.config
    rnn = {"lstm": nn.LSTM, "gru": nn.GRU}[config.cell_type](
        config.embedding_size, config.hidden_size, config.num_hidden_layers, batch_first=True
    )
    weights = {
        name.replace("_l0", f"_l{index}"): value
        for index, layer in enumerate(generator.model.layers)
        for name, value in layer.state_dict().items()
    }
    rnn.load_state_dict(weights)
    return rnn.to(generator.dtype)


# The arithmetic


@SHAPES
def test_logits_equal_a_plain_torch_rnn(cell_type, layers):
    generator, ids = make(cell_type, layers), tokens(3, 8)
    for dtype, tolerance in ((torch.float64, 1e-12), (torch.float32, 5e-6)):
        generator = generator.to(dtype)
        states, _ = plain_rnn(generator)(generator.model.embed_tokens(ids))
        expected = F.linear(states, generator.lm_head.weight, generator.lm_head.bias)
        torch.testing.assert_close(generator(ids).logits, expected, atol=tolerance, rtol=0)


def test_lstm_follows_its_equations():
    generator, ids = make(), tokens(2, 5)
    layer = generator.model.layers[0]
    h = c = torch.zeros(2, 7, dtype=torch.float64)
    for position in range(5):
        gates = generator.model.embed_tokens(ids[:, position]) @ layer.weight_ih_l0.T + h @ layer.weight_hh_l0.T
        i, f, g, o = (gates + layer.bias_ih_l0 + layer.bias_hh_l0).chunk(4, dim=1)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        h = o.sigmoid() * c.tanh()
        logits = generator.lm_head(h)
        torch.testing.assert_close(generator(ids).logits[:, position], logits, **CLOSE)


def test_parameters_start_from_the_paper_s_normal_distribution():
    torch.manual_seed(0)
    generator = RNNGeneratorForCausalLM(RNNGeneratorConfig())
    for name, parameter in generator.named_parameters():
        values = parameter.detach().flatten().double().numpy()
        if "bias_hh" in name:
            assert not values.any()
        else:
            assert stats.kstest(values, stats.norm(0, 0.1).cdf).pvalue > 1e-3, name


def test_uniform_initializer():
    torch.manual_seed(0)
    generator = RNNGeneratorForCausalLM(RNNGeneratorConfig(initializer="uniform", initializer_range=0.05))
    values = generator.lm_head.weight.detach().flatten().double().numpy()
    assert stats.kstest(values, stats.uniform(-0.05, 0.1).cdf).pvalue > 1e-3


def test_trunk_and_output_layer_give_the_logits():
    generator, ids = make(layers=2), tokens(3, 6)
    outputs = generator.base_model(ids)
    assert outputs.last_hidden_state.shape == (3, 6, 7)
    assert len(outputs.past_key_values) == 2
    assert torch.equal(generator.get_output_embeddings()(outputs.last_hidden_state), generator(ids).logits)


def test_loss_is_the_shifted_cross_entropy_of_counted_labels():
    generator, ids = make().float(), tokens(4, 6)
    labels = ids.clone()
    labels[0, 3:] = -100
    outputs = generator(ids, labels=labels)
    expected = F.cross_entropy(outputs.logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), ignore_index=-100)
    torch.testing.assert_close(outputs.loss, expected)


def test_logits_to_keep():
    generator, ids = make(), tokens(2, 6)
    logits = generator(ids).logits
    torch.testing.assert_close(generator(ids, logits_to_keep=2).logits, logits[:, -2:], **CLOSE)
    chosen = generator(ids, logits_to_keep=torch.tensor([0, 3])).logits
    torch.testing.assert_close(chosen, logits[:, [0, 3]], **CLOSE)


def test_hidden_states_and_tuples():
    generator, ids = make(layers=2), tokens(2, 6)
    outputs = generator(ids, output_hidden_states=True)
    assert [state.shape[-1] for state in outputs.hidden_states] == [6, 7, 7]
    assert torch.equal(outputs.hidden_states[0], generator.model.embed_tokens(ids))
    assert torch.equal(generator.lm_head(outputs.hidden_states[-1]), outputs.logits)
    assert torch.equal(generator(ids, return_dict=False)[0], outputs.logits)
    assert generator(ids).hidden_states is None


def test_tied_embeddings_are_one_matrix():
    generator = make(embedding_size=7, tie_word_embeddings=True)
    assert generator.lm_head.weight is generator.model.embed_tokens.weight


def test_output_bias_is_optional():
    assert make(output_bias=False).lm_head.bias is None
    assert make().lm_head.bias is not None


def test_dropout_works_in_training_only_and_spares_the_recurrence():
    generator, ids = make(dropout=0.5), tokens(200, 4)
    assert torch.equal(generator(ids).logits, generator(ids).logits)
    generator.train()
    states = generator.model(ids).last_hidden_state
    assert 0.45 < (states == 0).float().mean().item() < 0.55
    generator.model.embed_tokens.weight.data.fill_(1.0)  # scaled by 1 / (1 - p), or dropped
    embedded = generator.model(ids, output_hidden_states=True).hidden_states[0]
    assert set(embedded.unique().tolist()) == {0.0, 2.0}
    generator.model.dropout.p = 0.0
    assert torch.equal(generator(ids).logits, generator.eval()(ids).logits)


def test_training_mode_returns_no_state_unless_asked():
    generator, ids = make().train(), tokens(2, 3)
    assert generator(ids).past_key_values is None
    assert generator(ids, use_cache=True).past_key_values.get_seq_length() == 3
    assert make(use_cache=False)(ids).past_key_values is None


def test_inputs_embeds_carry_gradients_as_token_ids_do():
    generator, ids = make(layers=2), tokens(3, 5)
    embeds = generator.get_input_embeddings()(ids).detach().requires_grad_()
    logits = generator(inputs_embeds=embeds).logits
    torch.testing.assert_close(logits, generator(ids).logits, **CLOSE)
    logits[:, 2].sum().backward()
    assert (embeds.grad[:, :3].abs().sum(dim=(0, 2)) > 0).all()
    assert not embeds.grad[:, 3:].any()


# Padding


def padded_case(generator, mask, seed=0):
    """Logits, final states and input gradients of padded rows; the same of each row alone, without its padding."""
    mask = torch.tensor(mask, dtype=torch.bool)
    embeds = torch.randn(*mask.shape, 6, generator=torch.Generator().manual_seed(seed)).double().requires_grad_()
    outputs = generator(inputs_embeds=embeds, attention_mask=mask.long(), use_cache=True)
    stateless = generator(inputs_embeds=embeds, attention_mask=mask, use_cache=False)
    gradients = [torch.autograd.grad(out.logits[mask].square().sum(), embeds)[0] for out in (outputs, stateless)]
    torch.testing.assert_close(*gradients, **CLOSE)
    for row, real in enumerate(mask):
        alone = embeds[row : row + 1, real].detach().requires_grad_()
        single = generator(inputs_embeds=alone, use_cache=True)
        (single_gradient,) = torch.autograd.grad(single.logits.square().sum(), alone)
        yield row, real, outputs, stateless, gradients[0], single, single_gradient


@SHAPES
def test_padding_changes_neither_logits_nor_states_nor_gradients(cell_type, layers):
    generator = make(cell_type, layers)
    mask = [[1, 1, 1, 1, 1], [0, 0, 1, 1, 1], [1, 1, 0, 0, 0], [1, 0, 1, 0, 1], [0, 1, 1, 1, 0], [0, 0, 0, 0, 1]]
    for row, real, outputs, stateless, gradient, single, single_gradient in padded_case(generator, mask):
        torch.testing.assert_close(outputs.logits[row, real], single.logits[0], **CLOSE)
        torch.testing.assert_close(stateless.logits[row, real], single.logits[0], **CLOSE)
        torch.testing.assert_close(gradient[row, real], single_gradient[0], **CLOSE)
        assert not gradient[row, ~real].any()
        for layer, single_layer in zip(outputs.past_key_values.layers, single.past_key_values.layers, strict=True):
            torch.testing.assert_close(layer.keys[row], single_layer.keys[0], **CLOSE)
            torch.testing.assert_close(layer.values[row], single_layer.values[0], **CLOSE)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(st.lists(st.lists(st.booleans(), min_size=6, max_size=6), min_size=1, max_size=4), st.integers(1, 5))
def test_any_mask_in_any_number_of_calls(rows, first):
    """One call, or two calls with the state handed over: the last output is that of the real tokens alone."""
    generator, mask = make(layers=2), torch.tensor(rows)
    ids = tokens(*mask.shape)
    with torch.no_grad():
        whole = generator(ids, attention_mask=mask, use_cache=True)
        cache = generator(ids[:, :first], attention_mask=mask[:, :first], use_cache=True).past_key_values
        rest = generator(ids[:, first:], attention_mask=mask, past_key_values=cache, use_cache=True)
        torch.testing.assert_close(rest.logits, whole.logits[:, first:], **CLOSE)
        for row, real in enumerate(mask):
            state = torch.zeros(1, 1, 7, dtype=torch.float64)
            if real.any():
                state = generator.base_model(ids[row : row + 1, real]).last_hidden_state[:, -1:]
            torch.testing.assert_close(whole.logits[row, -1:], generator.lm_head(state)[0], **CLOSE)


@CELLS
def test_a_padded_step_leaves_the_state_alone(cell_type):
    generator = make(cell_type, layers=2)
    before = generator(tokens(3, 4), use_cache=True)
    old = [(layer.keys, layer.values) for layer in before.past_key_values.layers]
    mask = torch.tensor([[1], [0], [1]])
    after = generator(tokens(3, 1), attention_mask=mask, past_key_values=before.past_key_values, use_cache=True)
    torch.testing.assert_close(after.logits[1, 0], before.logits[1, -1], **CLOSE)
    for (h, c), layer in zip(old, after.past_key_values.layers, strict=True):
        assert torch.equal(h[1], layer.keys[1]) and torch.equal(c[1], layer.values[1])
        assert not torch.equal(h[0], layer.keys[0])


# The state


@SHAPES
def test_one_token_at_a_time_equals_one_call(cell_type, layers):
    generator, ids = make(cell_type, layers), tokens(3, 7)
    whole, cache, steps = generator(ids).logits, None, []
    for position in range(7):
        outputs = generator(ids[:, position : position + 1], past_key_values=cache, use_cache=True)
        cache = outputs.past_key_values
        steps.append(outputs.logits)
        assert cache.get_seq_length() == position + 1
    torch.testing.assert_close(torch.cat(steps, dim=1), whole, **CLOSE)


@SHAPES
@pytest.mark.parametrize("rows", [[0, 0, 0, 1, 2, 2, 1], [2], [1, 0, 2], []])
def test_state_rows_are_repeated_dropped_and_reordered(cell_type, layers, rows):
    generator, ids, step, index = (
        make(cell_type, layers),
        tokens(3, 5),
        tokens(len(rows), 1),
        torch.tensor(rows).long(),
    )
    cache = generator(ids, use_cache=True).past_key_values
    cache.reorder_cache(index)
    logits = generator(step, past_key_values=cache, use_cache=True).logits[:, -1]
    expected = generator(torch.cat([ids[index], step], dim=1)).logits[:, -1]
    torch.testing.assert_close(logits, expected, **CLOSE)


@SHAPES
def test_gradients_pass_through_the_state(cell_type, layers):
    generator = make(cell_type, layers)
    embeds = torch.randn(2, 6, 6, generator=torch.Generator().manual_seed(0)).double().requires_grad_()
    (expected,) = torch.autograd.grad(generator(inputs_embeds=embeds).logits[:, -1].square().sum(), embeds)
    cache = None
    for position in range(6):
        outputs = generator(inputs_embeds=embeds[:, position : position + 1], past_key_values=cache, use_cache=True)
        cache = outputs.past_key_values
    (gradient,) = torch.autograd.grad(outputs.logits[:, -1].square().sum(), embeds)
    torch.testing.assert_close(gradient, expected, **CLOSE)
    assert expected[:, 0].abs().max() > 0


@CELLS
def test_parameter_gradients_of_single_steps_equal_those_of_one_call(cell_type):
    generator, ids = make(cell_type, 2), tokens(4, 6)
    expected = torch.autograd.grad(generator(ids).logits.square().mean(), list(generator.parameters()))
    cache, logits = None, []
    for position in range(6):
        outputs = generator(ids[:, position : position + 1], past_key_values=cache, use_cache=True)
        cache = outputs.past_key_values
        logits.append(outputs.logits)
    gradients = torch.autograd.grad(torch.cat(logits, dim=1).square().mean(), list(generator.parameters()))
    for gradient, reference in zip(gradients, expected, strict=True):
        torch.testing.assert_close(gradient, reference, **CLOSE)


def test_a_state_taken_out_of_the_cache_stays_as_it_was():
    generator, ids = make(), tokens(3, 4)
    cache = generator(ids, use_cache=True).past_key_values
    kept, copy = cache.layers[0].keys, cache.layers[0].keys.clone()
    generator(ids[:, :1], past_key_values=cache, use_cache=True)
    cache.reset()
    assert torch.equal(kept, copy)
    assert cache.get_seq_length() == 0
    fresh = generator(ids, past_key_values=cache, use_cache=True).logits
    torch.testing.assert_close(fresh, generator(ids).logits)


# Generation


WAYS = {
    "greedy": {"do_sample": False},
    "temperature": {"do_sample": True, "temperature": 0.7},
    "top_k": {"do_sample": True, "top_k": 4, "num_return_sequences": 3},
    "top_p": {"do_sample": True, "top_p": 0.8},
    "beams": {"num_beams": 3, "num_return_sequences": 2},
    "beam_sampling": {"num_beams": 3, "do_sample": True},
    "penalty": {"do_sample": False, "repetition_penalty": 1.5},
}


@CELLS
@pytest.mark.parametrize("way", WAYS)
def test_generation_with_and_without_the_state_agree(cell_type, way):
    generator, prompt = make(cell_type, 2, pad_token_id=1, eos_token_id=2), tokens(3, 4)
    mask = torch.tensor([[0, 0, 1, 1], [1, 1, 1, 1], [0, 1, 1, 1]])
    written = []
    for use_cache in (True, False):
        torch.manual_seed(5)
        options = {"max_new_tokens": 8, "use_cache": use_cache, **WAYS[way]}
        written.append(generator.generate(prompt, attention_mask=mask, **options))
    assert torch.equal(*written)
    assert len(written[0]) == 3 * WAYS[way].get("num_return_sequences", 1)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("way", ["greedy", "beams"])
def test_a_padded_prompt_is_continued_like_the_prompt_alone(side, way):
    generator = make(layers=2, pad_token_id=1)
    prompts = [tokens(length, seed=length) for length in (1, 3, 5)]
    options = {"max_new_tokens": 6, "min_new_tokens": 6, "do_sample": False, "num_beams": 3 if way == "beams" else 1}
    width = 5
    batch, mask = torch.ones(3, width, dtype=torch.long), torch.zeros(3, width, dtype=torch.long)
    for row, prompt in enumerate(prompts):
        place = slice(width - len(prompt), width) if side == "left" else slice(0, len(prompt))
        batch[row, place], mask[row, place] = prompt, 1
    together = generator.generate(batch, attention_mask=mask, **options)[:, width:]
    for row, prompt in enumerate(prompts):
        assert torch.equal(together[row], generator.generate(prompt[None], **options)[0, len(prompt) :])


def test_sampling_follows_the_model_s_distribution():
    generator = make(bos_token_id=3)
    torch.manual_seed(0)
    drawn = generator.generate(max_new_tokens=1, do_sample=True, num_return_sequences=4000, top_k=0)[:, 1]
    expected = generator(torch.tensor([[3]])).logits[0, 0].softmax(-1)
    counts = torch.bincount(drawn, minlength=VOCAB)
    keep = expected * 4000 > 5
    statistic = ((counts - 4000 * expected).square() / (4000 * expected))[keep].sum().item()
    assert stats.chi2(keep.sum().item() - 1).sf(statistic) > 1e-3


def test_generation_goes_on_from_a_returned_state():
    generator, prompt = make(layers=2), tokens(2, 3)
    options = {"do_sample": False, "return_dict_in_generate": True}
    whole = generator.generate(prompt, max_new_tokens=8, **options).sequences
    part = generator.generate(prompt, max_new_tokens=4, **options)
    cache = part.past_key_values
    rest = generator.generate(part.sequences, past_key_values=cache, max_new_tokens=4, **options).sequences
    assert torch.equal(rest, whole)


def test_generation_from_embeddings_and_from_nothing():
    generator, prompt = make(bos_token_id=3), tokens(2, 3)
    embeds = generator.get_input_embeddings()(prompt)
    new = generator.generate(inputs_embeds=embeds, max_new_tokens=5, do_sample=False)
    assert torch.equal(new, generator.generate(prompt, max_new_tokens=5, do_sample=False)[:, 3:])
    assert generator.generate(max_new_tokens=2)[0, 0] == 3


# Mistakes


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"cell_type": "elman"}, ["cell_type='elman'", "lstm, gru"]),
        ({"initializer": "zeros"}, ["initializer='zeros'", "normal, uniform"]),
        ({"hidden_size": 0}, ["hidden_size=0", "at least 1"]),
        ({"num_hidden_layers": -1}, ["num_hidden_layers=-1", "at least 1"]),
        ({"vocab_size": "many"}, ["vocab_size", "int", "many"]),
        ({"embedding_size": 3.5}, ["embedding_size", "int", "3.5"]),
        ({"use_cache": 1}, ["use_cache", "bool", "1"]),
        ({"dropout": 1.0}, ["dropout=1.0", "[0, 1)"]),
        ({"dropout": math.nan}, ["dropout=nan", "[0, 1)"]),
        ({"initializer_range": 0.0}, ["initializer_range=0.0", "greater than 0"]),
        ({"bos_token_id": 5000}, ["bos_token_id=5000", "vocab_size=5000"]),
        ({"eos_token_id": [1, -2]}, ["eos_token_id=[1, -2]", "vocab_size - 1"]),
        ({"tie_word_embeddings": True, "hidden_size": 64}, ["embedding_size=32", "hidden_size=64", "equal"]),
    ],
)
def test_configuration_mistakes_name_field_value_and_remedy(settings, words):
    with pytest.raises((StrictDataclassClassValidationError, StrictDataclassFieldValidationError)) as caught:
        RNNGeneratorConfig(**settings)
    assert all(word in str(caught.value) for word in words), caught.value


@pytest.mark.parametrize("inputs", [{}, {"input_ids": tokens(1, 2), "inputs_embeds": torch.zeros(1, 2, 6)}])
def test_exactly_one_kind_of_input(inputs):
    with pytest.raises(ValueError, match="exactly one"):
        make()(**inputs)


def test_a_cache_of_another_kind_is_refused():
    with pytest.raises(ValueError, match="a cache of type DynamicCache: expected the StateCache"):
        make()(tokens(1, 2), past_key_values=DynamicCache())
