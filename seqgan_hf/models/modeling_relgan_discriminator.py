"""A convolutional sequence classifier that reads every sequence in several representations, the discriminator of
RelGAN (Nie et al., ICLR 2019, https://openreview.net/forum?id=rJedV3R5tm).

The file is copied beside the weights for `trust_remote_code=True`, with `modeling_base.py`.
"""

from dataclasses import dataclass

import torch
from huggingface_hub.dataclasses import strict
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import initialization as init
from transformers.modeling_outputs import SequenceClassifierOutput

from .modeling_base import Classifier, ConvolutionConfig, compact


@strict
class RelGANDiscriminatorConfig(ConvolutionConfig):
    """Configuration of `RelGANDiscriminatorForSequenceClassification`; the defaults are the paper's.

    The settings are those of `ClassifierConfig` and `ConvolutionConfig`, and these. All representations share the
    feature maps; features are dropped after the highway layer; there are no more than two labels.

    Attributes:
        num_representations: R, parts that the embeddings are split into, E / R wide each.
        hidden_size: width of the layer before the score.
        spectral_norm: divide the weights of convolutions, hidden layer and score by an estimate of their largest
            singular value.
    """

    model_type = "relgan_discriminator"
    sizes = ("vocab_size", "embedding_size", "num_representations", "hidden_size")
    takes_names = False

    num_representations: int = 64
    filter_sizes: list[int] | tuple[int, ...] = (2, 3, 4, 5)
    num_filters: list[int] | tuple[int, ...] = (300, 300, 300, 300)
    hidden_size: int = 100
    spectral_norm: bool = False

    def validate_sizes(self) -> None:
        super().validate_sizes()
        if self.embedding_size % self.num_representations:
            problem = f"embedding_size={self.embedding_size} with num_representations={self.num_representations}"
            expected = "a multiple of num_representations, because each reads an equal part of the embeddings"
            raise ValueError(f"{problem}: expected {expected}. Change one of the two.")


@dataclass
class RelGANDiscriminatorOutput(SequenceClassifierOutput):
    """As `SequenceClassifierOutput`, with the verdict on each representation.

    Attributes:
        representation_logits: log-odds of being real (B, R); those of `logits` are their mean over R.
    """

    representation_logits: Tensor | None = None


class RelGANDiscriminatorForSequenceClassification(Classifier):
    """Convolutions shared by R representations, max over time, a highway layer without biases, two linear layers.

    Token embeddings of width E are cut into R parts; part r of every token makes representation r of the sequence.
    `filters[i].weight.view(-1, w, E // R).transpose(1, 2)`, w = `config.filter_sizes[i]`, is the weight of the equal
    `torch.nn.Conv1d`.
    """

    config_class = RelGANDiscriminatorConfig
    _no_split_modules = []

    def __init__(self, config: RelGANDiscriminatorConfig):
        super().__init__(config)
        width, part = sum(config.num_filters), config.embedding_size // config.num_representations
        self.embed_tokens = nn.Embedding(config.vocab_size, config.embedding_size)
        self.filters = nn.ModuleList(
            _Filters(size, part, number, config.spectral_norm)
            for size, number in zip(config.filter_sizes, config.num_filters, strict=True)
        )
        self.highway_transform = nn.Linear(width, width, bias=False)
        self.highway_gate = nn.Linear(width, width, bias=False)
        self.dropout = nn.Dropout(config.dropout)
        self.hidden = _Linear(width, config.hidden_size, config.spectral_norm)
        self.score = _Linear(config.hidden_size, 1, config.spectral_norm)
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        for name, values in [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]:
            if name == "bias":
                init.zeros_(values)
            elif name == "singular_vector":
                init.normal_(values)
            else:
                fan_in = values.shape[0] if isinstance(module, nn.Embedding) else values.shape[1]
                std = ((2 if isinstance(module, _Filters) else 1) / fan_in) ** 0.5
                init.trunc_normal_(values, mean=0.0, std=std, a=-2 * std, b=2 * std)

    def judge(self, embedded: Tensor, mask: Tensor | None, labels: Tensor | None) -> RelGANDiscriminatorOutput:
        """`representation_logits` (B, R), `logits`, of which that of "fake" is zero, and the loss averaged over R.

        A window counts where it holds real tokens only. A sequence shorter than a window has one window of that width,
        at its start, with zero vectors after the sequence's end. Soft tokens carry gradients of second order, too.
        """
        batch, parts, last = len(embedded), self.config.num_representations, None
        if mask is not None:
            embedded = compact(embedded.masked_fill(~mask[..., None], 0.0), mask)
            last = mask.sum(dim=1)[:, None].expand(-1, parts).flatten()
        sequences = embedded.unflatten(2, (parts, -1)).transpose(1, 2).flatten(0, 1)  # (B * R, T, E / R)
        features = torch.cat([filters(sequences, last) for filters in self.filters], dim=1)
        gate = torch.sigmoid(self.highway_gate(features))
        features = features + gate * (F.relu(self.highway_transform(features)) - features)
        each = self.score(self.hidden(self.dropout(features)).unflatten(0, (batch, parts))).squeeze(-1)
        logits = each.mean(dim=1, keepdim=True)
        if self.config.num_labels == 2:
            logits = F.pad(logits, (1, 0))
        loss = None
        if labels is not None:
            loss = F.binary_cross_entropy_with_logits(each, labels.to(each.dtype)[:, None].expand_as(each))
        return RelGANDiscriminatorOutput(loss=loss, logits=logits, representation_logits=each)


