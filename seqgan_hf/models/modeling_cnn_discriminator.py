"""A convolutional sequence classifier, the discriminator of SeqGAN (Yu et al., AAAI 2017,
https://arxiv.org/abs/1609.05473, section 3.3), after Kim (2014) and Zhang and LeCun (2015), with a highway layer
(Srivastava et al., 2015).

The file is copied beside the weights for `trust_remote_code=True`, with the modules that it imports.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import cast

import torch
from huggingface_hub.dataclasses import strict
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.grad import conv2d_input
from transformers import initialization as init
from transformers.modeling_outputs import SequenceClassifierOutput
from transformers.utils import can_return_tuple

from .modeling_base import Classifier, ConvolutionConfig, classification_loss
from .modeling_products import Linear, compute_dtype, multiply, product
from .modeling_sums import (
    columns_of,
    entries_of,
    leave_out_padding,
    looks_up,
    pieces_of_rows,
    sums_of_entries,
    tables_for,
    using,
    vocabulary,
)
from .modeling_threads import side_by_side, threads_worth


@strict
class CNNDiscriminatorConfig(ConvolutionConfig):
    """Configuration of `CNNDiscriminatorForSequenceClassification`; the defaults are the paper's, for T = 20.

    The settings are those of `ClassifierConfig` and `ConvolutionConfig`, and these. The highway layer is
    `sum(num_filters)` wide; features are dropped before the output layer.

    Attributes:
        highway_gate_bias: initial bias of the highway's gate; a negative one lets features pass unchanged at first.
        l2_output: weight of the penalty on the output layer, see `regularization`.
        embedding_range: embeddings start from U(-embedding_range, embedding_range).
        initializer_range: filters and output layer start from a normal distribution of this standard deviation,
            truncated at twice of it.
        initial_bias: initial bias of the filters and of the output layer.
    """

    model_type = "cnn_discriminator"
    positive = ("embedding_range", "initializer_range")

    filter_sizes: list[int] | tuple[int, ...] = (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 15, 20)
    num_filters: list[int] | tuple[int, ...] = (100, 200, 200, 200, 200, 100, 100, 100, 100, 100, 160, 160)
    highway_gate_bias: float | int = -2.0
    l2_output: float | int = 0.2
    embedding_range: float | int = 1.0
    initializer_range: float | int = 0.1
    initial_bias: float | int = 0.1

    def validate_penalty(self) -> None:
        if not self.l2_output >= 0:
            raise ValueError(f"l2_output={self.l2_output}: expected a number >= 0. Set l2_output=0.0 for none.")


class CNNDiscriminatorForSequenceClassification(Classifier):
    """Convolutions of many widths, max over time, a highway layer, a linear score.

    `filters[i]` is the convolution of width w = `config.filter_sizes[i]`, written as a linear map of the w embeddings
    in a window: `filters[i].weight.view(-1, w, E).transpose(1, 2)` is the weight of the equal `torch.nn.Conv1d`.
    """

    config_class = CNNDiscriminatorConfig
    _no_split_modules = []
    shares_out = True  # see `modeling_threads.unsplit`

    def __init__(self, config: CNNDiscriminatorConfig):
        super().__init__(config)
        width = sum(config.num_filters)
        self.embed_tokens = nn.Embedding(config.vocab_size, config.embedding_size)
        self.filters = nn.ModuleList(
            _Filters(size, config.embedding_size, number)
            for size, number in zip(config.filter_sizes, config.num_filters, strict=True)
        )
        self.highway_transform = Linear(width, width)
        self.highway_gate = Linear(width, width)
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
        elif isinstance(module, (_Filters, nn.Linear)):
            init.trunc_normal_(module.weight, mean=0.0, std=std, a=-2 * std, b=2 * std)
            init.constant_(module.bias, self.config.initial_bias)

    def regularization(self) -> Tensor:
        """The L2 penalty on the output layer, `l2_output * (|W|^2 + |b|^2) / 2`: a scalar to add to the loss."""
        return 0.5 * self.config.l2_output * (self.score.weight.square().sum() + self.score.bias.square().sum())

    @can_return_tuple
    def forward(  # type: ignore[override]
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        origin: Tensor | None = None,
    ) -> SequenceClassifierOutput:
        """As of every `Classifier`; the loss is cross-entropy plus `regularization()`.

        A window counts where it holds real tokens only. A sequence shorter than a window has one window of that width,
        at its start, with zero vectors after the sequence's end.

        Args:
            origin: of completions of prefixes: which sequence each completes, and how many of its tokens are given,
                (B, 2). Where windows are multiplied, those inside a prefix are done once for its many completions.
        """
        sizes = self.config.filter_sizes
        if inputs_embeds is None and (tables := tables_for(self, sizes, input_ids)) is not None:
            ids, lengths = _compact(input_ids, attention_mask, padding=vocabulary(tables, sizes))
            features = sums_of_entries(ids, lengths, sizes, *tables)
            return self._classify(features, labels)
        embedded = self.embed(input_ids, inputs_embeds)
        dtype = compute_dtype(embedded)
        weights = tuple(filters()[0] for filters in self.filters)
        together = origin is None and multiplies_together(embedded, sizes, weights)
        embedded, lengths = _compact(embedded, attention_mask, cut=not together)
        if together:
            features = _one_product(embedded.to(dtype), lengths, sizes, weights)
        else:
            weights = tuple(weight.to(dtype) for weight in weights)
            features = max_over_windows(embedded.to(dtype), lengths, origin, sizes, weights)
        return self._classify(features, labels)

    def _classify(self, maxima: Tensor, labels: Tensor | None) -> SequenceClassifierOutput:
        """The output for the convolutions' maxima (B, F), to which the biases are yet to be added; changes these."""
        features = self._highway(maxima.add_(torch.cat([filters()[1] for filters in self.filters])))
        logits = self.score(self.dropout(features))
        loss = None if labels is None else classification_loss(logits, labels) + self.regularization()
        return SequenceClassifierOutput(loss=loss, logits=logits)

    def _highway(self, activations: Tensor) -> Tensor:
        """From the convolutions' maxima, biases included, to what the dropout before the score reads, (..., F).

        What it is given is not kept: fresh memory costs more than what is computed there.
        """
        flat = activations.relu_().flatten(0, -2)
        gate = self.highway_gate(flat).sigmoid_()
        return torch.lerp(flat, self.highway_transform(flat).relu_(), gate).view_as(activations)

    @contextmanager
    def looking_up(self, tokens: int) -> Iterator[None]:
        """Within it `forward` adds up what tokens add to filters, multiplied once beforehand (see `modeling_sums`).

        It holds for this thread, and those that share its work. Weights must stay as they are meanwhile.

        Args:
            tokens: how many will be read, without gradient; too few, and nothing is done.
        """
        config, weight = self.config, cast(Tensor, self.embed_tokens.weight)
        if not looks_up(tokens, weight, config.filter_sizes, config.num_filters):
            yield
            return
        vectors = self.embed_tokens(torch.arange(len(weight), device=weight.device))
        with using(self, entries_of(vectors, config.filter_sizes, [filters()[0] for filters in self.filters])):
            yield

    def prefix_features(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """What the dropout before the score reads of every prefix, as `forward` would of each alone; differentiable.

        Every window is multiplied once; a running maximum over the windows that end by then does for each prefix.

        Args:
            input_ids: token ids (B, T).
            attention_mask: 1 on real tokens, 0 on padding (B, T); without it all tokens are real.

        Returns:
            Features (B, T+1, F) of the first 0 to T real tokens; beyond a row's end those of the whole row.
        """
        embedded, lengths = _compact(self.embed_tokens(input_ids), attention_mask)
        embedded, columns = embedded.to(compute_dtype(embedded)), []
        for size, filters in zip(self.config.filter_sizes, self.filters, strict=True):
            weight, bias = filters()
            columns.append(_prefix_maxima(embedded, weight.to(embedded.dtype), size) + bias)
        features = self._highway(torch.cat(columns, dim=2))
        row_ends = features.shape[1] - 1 if lengths is None else lengths[:, None]
        read = torch.arange(input_ids.shape[1] + 1, device=input_ids.device).expand(len(input_ids), -1)
        read = torch.minimum(read, torch.as_tensor(row_ends, device=read.device))
        return features.gather(1, read[..., None].expand(-1, -1, features.shape[2]))


def _compact(
    tokens: Tensor, attention_mask: Tensor | None, cut: bool = True, padding: float = 0.0
) -> tuple[Tensor, Tensor | None]:
    """Real tokens first, `padding` after them, as wide as the longest row; and the number of real tokens (B,).

    Where all are real, the tokens as they are, and `None`. Without `cut` neither is looked at, so that the host does
    not wait for the device.

    Args:
        tokens: embeddings (B, T, E), or ids (B, T).
    """
    if attention_mask is None:
        return tokens, None
    mask = attention_mask.bool()
    if cut and bool(mask.all()):
        return tokens, None
    lengths = mask.sum(dim=1)
    longest = max(int(lengths.max()), 1) if cut else mask.shape[1]
    order = torch.argsort((~mask).to(torch.int8), dim=1, stable=True)[:, :longest]
    if tokens.dim() == 3:
        mask, order = mask[..., None], order[..., None].expand(-1, -1, tokens.shape[2])
    return tokens.masked_fill(~mask, padding).gather(1, order), lengths


class _Filters(nn.Module):
    """The filters of one width, (number, size * E), and their biases (number,)."""

    def __init__(self, size: int, width: int, number: int):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(number, size * width))
        self.bias = nn.Parameter(torch.empty(number))

    def forward(self) -> tuple[Tensor, Tensor]:
        """The parameters; asked for by a call, so that hooks which fetch them from elsewhere (`device_map`) run."""
        return self.weight, self.bias


