"""Causal LMs of transformers with caches of every kind: what is drawn with the cache is what would be without."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
import transformers
from packaging.version import Version
from transformers import (
    AutoModelForCausalLM,
    BambaConfig,
    BloomConfig,
    Gemma2Config,
    Gemma3TextConfig,
    GemmaConfig,
    JambaConfig,
    Lfm2Config,
    Mamba2Config,
    MambaConfig,
    MiniMaxConfig,
    MistralConfig,
    OpenAIGPTConfig,
    OPTConfig,
    PreTrainedModel,
    RemBertConfig,
)

from seqgan_hf.errors import UserError
from seqgan_hf.generation import decoder as decoder_module
from seqgan_hf.generation import relaxation, rollouts
from seqgan_hf.generation.likelihood import token_logprobs
from seqgan_hf.generation.relaxation import relax, sample_soft
from seqgan_hf.generation.rollouts import complete
from seqgan_hf.generation.sampling import sample
from seqgan_hf.generation.vocabulary import start_prompt, vocabulary_size
from seqgan_hf.models import EnsembleGeneratorConfig, LeakGeneratorConfig, RelationalMemoryConfig, RNNGeneratorConfig
from tests.tools import plain_paths
from tests.tools.tiny import BOS, EOS, PAD, VOCAB_SIZE


LENGTH = 8
TOKENS = {"vocab_size": VOCAB_SIZE, "bos_token_id": BOS, "eos_token_id": EOS, "pad_token_id": PAD}
SIZES = {"hidden_size": 16, "num_hidden_layers": 2}
HEADS = SIZES | {"intermediate_size": 16, "num_attention_heads": 4, "num_key_value_heads": 2}
EXPERTS = {"num_experts_per_tok": 1}
CONFIGS = {
    "bamba": lambda: BambaConfig(  # counts positions from zero unless told
        attn_layer_indices=[1], mamba_n_heads=4, mamba_d_head=8, mamba_n_groups=1, mamba_d_state=4, **HEADS, **TOKENS
    ),
    "bloom": lambda: BloomConfig(hidden_size=16, n_layer=2, n_head=2, **TOKENS),  # positions by distance
    "ensemble": lambda: EnsembleGeneratorConfig(  # caches of several kinds in one
        members=[
            config.to_dict()
            for config in (
                RNNGeneratorConfig(embedding_size=6, hidden_size=8, **TOKENS),
                MistralConfig(sliding_window=4, **HEADS, **TOKENS),
                RelationalMemoryConfig(mem_slots=2, head_size=4, **TOKENS),
                MambaConfig(state_size=4, time_step_rank=4, **SIZES, **TOKENS),
            )
        ],
        **TOKENS,
    ),
    "jamba": lambda: JambaConfig(  # states in one layer, keys and values in the next
        attn_layer_period=2,
        attn_layer_offset=1,
        num_experts=2,
        mamba_d_state=4,
        mamba_dt_rank=4,
        use_mamba_kernels=False,
        **EXPERTS,
        **HEADS,
        **TOKENS,
    ),
    "lfm2": lambda: Lfm2Config(layer_types=["conv", "full_attention"], **HEADS, **TOKENS),  # convolutions
    "leak": lambda: LeakGeneratorConfig(  # tokens among its states
        embedding_size=6,
        hidden_size=6,
        goal_size=3,
        goal_steps=3,
        discriminator_config={"embedding_size": 4, "filter_sizes": [1, 3], "num_filters": [4, 4]},
        **TOKENS,
    ),
    "mamba": lambda: MambaConfig(state_size=4, time_step_rank=4, **SIZES, **TOKENS),
    "mamba2": lambda: Mamba2Config(num_heads=4, head_dim=8, n_groups=1, state_size=4, **SIZES, **TOKENS),
    "minimax": lambda: MiniMaxConfig(  # a cache that keeps linear attention beside its layers
        layer_types=["full_attention", "linear_attention"],
        head_dim=4,
        num_local_experts=2,
        **EXPERTS,
        **HEADS,
        **TOKENS,
    ),
    "mistral": lambda: MistralConfig(sliding_window=4, **HEADS, **TOKENS),  # shorter than the sequences
    "opt": lambda: OPTConfig(
        hidden_size=16, ffn_dim=16, num_hidden_layers=2, num_attention_heads=2, word_embed_proj_dim=16, **TOKENS
    ),
    "relational_memory": lambda: RelationalMemoryConfig(mem_slots=2, head_size=4, **TOKENS),  # a cache of its own
    "rembert": lambda: RemBertConfig(  # a cache for an encoder, too, which is not there
        is_decoder=True,
        intermediate_size=16,
        num_attention_heads=2,
        input_embedding_size=16,
        output_embedding_size=16,
        **SIZES,
        **TOKENS,
    ),
}
if Version(transformers.__version__) < Version("5.18"):
    del CONFIGS["rembert"]  # there its logits depend on whether a cache is asked for


@pytest.fixture(params=CONFIGS)
def generator(request) -> PreTrainedModel:
    """Weights large enough that every token depends on all those before it."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(CONFIGS[request.param]()).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(std=0.4)
    return model


def rng() -> torch.Generator:
    return torch.Generator().manual_seed(3)


def test_completions_go_on_as_if_everything_were_read_anew(generator, monkeypatch):
    samples = sample(generator, start_prompt(generator, 6), LENGTH, rng=rng())
    cached = list(complete(generator, samples, rollouts=3, rng=rng(), max_rows=30))
    # by its module: a name of this one would be switched to the fast path (`fast_paths`)
    monkeypatch.setattr(rollouts, "Decoder", plain_paths.Decoder)
    anew = list(complete(generator, samples, rollouts=3, rng=rng(), max_rows=30))
    assert sum(len(part.row) for part in cached) == 3 * int((samples.lengths - 1).sum())
    for one, other in zip(cached, anew, strict=True):
        assert one.samples.ids.equal(other.samples.ids) and one.samples.mask.equal(other.samples.mask)


