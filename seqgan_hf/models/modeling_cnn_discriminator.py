"""A convolutional sequence classifier, the discriminator of SeqGAN (Yu et al., AAAI 2017,
https://arxiv.org/abs/1609.05473, section 3.3), after Kim (2014) and Zhang and LeCun (2015), with a highway layer
(Srivastava et al., 2015).

The file is complete in itself: it is copied beside the weights, so that a model loads with `trust_remote_code=True`
where this package is not installed.
"""

import torch
from huggingface_hub.dataclasses import strict
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedConfig, PreTrainedModel
from transformers import initialization as init
from transformers.modeling_outputs import SequenceClassifierOutput
from transformers.utils import can_return_tuple


def _require(condition: bool, got: str, expected: str, remedy: str) -> None:
    if not condition:
        raise ValueError(f"got {got} -> expected {expected} -> {remedy}")


@strict
class CNNDiscriminatorConfig(PreTrainedConfig):
    """Configuration of `CNNDiscriminatorForSequenceClassification`; the defaults are the paper's, for T = 20.

    Attributes:
        vocab_size: number of token ids.
        embedding_size: E, width of the token embeddings.
        filter_sizes: widths of the convolution windows, in tokens.
        num_filters: number of feature maps of each width; the highway layer is `sum(num_filters)` wide.
        dropout: probability of dropping a feature before the output layer.
        highway_gate_bias: initial bias of the highway's gate; a negative one lets features pass unchanged at first.
        l2_output: weight of the penalty on the output layer, see `regularization`.
        embedding_range: embeddings start from U(-embedding_range, embedding_range).
        initializer_range: filters and output layer start from a normal distribution of this standard deviation,
            truncated at twice of it.
        initial_bias: initial bias of the filters and of the output layer.
        pad_token_id: fills up batches of sequences of unequal length; only `attention_mask` decides what is padding.
        id2label: two labels by default, 0 = "FAKE" and 1 = "REAL"; with `num_labels=1` the single logit is that of
            "real".

    Raises:
        StrictDataclassFieldValidationError: a value has the wrong type.
        StrictDataclassClassValidationError: a value is out of its range, or contradicts another.
    """

    model_type = "cnn_discriminator"

    vocab_size: int = 5000
    embedding_size: int = 64
    filter_sizes: list[int] | tuple[int, ...] = (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 15, 20)
    num_filters: list[int] | tuple[int, ...] = (100, 200, 200, 200, 200, 100, 100, 100, 100, 100, 160, 160)
    dropout: float | int = 0.25
    highway_gate_bias: float | int = -2.0
    l2_output: float | int = 0.2
    embedding_range: float | int = 1.0
    initializer_range: float | int = 0.1
    initial_bias: float | int = 0.1
    pad_token_id: int | None = None
    id2label: dict[int, str] | dict[str, str] | None = None

    def __post_init__(self, **kwargs):
        self.filter_sizes, self.num_filters = list(self.filter_sizes), list(self.num_filters)
        if self.id2label is None and kwargs.get("num_labels", 2) == 2:
            self.id2label, self.label2id = {0: "FAKE", 1: "REAL"}, {"FAKE": 0, "REAL": 1}
        super().__post_init__(**kwargs)

    def validate_sizes(self):
        for name in ("vocab_size", "embedding_size", "num_labels"):
            value = getattr(self, name)
            _require(value >= 1, f"{name}={value}", "an integer of at least 1", f"set {name} to 1 or more")

    def validate_filters(self):
        for name in ("filter_sizes", "num_filters"):
            values = getattr(self, name)
            _require(
                len(values) > 0 and min(values) >= 1,
                f"{name}={values}",
                "one or more integers of at least 1",
                f"list at least one such number in {name}",
            )
        _require(
            len(self.filter_sizes) == len(self.num_filters),
            f"filter_sizes={self.filter_sizes} ({len(self.filter_sizes)} values) and "
            f"num_filters={self.num_filters} ({len(self.num_filters)} values)",
            "one number of feature maps for each filter width",
            "give both lists the same length",
        )

    def validate_ranges(self):
        _require(
            0 <= self.dropout < 1, f"dropout={self.dropout}", "a probability in [0, 1)", "set dropout=0.0 for none"
        )
        _require(self.l2_output >= 0, f"l2_output={self.l2_output}", "a number >= 0", "set l2_output=0.0 for none")
        for name in ("embedding_range", "initializer_range"):
            value = getattr(self, name)
            _require(value > 0, f"{name}={value}", "a number greater than 0", f"leave {name} out for the paper's")


