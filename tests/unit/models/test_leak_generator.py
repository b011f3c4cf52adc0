"""The generator of LeakGAN: features of prefixes, goals, the cache, and what it refuses."""

import pytest
import torch
from huggingface_hub.errors import StrictDataclassClassValidationError, StrictDataclassFieldValidationError
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F
from transformers import AutoModel, DynamicCache

from seqgan_hf.generation.likelihood import token_logprobs
from seqgan_hf.models import (
    CNNDiscriminatorConfig,
    CNNDiscriminatorForSequenceClassification,
    LeakGeneratorConfig,
    LeakGeneratorForCausalLM,
    LeakGeneratorModel,
    RNNGeneratorConfig,
    RNNGeneratorForCausalLM,
)
from seqgan_hf.samples import Samples


VOCAB, BOS = 23, 0
FEATURES = {"embedding_size": 3, "filter_sizes": [1, 2, 4, 7], "num_filters": [3, 4, 5, 2]}
CLOSE = {"atol": 1e-10, "rtol": 1e-10}


def make(**more) -> LeakGeneratorForCausalLM:
    """In double precision, with weights so wide that every token, state and goal matters."""
    torch.manual_seed(0)
    sizes = {"embedding_size": 6, "hidden_size": 5, "goal_size": 3, "goal_steps": 3, "initializer_range": 0.7}
    config = LeakGeneratorConfig(vocab_size=VOCAB, **{"discriminator_config": FEATURES, **sizes, **more})
    return LeakGeneratorForCausalLM(config).double().eval()


def make_discriminator(**more) -> CNNDiscriminatorForSequenceClassification:
    torch.manual_seed(1)
    config = CNNDiscriminatorConfig(vocab_size=VOCAB, **(FEATURES | more))
    model = CNNDiscriminatorForSequenceClassification(config).double().eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.5)
    return model


def tokens(*shape, seed=0):
    return torch.randint(0, VOCAB, shape, generator=torch.Generator().manual_seed(seed))


def with_start(ids):
    return torch.cat([torch.full((len(ids), 1), BOS), ids], dim=1)


def read_by_the_score(discriminator, ids, mask=None):
    """What the last layer is given, (B, F)."""
    seen = []
    hook = discriminator.score.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    discriminator(ids, attention_mask=mask)
    hook.remove()
    return seen[0]


# --- Features of prefixes --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("length", [1, 3, 6, 7, 8, 12])
def test_features_of_prefixes_are_those_of_each_prefix_alone(length):
    """Shorter and longer than the windows of 1, 2, 4 and 7 tokens, and of no token at all."""
    discriminator, ids = make_discriminator(), tokens(4, length)
    found = discriminator.prefix_features(ids)
    assert found.shape == (4, length + 1, 14)
    nothing = read_by_the_score(discriminator, ids, torch.zeros_like(ids))
    torch.testing.assert_close(found[:, 0], nothing, **CLOSE)
    for i in range(1, length + 1):
        torch.testing.assert_close(found[:, i], read_by_the_score(discriminator, ids[:, :i]), **CLOSE)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(data=st.data(), lengths=st.lists(st.integers(1, 9), min_size=1, max_size=4), extra=st.integers(0, 3))
def test_padding_changes_no_features_of_prefixes(data, lengths, extra):
    discriminator, width = make_discriminator(), max(lengths) + extra
    ids, mask = tokens(len(lengths), width), torch.zeros(len(lengths), width, dtype=torch.bool)
    for row, length in enumerate(lengths):
        mask[row, data.draw(st.permutations(range(width)))[:length]] = True
    found = discriminator.prefix_features(ids, mask.long())
    for row, real in enumerate(mask):
        alone = discriminator.prefix_features(ids[row : row + 1, real])[0]
        torch.testing.assert_close(found[row, : len(alone)], alone, **CLOSE)
        torch.testing.assert_close(found[row, len(alone) :], alone[-1:].expand(width + 1 - len(alone), -1), **CLOSE)


def test_features_of_prefixes_carry_gradients():
    discriminator, ids = make_discriminator(), tokens(3, 9)
    wanted = [discriminator.embed_tokens.weight, *discriminator.filters.parameters()]
    found = torch.autograd.grad(discriminator.prefix_features(ids)[:, -1].square().sum(), wanted)
    expected = torch.autograd.grad(read_by_the_score(discriminator, ids).square().sum(), wanted)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, **CLOSE)


@pytest.mark.parametrize("cut", [1, 2, 5, 8, 9])
def test_the_generator_reads_what_the_discriminator_would_in_any_number_of_calls(cut):
    generator, discriminator, ids = make(), make_discriminator(), tokens(4, 11)
    generator.take_features(discriminator)
    expected, sequences = discriminator.prefix_features(ids), with_start(ids)
    features, goals = generator.base_model.goals(sequences)
    torch.testing.assert_close(features, expected, **CLOSE)
    cache = generator(sequences[:, :cut], use_cache=True).past_key_values
    rest, goals_of_rest = generator.base_model.goals(sequences[:, cut:], cache)
    torch.testing.assert_close(rest, expected[:, cut:], **CLOSE)
    torch.testing.assert_close(goals_of_rest, goals[:, cut:], **CLOSE)