def test_log_probabilities_are_those_of_the_whole_model(generator):
    samples = sample(generator, start_prompt(generator, 6), LENGTH, rng=rng())
    with torch.no_grad():
        logits = generator(input_ids=torch.cat([samples.prompt, samples.ids], dim=1), use_cache=False).logits[:, :-1]
        expected = logits.log_softmax(dim=-1).gather(2, samples.ids[..., None]).squeeze(2)
        torch.testing.assert_close(token_logprobs(generator, samples), expected.masked_fill(~samples.mask, 0.0))


def test_padding_before_a_prompt_changes_nothing(generator):
    ids = torch.randint(3, VOCAB_SIZE, (4, 3), generator=rng())
    padded = torch.cat([torch.full((4, 2), PAD), ids], dim=1)
    mask = torch.arange(5).expand(4, 5) >= 2
    if generator.config.model_type == "leak_generator":
        with pytest.raises(ValueError, match="padding before a real token: expected prompts of one length"):
            sample(generator, padded, LENGTH, prompt_mask=mask)
        return
    plain = sample(generator, ids, LENGTH, top_k=1, rng=rng())
    assert sample(generator, padded, LENGTH, top_k=1, rng=rng(), prompt_mask=mask).ids.equal(plain.ids)


IN_PLACE = {"bamba", "jamba", "mamba", "mamba2"}  # states that are written in place


def test_soft_tokens_are_fed_back_through_the_cache_or_refused(generator, request, monkeypatch):
    """Values and gradients are those of a loop that reads all embeddings anew."""
    cached = request.config.getoption("--fast-paths") != "off"
    if cached and generator.config.model_type in IN_PLACE:
        with pytest.raises(UserError, match="the cache of .* passes no gradient, so that soft tokens cannot be fed"):
            sample_soft(generator, start_prompt(generator, 6), LENGTH, 1.5)
        return
    if generator.config.model_type in ("leak_generator", "ensemble_generator"):  # whose parts read tokens
        with pytest.raises(UserError, match=f"{type(generator).__name__} cannot read soft tokens"):
            sample_soft(generator, start_prompt(generator, 6), LENGTH, 1.5)
        return
    found = []
    for kind in (decoder_module.Decoder, plain_paths.Decoder):
        monkeypatch.setattr(relaxation, "Decoder", kind)
        soft = sample_soft(generator, start_prompt(generator, 6), LENGTH, 1.5, rng=rng()).soft
        (slope,) = torch.autograd.grad(soft[:, -2:].square().sum(), generator.get_input_embeddings().weight)
        found.append((soft, slope))
    for ours, anew in zip(*found, strict=True):
        scale = max(1.0, float(anew.detach().abs().max()))
        torch.testing.assert_close(ours / scale, anew / scale, rtol=0, atol=2e-3)


@pytest.mark.parametrize("config", [GemmaConfig, Gemma2Config, Gemma3TextConfig])
def test_models_that_scale_their_embeddings_can_be_relaxed_but_not_fed_back(config):
    generator = AutoModelForCausalLM.from_config(config(head_dim=4, **HEADS, **TOKENS)).eval()
    relaxed = relax(generator, sample(generator, start_prompt(generator, 2), LENGTH), 1.0)
    (relaxed.soft @ torch.ones(VOCAB_SIZE, 2)).sum().backward()
    with pytest.raises(UserError, match=f"{type(generator).__name__} cannot read soft tokens"):
        sample_soft(generator, start_prompt(generator, 2), LENGTH, 1.0)


def tensors_of(holder) -> list[torch.Tensor]:
    """All tensors in a cache, however it keeps them."""
    if isinstance(holder, torch.Tensor):
        return [holder]
    if isinstance(holder, dict):
        return [tensor for value in holder.values() for tensor in tensors_of(value)]
    if isinstance(holder, (list, tuple)):
        return [tensor for value in holder for tensor in tensors_of(value)]
    return tensors_of(vars(holder)) if hasattr(holder, "__dict__") and not isinstance(holder, type) else []


def test_the_memory_of_a_row_is_known(generator):
    """Else the number of rows that are sampled at once would have no bound."""
    samples = sample(generator, start_prompt(generator, 2), LENGTH, rng=rng())
    decoder = decoder_module.Decoder(generator, samples)
    held = {id(tensor): tensor for tensor in tensors_of(decoder.cache) if tensor.dim() > 1}
    assert decoder.bytes_per_row(samples.prompt.shape[1]) == sum(tensor[:1].numel() * 4 for tensor in held.values())


@pytest.mark.skipif("config.getoption('--fast-paths') == 'off'", reason="there, no cache is asked for")
def test_models_without_a_cache_are_refused():
    generator = AutoModelForCausalLM.from_config(OpenAIGPTConfig(n_embd=8, n_layer=1, n_head=2, **TOKENS))
    with pytest.raises(ValueError, match="OpenAIGPTModel returns no cache: expected a causal LM"):
        sample(generator, start_prompt(generator, 2), LENGTH)


def test_models_of_more_than_text_are_refused():
    model = SimpleNamespace(config=SimpleNamespace(text_config=SimpleNamespace(vocab_size=VOCAB_SIZE)))
    with pytest.raises(ValueError, match="has no `vocab_size`: expected a causal LM over text alone"):
        vocabulary_size(model)
