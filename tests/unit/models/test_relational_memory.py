"""The relational memory: its arithmetic row by row, its padding, its cache, and every way to generate from it."""

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

from seqgan_hf.generation.decoder import has_plain_head
from seqgan_hf.models import RelationalMemoryConfig, RelationalMemoryForCausalLM


VOCAB, WIDTH = 23, 6
CLOSE = {"atol": 1e-11, "rtol": 0}
KINDS = {
    "one_slot": {},
    "slots": {"mem_slots": 3, "key_size": 5, "attention_mlp_layers": 3},
    "blocks": {"num_blocks": 2, "gate_style": "memory", "input_bias": 0.3, "forget_bias": 0.5},
    "by_row": {"mem_slots": 2, "layer_norm": "row", "attention_scale": "key", "num_heads": 1},
    "by_row_blocks": {"num_blocks": 2, "layer_norm": "row", "attention_mlp_layers": 1},
}
EVERY_KIND = pytest.mark.parametrize("kind", KINDS)


def make(kind="one_slot", seed=0, **kwargs):
    """A generator in double precision, with weights so wide that every token and every memory matters."""
    torch.manual_seed(seed)
    sizes = {"embedding_size": WIDTH, "head_size": 4, **KINDS[kind], **kwargs}
    model = RelationalMemoryForCausalLM(RelationalMemoryConfig(vocab_size=VOCAB, **sizes)).double().eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.6)
    return model


def tokens(*shape, seed=0):
    return torch.randint(0, VOCAB, shape, generator=torch.Generator().manual_seed(seed))


def plain_norm(rows, weight, bias, config):
    """Of a list of vectors: moments over all of them, or of each."""
    eps = 1e-12 if config.layer_norm == "joint" else 1e-5
    groups = [torch.cat(rows)] * len(rows) if config.layer_norm == "joint" else rows
    scaled = zip(rows, groups, strict=True)
    return [(row - g.mean()) / (g.var(correction=0) + eps).sqrt() * weight + bias for row, g in scaled]


def plain_attention(queries_keys_values, config):
    """Head by head and row by row: a list of vectors of all heads to a list of vectors."""
    key = config.head_size if config.key_size is None else config.key_size
    scale = (2 * key + config.head_size if config.attention_scale == "qkv" else key) ** -0.5
    heads = [row.chunk(config.num_heads) for row in queries_keys_values]
    attended = []
    for row in heads:
        read = []
        for head, own in enumerate(row):
            scores = torch.stack([scale * own[:key] @ other[head][key : 2 * key] for other in heads])
            shares = scores.softmax(dim=0)
            read.append(sum(share * other[head][2 * key :] for share, other in zip(shares, heads, strict=True)))
        attended.append(torch.cat(read))
    return attended


def plain_step(core, memory, embedded):
    """One step of one sequence, as the paper has it: memory (N, D) and embedding (E,) to (N, D)."""
    config, x = core.config, core.input_weight @ embedded + core.input_bias
    rows = [*memory, x]
    for block in range(config.num_blocks):
        norms = [
            (weight[block], bias[block], config)
            for weight, bias in (
                (core.qkv_norm_weight, core.qkv_norm_bias),
                (core.attention_norm_weight, core.attention_norm_bias),
                (core.mlp_norm_weight, core.mlp_norm_bias),
            )
        ]
        attended = plain_attention(plain_norm([core.qkv_weight[block] @ row for row in rows], *norms[0]), config)
        rows = plain_norm([row + read for row, read in zip(rows, attended, strict=True)], *norms[1])
        hidden = rows
        for layer in range(config.attention_mlp_layers):
            hidden = [each.relu() for each in hidden] if layer else hidden
            hidden = [core.mlp_weight[block, layer] @ each + core.mlp_bias[block, layer] for each in hidden]
        rows = plain_norm([row + each for row, each in zip(rows, hidden, strict=True)], *norms[2])
    new = []
    for old, candidate in zip(memory, rows, strict=False):  # without the input's row
        i, f = (core.memory_gate_weight @ old.tanh() + core.input_gate_weight @ x).chunk(2)
        gated = (i + config.input_bias).sigmoid() * candidate.tanh()
        new.append(gated + (f + config.forget_bias).sigmoid() * old)
    return torch.stack(new)