# Numbers in a block of windows and activations: on a CPU few enough to stay in the cache, elsewhere 64 times as many.
BLOCK = 2**21


class MaxOverTime(torch.autograd.Function):
    """Convolutions of several widths, each followed by its maximum over time, without biases.

    Args:
        inputs: embeddings (B, T, E), zero after a row's end.
        lengths: number of tokens of each row (B,); `None` if it is T for all.
        sizes: width w of each convolution.
        weights: its filters, (number, w * E) each.

    Returns:
        the features (B, sum of numbers).

    A convolution is one matrix product over the windows, copied side by side, as its gradients are; rows are taken in
    blocks. The backward pass needs only where each maximum was, as it sends gradient there alone; where none will
    follow, this is not asked for.
    """

    @staticmethod
    def forward(ctx, inputs: Tensor, lengths: Tensor | None, sizes: list[int], *weights: Tensor) -> Tensor:
        batch, length, width = inputs.shape
        features = inputs.new_empty(batch, sum(len(weight) for weight in weights))
        learns = any(ctx.needs_input_grad)
        places = torch.empty(features.shape if learns else (0, 0), dtype=torch.int64, device=inputs.device)
        columns = columns_of([len(weight) for weight in weights])

        def convolve(piece: tuple[int, slice]) -> None:
            index, rows = piece
            size, weight = sizes[index], weights[index]
            products = multiply(windows_of(inputs[rows], size), weight[:, : length * width])
            activations = products.view(-1, max(length - size, 0) + 1, len(weight))
            leave_out_padding(activations, None if lengths is None else lengths[rows], size)
            if learns:
                features[rows, columns[index]], places[rows, columns[index]] = _max_over_time(activations)
            else:
                torch.amax(activations, dim=1, out=features[rows, columns[index]])

        threads = threads_worth(2 * batch * _window_products(inputs, sizes, weights), inputs.device)
        steps = [max(length - size, 0) + 1 for size in sizes]
        numbers = [number * sum(weight.shape) for number, weight in zip(steps, weights, strict=True)]
        block = BLOCK if inputs.device.type == "cpu" else 64 * BLOCK
        side_by_side(convolve, pieces_of_rows(batch, block, numbers), threads)
        ctx.sizes = sizes
        ctx.save_for_backward(inputs, places, *weights)
        return features

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor | None, ...]:
        inputs, places, *weights = ctx.saved_tensors
        needs_inputs, _, _, *needs_weights = ctx.needs_input_grad
        batch, length, width = inputs.shape
        columns = columns_of([len(weight) for weight in weights])

        def gradients(index: int) -> tuple[Tensor | None, Tensor | None]:
            size, weight = ctx.sizes[index], weights[index]
            part, place = gradient[:, columns[index]], places[:, columns[index]]
            steps, reach = max(length - size, 0) + 1, min(size, length) * width
            spread = part.new_zeros(batch, steps, len(weight)).scatter_(1, place[:, None], part[:, None])
            of_inputs = of_weight = None
            if needs_weights[index] and steps > 1 and _gathers(part):
                chosen = place.T + steps * torch.arange(batch)
                windows = windows_of(inputs, size)
                of_weight = F.embedding_bag(chosen, windows, mode="sum", per_sample_weights=part.T.contiguous())
            elif needs_weights[index]:
                of_weight = product(spread.flatten(0, 1).T, windows_of(inputs, size).T)
                if reach < weight.shape[1]:  # the sequence does not reach the end of the window
                    of_weight = F.pad(of_weight, (0, weight.shape[1] - reach))
            if needs_inputs and steps == 1:
                of_inputs = product(spread[:, 0], weight[:, :reach].T).view(batch, -1, width)
            elif needs_inputs:
                kernel = weight.view(-1, size, width).transpose(1, 2)[:, :, None]  # (number, E, 1, w), channels last
                shape = (batch, width, 1, length)
                of_inputs = conv2d_input(shape, kernel, spread.transpose(1, 2)[:, :, None])[:, :, 0].transpose(1, 2)
            return of_inputs, of_weight

        operations = 4 * batch * _window_products(inputs, ctx.sizes, weights)
        threads = threads_worth(operations, inputs.device)
        found = side_by_side(gradients, range(len(weights)), threads)
        total = None
        if needs_inputs:
            total = inputs.new_zeros(inputs.shape, dtype=torch.promote_types(inputs.dtype, torch.float32))
            for of_inputs, _ in found:
                total[:, : of_inputs.shape[1]] += of_inputs
            total = total.to(inputs.dtype)
        return total, None, None, *(of_weight for _, of_weight in found)


