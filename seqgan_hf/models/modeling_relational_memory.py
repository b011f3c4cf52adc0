"""A language model with a relational memory (Santoro et al., NeurIPS 2018, https://arxiv.org/abs/1806.01822), the
generator of RelGAN (Nie et al., ICLR 2019, https://openreview.net/forum?id=rJedV3R5tm).

The file is complete in itself, as it is copied beside the weights for `trust_remote_code=True`.
"""

from typing import Any, NamedTuple

import torch
from huggingface_hub.dataclasses import strict
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import GenerationConfig, GenerationMixin, PreTrainedConfig, PreTrainedModel
from transformers import initialization as init
from transformers.cache_utils import Cache, CacheLayerMixin
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutputWithPast
from transformers.utils import ModelOutput, can_return_tuple


CHOICES = {"gate_style": ("unit", "memory"), "layer_norm": ("joint", "row"), "attention_scale": ("qkv", "key")}
NO_ROLLBACK = (
    "a recurrent generator in assisted decoding: expected a model whose cache can be cut back to the accepted tokens, "
    "which a recurrent state cannot. Leave out `assistant_model` and `prompt_lookup_num_tokens`."
)


@strict
class RelationalMemoryConfig(PreTrainedConfig):
    """Configuration of `RelationalMemoryForCausalLM`. The defaults are RelGAN's generator.

    Attributes:
        vocab_size: number of token ids.
        embedding_size: E, width of the token embeddings.
        mem_slots: N, rows of the memory.
        num_heads: heads of the attention.
        head_size: width of a head's values; a row of the memory is D = `num_heads * head_size` wide.
        key_size: width of a head's queries and keys; `head_size` by default.
        attention_mlp_layers: layers of the network after the attention, D wide each.
        num_blocks: how often rows attend to each other in a step, each time with weights of its own.
        gate_style: gates of the update, `"unit"` for every number in the memory, `"memory"` for every row.
        forget_bias, input_bias: added to the gates before the sigmoid.
        layer_norm: `"joint"` takes moments over all rows and features of a step, as RelGAN's code does, `"row"` over
            the features of each row, as that of relational memory. Scale and shift belong to features in both.
        attention_scale: queries are divided by the root of the width of query, key and value together (`"qkv"`, as in
            RelGAN's code), or of the key's (`"key"`).
        use_cache: return the memory, to go on from it, unless the model is in training mode.
        tie_word_embeddings: false, as embeddings and output layer differ in width.
        bos_token_id: the start token.
        eos_token_id: ends a sequence; `None` for sequences of fixed length.
        pad_token_id: fills up batches of sequences of unequal length.

    Raises:
        StrictDataclassFieldValidationError: a value has the wrong type.
        StrictDataclassClassValidationError: a value is out of its range, or contradicts another.
    """

    model_type = "relational_memory"

    vocab_size: int = 5000
    embedding_size: int = 32
    mem_slots: int = 1
    num_heads: int = 2
    head_size: int = 256
    key_size: int | None = None
    attention_mlp_layers: int = 2
    num_blocks: int = 1
    gate_style: str = "unit"
    forget_bias: float | int = 1.0
    input_bias: float | int = 0.0
    layer_norm: str = "joint"
    attention_scale: str = "qkv"
    use_cache: bool = True
    tie_word_embeddings: bool = False
    bos_token_id: int | None = 0
    eos_token_id: int | list[int] | None = None
    pad_token_id: int | None = None

    @property
    def memory_size(self) -> int:
        """D, the width of a row of the memory."""
        return self.num_heads * self.head_size

    def validate_sizes(self) -> None:
        names = ("vocab_size", "embedding_size", "mem_slots", "num_heads", "head_size", "attention_mlp_layers")
        for name in (*names, "num_blocks", "key_size"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise ValueError(f"{name}={value}: expected an integer of at least 1.")

    def validate_choices(self) -> None:
        for name, allowed in CHOICES.items():
            if (value := getattr(self, name)) not in allowed:
                raise ValueError(f"{name}={value!r}: expected one of {', '.join(allowed)}.")
        if self.tie_word_embeddings:
            raise ValueError("tie_word_embeddings=True: expected False, as this model has no tied weights.")

    def validate_special_tokens(self) -> None:
        for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
            value = getattr(self, name)
            for token in value if isinstance(value, list) else [value]:
                if token is not None and not 0 <= token < self.vocab_size:
                    problem = f"{name}={value} with vocab_size={self.vocab_size}"
                    fix = f"Change {name} or raise vocab_size."
                    raise ValueError(f"{problem}: expected a token id from 0 to vocab_size - 1, or None. {fix}")


class RelationalMemoryCacheLayer(CacheLayerMixin):
    """The memory after the last token: `keys` is (B, N * D), `values` (B, 0).

    States are assigned, never written in place, so that gradients pass through the cache and a state taken out of it
    stays as it was.
    """

    is_compileable = False
    is_croppable = False
    supports_early_init = False

    def __init__(self):
        super().__init__()
        self.cumulative_length = 0

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        self.dtype, self.device, self.is_initialized = key_states.dtype, key_states.device, True

    def update(self, key_states: Tensor, value_states: Tensor, seq_length: int = 1) -> tuple[Tensor, Tensor]:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        self.keys, self.values = key_states, value_states
        self.cumulative_length += seq_length
        return key_states, value_states

    def get_seq_length(self) -> int:
        return self.cumulative_length

    def get_max_length(self) -> int:
        return -1

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.cumulative_length + query_length, 0

    def crop(self, *args: Any, **kwargs: Any) -> None:
        """Always a ValueError: the states before the last one are gone."""
        raise ValueError(NO_ROLLBACK)

    def reset(self) -> None:
        self.keys = self.values = None
        self.is_initialized, self.cumulative_length = False, 0


class RelationalMemoryCache(Cache):
    """The memory, in one layer.

    `reorder_cache(rows)` selects, drops or repeats rows of the batch: `rows` (K,) may be longer or shorter than it.
    """

    def __init__(self):
        super().__init__(layers=[RelationalMemoryCacheLayer()])


class _Norm(NamedTuple):
    """Layer normalization over the last axes of `weight`, which has one for each."""

    weight: Tensor
    bias: Tensor
    eps: float

    def __call__(self, values: Tensor) -> Tensor:
        return F.layer_norm(values, self.weight.shape, self.weight, self.bias, self.eps)


class _Block(NamedTuple):
    """The weights of one attention and the network after it, taken out of the parameters once for all steps: in every
    step anew, each would send back a gradient of the parameter's whole size."""

    qkv_weight: Tensor
    mlp_weights: tuple[Tensor, ...]
    mlp_biases: tuple[Tensor, ...]
    qkv_norm: _Norm
    attention_norm: _Norm
    mlp_norm: _Norm


class RelationalMemoryCore(nn.Module):
    """The recurrence. One step, from a memory of N rows and an input x, all rows D wide:

        A = [memory; x],  Q = norm(A W_qkv),  A1 = norm(A + attention(Q)),  A2 = norm(A1 + mlp(A1))
        i, f = tanh(memory) W_memory + x W_input
        memory = sigmoid(i + input_bias) * tanh(first N rows of A2) + sigmoid(f + forget_bias) * memory

    It begins with the identity matrix, padded with zeros. Weights are parameters of this one module, as in
    `torch.nn.LSTM`; `num_blocks` is the first axis of those of the attention and the network after it.
    """

    def __init__(self, config: RelationalMemoryConfig):
        super().__init__()
        self.config = config
        blocks, layers, width = config.num_blocks, config.attention_mlp_layers, config.memory_size
        self.key_size = config.head_size if config.key_size is None else config.key_size
        qkv = config.num_heads * (2 * self.key_size + config.head_size)
        gates = 2 * (width if config.gate_style == "unit" else 1)

        def empty(*shape: int) -> nn.Parameter:
            return nn.Parameter(torch.empty(shape))

        self.input_weight, self.input_bias = empty(width, config.embedding_size), empty(width)
        self.qkv_weight = empty(blocks, qkv, width)
        self.qkv_norm_weight, self.qkv_norm_bias = empty(blocks, qkv), empty(blocks, qkv)
        self.attention_norm_weight, self.attention_norm_bias = empty(blocks, width), empty(blocks, width)
        self.mlp_weight, self.mlp_bias = empty(blocks, layers, width, width), empty(blocks, layers, width)
        self.mlp_norm_weight, self.mlp_norm_bias = empty(blocks, width), empty(blocks, width)
        self.input_gate_weight, self.memory_gate_weight = empty(gates, width), empty(gates, width)

    def start(self, embedded: Tensor) -> Tensor:
        """The memory before the first token, (B, N * D)."""
        memory = torch.eye(
            self.config.mem_slots, self.config.memory_size, dtype=embedded.dtype, device=embedded.device
        )
        return memory.flatten().expand(len(embedded), -1)

    def forward(self, embedded: Tensor, memory: Tensor, mask: Tensor | None) -> Tensor:
        """Memories (B, T, N * D) after each of the embeddings (B, T, E), from one before them (B, N * D).

        Where the mask (B, T) is false the memory passes unchanged.
        """
        # what does not hang on the memory is computed for all tokens, through the narrow embeddings
        inputs = F.linear(embedded, self.input_weight, self.input_bias)
        weight = torch.cat([self.qkv_weight[0], self.input_gate_weight])
        both = F.linear(embedded, weight @ self.input_weight, weight @ self.input_bias)
        qkv, gates = both.split([self.qkv_weight.shape[1], len(self.input_gate_weight)], dim=-1)
        input_gate, forget_gate = gates.chunk(2, dim=-1)
        gates = torch.cat([input_gate + self.config.input_bias, forget_gate + self.config.forget_bias], dim=-1)
        blocks = self._blocks()
        memory = memory.view(len(embedded), self.config.mem_slots, self.config.memory_size)
        memories = []
        steps = [values.split(1, dim=1) for values in (inputs, qkv, gates)]
        for position, (step_inputs, step_qkv, step_gates) in enumerate(zip(*steps, strict=True)):
            new = self._step(memory, step_inputs, step_qkv, step_gates, blocks)
            memory = new if mask is None else torch.where(mask[:, position, None, None], new, memory)
            memories.append(memory.flatten(1))
        return torch.stack(memories, dim=1)

    def _blocks(self) -> list[_Block]:
        joint = self.config.layer_norm == "joint"
        rows, eps = self.config.mem_slots + 1, 1e-12 if joint else 1e-5

        def norms(weights: Tensor, biases: Tensor) -> list[_Norm]:
            if joint:
                weights, biases = (each[:, None].expand(-1, rows, -1).contiguous() for each in (weights, biases))
            return [_Norm(weight, bias, eps) for weight, bias in zip(weights.unbind(), biases.unbind(), strict=True)]

        parts = (
            self.qkv_weight.unbind(),
            [weights.unbind() for weights in self.mlp_weight.unbind()],
            [biases.unbind() for biases in self.mlp_bias.unbind()],
            norms(self.qkv_norm_weight, self.qkv_norm_bias),
            norms(self.attention_norm_weight, self.attention_norm_bias),
            norms(self.mlp_norm_weight, self.mlp_norm_bias),
        )
        return [_Block(*values) for values in zip(*parts, strict=True)]

    def _step(self, memory: Tensor, inputs: Tensor, qkv: Tensor, gates: Tensor, blocks: list[_Block]) -> Tensor:
        """The memory (B, N, D) after an input (B, 1, D), its queries, keys and values, and its share of the gates."""
        rows, slots = torch.cat([memory, inputs], dim=1), memory.shape[1]
        for index, block in enumerate(blocks):
            new_qkv = F.linear(memory if index == 0 else rows, block.qkv_weight)
            attended = self._attend(block.qkv_norm(torch.cat([new_qkv, qkv], dim=1) if index == 0 else new_qkv))
            if self.config.layer_norm == "row" and index == len(blocks) - 1:
                rows, attended = rows[:, :slots], attended[:, :slots]  # nothing hangs on the input's row any more
            rows = block.attention_norm(rows + attended)
            hidden = rows
            for layer, (weight, bias) in enumerate(zip(block.mlp_weights, block.mlp_biases, strict=True)):
                hidden = F.linear(F.relu(hidden) if layer > 0 else hidden, weight, bias)
            rows = block.mlp_norm(rows + hidden)
        both = torch.sigmoid(F.linear(torch.tanh(memory), self.memory_gate_weight) + gates)
        input_gate, forget_gate = both.chunk(2, dim=-1)
        return input_gate * torch.tanh(rows[:, :slots]) + forget_gate * memory

    def _attend(self, qkv: Tensor) -> Tensor:
        """What every row reads of all rows, (B, R, D); queries, keys and values are (B, R, H * (2 key + value))."""
        heads = qkv.unflatten(2, (self.config.num_heads, -1)).transpose(1, 2)
        widths = [self.key_size, self.key_size, self.config.head_size]
        scale = (sum(widths) if self.config.attention_scale == "qkv" else self.key_size) ** -0.5
        query, key, value = heads.split(widths, dim=-1)
        return F.scaled_dot_product_attention(query, key, value, scale=scale).transpose(1, 2).flatten(2)


class RelationalMemoryPreTrainedModel(PreTrainedModel):
    config_class = RelationalMemoryConfig
    base_model_prefix = "model"
    _no_split_modules = ["RelationalMemoryCore"]
    _is_stateful = True  # a state cannot be rolled back: generate refuses assisted decoding

    @classmethod
    def _supports_default_dynamic_cache(cls) -> bool:
        return False  # forward makes a RelationalMemoryCache

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Truncated normal of standard deviation 1 / sqrt(inputs), embeddings 1 / sqrt(V), as in RelGAN's code."""
        for name, parameter in module.named_parameters(recurse=False):
            if name.endswith("norm_weight"):
                init.ones_(parameter)
            elif name.endswith("bias"):
                init.zeros_(parameter)
            else:
                std = parameter.shape[0 if isinstance(module, nn.Embedding) else -1] ** -0.5
                init.trunc_normal_(parameter, mean=0.0, std=std, a=-2 * std, b=2 * std)

    @classmethod
    def from_pretrained(cls, *args: Any, use_safetensors: bool = True, **kwargs: Any) -> Any:  # type: ignore[override]
        """As everywhere in transformers, but from safetensors only: a pickle can run code."""
        return super().from_pretrained(*args, use_safetensors=use_safetensors, **kwargs)


class RelationalMemoryModel(RelationalMemoryPreTrainedModel):
    """Embeddings and memory: everything up to the output layer."""

    def __init__(self, config: RelationalMemoryConfig):
        super().__init__(config)
        self.embed_tokens = nn.Embedding(config.vocab_size, config.embedding_size)
        self.memory = RelationalMemoryCore(config)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        past_key_values: RelationalMemoryCache | None = None,
        inputs_embeds: Tensor | None = None,
        use_cache: bool | None = None,
        output_hidden_states: bool | None = None,
        **kwargs: Any,
    ) -> BaseModelOutputWithPast:
        """Run the recurrence.

        Padding changes nothing, wherever it stands: the memory passes a padded position unchanged, and the output
        there is the memory.

        Args:
            input_ids: token ids (B, T).
            attention_mask: 1 on real tokens (B, T), or (B, past + T), of which the last T columns count.
            past_key_values: the memory to go on from; it is changed to the one after the last token.
            inputs_embeds: embeddings (B, T, E), instead of `input_ids`.
            use_cache: return the memory; by default `config.use_cache` in eval mode and no in training mode.
            output_hidden_states: return the embeddings and the memories.

        Returns:
            `last_hidden_state` (B, T, N * D), `past_key_values`, `hidden_states`.

        Raises:
            ValueError: both or neither of `input_ids` and `inputs_embeds`; a cache of another kind.
        """
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("Pass exactly one of input_ids (B, T) and inputs_embeds (B, T, E).")
        if not isinstance(past_key_values, RelationalMemoryCache | None):
            problem = f"past_key_values of type {type(past_key_values).__name__}"
            raise ValueError(f"{problem}: expected the RelationalMemoryCache that an earlier call returned.")
        if use_cache is None:
            use_cache = self.config.use_cache and not self.training
        if use_cache and past_key_values is None:
            past_key_values = RelationalMemoryCache()
        embedded = self.embed_tokens(input_ids) if inputs_embeds is None else inputs_embeds
        hidden = self._run(embedded, attention_mask, past_key_values)
        wants_all = self.config.output_hidden_states if output_hidden_states is None else output_hidden_states
        return BaseModelOutputWithPast(
            last_hidden_state=hidden,
            past_key_values=past_key_values if use_cache else None,
            hidden_states=(embedded, hidden) if wants_all else None,
        )

    def _run(
        self, embedded: Tensor, attention_mask: Tensor | None, past_key_values: RelationalMemoryCache | None
    ) -> Tensor:
        """The memories (B, T, N * D) after embeddings (B, T, E), from the cached one, which is brought up to date."""
        length = embedded.shape[1]
        mask = None if attention_mask is None else attention_mask[:, -length:].bool()
        cached: Any = None if past_key_values is None else past_key_values.layers[0]
        start = cached.keys if cached is not None and cached.is_initialized else self.memory.start(embedded)
        hidden = self.memory(embedded, start, mask)
        if cached is not None:
            cached.update(hidden[:, -1], hidden[:, -1, :0], seq_length=length)
        return hidden


