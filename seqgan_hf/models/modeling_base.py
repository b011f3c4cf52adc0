"""What the architectures of this package share: checks of settings, labels, a state in place of a cache of keys.

The file is copied beside the weights for `trust_remote_code=True`, with that of the architecture.
"""

import inspect
from collections.abc import Collection
from typing import Any, ClassVar

import torch
from huggingface_hub.dataclasses import strict
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import GenerationConfig, GenerationMixin, PreTrainedConfig, PreTrainedModel
from transformers.cache_utils import Cache, CacheLayerMixin
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutputWithPast, SequenceClassifierOutput
from transformers.utils import ModelOutput, can_return_tuple


LABELS = {1: ("REAL",), 2: ("FAKE", "REAL")}  # by number of logits
NO_ROLLBACK = (
    "a generator with a state in assisted decoding: expected a model whose cache can be cut back to the accepted "
    "tokens. Leave out `assistant_model` and `prompt_lookup_num_tokens`."
)


@strict
class CheckedConfig(PreTrainedConfig):
    """Settings that are checked, by the bounds that an architecture names.

    Attributes:
        vocab_size: V, number of token ids.
        pad_token_id: fills up batches of sequences of unequal length; only `attention_mask` decides what is padding.

    Raises:
        StrictDataclassFieldValidationError: a value has the wrong type.
        StrictDataclassClassValidationError: a value is out of its range, or contradicts another.
    """

    sizes: ClassVar[Collection[str]] = ("vocab_size", "embedding_size")  # at least 1, or `None` where that is allowed
    positive: ClassVar[Collection[str]] = ()
    choices: ClassVar[dict[str, Collection[str]]] = {}

    vocab_size: int = 5000
    pad_token_id: int | None = None

    def validate_sizes(self) -> None:
        for name in self.sizes:
            if (value := getattr(self, name)) is not None and value < 1:
                raise ValueError(f"{name}={value}: expected an integer of at least 1.")

    def validate_choices(self) -> None:
        for name, allowed in self.choices.items():
            if (value := getattr(self, name)) not in allowed:
                raise ValueError(f"{name}={value!r}: expected one of {', '.join(allowed)}.")

    def validate_ranges(self) -> None:
        if not 0 <= (dropout := getattr(self, "dropout", 0.0)) < 1:
            raise ValueError(f"dropout={dropout}: expected a probability in [0, 1). Set dropout=0.0 for none.")
        for name in self.positive:
            if not (value := getattr(self, name)) > 0:
                raise ValueError(f"{name}={value}: expected a number greater than 0.")

    def validate_special_tokens(self) -> None:
        for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
            value = getattr(self, name, None)
            for token in value if isinstance(value, list) else [value]:
                if token is not None and not 0 <= token < self.vocab_size:
                    problem = f"{name}={value} with vocab_size={self.vocab_size}"
                    fix = f"Change {name} or raise vocab_size."
                    raise ValueError(f"{problem}: expected a token id from 0 to vocab_size - 1, or None. {fix}")


class CheckedModel(PreTrainedModel):
    """A model with a `CheckedConfig`, whose weights are safetensors."""

    embed_tokens: nn.Module

    def __init__(self, config: Any):
        config.validate()  # values that `from_pretrained` was given were set after the last check
        super().__init__(config)

    @classmethod
    def from_pretrained(cls, *args: Any, use_safetensors: bool = True, **kwargs: Any) -> Any:  # type: ignore[override]
        """As everywhere in transformers, but from safetensors only: a pickle can run code."""
        return super().from_pretrained(*args, use_safetensors=use_safetensors, **kwargs)

    def embed(self, input_ids: Tensor | None, inputs_embeds: Tensor | None) -> Tensor:
        """Embeddings (B, T, E), of token ids (B, T) or as they are given; a ValueError unless it is one of both."""
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("Pass exactly one of input_ids (B, T) and inputs_embeds (B, T, E).")
        return self.embed_tokens(input_ids) if inputs_embeds is None else inputs_embeds


def compact(values: Tensor, mask: Tensor) -> Tensor:
    """Values (B, T, E) in each row's order, but those where the mask (B, T) is true before all others."""
    order = torch.argsort((~mask).to(torch.int8), dim=1, stable=True)[..., None]
    return values.gather(1, order.expand_as(values))


# --- Classifiers -----------------------------------------------------------------------------------------------------


