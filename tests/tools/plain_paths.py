"""The plain code behind every fast path of the package, and a switch between the two (`pytest --fast-paths on|off`).

`off` puts these references where the fast paths are, behind the same names, so that the whole suite can be run with
them. `on` makes the fast paths take effect on the tiny tensors of the tests, too: blocks of a few rows, where they
would hold thousands. Without the option the package is as it is shipped.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext

import pytest
import torch
from torch import LongTensor, Tensor
from torch.nn import functional as F

from seqgan_hf import functional
from seqgan_hf.generation import decoder, reserved_cache, rollouts, sampling, vocabulary
from seqgan_hf.models import (
    activations,
    modeling_cnn_discriminator,
    modeling_products,
    modeling_rnn_generator,
    modeling_sums,
    modeling_threads,
)
from seqgan_hf.samples import Samples


SETTINGS = ("auto", "on", "off")
BLOCK_ROWS = functional.block_rows
# Taken by itself on processors that are not Intel's only.
ONEDNN = getattr(torch.ops.mkldnn, "_linear_pointwise", None) if torch.backends.mkldnn.is_available() else None


def sample_categorical(weights: Tensor, uniforms: Tensor) -> LongTensor:
    """One cumulative sum over the vocabulary, in double precision; both uniforms make one of 48 bits."""
    totals = weights.cumsum(dim=-1, dtype=torch.float64)
    uniform = uniforms.double() @ torch.tensor([1.0, 2.0**-24], dtype=torch.float64, device=uniforms.device)
    whole = totals[:, -1]
    target = torch.minimum(uniform * whole, torch.nextafter(whole, torch.zeros_like(whole)))
    return torch.searchsorted(totals, target[:, None], right=True).squeeze(1)


def linear_nll(hidden, weight, bias, targets, weights) -> tuple[Tensor, Tensor]:
    """All logits at once, and autograd."""
    nll = F.cross_entropy(F.linear(hidden, weight, bias).float(), targets, reduction="none")
    return (nll * weights).sum(), -nll.detach()


def no_memory(rows: int, vocab_size: int, device: torch.device) -> None:
    """Logits lie in fresh memory."""


def linear_kl(head, other, weights, forward) -> tuple[Tensor, Tensor]:
    """All logits of both at once, and autograd."""
    ours, theirs = (F.linear(*layer).float().log_softmax(dim=-1) for layer in (head, other))
    first, second = (theirs, ours) if forward else (ours, theirs)
    divergences = (first.exp() * (first - second)).sum(dim=-1)
    return (divergences * weights).sum(), divergences.detach()


def everything(vocab_size: int, device: torch.device) -> int:
    """No blocks."""
    return 2**62


def no_plain_head(generator) -> bool:
    """Every model through its own forward pass."""
    return False


def leave(cache, rows: int, length: int) -> None:
    """The cache as transformers has it."""


class Decoder(decoder.Decoder):
    """No cache: every step reads all tokens again."""

    def __init__(self, generator, samples: Samples):
        self.ids = samples.prompt
        super().__init__(generator, samples)

    def feed(self, tokens: Tensor) -> None:
        if tokens.dim() == 2 and self.ids.dim() == 2:  # embeddings from here on
            self.ids = self.model.get_input_embeddings()(self.ids)
        self.ids = torch.cat([self.ids, tokens[:, None]], dim=1)
        if self.mask is not None:
            self.mask = F.pad(self.mask, (0, 1), value=1)
        self.cache = None
        self.features = self._forward(self.ids)

    def select(self, kept: LongTensor | None, repeated: LongTensor) -> None:
        everything = torch.arange(len(self.ids), device=repeated.device)
        rows = torch.cat([everything if kept is None else kept, repeated])
        self.ids, self.features = self.ids[rows], self.features[rows]
        if self.mask is not None:
            self.mask = self.mask[rows]


def walk(generator, samples: Samples, units: list, temperature: float, top_k: int, top_p: float):
    """Prefix length after prefix length: the prefixes become prompts, which are continued from the beginning."""
    completions, uniforms = rollouts.given_prefixes(samples, units, vocabulary.special_tokens(generator)[1])
    for t in sorted({unit.prefix_length for unit in units}):
        rows = (completions.prefix_length == t).nonzero().squeeze(1)
        prompts = rollouts.with_prefix(samples.select(completions.row[rows]), t)
        rest = sampling.sample_rows(generator, prompts, uniforms[rows, t:], temperature, top_k, top_p)
        completions.samples.ids[rows, t:] = rest.ids
        completions.samples.mask[rows, t:] = rest.mask
    return completions


def linear(a: Tensor, b: Tensor, bias: Tensor | None = None, memory=None) -> Tensor:
    """a b^T + bias by torch's own product."""
    return F.linear(a, b, bias)


