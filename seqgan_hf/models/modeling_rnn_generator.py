"""A recurrent language model, the generator of SeqGAN (Yu et al., AAAI 2017, https://arxiv.org/abs/1609.05473).

The file is copied beside the weights for `trust_remote_code=True`, with the modules that it imports.
"""

from typing import Any

import torch
from huggingface_hub.dataclasses import strict
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence
from transformers import initialization as init

from .modeling_base import StateCache, StatefulConfig, StatefulForCausalLM, StatefulModel, StatefulPreTrained, compact
from .modeling_threads import SHARED_WEIGHT


CELLS = {"lstm": nn.LSTM, "gru": nn.GRU}

# The widest recurrence that gains nothing from a second thread.
SMALL = 128


@strict
class RNNGeneratorConfig(StatefulConfig):
    """Configuration of `RNNGeneratorForCausalLM`. The defaults are the generator of the paper's synthetic experiment.

    The settings are those of `StatefulConfig`, and these.

    Attributes:
        hidden_size: H, width of the recurrent state.
        num_hidden_layers: number of recurrent layers.
        cell_type: `"lstm"` or `"gru"`.
        dropout: probability of dropping a unit of the embeddings and of every layer's output; the recurrent
            connections are left alone (Zaremba et al., 2014, https://arxiv.org/abs/1409.2329).
        tie_word_embeddings: use the embeddings as output matrix; needs `embedding_size == hidden_size`.
        output_bias: whether the output layer has a bias.
        initializer: `"normal"` draws every parameter from N(0, initializer_range^2), biases included, as the paper
            does; `"uniform"` from U(-initializer_range, initializer_range). PyTorch gives a gate two biases where the
            paper has one: the first is drawn, the second starts at zero.
        initializer_range: standard deviation of the normal, half-width of the uniform distribution.
    """

    model_type = "rnn_generator"
    sizes = ("vocab_size", "embedding_size", "hidden_size", "num_hidden_layers")
    positive = ("initializer_range",)
    choices = {"cell_type": CELLS, "initializer": ("normal", "uniform")}

    hidden_size: int = 32
    num_hidden_layers: int = 1
    cell_type: str = "lstm"
    dropout: float | int = 0.0
    tie_word_embeddings: bool = False
    output_bias: bool = True
    initializer: str = "normal"
    initializer_range: float | int = 0.1

    def validate_tie(self) -> None:
        if self.tie_word_embeddings and self.embedding_size != self.hidden_size:
            problem = f"embedding_size={self.embedding_size} and hidden_size={self.hidden_size}"
            expected = "two equal sizes, because one matrix is both embeddings and output layer"
            fix = "Make them equal or set tie_word_embeddings=False."
            raise ValueError(f"tie_word_embeddings=True with {problem}: expected {expected}. {fix}")


class RNNGeneratorPreTrainedModel(StatefulPreTrained):
    config_class = RNNGeneratorConfig
    _no_split_modules = ["LSTM", "GRU"]

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        width = self.config.initializer_range
        for name, parameter in module.named_parameters(recurse=False):
            if name.startswith("bias_hh"):
                init.zeros_(parameter)
            elif self.config.initializer == "normal":
                init.normal_(parameter, mean=0.0, std=width)
            else:
                init.uniform_(parameter, -width, width)


