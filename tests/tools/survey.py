"""Which architectures of transformers work as generator or discriminator: a tiny random model of each is tried.

    python -m tests.tools.survey generators               # a line for each; about ten minutes on one core
    python -m tests.tools.survey classifiers bert gpt2    # these only

Not a test of the suite, which has one model of every kind (`test_architectures.py`). An architecture whose sizes do
not go by usual names cannot be made small this way; that is said, and says nothing about it.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
import traceback

import torch
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, AutoModelForSequenceClassification, PreTrainedModel
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES,
)

from seqgan_hf.generation.rollouts import complete
from seqgan_hf.generation.sampling import sample
from seqgan_hf.generation.verdicts import realness, rewards
from seqgan_hf.generation.vocabulary import start_prompt
from tests.tools.plain_paths import fast_paths
from tests.tools.tiny import BOS, EOS, PAD, build_generator


LENGTH, VOCAB_SIZE, SECONDS = 9, 17, 60
LARGEST = 200_000_000  # parameters: above, sizes were not found
# Names that architectures give to their sizes, and what is small and fits together.
SMALL = {
    32: "hidden_size n_embd d_model embedding_size emb_dim word_embed_proj_dim intermediate_size ffn_dim n_inner "
    "lru_width encoder_ffn_dim decoder_ffn_dim d_ff pooler_hidden_size",
    2: "num_hidden_layers n_layer n_layers num_layers encoder_layers decoder_layers num_key_value_heads "
    "num_experts_per_tok n_mamba_heads",
    4: "num_attention_heads n_head n_heads num_heads decoder_attention_heads encoder_attention_heads attention_heads "
    "num_local_experts num_experts n_routed_experts moe_num_experts qk_rope_head_dim qk_nope_head_dim rotary_dim "
    "state_size time_step_rank mamba_d_state mamba_dt_rank sliding_window attention_window_size",
    8: "head_dim kv_lora_rank q_lora_rank qk_head_dim v_head_dim mamba_n_heads mamba_d_head mamba_chunk_size "
    "chunk_size mamba_num_heads mamba_head_dim mamba_headdim",
    64: "max_position_embeddings n_positions n_ctx seq_length mamba_d_ssm",
    VOCAB_SIZE: "vocab_size",
    16: "moe_intermediate_size shared_expert_intermediate_size",
    1: "n_shared_experts n_group topk_group first_k_dense_replace mamba_n_groups mamba_ngroups n_groups",
}
# What has to be told to single ones.
TOLD = {
    "axk1": {"head_dim": 4},
    "bamba": {"attn_layer_indices": [1]},
    "deepseek_v3": {"head_dim": 4},
    "granitemoehybrid": {"layer_types": ["linear_attention", "full_attention"], "shared_intermediate_size": 32},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1},
    "longcat_flash": {"head_dim": 4},
    "mamba2": {"num_heads": 8},
    "minicpm3": {"head_dim": 4},
}


def build(model_type: str, auto_class: type) -> PreTrainedModel:
    """A small model with weights large enough that every token counts."""
    torch.manual_seed(0)
    config = CONFIG_MAPPING[model_type]()
    told = TOLD.get(model_type, {})
    tokens = {"bos_token_id": BOS, "eos_token_id": EOS, "pad_token_id": PAD}
    for part in {id(part): part for part in (config.get_text_config(decoder=True), config)}.values():
        sizes = {name: size for size, names in SMALL.items() for name in names.split() if getattr(part, name, None)}
        if isinstance(kinds := getattr(part, "layer_types", None), list):
            sizes["layer_types"] = [*dict.fromkeys(kinds), *dict.fromkeys(kinds)][:2]
        if auto_class is AutoModelForCausalLM and hasattr(part, "is_decoder"):
            sizes["is_decoder"] = True
        for name, value in (sizes | tokens | told).items():
            with contextlib.suppress(AttributeError, NotImplementedError):  # computed from others
                setattr(part, name, value)
    if auto_class is AutoModelForSequenceClassification:
        config.num_labels = 2
    model = auto_class.from_config(config).float().eval()
    if (size := sum(parameter.numel() for parameter in model.parameters())) > LARGEST:
        raise MemoryError(f"{size:,} parameters")
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(std=min(0.5, parameter.shape[-1] ** -0.5))
    return model


def rng() -> torch.Generator:
    return torch.Generator().manual_seed(3)


def try_generator(model_type: str) -> str:
    """Do completions from the cache differ from those that read everything anew?"""
    generator = build(model_type, AutoModelForCausalLM)
    samples = sample(generator, start_prompt(generator, 6), LENGTH, rng=rng())
    cached = list(complete(generator, samples, rollouts=3, top_k=1, rng=rng(), max_rows=30))
    with fast_paths("off"):
        anew = list(complete(generator, samples, rollouts=3, top_k=1, rng=rng(), max_rows=30))
    different = sum(
        int((one.samples.ids != other.samples.ids).any(dim=1).sum()) for one, other in zip(cached, anew, strict=True)
    )
    return "works" if different == 0 else f"WRONG: {different} completions differ from those without a cache"


def try_classifier(model_type: str) -> str:
    """Does the reward of a sequence depend on the padding behind it, and does every text have its own?"""
    discriminator = build(model_type, AutoModelForSequenceClassification)
    generator = build_generator("lstm", vocab_size=VOCAB_SIZE)
    samples = sample(generator, start_prompt(generator, 12), LENGTH, rng=rng())
    together, alone = rewards(discriminator, samples), []
    for row, length in enumerate(samples.lengths.tolist()):
        one = samples.select(slice(row, row + 1))
        alone.append(rewards(discriminator, one._replace(ids=one.ids[:, :length], mask=one.mask[:, :length])))
    realness(discriminator, samples).sum().backward()
    if together.std() < 1e-6:
        return "WRONG: all rewards are the same"
    error = float((torch.cat(alone) - together).abs().max())
    return "works" if error < 1e-5 else f"works, but padding changes a reward by {error:.3f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("role", choices=("generators", "classifiers"))
    parser.add_argument("model_type", nargs="*", help="all that transformers has by default")
    arguments = parser.parse_args()
    mapping, attempt = {
        "generators": (MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, try_generator),
        "classifiers": (MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES, try_classifier),
    }[arguments.role]
    for model_type in arguments.model_type or mapping:
        sys.stdout.flush()
        if (child := os.fork()) == 0:  # a process each: what one takes, or breaks, the next has again
            signal.alarm(SECONDS)
            try:
                print(f"{model_type}: {attempt(model_type)}", flush=True)
            except BaseException as error:
                ours = "seqgan_hf/" in traceback.extract_tb(error.__traceback__)[-1].filename
                what = "refused" if ours else "could not be tried"
                print(f"{model_type}: {what}: {' '.join(str(error).split())[:160]}", flush=True)
            os._exit(0)
        if status := os.waitpid(child, 0)[1]:
            print(f"{model_type}: could not be tried: it took more than {SECONDS} s, or ended with {status}")


if __name__ == "__main__":
    main()