class _Linear(nn.Linear):
    """A linear layer whose weight may be divided by its spectral norm (Miyato et al., 2018, algorithm 1).

    Every forward pass makes one power iteration; in train mode the next one goes on from it.
    """

    singular_vector: Tensor | None

    def __init__(self, inputs: int, outputs: int, spectral_norm: bool):
        super().__init__(inputs, outputs)
        self.register_buffer("singular_vector", torch.empty(outputs) if spectral_norm else None)

    def normed_weight(self) -> Tensor:
        if self.singular_vector is None:
            return self.weight
        with torch.no_grad():
            right = F.normalize(self.singular_vector @ self.weight, dim=0)
            left = F.normalize(self.weight @ right, dim=0)
            if self.training:
                self.singular_vector.copy_(left)
        return self.weight / (left @ self.weight @ right)

    def forward(self, inputs: Tensor) -> Tensor:
        return F.linear(inputs, self.normed_weight(), self.bias)


# Activations that are held at the same time to find maxima: on a CPU few enough to stay in the cache.
BLOCK = 2**21


class _Filters(_Linear):
    """A convolution, its maximum over time, and ReLU, which may come last since it keeps the order."""

    def __init__(self, size: int, width: int, number: int, spectral_norm: bool):
        super().__init__(size * width, number, spectral_norm)
        self.size = size

    def forward(self, inputs: Tensor, lengths: Tensor | None) -> Tensor:  # type: ignore[override]
        """Features (N, number) of sequences (N, T, width) that are zero from their `lengths` (N,) on.

        The windows with the maxima are looked for without autograd, and only they are multiplied once more with it:
        activations of all windows, T times as many, need not be kept.
        """
        weight = self.normed_weight()
        padded = F.pad(inputs, (0, 0, 0, max(self.size - inputs.shape[1], 0)))
        windows = padded.unfold(1, self.size, 1).transpose(2, 3).flatten(2)  # (N, steps, size * width)
        steps = windows.shape[1]
        with torch.no_grad():
            rows = max(BLOCK // (steps * len(weight)), 1)
            beyond = None
            if lengths is not None:  # a window beyond the last one touches padding
                last = (lengths - self.size).clamp(min=0)
                beyond = (torch.arange(steps, device=inputs.device) > last[:, None])[..., None].split(rows)
            places = []
            for index, block in enumerate(windows.split(rows)):
                activations = F.linear(block, weight)
                if beyond is not None:
                    activations.masked_fill_(beyond[index], float("-inf"))
                places.append(activations.argmax(dim=1))
        chosen = windows.gather(1, torch.cat(places)[..., None].expand(-1, -1, weight.shape[1]))
        return F.relu((chosen * weight).sum(dim=2) + self.bias)
