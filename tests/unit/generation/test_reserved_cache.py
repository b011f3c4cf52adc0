"""Reserved memory for keys and values: the same contents as the cache of transformers, without copies of it."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import DynamicCache, MistralConfig, MistralForCausalLM

from seqgan_hf.generation import decoder, reserved_cache
from seqgan_hf.generation.reserved_cache import ReservedLayer, reserve, select_rows
from seqgan_hf.generation.rollouts import complete
from seqgan_hf.generation.sampling import sample
from seqgan_hf.generation.vocabulary import start_prompt
from tests.tools.tiny import build_generator


ROWS, TOKENS = 12, 9  # room in the tests


@pytest.fixture(autouse=True)
def needs_the_fast_path(request):
    if request.config.getoption("--fast-paths") == "off":
        pytest.skip("these are tests of the fast path itself")


def filled(rows: int, tokens: int, layers: int = 2) -> DynamicCache:
    """A cache of keys and values that differ in width, as they do in some models."""
    cache = DynamicCache()
    for index in range(layers):
        cache.update(torch.randn(rows, 2, tokens, 3), torch.randn(rows, 2, tokens, 5), index)
    return cache


def contents(cache: DynamicCache) -> list[torch.Tensor]:
    return [state.clone() for layer in cache.layers for state in (layer.keys, layer.values)]


def memory(cache: DynamicCache) -> list[int]:
    return [state.data_ptr() for layer in cache.layers for state in (layer.keys, layer.values)]


def feed(caches: list[DynamicCache], tokens: int) -> None:
    rows = caches[0].layers[0].keys.shape[0]
    for index in range(len(caches[0].layers)):
        new = torch.randn(rows, 2, tokens, 3), torch.randn(rows, 2, tokens, 5)
        for cache in caches:
            returned = cache.update(*new, index)
            for state, all_states in zip(
                (cache.layers[index].keys, cache.layers[index].values), returned, strict=True
            ):
                assert torch.equal(state, all_states)


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_whatever_happens_the_contents_are_those_of_the_cache_of_transformers(data):
    torch.manual_seed(0)
    plain = filled(data.draw(st.integers(1, 6), "rows"), data.draw(st.integers(1, 3), "tokens"))
    fast = filled(1, 1)
    for layer, other in zip(fast.layers, plain.layers, strict=True):
        layer.keys, layer.values = other.keys.clone(), other.values.clone()
    reserve(fast, ROWS, TOKENS)
    assert all(type(layer) is ReservedLayer for layer in fast.layers)
    places = memory(fast)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reserved_cache, "MOVED_TOGETHER", data.draw(st.sampled_from([1, 40, 2**20]), "together"))
        for _ in range(data.draw(st.integers(1, 8), "steps")):
            rows, _, tokens, _ = plain.layers[0].keys.shape
            if tokens < TOKENS and data.draw(st.booleans(), "feed"):
                feed([plain, fast], data.draw(st.integers(1, TOKENS - tokens)))
            else:
                chosen = data.draw(st.none() | st.sets(st.integers(0, rows - 1)), "kept")
                kept = None if chosen is None else torch.tensor(sorted(chosen), dtype=torch.long)
                room = ROWS - rows
                repeated = torch.tensor(data.draw(st.lists(st.integers(0, rows - 1), max_size=room)), dtype=torch.long)
                for cache in (plain, fast):
                    select_rows(cache, rows, kept, repeated)
            for expected, found in zip(contents(plain), contents(fast), strict=True):
                assert torch.equal(expected, found)
            if plain.layers[0].keys.shape[0] == 0:
                break
            assert memory(fast) == places  # nothing moved elsewhere
            assert fast.get_seq_length() == plain.get_seq_length()
            assert fast.get_mask_sizes(1, 0) == plain.get_mask_sizes(1, 0)


@pytest.mark.parametrize(
    "do", [lambda cache: feed([cache], 3), lambda cache: cache.layers[0].repeat_rows(torch.arange(4))]
)
def test_more_than_there_is_room_for_is_refused(do):
    cache = filled(3, 4)
    reserve(cache, 6, 6)
    with pytest.raises(IndexError, match=".* rows of .* tokens: expected at most 6 rows of 6 tokens. Reserve"):
        do(cache)


@pytest.mark.parametrize(("rows", "tokens"), [(2, 6), (6, 3)])
def test_less_room_than_is_taken_already_is_refused(rows, tokens):
    with pytest.raises(IndexError, match=f"3 rows of 4 tokens: expected at most {rows} rows of {tokens} tokens"):
        reserve(filled(3, 4), rows, tokens)


def test_caches_that_do_more_than_append_stay_as_they_are():
    """Sliding windows and recurrent states."""
    config = MistralConfig(
        vocab_size=13, hidden_size=8, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, sliding_window=3, bos_token_id=1, eos_token_id=2, pad_token_id=0,
    )  # fmt: skip
    torch.manual_seed(0)
    sliding = MistralForCausalLM(config).eval()
    for generator in (sliding, build_generator("lstm").eval()):
        cache = generator(start_prompt(generator, 2), use_cache=True).past_key_values
        layers = list(cache.layers)
        reserve(cache, 10, 10)
        assert cache.layers == layers
    # and rollouts with them are right: greedy completions are those of `generate`
    samples = sample(sliding, start_prompt(sliding, 4), 7, rng=torch.Generator().manual_seed(0))
    for part in complete(sliding, samples, 2, top_k=1):
        for ids, row, length in zip(part.samples.ids, part.row, part.prefix_length, strict=True):
            prefix = torch.cat([samples.prompt[row], samples.ids[row, :length]])[None]
            options = {
                "attention_mask": torch.ones_like(prefix),
                "max_new_tokens": 7 - int(length),
                "do_sample": False,
            }
            greedy = sliding.generate(prefix, **options)[0, 1:]
            assert torch.equal(ids[: len(greedy)], greedy)


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
@pytest.mark.parametrize("eos", [None, 2])
def test_sampling_and_rollouts_copy_no_cache(kind, eos, monkeypatch):
    """Not one `torch.cat` of keys after the prompt; and the last position moves nothing."""
    generator, moves = build_generator(kind, eos=eos).eval(), []
    move = ReservedLayer.reorder_cache
    monkeypatch.setattr(decoder, "reserve", lambda *arguments: (moves.append("reserve"), reserve(*arguments)))
    monkeypatch.setattr(ReservedLayer, "reorder_cache", lambda self, rows: (moves.append("move"), move(self, rows)))

    def no_more(*arguments, **options):
        assert "reserve" not in moves, "keys were concatenated"
        return concatenate(*arguments, **options)

    concatenate = reserved_cache.DynamicLayer.update
    monkeypatch.setattr(reserved_cache.DynamicLayer, "update", no_more)
    samples = sample(generator, start_prompt(generator, 5), 6, rng=torch.Generator().manual_seed(0))
    moves.clear()
    parts = list(complete(generator, samples, 3, rng=torch.Generator().manual_seed(1)))
    assert len(parts) == 1 and moves[0] == "reserve"
    # of a fixed length no row ends, and the sampled sequences leave only at the last position, which feeds nothing
    assert ("move" in moves) == (eos is not None)
