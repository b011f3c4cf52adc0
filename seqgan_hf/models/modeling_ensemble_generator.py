"""An ensemble of generators as one causal LM: the mean of their next-token probabilities.

The file is copied beside the weights for `trust_remote_code=True`, with those of the members of this package.
"""

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from huggingface_hub.dataclasses import strict
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig, PreTrainedConfig, PreTrainedModel
from transformers.cache_utils import Cache
from transformers.modeling_outputs import CausalLMOutputWithPast
from transformers.utils import can_return_tuple

from .modeling_base import NO_ROLLBACK, StatefulForCausalLM, cache_name, cache_of, reads_old_masks
from .modeling_relational_memory import RelationalMemoryConfig, RelationalMemoryForCausalLM
from .modeling_rnn_generator import RNNGeneratorConfig, RNNGeneratorForCausalLM


# Members of this package, which transformers does not know where only these files are.
OWN = {
    "rnn_generator": (RNNGeneratorConfig, RNNGeneratorForCausalLM),
    "relational_memory": (RelationalMemoryConfig, RelationalMemoryForCausalLM),
}
# What all members have to agree in.
SHARED = ("vocab_size", "bos_token_id", "eos_token_id", "pad_token_id")


@strict
class EnsembleGeneratorConfig(PreTrainedConfig):
    """Configuration of `EnsembleGeneratorForCausalLM`.

    Attributes:
        members: the configuration of each member, as a dictionary with its `model_type`.
        vocab_size, bos_token_id, eos_token_id, pad_token_id: of all members; taken from the first.
        use_cache: return the members' caches, to go on from them, unless the model is in training mode.

    Raises:
        StrictDataclassClassValidationError: no members, or members of different tokens.
    """

    model_type = "ensemble_generator"

    members: list[dict[str, Any]] | None = None
    vocab_size: int = 5000
    use_cache: bool = True
    bos_token_id: int | None = 0
    eos_token_id: int | list[int] | None = None
    pad_token_id: int | None = None

    def validate_members(self) -> None:
        for number, member in enumerate(self.members or []):
            if "model_type" not in member:
                raise ValueError(f"members[{number}] has no model_type: expected the configuration of a causal LM.")
            for name in SHARED:
                if member.get(name) != getattr(self, name):
                    problem = f"{name}={getattr(self, name)} with {member.get(name)} in members[{number}]"
                    raise ValueError(f"{problem}: expected members that write the same tokens.")


def member_config(member: dict[str, Any]) -> PreTrainedConfig:
    """The configuration that a dictionary stands for."""
    settings = {key: value for key, value in member.items() if key != "model_type"}
    if member["model_type"] in OWN:
        return OWN[member["model_type"]][0](**settings)
    return AutoConfig.for_model(member["model_type"], **settings)


class EnsembleCache(Cache):
    """The caches of all members; its layers are all of theirs."""

    def __init__(self, caches: Sequence[Cache]):
        super().__init__(layers=[layer for cache in caches for layer in cache.layers])
        self.caches = list(caches)

    def reorder_cache(self, beam_idx: Any) -> None:
        """Select, drop or repeat rows (K,)."""
        for cache in self.caches:
            # both do so: a cache with states of its own knows of them in one of the two only
            own = type(cache).batch_select_indices is not Cache.batch_select_indices
            (cache.batch_select_indices if own else cache.reorder_cache)(beam_idx)

    def batch_select_indices(self, indices: Tensor) -> None:
        """As `reorder_cache`."""
        self.reorder_cache(indices)

    def crop(self, *args: Any, **kwargs: Any) -> None:
        """Always a ValueError: not all members may be able to go back."""
        raise ValueError(NO_ROLLBACK)