# --- Goals and logits ------------------------------------------------------------------------------------------------


def test_logits_follow_the_equations_of_the_paper():
    generator, ids = make(), with_start(tokens(2, 7))
    model = generator.model
    features, _ = model.goals(ids)
    manager, _ = model.manager(features)
    goals = F.normalize(model.goal(manager), dim=2)
    hidden, _ = model.worker(model.embed_tokens(ids))
    matrix = generator.lm_head.weight  # of [w x h, w]
    weight, bias = matrix[:, : 3 * 5].view(VOCAB, 3, 5), matrix[:, 3 * 5 :]
    for position in range(8):
        block = position // 3
        in_force = model.first_goal if block == 0 else goals[:, 3 * (block - 1) : 3 * block].sum(dim=1)
        projected = F.normalize(in_force @ model.projection.weight.T, dim=-1).expand(2, 3)
        actions = torch.einsum("vkh,bh->bvk", weight, hidden[:, position]) + bias  # O (B, V, k)
        expected = torch.einsum("bvk,bk->bv", actions, projected)
        torch.testing.assert_close(generator(ids).logits[:, position], expected, **CLOSE)


def test_with_a_constant_goal_it_is_a_plain_recurrent_generator():
    generator, ids = make(), with_start(tokens(3, 9))
    model = generator.model
    with torch.no_grad():
        model.goal.weight.zero_()
        model.goal.bias.copy_(model.first_goal)
    plain = RNNGeneratorForCausalLM(RNNGeneratorConfig(vocab_size=VOCAB, embedding_size=6, hidden_size=5)).double()
    weights = F.normalize(model.first_goal @ model.projection.weight.T, dim=0)
    matrix = generator.lm_head.weight
    with torch.no_grad():
        plain.model.embed_tokens.weight.copy_(model.embed_tokens.weight)
        plain.model.layers[0].load_state_dict(model.worker.state_dict())
        plain.lm_head.weight.copy_(torch.einsum("vkh,k->vh", matrix[:, :15].view(VOCAB, 3, 5), weights))
        plain.lm_head.bias.copy_(matrix[:, 15:] @ weights)
    torch.testing.assert_close(generator(ids).logits, plain(ids).logits, **CLOSE)


def test_the_loss_on_labels_trains_the_worker_only():
    generator, ids = make().train(), with_start(tokens(3, 9))
    generator(ids, labels=ids).loss.backward()
    trained = {name for name, parameter in generator.named_parameters() if parameter.grad is not None}
    worker = {f"model.worker.{name}" for name, _ in generator.model.worker.named_parameters()}
    assert trained == worker | {"model.embed_tokens.weight", "model.projection.weight", "lm_head.weight"}
    assert not any("leak" in name for name, _ in generator.named_parameters()), "it is no parameter"


# --- The cache -------------------------------------------------------------------------------------------------------


def test_log_probabilities_of_single_steps_are_those_of_whole_sequences():
    generator, ids = make(), tokens(4, 10)
    samples = Samples(torch.full((4, 1), BOS), ids, torch.ones_like(ids, dtype=torch.bool))
    cache, found, sequences = None, [], with_start(ids)
    for position in range(10):
        outputs = generator(sequences[:, position : position + 1], past_key_values=cache, use_cache=True)
        cache = outputs.past_key_values
        found.append(outputs.logits[:, 0].log_softmax(dim=1).gather(1, ids[:, position : position + 1]))
    torch.testing.assert_close(torch.cat(found, dim=1), token_logprobs(generator, samples).double(), rtol=0, atol=1e-6)
    assert len(cache) == 4 and cache.get_seq_length() == 10


@pytest.mark.parametrize("rows", [[0, 0, 0, 1, 2, 2, 1], [2], [1, 0, 2], []])
@pytest.mark.parametrize("length", [1, 4, 9])
def test_rows_of_the_cache_are_repeated_dropped_and_reordered(rows, length):
    generator, ids, step = make(), with_start(tokens(3, length)), tokens(len(rows), 1)
    index = torch.tensor(rows).long()
    cache = generator(ids, use_cache=True).past_key_values
    cache.reorder_cache(index)
    logits = generator(step, past_key_values=cache, use_cache=True).logits[:, -1]
    torch.testing.assert_close(logits, generator(torch.cat([ids[index], step], dim=1)).logits[:, -1], **CLOSE)


def test_a_cache_begins_anew_after_a_reset():
    generator, ids = make(), with_start(tokens(3, 4))
    cache = generator(ids, use_cache=True).past_key_values
    cache.reset()
    assert cache.get_seq_length() == 0
    torch.testing.assert_close(generator(ids, past_key_values=cache, use_cache=True).logits, generator(ids).logits)


WAYS = [{"do_sample": False}, {"do_sample": True, "num_return_sequences": 2}, {"num_beams": 3}]