# Devices on which adding up windows is faster than a product over all of them.
GATHER_WINDOWS = {"cpu"}


def _gathers(gradient: Tensor) -> bool:
    """Whether the gradient of filters adds up the windows that were largest; it is not differentiable again then."""
    return gradient.device.type in GATHER_WINDOWS and gradient.dtype == torch.float32 and not torch.is_grad_enabled()


def _window_products(inputs: Tensor, sizes: Sequence[int], weights: Sequence[Tensor]) -> int:
    """Multiplications for one sequence."""
    length = inputs.shape[1]
    return sum((max(length - size, 0) + 1) * weight.numel() for size, weight in zip(sizes, weights, strict=True))


# Completions of prefixes of one length, on average, that are worth products of their own.
SHARED_ROWS = 128


def max_over_windows(
    inputs: Tensor, lengths: Tensor | None, origin: Tensor | None, sizes: list[int], weights: tuple[Tensor, ...]
) -> Tensor:
    """`MaxOverTime`; of many completions, windows inside a prefix are done once for all that share it.

    Args:
        inputs, lengths, sizes, weights: see `MaxOverTime`.
        origin: which sequence a row completes, and how many of its tokens are given (B, 2). Rows whose tokens are not
            those of the others with the same origin share nothing with them.
    """
    if not torch.is_grad_enabled():  # which `MaxOverTime` cannot know otherwise
        weights = tuple(weight.detach() for weight in weights)
    if origin is None:
        return MaxOverTime.apply(inputs, lengths, sizes, *weights)
    given, counts = origin[:, 1].unique_consecutive(return_counts=True)
    if len(inputs) == 0 or len(inputs) < SHARED_ROWS * len(counts):
        return MaxOverTime.apply(inputs, lengths, sizes, *weights)
    parts, last = [], 0
    for prefix, count in zip(given.tolist(), counts.tolist(), strict=True):
        rows = slice(last, last := last + count)
        group, ends = inputs[rows], None if lengths is None else lengths[rows]
        _, same = origin[rows, 0].unique(return_inverse=True)
        # one row of each prefix: the last, as it happens
        one = same.new_empty(int(same.max()) + 1).scatter_(0, same, torch.arange(count, device=same.device))
        prefixes = group[one, :prefix]
        beyond = inputs.shape[1] if ends is None else int(ends.min())
        shared = beyond > prefix and torch.equal(prefixes[same], group[:, :prefix])
        columns = []
        for size, weight in zip(sizes, weights, strict=True):
            if size > prefix or not shared:
                columns.append(MaxOverTime.apply(group, ends, [size], weight))
                continue
            first = prefix - size + 1  # the first window that holds a token beyond the prefix
            rest = MaxOverTime.apply(group[:, first:], None if ends is None else ends - first, [size], weight)
            columns.append(torch.maximum(rest, MaxOverTime.apply(prefixes, None, [size], weight)[same]))
        parts.append(torch.cat(columns, dim=1))
    return torch.cat(parts)


