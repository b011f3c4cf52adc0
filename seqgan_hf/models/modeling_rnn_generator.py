"""A recurrent language model, the generator of SeqGAN (Yu et al., AAAI 2017, https://arxiv.org/abs/1609.05473).

The file is complete in itself, as it is copied beside the weights for `trust_remote_code=True`.
"""

from typing import Any

import torch
from huggingface_hub.dataclasses import strict
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence
from transformers import GenerationConfig, GenerationMixin, PreTrainedConfig, PreTrainedModel
from transformers import initialization as init
from transformers.cache_utils import Cache, CacheLayerMixin
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutputWithPast
from transformers.utils import ModelOutput, can_return_tuple


CELLS = {"lstm": nn.LSTM, "gru": nn.GRU}
INITIALIZERS = ("normal", "uniform")
NO_ROLLBACK = (
    "a recurrent generator in assisted decoding: expected a model whose cache can be cut back to the accepted tokens, "
    "which a recurrent state cannot. Leave out `assistant_model` and `prompt_lookup_num_tokens`."
)


@strict
class RNNGeneratorConfig(PreTrainedConfig):
    """Configuration of `RNNGeneratorForCausalLM`. The defaults are the generator of the paper's synthetic experiment.

    Attributes:
        vocab_size: number of token ids.
        embedding_size: width of the token embeddings.
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
        use_cache: return the recurrent state, to go on from it, unless the model is in training mode.
        bos_token_id: the start token.
        eos_token_id: ends a sequence; `None` for sequences of fixed length.
        pad_token_id: fills up batches of sequences of unequal length.

    Raises:
        StrictDataclassFieldValidationError: a value has the wrong type.
        StrictDataclassClassValidationError: a value is out of its range, or contradicts another.
    """

    model_type = "rnn_generator"

    vocab_size: int = 5000
    embedding_size: int = 32
    hidden_size: int = 32
    num_hidden_layers: int = 1
    cell_type: str = "lstm"
    dropout: float | int = 0.0
    tie_word_embeddings: bool = False
    output_bias: bool = True
    initializer: str = "normal"
    initializer_range: float | int = 0.1
    use_cache: bool = True
    bos_token_id: int | None = 0
    eos_token_id: int | list[int] | None = None
    pad_token_id: int | None = None

    def validate_sizes(self) -> None:
        for name in ("vocab_size", "embedding_size", "hidden_size", "num_hidden_layers"):
            if (value := getattr(self, name)) < 1:
                raise ValueError(f"{name}={value}: expected an integer of at least 1.")
        if self.tie_word_embeddings and self.embedding_size != self.hidden_size:
            problem = f"embedding_size={self.embedding_size} and hidden_size={self.hidden_size}"
            expected = "two equal sizes, because one matrix is both embeddings and output layer"
            fix = "Make them equal or set tie_word_embeddings=False."
            raise ValueError(f"tie_word_embeddings=True with {problem}: expected {expected}. {fix}")

    def validate_choices(self) -> None:
        for name, allowed in (("cell_type", tuple(CELLS)), ("initializer", INITIALIZERS)):
            if (value := getattr(self, name)) not in allowed:
                raise ValueError(f"{name}={value!r}: expected one of {', '.join(allowed)}.")

    def validate_ranges(self) -> None:
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout={self.dropout}: expected a probability in [0, 1). Set dropout=0.0 for none.")
        if not self.initializer_range > 0:
            raise ValueError(f"initializer_range={self.initializer_range}: expected a number greater than 0.")

    def validate_special_tokens(self) -> None:
        for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
            value = getattr(self, name)
            for token in value if isinstance(value, list) else [value]:
                if token is not None and not 0 <= token < self.vocab_size:
                    problem = f"{name}={value} with vocab_size={self.vocab_size}"
                    fix = f"Change {name} or raise vocab_size."
                    raise ValueError(f"{problem}: expected a token id from 0 to vocab_size - 1, or None. {fix}")