def plain_states(generator, embedded):
    """Memories of one sequence (T, E), side by side: (T, N * D)."""
    memory, states = torch.eye(generator.config.mem_slots, generator.config.memory_size).double(), []
    for vector in embedded:
        memory = plain_step(generator.model.memory, memory, vector)
        states.append(memory.flatten())
    return torch.stack(states)


# The arithmetic


@EVERY_KIND
def test_memories_and_gradients_equal_those_of_single_steps_row_by_row(kind):
    generator = make(kind)
    embeds = torch.randn(3, 5, WIDTH, generator=torch.Generator().manual_seed(0)).double().requires_grad_()
    wanted = [embeds, *generator.model.memory.parameters()]
    states = generator.base_model(inputs_embeds=embeds).last_hidden_state
    expected = torch.stack([plain_states(generator, row) for row in embeds])
    torch.testing.assert_close(states, expected, **CLOSE)
    weights = torch.randn(states.shape, generator=torch.Generator().manual_seed(1)).double()
    gradients = torch.autograd.grad((states * weights).sum(), wanted)
    references = torch.autograd.grad((expected * weights).sum(), wanted)
    for gradient, reference in zip(gradients, references, strict=True):
        torch.testing.assert_close(gradient, reference, atol=1e-9, rtol=1e-9)


def test_one_step_of_one_head_and_one_slot_by_hand():
    """D = 2, memory (1, 0), x = (2, 1): queries are zero, so that both rows read the mean of the values."""
    generator = make(embedding_size=1, num_heads=1, head_size=2, key_size=1, attention_mlp_layers=1)
    core = generator.model.memory
    for parameter in core.parameters():
        nn.init.zeros_(parameter)
    core.input_weight.data, core.input_bias.data = (
        torch.tensor([[2.0], [0.0]], dtype=torch.float64),
        torch.tensor([0.0, 1.0], dtype=torch.float64),
    )
    core.qkv_weight.data[0, 2:] = torch.eye(2).double()  # values are the rows themselves
    core.qkv_norm_weight.data[0, 2:] = 1.0
    core.attention_norm_weight.data.fill_(1.0)
    core.mlp_norm_weight.data.fill_(1.0)
    core.mlp_bias.data[0, 0] = torch.tensor([0.5, 0.0], dtype=torch.float64)
    core.memory_gate_weight.data[:, 0] = torch.tensor([1.0, 2.0, 3.0, 4.0], dtype=torch.float64)
    core.input_gate_weight.data[:, 1] = torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=torch.float64)

    # the eight numbers of Q are 0, 0, 1, 0 and 0, 0, 2, 1: mean 1/2, variance 1/2
    root = math.sqrt(0.5)
    read = [((1 - 0.5) / root + (2 - 0.5) / root) / 2, ((0 - 0.5) / root + (1 - 0.5) / root) / 2]  # sqrt(2), 0
    rows = [1 + read[0], 0 + read[1], 2 + read[0], 1 + read[1]]
    for bias in ((0.0, 0.0), (0.5, 0.0)):  # what the network adds comes before the second of these normalizations
        rows = [row + bias[index % 2] for index, row in enumerate(rows)]
        mean = sum(rows) / 4
        deviation = math.sqrt(sum((row - mean) ** 2 for row in rows) / 4)
        rows = [(row - mean) / deviation for row in rows]

    def sigmoid(value):
        return 1 / (1 + math.exp(-value))

    t = math.tanh(1.0)
    expected = [
        sigmoid(t + 0.1) * math.tanh(rows[0]) + sigmoid(3 * t + 0.3 + 1) * 1.0,
        sigmoid(2 * t + 0.2) * math.tanh(rows[1]) + sigmoid(4 * t + 0.4 + 1) * 0.0,
    ]
    state = generator.base_model(inputs_embeds=torch.ones(1, 1, 1).double()).last_hidden_state[0, 0]
    assert state.tolist() == pytest.approx(expected, abs=1e-12)