@pytest.mark.parametrize("way", WAYS)
def test_generation_with_and_without_the_cache_agree(way):
    generator, written = make(pad_token_id=1, eos_token_id=2), []
    for use_cache in (True, False):
        torch.manual_seed(5)
        written.append(generator.generate(with_start(tokens(3, 3)), max_new_tokens=8, use_cache=use_cache, **way))
    assert torch.equal(*written)


# --- Saved, and taken over -------------------------------------------------------------------------------------------


def test_saved_it_keeps_the_features_and_the_trunk_loads_alone(tmp_path):
    generator, ids = make(), with_start(tokens(3, 9))
    generator.take_features(make_discriminator())
    generator.save_pretrained(tmp_path)
    loaded = LeakGeneratorForCausalLM.from_pretrained(tmp_path, dtype=torch.float64)
    assert all(torch.equal(one, other) for one, other in zip(generator.buffers(), loaded.buffers(), strict=True))
    torch.testing.assert_close(loaded(ids).logits, generator(ids).logits, **CLOSE)
    trunk = AutoModel.from_pretrained(tmp_path, dtype=torch.float64)
    assert type(trunk) is LeakGeneratorModel
    torch.testing.assert_close(trunk(ids).last_hidden_state, generator.model(ids).last_hidden_state, **CLOSE)


def test_a_discriminator_of_other_sizes_is_refused():
    expected = r"filters.3.weight of the discriminator \w+ is of shape \(9, 21\): expected a tensor of shape \(2, 21\)"
    with pytest.raises(ValueError, match=expected):
        make().take_features(make_discriminator(num_filters=[3, 4, 5, 9]))
    with pytest.raises(ValueError, match=r"filters.3.weight of the discriminator \w+ is missing"):
        make().take_features(make_discriminator(filter_sizes=[1, 2, 4], num_filters=[3, 4, 5]))


# --- Mistakes --------------------------------------------------------------------------------------------------------


def test_padding_before_a_real_token_is_refused_and_padding_behind_changes_nothing():
    generator, ids = make(), with_start(tokens(2, 4))
    with pytest.raises(ValueError, match="padding before a real token: expected prompts of one length") as error:
        generator(ids, attention_mask=torch.tensor([[1, 1, 1, 1, 1], [0, 1, 1, 1, 1]]))
    assert len(str(error.value).splitlines()) == 1
    behind = generator(ids, attention_mask=torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])).logits
    torch.testing.assert_close(behind[1, :3], generator(ids[1:, :3]).logits[0], **CLOSE)


def test_another_vocabulary_another_cache_and_assistance_are_refused():
    generator, ids = make(), with_start(tokens(2, 4))
    with pytest.raises(
        ValueError, match="another vocabulary for a leak generator: expected that of the discriminator"
    ):
        generator.resize_token_embeddings(30)
    with pytest.raises(ValueError, match="a cache of type DynamicCache: expected the StateCache"):
        generator(ids, past_key_values=DynamicCache())
    with pytest.raises(ValueError, match="a generator with a state in assisted decoding: expected"):
        generator(ids, use_cache=True).past_key_values.crop(1)


def test_dropout_drops_what_the_worker_reads_and_writes_in_training_only():
    generator, ids = make(dropout=0.5), with_start(tokens(100, 4))
    assert torch.equal(generator(ids).logits, generator(ids).logits)
    read = []
    generator.model.worker.register_forward_pre_hook(lambda module, inputs: read.append(inputs[0]))
    states = generator.train().model(ids).last_hidden_state
    shares = [(tensor == 0).double().mean().item() for tensor in (read[0], states[..., :-3])]
    assert shares == pytest.approx([0.5, 0.5], abs=0.04) and not (states[..., -3:] == 0).any(), "goals stay whole"


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"dropout": 1.0}, ["dropout=1.0", "[0, 1)"]),
        ({"goal_steps": 0}, ["goal_steps=0", "at least 1"]),
        ({"goal_size": -1}, ["goal_size=-1", "at least 1"]),
        ({"initializer_range": 0.0}, ["initializer_range=0.0", "greater than 0"]),
        ({"bos_token_id": 5000}, ["bos_token_id=5000", "vocab_size=5000"]),
        ({"discriminator_config": {"dropout": 1}}, ["['dropout']", "num_filters", "from the discriminator's config"]),
        ({"discriminator_config": FEATURES | {"num_filters": [3]}}, ["'num_filters': [3]", "equally many"]),
        ({"discriminator_config": FEATURES | {"embedding_size": 0}}, ["'embedding_size': 0", "at least 1"]),
        ({"discriminator_config": 7}, ["discriminator_config", "7"]),
    ],
)
def test_configuration_mistakes_name_field_value_and_remedy(values, words):
    with pytest.raises((StrictDataclassClassValidationError, StrictDataclassFieldValidationError)) as caught:
        LeakGeneratorConfig(**values)
    assert all(word in str(caught.value) for word in words), caught.value