class RelationalMemoryForCausalLM(RelationalMemoryPreTrainedModel, GenerationMixin):
    """A language model with a relational memory, and its output layer; `generate` works in all its ways."""

    def __init__(self, config: RelationalMemoryConfig):
        super().__init__(config)
        self.model = RelationalMemoryModel(config)
        self.lm_head = nn.Linear(config.mem_slots * config.memory_size, config.vocab_size)
        self.post_init()

    def generate(  # type: ignore[override]
        self, inputs: Tensor | None = None, generation_config: GenerationConfig | None = None, **kwargs: Any
    ) -> Tensor | ModelOutput:
        """As `GenerationMixin.generate`.

        Raises:
            ValueError: in assisted decoding, as the model that is assisted or as the one that assists.
        """
        if getattr(generation_config, "is_assistant", False):  # another model asks for candidates
            raise ValueError(NO_ROLLBACK)
        return super().generate(inputs, generation_config, **kwargs)  # type: ignore[misc]

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        past_key_values: RelationalMemoryCache | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | Tensor = 0,
        output_hidden_states: bool | None = None,
        **kwargs: Any,
    ) -> CausalLMOutputWithPast:
        """Next-token logits.

        Args:
            labels: token ids (B, T), shifted inside as everywhere in transformers; -100 does not count.
            logits_to_keep: only the last so many positions, or the positions given as indices; 0 keeps all.

        The other arguments are those of `RelationalMemoryModel`.

        Returns:
            `logits` (B, T, V), `loss` with `labels`, `past_key_values`, `hidden_states`.
        """
        outputs = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            use_cache=use_cache,
            output_hidden_states=output_hidden_states,
        )
        kept = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        logits = self.lm_head(outputs.last_hidden_state[:, kept])
        loss = None
        if labels is not None:
            loss = self.loss_function(logits=logits, labels=labels, vocab_size=self.config.vocab_size, **kwargs)
        return CausalLMOutputWithPast(
            loss=loss, logits=logits, past_key_values=outputs.past_key_values, hidden_states=outputs.hidden_states
        )