class MaxOverTime:
    """`conv1d` and autograd."""

    @staticmethod
    def apply(inputs: Tensor, lengths: Tensor | None, sizes: Sequence[int], *weights: Tensor) -> Tensor:
        features = []
        for size, weight in zip(sizes, weights, strict=True):
            kernel = weight.view(len(weight), size, -1).transpose(1, 2)
            activations = F.conv1d(F.pad(inputs.transpose(1, 2), (0, max(size - inputs.shape[1], 0))), kernel)
            if lengths is not None:
                last = (lengths - size).clamp(min=0)[:, None]
                beyond = torch.arange(activations.shape[2], device=inputs.device) > last
                activations = activations.masked_fill(beyond[:, None], float("-inf"))
            features.append(activations.max(dim=2).values)
        return torch.cat(features, dim=1)


def maxima(inputs: Tensor, lengths: Tensor | None, origin, sizes: Sequence[int], weights) -> Tensor:
    """Every completion by itself."""
    return MaxOverTime.apply(inputs, lengths, sizes, *weights)


def no_table(tokens: int, vectors: Tensor, sizes: Sequence[int], numbers: Sequence[int]) -> bool:
    """Every window is multiplied."""
    return False


def run_padded(layer, inputs: Tensor, state, mask: Tensor, needs_state: bool):
    """One token after another; the state passes padding unchanged."""
    outputs = []
    for position in range(inputs.shape[1]):
        _, new_state = layer(inputs[:, position : position + 1], state)
        real = mask[:, position][None, :, None]
        if isinstance(state, tuple):
            state = tuple(torch.where(real, new, old) for new, old in zip(new_state, state, strict=True))
            outputs.append(state[0][0])
        else:
            state = torch.where(real, new_state, state)
            outputs.append(state[0])
    return torch.stack(outputs, dim=1), state


def as_written(*models) -> AbstractContextManager[None]:
    """Activations as transformers writes them out."""
    return nullcontext()


# Every fast path and its reference. These are the originals, whatever stands in the modules later.
PLAIN = {
    functional.sample_categorical: sample_categorical,
    functional.linear_nll: linear_nll,
    functional.linear_kl: linear_kl,
    BLOCK_ROWS: everything,
    functional.layer_memory: no_memory,
    reserved_cache.reserve: leave,
    decoder.has_plain_head: no_plain_head,
    decoder.Decoder: Decoder,
    rollouts.walk: walk,
    modeling_products.multiply: linear,
    modeling_cnn_discriminator.MaxOverTime: MaxOverTime,
    modeling_cnn_discriminator.max_over_windows: maxima,
    modeling_sums.looks_up: no_table,
    modeling_rnn_generator.run_padded: run_padded,
    activations.fused_activations: as_written,
}


def a_few(vocab_size: int, device: torch.device) -> int:
    """Blocks so short that a batch of a test has several."""
    return 7


@contextmanager
def fast_paths(setting: str, kept: Iterable = ()) -> Iterator[None]:
    """Run the package, and the test modules that import from it, with the fast paths on, off, or as shipped.

    Args:
        setting: one of `SETTINGS`.
        kept: fast paths that stay on under `off`.

    Raises:
        RuntimeError: `on`, where the processor or torch's build has no oneDNN.
    """
    chosen = {fast: plain if setting == "off" and fast not in kept else fast for fast, plain in PLAIN.items()}
    if setting == "on":
        if ONEDNN is None:
            raise RuntimeError("--fast-paths on: expected a torch with oneDNN. Leave the option out")
        chosen[BLOCK_ROWS] = a_few
    target = {id(path): chosen[fast] for fast, plain in PLAIN.items() for path in (fast, plain)}
    target[id(a_few)] = chosen[BLOCK_ROWS]
    with pytest.MonkeyPatch.context() as patch:
        if setting == "on":
            patch.setattr(modeling_cnn_discriminator, "BLOCK", 300)
            patch.setattr(modeling_cnn_discriminator, "SHARED_ROWS", 0)
            patch.setattr(modeling_sums, "BLOCK_OF_SUMS", 300)
            patch.setattr(modeling_sums, "LEAST_READ", 0)
            patch.setattr(modeling_threads, "LEAST_OPERATIONS", 0)
            patch.setattr(modeling_products, "ONEDNN_LINEAR", ONEDNN)
            patch.setattr(functional, "ONEDNN_LINEAR", ONEDNN)
        if setting != "auto":  # plain code holds the logits of all positions of so many rows
            patch.setattr(sampling, "MAX_ROWS", 1000)
        for name, module in list(sys.modules.items()):
            if name.split(".")[0] == "seqgan_hf" or name.split(".")[-1].startswith("test_"):
                for attribute, value in list(vars(module).items()):
                    if target.get(id(value), value) is not value:
                        patch.setattr(module, attribute, target[id(value)])
        yield