# Devices on which each width has a product of its own, however small the batch.
SPLIT_BY_WIDTH = {"cpu"}
# Multiplications of one product of all widths, below which it costs less than the kernels of many.
ONE_PRODUCT = 2**34


def multiplies_together(inputs: Tensor, sizes: Sequence[int], weights: Sequence[Tensor]) -> bool:
    """Whether the filters of all widths are multiplied at once, as if they had the largest: small batches on a GPU."""
    batch, length, width = inputs.shape
    work = batch * length * min(max(sizes), length) * width * sum(len(weight) for weight in weights)
    return inputs.device.type not in SPLIT_BY_WIDTH and work <= ONE_PRODUCT


class _Filled(torch.autograd.Function):
    """Filters of several widths, (number, w * E) each, cut to `reach` numbers or filled up with zeros: (F, reach)."""

    @staticmethod
    def forward(ctx, reach: int, dtype: torch.dtype, *weights: Tensor) -> Tensor:
        ctx.shapes = [weight.shape for weight in weights]
        whole = weights[0].new_zeros(sum(len(weight) for weight in weights), reach, dtype=dtype)
        for rows, weight in zip(columns_of([len(weight) for weight in weights]), weights, strict=True):
            whole[rows, : weight.shape[1]] = weight[:, :reach]
        return whole

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor | None, ...]:
        last, found = 0, []
        for number, width in ctx.shapes:
            part = gradient[last : last + number, :width]
            found.append(F.pad(part, (0, width - part.shape[1])) if part.shape[1] < width else part)
            last += number
        return None, None, *found