@strict
class ClassifierConfig(CheckedConfig):
    """What the configurations of classifiers have in common.

    Attributes:
        embedding_size: E, width of the token embeddings.
        dropout: probability of dropping a feature, or a unit.
        id2label: two labels by default, 0 = "FAKE" and 1 = "REAL"; other names may be given, and more than two, the
            first that of generated text. With `num_labels=1` the single logit is that of "real".
    """

    embedding_size: int = 64
    dropout: float | int = 0.25
    id2label: dict[int, str] | dict[str, str] | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        if self.id2label is None and (labels := LABELS.get(kwargs.get("num_labels", 2))):
            self.id2label, self.label2id = dict(enumerate(labels)), {name: index for index, name in enumerate(labels)}
        super().__post_init__(**kwargs)

    @property
    def takes_names(self) -> bool:
        """Whether there may be more than two labels, each with a name."""
        return True

    def validate_labels(self) -> None:
        named = self.num_labels and not any(name.startswith("LABEL_") for name in self.id2label.values())
        if self.num_labels not in (1, 2) and not (named and self.takes_names):
            expected = "2 (0 = fake, 1 = real), or 1 (one logit, of real)"
            fix = ", set num_labels=1, or name all labels in id2label" if self.takes_names else ", or set num_labels=1"
            raise ValueError(
                f"num_labels={self.num_labels}: expected {expected}. Leave num_labels and id2label out{fix}."
            )


@strict
class ConvolutionConfig(ClassifierConfig):
    """Of a classifier with convolutions.

    Attributes:
        filter_sizes: widths of the convolution windows, in tokens.
        num_filters: number of feature maps of each width.
    """

    filter_sizes: list[int] | tuple[int, ...]
    num_filters: list[int] | tuple[int, ...]

    def __post_init__(self, **kwargs: Any) -> None:
        self.filter_sizes, self.num_filters = list(self.filter_sizes), list(self.num_filters)
        super().__post_init__(**kwargs)

    def validate_filters(self) -> None:
        for name in ("filter_sizes", "num_filters"):
            values = getattr(self, name)
            if len(values) == 0 or min(values) < 1:
                raise ValueError(f"{name}={values}: expected one or more integers of at least 1.")
        if len(self.filter_sizes) != len(self.num_filters):
            widths = f"filter_sizes={self.filter_sizes} ({len(self.filter_sizes)} values)"
            numbers = f"num_filters={self.num_filters} ({len(self.num_filters)} values)"
            expected = "one number of feature maps for each filter width. Give both lists the same length."
            raise ValueError(f"{widths} and {numbers}: expected {expected}")


class Classifier(CheckedModel):
    """A sequence classifier."""

    def judge(self, embedded: Tensor, mask: Tensor | None, labels: Tensor | None) -> SequenceClassifierOutput:
        """The output of `forward` for embeddings (B, T, E), and a mask (B, T) that is true on real tokens."""
        raise NotImplementedError

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        token_type_ids: Tensor | None = None,
    ) -> SequenceClassifierOutput:
        """Score sequences. Padding changes nothing, wherever it stands.

        Args:
            input_ids: token ids (B, T), T >= 1.
            attention_mask: 1 on real tokens, 0 on padding (B, T); without it all tokens are real.
            inputs_embeds: embeddings (B, T, E) instead of `input_ids`; mixtures of embeddings carry gradients to soft
                tokens.
            labels: 0 = fake, 1 = real (B,).
            token_type_ids: accepted because tokenizers return them; has no meaning here.

        Returns:
            `logits` (B, num_labels); with `labels` also `loss`, the mean cross-entropy.

        Raises:
            ValueError: both or neither of `input_ids` and `inputs_embeds`.
        """
        mask = None if attention_mask is None else attention_mask.bool()
        return self.judge(self.embed(input_ids, inputs_embeds), mask, labels)