class RNNGeneratorModel(RNNGeneratorPreTrainedModel, StatefulModel):
    """Embeddings and recurrent layers: everything up to the output layer.

    A layer is a plain `torch.nn.LSTM` or `torch.nn.GRU` of one layer, so that weights move in and out by renaming:
    `layers.1.weight_ih_l0` is `weight_ih_l1` of a `torch.nn.LSTM` of several layers.
    """

    def __init__(self, config: RNNGeneratorConfig):
        super().__init__(config)
        sizes = [config.embedding_size] + [config.hidden_size] * config.num_hidden_layers
        self.embed_tokens = nn.Embedding(config.vocab_size, config.embedding_size)
        self.layers = nn.ModuleList(
            CELLS[config.cell_type](width, config.hidden_size, batch_first=True) for width in sizes[:-1]
        )
        self.dropout = nn.Dropout(config.dropout)
        self.state_layers = config.num_hidden_layers
        self.post_init()

    def recur(self, embedded: Tensor, mask: Tensor | None, cache: StateCache | None) -> tuple[Tensor, ...]:
        if mask is not None and mask.shape[1] > 1 and bool(mask.all()):
            mask = None
        hidden_states = [self.dropout(embedded)]
        for index in range(len(self.layers)):
            hidden_states.append(self.dropout(self._run_layer(index, hidden_states[-1], mask, cache)))
        return tuple(hidden_states)

    def _run_layer(self, index: int, inputs: Tensor, mask: Tensor | None, cache: StateCache | None) -> Tensor:
        """Outputs (B, T, H) of one layer over (B, T, E) from the cached state, which is brought up to date.

        Of the cache's tensors the first is h (B, H), the second the cell c (B, H), or (B, 0) for a GRU.
        """
        layer: Any = self.layers[index]
        is_lstm = self.config.cell_type == "lstm"
        known = None if cache is None else cache.read(index)
        if known is not None:
            h, c = known
        else:
            h = inputs.new_zeros(inputs.shape[0], self.config.hidden_size)
            c = h if is_lstm else h[:, :0]
        state = (h[None], c[None]) if is_lstm else h[None]
        if mask is None:
            outputs, state = layer(inputs, state)
        else:
            outputs, state = run_padded(layer, inputs, state, mask, needs_state=cache is not None)
        if cache is not None:
            new_h, new_c = (state[0][0], state[1][0]) if is_lstm else (state[0], c)
            cache.update(new_h, new_c, index, seq_length=inputs.shape[1])
        return outputs


def run_padded(layer: nn.RNNBase, inputs: Tensor, state, mask: Tensor, needs_state: bool):
    """A recurrent layer over sequences with padding anywhere; shapes as in `torch.nn.LSTM` with `batch_first`.

    Real tokens are moved to the front, run, and their outputs carried to the padding after them. Only where the state
    after the last of several tokens is asked for does the batch have to be packed, which is slower.
    """
    length, tokens_so_far = inputs.shape[1], mask.cumsum(dim=1)[..., None]  # (B, T, 1)
    lengths = tokens_so_far[:, -1, 0]
    if length > 1:
        inputs = compact(inputs, mask)
    if length > 1 and needs_state:
        lengths_on_host = lengths.clamp(min=1).cpu()
        packed = pack_padded_sequence(inputs, lengths_on_host, batch_first=True, enforce_sorted=False)
        outputs, new_state = layer(packed, state)
        outputs, _ = pad_packed_sequence(outputs, batch_first=True, total_length=length)
    else:
        outputs, new_state = layer(inputs, state)

    is_lstm = isinstance(state, tuple)
    h = state[0][0] if is_lstm else state[0]  # (B, H)
    last_token = (tokens_so_far - 1).clamp(min=0)
    outputs = torch.where(tokens_so_far > 0, outputs.gather(1, last_token.expand_as(outputs)), h[:, None])

    empty = (lengths == 0)[None, :, None]  # nothing but padding: the state stays
    if is_lstm:
        return outputs, tuple(torch.where(empty, old, new) for old, new in zip(state, new_state, strict=True))
    return outputs, torch.where(empty, state, new_state)


class RNNGeneratorForCausalLM(RNNGeneratorPreTrainedModel, StatefulForCausalLM):
    """A recurrent language model with its output layer; `generate` works in all its ways."""

    _tied_weights_keys = {"lm_head.weight": "model.embed_tokens.weight"}

    def __init__(self, config: RNNGeneratorConfig):
        super().__init__(config)
        self.model = RNNGeneratorModel(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=config.output_bias)
        self.post_init()

    @property
    def shares_out(self) -> bool:
        """Whether what takes time is the output layer alone, whose losses are computed in pieces; see `unsplit`."""
        return self.config.hidden_size <= SMALL and self.lm_head.weight.numel() <= SHARED_WEIGHT