class EnsembleGeneratorForCausalLM(StatefulForCausalLM):
    """The mean of the members' next-token probabilities: one autoregressive model, as exact a density as theirs.

    Logits are log-probabilities. Members may be of any architecture with a cache, over the same tokens;
    tokens that they never write (`generation_config.suppress_tokens`) are left out of their probabilities before the
    mean. Soft tokens (`inputs_embeds`) are not read, as members embed tokens differently.
    """

    config_class = EnsembleGeneratorConfig
    base_model_prefix = ""

    def __init__(self, config: EnsembleGeneratorConfig):
        super().__init__(config)
        if not config.members:
            raise ValueError("an ensemble without members: expected at least one. Make it by `from_members`.")
        configs = [member_config(member) for member in config.members]
        self.members = nn.ModuleList(
            OWN[each.model_type][1](each) if each.model_type in OWN else AutoModelForCausalLM.from_config(each)
            for each in configs
        )
        self.output = nn.Identity()  # where others have their output layer, for whoever changes logits there
        self.post_init()

    @classmethod
    def from_members(cls, members: Sequence[PreTrainedModel]) -> "EnsembleGeneratorForCausalLM":
        """An ensemble with copies of the members' weights, which never writes what none of them writes.

        Raises:
            ValueError: no members, members with adapters, or members that do not write the same tokens.
        """
        if not members:
            raise ValueError("an ensemble without members: expected at least one. Name some.")
        for number, member in enumerate(members):
            if getattr(member, "_hf_peft_config_loaded", False) or hasattr(member, "peft_config"):
                fix = "Merge it: AutoPeftModelForCausalLM.from_pretrained(FOLDER).merge_and_unload()"
                raise ValueError(f"members[{number}] with an adapter: expected weights of its own. {fix}.")
        first = members[0]
        never = [sorted(member.generation_config.suppress_tokens or []) for member in members]
        if any(other != never[0] for other in never):
            problem = "members that never write other tokens (generation_config.suppress_tokens)"
            raise ValueError(f"{problem}: expected members trained on the same corpus.")
        shared = {name: getattr(first.config, name) for name in SHARED}
        # untied, so that what is saved is what each member holds
        configs = [member.config.to_dict() | {"tie_word_embeddings": False} for member in members]
        ensemble = cls(EnsembleGeneratorConfig(members=configs, **shared))
        for own, member in zip(ensemble.members, members, strict=True):
            own.load_state_dict(member.state_dict())
        ensemble.generation_config = GenerationConfig.from_dict(first.generation_config.to_dict())
        for name in ("conditional", "max_prompt_length"):  # what a run notes for those who sample
            if hasattr(first.config, name):
                setattr(ensemble.config, name, getattr(first.config, name))
        nn.Module.to(ensemble, first.device)
        return ensemble.eval()

    def _init_weights(self, module: nn.Module) -> None:
        """Members draw their own."""

    def get_input_embeddings(self) -> nn.Module:
        """Those of the first member."""
        first: Any = self.members[0]
        return first.get_input_embeddings()

    def get_output_embeddings(self) -> nn.Module:
        return self.output

    def resize_token_embeddings(self, *args: Any, **kwargs: Any) -> Any:
        """Always a ValueError: it would have to be done in every member."""
        raise ValueError("another vocabulary for an ensemble: expected that of its members. Build them anew.")

    @can_return_tuple
    def forward(  # type: ignore[override]
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: EnsembleCache | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | Tensor = 0,
        cache: EnsembleCache | None = None,
        **kwargs: Any,
    ) -> CausalLMOutputWithPast:
        """Next-token log-probabilities; as of every `StatefulForCausalLM`, but that embeddings are not read.

        Args:
            position_ids: of the tokens, (B, T), for members that number them.
            past_key_values: the members' caches as an earlier call returned them; they are brought up to date.

        Raises:
            ValueError: a member that returns no cache.
        """
        past = past_key_values if cache is None else cache
        if use_cache is None:
            use_cache = self.config.use_cache and not self.training
        logprobs, caches = [], []
        for place, member in enumerate(self.members):
            old = None if past is None else past.caches[place]
            given: dict[str, Any] = {"input_ids": input_ids, "use_cache": use_cache, cache_name(member): old}
            if reads_old_masks(old):
                given["attention_mask"] = attention_mask
            if position_ids is not None and "position_ids" in inspect.signature(member.forward).parameters:
                given["position_ids"] = position_ids
            outputs = member(**given)
            if use_cache and cache_of(outputs) is None:
                raise ValueError(f"{type(member).__name__} returns no cache: expected members with one.")
            caches.append(cache_of(outputs))
            kept = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
            logprobs.append(self._logprobs(outputs.logits[:, kept]))
        logits = self.output(torch.logsumexp(torch.stack(logprobs), dim=0) - torch.tensor(len(logprobs)).log())
        loss = None
        if labels is not None:
            loss = self.loss_function(logits=logits, labels=labels, vocab_size=self.config.vocab_size, **kwargs)
        return CausalLMOutputWithPast(loss, logits, EnsembleCache(caches) if use_cache else None)

    def _logprobs(self, logits: Tensor) -> Tensor:
        """Of the tokens that are written, in float32; of the others a number so low that it adds nothing."""
        logits = logits.float()
        if never := self.generation_config.suppress_tokens:
            added = logits.new_zeros(logits.shape[-1])
            added[never] = torch.finfo(torch.float32).min / 4
            logits = logits + added
        return logits.log_softmax(dim=-1)