class CNNDiscriminatorForSequenceClassification(PreTrainedModel):
    """Convolutions of many widths, max over time, a highway layer, a linear score.

    `filters[i]` is the convolution of width w = `config.filter_sizes[i]`, written as a linear map of the w embeddings
    in a window: `filters[i].weight.view(-1, w, E).transpose(1, 2)` is the weight of the equal `torch.nn.Conv1d`.
    """

    config_class = CNNDiscriminatorConfig
    base_model_prefix = ""
    supports_gradient_checkpointing = False
    _no_split_modules = []
    _input_embed_layer = "embed_tokens"

    def __init__(self, config: CNNDiscriminatorConfig):
        super().__init__(config)
        width = sum(config.num_filters)
        self.embed_tokens = nn.Embedding(config.vocab_size, config.embedding_size)
        self.filters = nn.ModuleList(
            nn.Linear(size * config.embedding_size, number)
            for size, number in zip(config.filter_sizes, config.num_filters, strict=True)
        )
        self.highway_transform = nn.Linear(width, width)
        self.highway_gate = nn.Linear(width, width)
        self.dropout = nn.Dropout(config.dropout)
        self.score = nn.Linear(width, config.num_labels)
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        std = self.config.initializer_range
        if isinstance(module, nn.Embedding):
            init.uniform_(module.weight, -self.config.embedding_range, self.config.embedding_range)
        elif module is self.highway_transform or module is self.highway_gate:
            init.xavier_uniform_(module.weight)
            init.constant_(module.bias, self.config.highway_gate_bias if module is self.highway_gate else 0.0)
        elif isinstance(module, nn.Linear):
            init.trunc_normal_(module.weight, mean=0.0, std=std, a=-2 * std, b=2 * std)
            init.constant_(module.bias, self.config.initial_bias)

    def regularization(self) -> Tensor:
        """The L2 penalty on the output layer, l2_output * (|W|^2 + |b|^2) / 2: a scalar to add to the loss."""
        return 0.5 * self.config.l2_output * (self.score.weight.square().sum() + self.score.bias.square().sum())

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        token_type_ids: Tensor | None = None,
    ) -> SequenceClassifierOutput:
        """Score sequences.

        Padding changes nothing: a window counts where it holds real tokens only. A sequence shorter than a window has
        one window of that width, at its start, with zero vectors after the sequence's end.

        Args:
            input_ids: token ids (B, T), T >= 1.
            attention_mask: 1 on real tokens, 0 on padding (B, T); without it all tokens are real.
            inputs_embeds: embeddings (B, T, E) instead of `input_ids`; mixtures of embeddings carry gradients to soft
                tokens.
            labels: 0 = fake, 1 = real (B,).
            token_type_ids: accepted because tokenizers return them; has no meaning here.

        Returns:
            `logits` (B, num_labels); with `labels` also `loss`: cross-entropy plus `regularization()`.

        Raises:
            ValueError: both or neither of `input_ids` and `inputs_embeds`.
        """
        _require(
            (input_ids is None) != (inputs_embeds is None),
            "both input_ids and inputs_embeds" if input_ids is not None else "neither input_ids nor inputs_embeds",
            "exactly one of them",
            "pass token ids (B, T) or embeddings (B, T, E)",
        )
        embedded = self.embed_tokens(input_ids) if inputs_embeds is None else inputs_embeds
        features = self._features(embedded, attention_mask)
        gate = torch.sigmoid(self.highway_gate(features))
        features = gate * F.relu(self.highway_transform(features)) + (1 - gate) * features
        logits = self.score(self.dropout(features))
        loss = None if labels is None else _classification_loss(logits, labels) + self.regularization()
        return SequenceClassifierOutput(loss=loss, logits=logits)

    def _features(self, embedded: Tensor, attention_mask: Tensor | None) -> Tensor:
        """Max over time of every feature map: embeddings (B, T, E) -> (B, sum(num_filters))."""
        batch, length, _ = embedded.shape
        if attention_mask is None:
            lengths = torch.full((batch,), length, device=embedded.device)
        else:
            mask = attention_mask.bool()
            order = torch.argsort((~mask).to(torch.int8), dim=1, stable=True)  # real tokens first
            embedded = (embedded * mask[..., None]).gather(1, order[..., None].expand_as(embedded))
            lengths = mask.sum(dim=1)
        features = []
        for size, linear in zip(self.config.filter_sizes, self.filters, strict=True):
            padded = F.pad(embedded, (0, 0, 0, max(size - length, 0)))
            windows = padded.unfold(1, size, 1).transpose(2, 3).flatten(2)  # (B, windows, size * E)
            position = torch.arange(windows.shape[1], device=embedded.device)
            beyond = position > (lengths - size).clamp(min=0)[:, None]  # (B, windows)
            activation = linear(windows).masked_fill(beyond[..., None], float("-inf"))
            features.append(F.relu(activation.amax(dim=1)))
        return torch.cat(features, dim=1)


def _classification_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of logits (B, C) and labels (B,); with a single logit, of real against fake."""
    if logits.shape[1] == 1:
        return F.binary_cross_entropy_with_logits(logits[:, 0], labels.to(logits.dtype))
    return F.cross_entropy(logits, labels.long())