class RNNCacheLayer(CacheLayerMixin):
    """The state of one recurrent layer: `keys` is h (B, H), `values` is the cell c (B, H), or (B, 0) for a GRU.

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


class RNNCache(Cache):
    """The recurrent state of all layers.

    `reorder_cache(rows)` selects, drops or repeats rows: `rows` (K,) may be longer or shorter than the batch.
    """

    def __init__(self, config: RNNGeneratorConfig):
        super().__init__(layers=[RNNCacheLayer() for _ in range(config.num_hidden_layers)])


class RNNGeneratorPreTrainedModel(PreTrainedModel):
    config_class = RNNGeneratorConfig
    base_model_prefix = "model"
    _no_split_modules = ["LSTM", "GRU"]
    _is_stateful = True  # a state cannot be rolled back: generate refuses assisted decoding

    @classmethod
    def _supports_default_dynamic_cache(cls) -> bool:
        return False  # forward makes an RNNCache

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

    @classmethod
    def from_pretrained(cls, *args: Any, use_safetensors: bool = True, **kwargs: Any) -> Any:  # type: ignore[override]
        """As everywhere in transformers, but from safetensors only: a pickle can run code."""
        return super().from_pretrained(*args, use_safetensors=use_safetensors, **kwargs)


class RNNGeneratorModel(RNNGeneratorPreTrainedModel):
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
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        past_key_values: RNNCache | None = None,
        inputs_embeds: Tensor | None = None,
        use_cache: bool | None = None,
        output_hidden_states: bool | None = None,
        **kwargs: Any,
    ) -> BaseModelOutputWithPast:
        """Run the recurrence.

        Padding changes nothing, wherever it stands: the state passes a padded position unchanged, and the output there
        is the state.

        Args:
            input_ids: token ids (B, T).
            attention_mask: 1 on real tokens (B, T), or (B, past + T), of which the last T columns count.
            past_key_values: the state to go on from; it is changed to the state after the last token.
            inputs_embeds: embeddings (B, T, E), instead of `input_ids`.
            use_cache: return the state; by default `config.use_cache` in eval mode and no in training mode.
            output_hidden_states: return the embeddings and the output of every layer.

        Returns:
            `last_hidden_state` (B, T, H), `past_key_values`, `hidden_states`.

        Raises:
            ValueError: both or neither of `input_ids` and `inputs_embeds`; a cache of another kind.
        """
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("Pass exactly one of input_ids (B, T) and inputs_embeds (B, T, E).")
        if not isinstance(past_key_values, RNNCache | None):
            kind = type(past_key_values).__name__
            raise ValueError(f"past_key_values of type {kind}: expected the RNNCache that an earlier call returned.")
        if use_cache is None:
            use_cache = self.config.use_cache and not self.training
        if use_cache and past_key_values is None:
            past_key_values = RNNCache(self.config)  # type: ignore[arg-type]
        embedded = self.embed_tokens(input_ids) if inputs_embeds is None else inputs_embeds
        hidden_states = self._run_layers(self.dropout(embedded), attention_mask, past_key_values)
        wants_all = self.config.output_hidden_states if output_hidden_states is None else output_hidden_states
        return BaseModelOutputWithPast(
            last_hidden_state=hidden_states[-1],
            past_key_values=past_key_values if use_cache else None,
            hidden_states=hidden_states if wants_all else None,
        )

    def _run_layers(
        self, hidden: Tensor, attention_mask: Tensor | None, past_key_values: RNNCache | None
    ) -> tuple[Tensor, ...]:
        """The embeddings (B, T, E) and the outputs (B, T, H) of all layers."""
        length = hidden.shape[1]
        mask = None if attention_mask is None else attention_mask[:, -length:].bool()
        if mask is not None and length > 1 and bool(mask.all()):
            mask = None
        hidden_states = [hidden]
        layer: Any
        for index, layer in enumerate(self.layers):
            cache_layer: Any = None if past_key_values is None else past_key_values.layers[index]
            hidden = self.dropout(self._run_layer(layer, hidden, mask, cache_layer))
            hidden_states.append(hidden)
        return tuple(hidden_states)

    def _run_layer(
        self, layer: nn.RNNBase, inputs: Tensor, mask: Tensor | None, cache: RNNCacheLayer | None
    ) -> Tensor:
        """Outputs (B, T, H) of one layer over (B, T, E) from the cached state, which is brought up to date."""
        is_lstm = self.config.cell_type == "lstm"
        if cache is not None and cache.is_initialized:
            h, c = cache.keys, cache.values
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
            cache.update(new_h, new_c, seq_length=inputs.shape[1])
        return outputs


def run_padded(layer: nn.RNNBase, inputs: Tensor, state, mask: Tensor, needs_state: bool):
    """A recurrent layer over sequences with padding anywhere; shapes as in `torch.nn.LSTM` with `batch_first`.

    Real tokens are moved to the front, run, and their outputs carried to the padding after them. Only where the state
    after the last of several tokens is asked for does the batch have to be packed, which is slower.
    """
    length, tokens_so_far = inputs.shape[1], mask.cumsum(dim=1)[..., None]  # (B, T, 1)
    lengths = tokens_so_far[:, -1, 0]
    if length > 1:
        order = torch.argsort((~mask).to(torch.int8), dim=1, stable=True)[..., None]
        inputs = inputs.gather(1, order.expand_as(inputs))
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


class RNNGeneratorForCausalLM(RNNGeneratorPreTrainedModel, GenerationMixin):
    """A recurrent language model with its output layer; `generate` works in all its ways."""

    _tied_weights_keys = {"lm_head.weight": "model.embed_tokens.weight"}

    def __init__(self, config: RNNGeneratorConfig):
        super().__init__(config)
        self.model = RNNGeneratorModel(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=config.output_bias)
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
        past_key_values: RNNCache | None = None,
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

        The other arguments are those of `RNNGeneratorModel`.

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