@cache
def _made_widths(sizes: tuple[int, ...], numbers: tuple[int, ...], device: torch.device) -> Tensor:
    """See `_widths`, through whose cache a compiler does not see."""
    return torch.tensor(sizes, device=device).repeat_interleave(torch.tensor(numbers, device=device))


@torch.compiler.assume_constant_result
def _widths(sizes: tuple[int, ...], numbers: tuple[int, ...], device: torch.device) -> Tensor:
    """The width of each filter, (F,), made once."""
    return _made_widths(sizes, numbers, device)


def _one_product(inputs: Tensor, lengths: Tensor | None, sizes: list[int], weights: Sequence[Tensor]) -> Tensor:
    """`MaxOverTime` by one product over windows of the largest width, whose filters are filled up with zeros.

    It takes several times the arithmetic and a tenth of the kernels.
    """
    batch, length, width = inputs.shape
    reach = min(max(sizes), length)
    filters = _Filled.apply(reach * width, inputs.dtype, *weights)
    activations = F.linear(windows_of(F.pad(inputs, (0, 0, 0, reach - 1)), reach), filters).view(batch, length, -1)
    widths = _widths(tuple(sizes), tuple(len(weight) for weight in weights), inputs.device)
    ends = length if lengths is None else lengths[:, None]
    last = (ends - widths).clamp(min=0)  # a window beyond it touches padding
    beyond = torch.arange(length, device=inputs.device)[:, None] > last[..., None, :]
    return activations.masked_fill(beyond, float("-inf")).max(dim=1).values


def windows_of(inputs: Tensor, size: int) -> Tensor:
    """The windows of `size` vectors, side by side: (B, T, E) -> (B * steps, size * E); a shorter sequence is one."""
    batch, length, width = inputs.shape
    size = min(size, length)
    return inputs.unfold(1, size, 1).transpose(2, 3).reshape(-1, size * width)


def _prefix_maxima(inputs: Tensor, weight: Tensor, size: int) -> Tensor:
    """The maximum over the windows that end by token i, for i = 0 to T: (B, T, E) -> (B, T+1, C), without a bias.

    A prefix shorter than the window has one, at its start, with zero vectors after its end.
    """
    batch, length, width = inputs.shape
    short = inputs[:, : size - 1]
    parts = torch.einsum("bte,cte->btc", short, weight.view(-1, size, width)[:, : short.shape[1]])
    maxima = F.pad(parts.cumsum(dim=1), (0, 0, 1, 0))  # of the prefixes of 0 to size - 1 tokens
    if length < size:
        return maxima
    activations = product(windows_of(inputs, size), weight).view(batch, -1, len(weight))
    return torch.cat([maxima, activations.cummax(dim=1).values], dim=1)


def _max_over_time(activations: Tensor) -> tuple[Tensor, Tensor]:
    """Maxima of (B, steps, C) over steps, and where they are, (B, C) each; much faster than `Tensor.max`."""
    channels_last = activations.transpose(1, 2)[:, :, None]  # (B, C, 1, steps)
    maxima, places = F.max_pool2d(channels_last, (1, activations.shape[1]), return_indices=True)
    return maxima[:, :, 0, 0], places[:, :, 0, 0]