def test_sizes_and_starts_are_those_of_relgan():
    torch.manual_seed(0)
    generator = RelationalMemoryForCausalLM(RelationalMemoryConfig())
    core = generator.model.memory
    assert sum(parameter.numel() for parameter in core.parameters()) == 2_382_336
    assert sum(parameter.numel() for parameter in generator.parameters()) == 5_107_336
    starts = {
        generator.model.embed_tokens.weight: 5000**-0.5,
        core.input_weight: 32**-0.5,
        core.qkv_weight: 512**-0.5,
        core.mlp_weight: 512**-0.5,
        core.memory_gate_weight: 512**-0.5,
        generator.lm_head.weight: 512**-0.5,
    }
    for parameter, scale in starts.items():
        values = parameter.detach().flatten()[:50_000].double().numpy()
        assert stats.kstest(values, stats.truncnorm(-2, 2, scale=scale).cdf).pvalue > 1e-3
    for name, parameter in generator.named_parameters():
        if parameter.dim() <= 2 and name.split("_")[-1] in ("weight", "bias") and ("norm" in name or "bias" in name):
            assert (parameter == (1.0 if name.endswith("norm_weight") else 0.0)).all(), name


def test_trunk_and_output_layer_give_the_logits():
    generator, ids = make("slots"), tokens(3, 6)
    outputs = generator.base_model(ids)
    assert outputs.last_hidden_state.shape == (3, 6, 3 * 8)
    assert torch.equal(generator.get_output_embeddings()(outputs.last_hidden_state), generator(ids).logits)
    assert has_plain_head(generator)


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
    generator, ids = make(), tokens(2, 6)
    outputs = generator(ids, output_hidden_states=True)
    assert torch.equal(outputs.hidden_states[0], generator.model.embed_tokens(ids))
    assert torch.equal(generator.lm_head(outputs.hidden_states[-1]), outputs.logits)
    assert torch.equal(generator(ids, return_dict=False)[0], outputs.logits)
    assert generator(ids).hidden_states is None


def test_training_mode_returns_no_state_unless_asked():
    generator, ids = make().train(), tokens(2, 3)
    assert generator(ids).past_key_values is None
    assert generator(ids, use_cache=True).past_key_values.get_seq_length() == 3
    assert make(use_cache=False)(ids).past_key_values is None


def test_inputs_embeds_carry_gradients_as_token_ids_do():
    generator, ids = make("slots"), tokens(3, 5)
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
    embeds = torch.randn(*mask.shape, WIDTH, generator=torch.Generator().manual_seed(seed)).double().requires_grad_()
    outputs = generator(inputs_embeds=embeds, attention_mask=mask.long(), use_cache=True)
    stateless = generator(inputs_embeds=embeds, attention_mask=mask, use_cache=False)
    gradients = [torch.autograd.grad(out.logits[mask].square().sum(), embeds)[0] for out in (outputs, stateless)]
    torch.testing.assert_close(*gradients, **CLOSE)
    for row, real in enumerate(mask):
        alone = embeds[row : row + 1, real].detach().requires_grad_()
        single = generator(inputs_embeds=alone, use_cache=True)
        (single_gradient,) = torch.autograd.grad(single.logits.square().sum(), alone)
        yield row, real, outputs, stateless, gradients[0], single, single_gradient


@EVERY_KIND
def test_padding_changes_neither_logits_nor_states_nor_gradients(kind):
    generator = make(kind)
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
    generator, mask = make("slots"), torch.tensor(rows)
    ids = tokens(*mask.shape)
    with torch.no_grad():
        whole = generator(ids, attention_mask=mask, use_cache=True)
        cache = generator(ids[:, :first], attention_mask=mask[:, :first], use_cache=True).past_key_values
        rest = generator(ids[:, first:], attention_mask=mask, past_key_values=cache, use_cache=True)
        torch.testing.assert_close(rest.logits, whole.logits[:, first:], **CLOSE)
        for row, real in enumerate(mask):
            state = torch.eye(3, 8, dtype=torch.float64).view(1, 1, 24)
            if real.any():
                state = generator.base_model(ids[row : row + 1, real]).last_hidden_state[:, -1:]
            torch.testing.assert_close(whole.logits[row, -1:], generator.lm_head(state)[0], **CLOSE)


@EVERY_KIND
def test_a_padded_step_leaves_the_state_alone(kind):
    generator = make(kind)
    before = generator(tokens(3, 4), use_cache=True)
    old = [(layer.keys, layer.values) for layer in before.past_key_values.layers]
    mask = torch.tensor([[1], [0], [1]])
    after = generator(tokens(3, 1), attention_mask=mask, past_key_values=before.past_key_values, use_cache=True)
    torch.testing.assert_close(after.logits[1, 0], before.logits[1, -1], **CLOSE)
    for (h, c), layer in zip(old, after.past_key_values.layers, strict=True):
        assert torch.equal(h[1], layer.keys[1]) and torch.equal(c[1], layer.values[1])
        assert not torch.equal(h[0], layer.keys[0])


