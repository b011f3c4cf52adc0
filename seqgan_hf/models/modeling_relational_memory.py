"""A language model with a relational memory (Santoro et al., NeurIPS 2018, https://arxiv.org/abs/1806.01822), the
generator of RelGAN (Nie et al., ICLR 2019, https://openreview.net/forum?id=rJedV3R5tm).

The file is copied beside the weights for `trust_remote_code=True`, with `modeling_base.py`.
"""

from typing import NamedTuple

import torch
from huggingface_hub.dataclasses import strict
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import initialization as init

from .modeling_base import StateCache, StatefulConfig, StatefulForCausalLM, StatefulModel, StatefulPreTrained


@strict
class RelationalMemoryConfig(StatefulConfig):
    """Configuration of `RelationalMemoryForCausalLM`. The defaults are RelGAN's generator.

    The settings are those of `StatefulConfig`, and these.

    Attributes:
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
        tie_word_embeddings: false, as embeddings and output layer differ in width.
    """

    model_type = "relational_memory"
    sizes = "vocab_size embedding_size mem_slots num_heads head_size key_size attention_mlp_layers num_blocks".split()
    choices = {"gate_style": ("unit", "memory"), "layer_norm": ("joint", "row"), "attention_scale": ("qkv", "key")}

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
    tie_word_embeddings: bool = False

    @property
    def memory_size(self) -> int:
        """D, the width of a row of the memory."""
        return self.num_heads * self.head_size

    def validate_tie(self) -> None:
        if self.tie_word_embeddings:
            raise ValueError("tie_word_embeddings=True: expected False, as this model has no tied weights.")


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


class RelationalMemoryPreTrainedModel(StatefulPreTrained):
    config_class = RelationalMemoryConfig
    _no_split_modules = ["RelationalMemoryCore"]

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


class RelationalMemoryModel(RelationalMemoryPreTrainedModel, StatefulModel):
    """Embeddings and memory: everything up to the output layer, which reads the memories, H = N * D."""

    def __init__(self, config: RelationalMemoryConfig):
        super().__init__(config)
        self.embed_tokens = nn.Embedding(config.vocab_size, config.embedding_size)
        self.memory = RelationalMemoryCore(config)
        self.post_init()

    def recur(self, embedded: Tensor, mask: Tensor | None, cache: StateCache | None) -> tuple[Tensor, ...]:
        """Embeddings and memories; of the cache's tensors the first is the memory (B, N * D), the second empty."""
        known = None if cache is None else cache.read(0)
        hidden = self.memory(embedded, self.memory.start(embedded) if known is None else known[0], mask)
        if cache is not None:
            cache.update(hidden[:, -1], hidden[:, -1, :0], 0, seq_length=embedded.shape[1])
        return embedded, hidden


class RelationalMemoryForCausalLM(RelationalMemoryPreTrainedModel, StatefulForCausalLM):
    """A language model with a relational memory, and its output layer; `generate` works in all its ways."""

    def __init__(self, config: RelationalMemoryConfig):
        super().__init__(config)
        self.model = RelationalMemoryModel(config)
        self.lm_head = nn.Linear(config.mem_slots * config.memory_size, config.vocab_size)
        self.post_init()