def classification_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of logits (B, C) and labels (B,); with a single logit, of real against fake."""
    if logits.shape[1] == 1:
        return F.binary_cross_entropy_with_logits(logits[:, 0], labels.to(logits.dtype))
    return F.cross_entropy(logits, labels.long())


# --- Generators with a state -----------------------------------------------------------------------------------------


@strict
class StatefulConfig(CheckedConfig):
    """What the configurations of generators with a state have in common.

    Attributes:
        embedding_size: E, width of the token embeddings.
        use_cache: return the state, to go on from it, unless the model is in training mode.
        bos_token_id: the start token.
        eos_token_id: ends a sequence; `None` for sequences of fixed length.
    """

    embedding_size: int = 32
    use_cache: bool = True
    bos_token_id: int | None = 0
    eos_token_id: int | list[int] | None = None


class StateLayer(CacheLayerMixin):
    """Two tensors of a row each, `keys` and `values`; their architecture says what they are.

    They are assigned, never written in place, so that gradients pass through the cache and a state taken out of it
    stays as it was.
    """

    is_compileable = False
    is_croppable = False
    supports_early_init = False

    def __init__(self):
        super().__init__()
        self.cumulative_length = 0

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        self.device, self.is_initialized = key_states.device, True

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


class StateCache(Cache):
    """The state of a generator, in one or more layers.

    `reorder_cache(rows)` selects, drops or repeats rows: `rows` (K,) may be longer or shorter than the batch.
    """

    def __init__(self, layers: int):
        super().__init__(layers=[StateLayer() for _ in range(layers)])

    def read(self, layer: int) -> tuple[Tensor, Tensor] | None:
        """The two tensors of a layer; `None` before the first token."""
        state: Any = self.layers[layer]
        return (state.keys, state.values) if state.is_initialized else None


# What causal LMs call their cache: `cache` from transformers 5.24 on; before, one of the others.
CACHE_NAMES = ("cache", "cache_params", "past_key_values")


def cache_name(model: nn.Module) -> str:
    """The argument of a causal LM for its cache."""
    accepted = inspect.signature(model.forward).parameters
    return next((name for name in CACHE_NAMES if name in accepted), "past_key_values")


def cache_of(output: ModelOutput) -> Cache | None:
    """The cache in what a causal LM returns."""
    return next((value for value in output.values() if isinstance(value, Cache)), None)


def reads_old_masks(cache: Cache | None) -> bool:
    """Whether a causal LM that goes on from a cache reads a mask of all tokens so far.

    A state space model reads one of the new tokens only, which are all real.
    """
    return cache is None or not all(cache.is_linear)


class StatefulPreTrained(CheckedModel):
    base_model_prefix = "model"
    _is_stateful = True  # a state cannot be rolled back: generate refuses assisted decoding

    @classmethod
    def _supports_default_dynamic_cache(cls) -> bool:
        return False  # forward makes a cache of its own


class StatefulModel(StatefulPreTrained):
    """Embeddings and a recurrence: everything up to the output layer."""

    state_layers = 1  # of the cache

    def recur(self, embedded: Tensor, mask: Tensor | None, cache: StateCache | None) -> tuple[Tensor, ...]:
        """What `hidden_states` returns, the last hidden states (B, T, H) last; the cache is brought up to date.

        Args:
            embedded: shape (B, T, E).
            mask: true on real tokens, (B, T); `None` if all are.
            cache: the state to go on from; `None` if nobody asks for the one at the end.
        """
        raise NotImplementedError

    def find_cache(self, given: Any, use_cache: bool | None) -> tuple[StateCache | None, bool]:
        """The cache that is given, or a new one if one is to be returned, and whether it is.

        Raises:
            ValueError: it is one of another kind.
        """
        if not isinstance(given, StateCache | None):
            kind = type(given).__name__
            raise ValueError(f"a cache of type {kind}: expected the StateCache that an earlier call returned.")
        if use_cache is None:
            use_cache = self.config.use_cache and not self.training
        return StateCache(self.state_layers) if use_cache and given is None else given, use_cache

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        past_key_values: StateCache | None = None,
        inputs_embeds: Tensor | None = None,
        use_cache: bool | None = None,
        output_hidden_states: bool | None = None,
        cache: StateCache | None = None,
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
            cache: `past_key_values` by the name that transformers gives it from 5.24 on.

        Returns:
            `last_hidden_state` (B, T, H), the state, `hidden_states`.

        Raises:
            ValueError: both or neither of `input_ids` and `inputs_embeds`; a cache of another kind.
        """
        embedded = self.embed(input_ids, inputs_embeds)
        cache, use_cache = self.find_cache(past_key_values if cache is None else cache, use_cache)
        mask = None if attention_mask is None else attention_mask[:, -embedded.shape[1] :].bool()
        hidden_states = self.recur(embedded, mask, cache)
        wants_all = self.config.output_hidden_states if output_hidden_states is None else output_hidden_states
        # by their places: the second has another name from transformers 5.24 on
        return BaseModelOutputWithPast(
            hidden_states[-1], cache if use_cache else None, hidden_states if wants_all else None
        )


class StatefulForCausalLM(StatefulPreTrained, GenerationMixin):
    """A generator with a state and its output layer; `generate` works in all its ways."""

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
        past_key_values: StateCache | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | Tensor = 0,
        output_hidden_states: bool | None = None,
        cache: StateCache | None = None,
        **kwargs: Any,
    ) -> CausalLMOutputWithPast:
        """Next-token logits.

        Args:
            labels: token ids (B, T), shifted inside as everywhere in transformers; -100 does not count.
            logits_to_keep: only the last so many positions, or the positions given as indices; 0 keeps all.

        The other arguments are those of the model below the output layer.

        Returns:
            `logits` (B, T, V), `loss` with `labels`, the state, `hidden_states`.
        """
        outputs = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            past_key_values=past_key_values if cache is None else cache,
            inputs_embeds=inputs_embeds,
            use_cache=use_cache,
            output_hidden_states=output_hidden_states,
        )
        kept = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        logits = self.lm_head(outputs.last_hidden_state[:, kept])
        loss = None
        if labels is not None:
            loss = self.loss_function(logits=logits, labels=labels, vocab_size=self.config.vocab_size, **kwargs)
        return CausalLMOutputWithPast(loss, logits, cache_of(outputs), outputs.hidden_states)