# The state


@EVERY_KIND
def test_one_token_at_a_time_equals_one_call(kind):
    generator, ids = make(kind), tokens(3, 7)
    whole, cache, steps = generator(ids).logits, None, []
    for position in range(7):
        outputs = generator(ids[:, position : position + 1], past_key_values=cache, use_cache=True)
        cache = outputs.past_key_values
        steps.append(outputs.logits)
        assert cache.get_seq_length() == position + 1
    torch.testing.assert_close(torch.cat(steps, dim=1), whole, **CLOSE)


@EVERY_KIND
@pytest.mark.parametrize("rows", [[0, 0, 0, 1, 2, 2, 1], [2], [1, 0, 2], []])
def test_state_rows_are_repeated_dropped_and_reordered(kind, rows):
    generator, ids, step, index = (
        make(kind),
        tokens(3, 5),
        tokens(len(rows), 1),
        torch.tensor(rows).long(),
    )
    cache = generator(ids, use_cache=True).past_key_values
    cache.reorder_cache(index)
    logits = generator(step, past_key_values=cache, use_cache=True).logits[:, -1]
    expected = generator(torch.cat([ids[index], step], dim=1)).logits[:, -1]
    torch.testing.assert_close(logits, expected, **CLOSE)


@EVERY_KIND
def test_gradients_pass_through_the_state(kind):
    generator = make(kind)
    embeds = torch.randn(2, 6, WIDTH, generator=torch.Generator().manual_seed(0)).double().requires_grad_()
    (expected,) = torch.autograd.grad(generator(inputs_embeds=embeds).logits[:, -1].square().sum(), embeds)
    cache = None
    for position in range(6):
        outputs = generator(inputs_embeds=embeds[:, position : position + 1], past_key_values=cache, use_cache=True)
        cache = outputs.past_key_values
    (gradient,) = torch.autograd.grad(outputs.logits[:, -1].square().sum(), embeds)
    torch.testing.assert_close(gradient, expected, **CLOSE)
    assert expected[:, 0].abs().max() > 0


@EVERY_KIND
def test_parameter_gradients_of_single_steps_equal_those_of_one_call(kind):
    generator, ids = make(kind), tokens(4, 6)
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


@EVERY_KIND
@pytest.mark.parametrize("way", WAYS)
def test_generation_with_and_without_the_state_agree(kind, way):
    generator, prompt = make(kind, pad_token_id=1, eos_token_id=2), tokens(3, 4)
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
    generator = make("slots", pad_token_id=1)
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
    generator, prompt = make("slots"), tokens(2, 3)
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
    ("wrong", "words"),
    [
        ({"layer_norm": "batch"}, ["layer_norm='batch'", "joint, row"]),
        ({"attention_scale": "none"}, ["attention_scale='none'", "qkv, key"]),
        ({"gate_style": "none"}, ["gate_style='none'", "unit, memory"]),
        ({"mem_slots": 0}, ["mem_slots=0", "at least 1"]),
        ({"key_size": 0}, ["key_size=0", "at least 1"]),
        ({"head_size": 3.5}, ["head_size", "int", "3.5"]),
        ({"tie_word_embeddings": True}, ["tie_word_embeddings=True", "expected False"]),
        ({"eos_token_id": [1, -2]}, ["eos_token_id=[1, -2]", "vocab_size - 1"]),
    ],
)
def test_configuration_mistakes_name_field_value_and_remedy(wrong, words):
    with pytest.raises((StrictDataclassClassValidationError, StrictDataclassFieldValidationError)) as caught:
        RelationalMemoryConfig(**wrong)
    assert all(word in str(caught.value) for word in words), caught.value


@pytest.mark.parametrize("inputs", [{}, {"input_ids": tokens(1, 2), "inputs_embeds": torch.zeros(1, 2, WIDTH)}])
def test_exactly_one_kind_of_input(inputs):
    with pytest.raises(ValueError, match="exactly one"):
        make()(**inputs)


def test_a_cache_of_another_kind_is_refused():
    with pytest.raises(ValueError, match="a cache of type DynamicCache: expected the StateCache"):
        make()(tokens(1, 2), past_key_values=DynamicCache())
