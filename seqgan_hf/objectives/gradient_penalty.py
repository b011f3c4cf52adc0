"""The gradient penalty of WGAN-GP on text, without a tensor as wide as the vocabulary."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import PreTrainedModel

from ..generation.verdicts import realness
from ..generation.vocabulary import token_embeddings
from ..samples import Samples


class _Embedded:
    """Soft tokens of the shape (B, T, V) whose embeddings (B, T, E) are known already."""

    def __init__(self, embeddings: Tensor, vocab_size: int):
        self.embeddings, self.shape = embeddings, (*embeddings.shape[:2], vocab_size)

    def __matmul__(self, weight: Tensor) -> Tensor:
        return self.embeddings


def gradient_penalty(discriminator: PreTrainedModel, real: Samples, fake: Samples) -> Tensor:
    """(|gradient of D's log-odds by x| - 1)^2 at a random x between each real sequence and a soft one, shape (B,).

    x is a mixture of one-hot and soft tokens (T, V), zero after a sequence's end. D reads x E; with the gradient g by
    that product, the squared norm is sum_t g_t (E^T E) g_t^T. Verdicts on tokens are averaged.

    Args:
        discriminator: any classifier that reads `inputs_embeds`.
        real: B sequences.
        fake: with `soft`, row by row after the same prompts.

    References:
        Gulrajani et al., Improved Training of Wasserstein GANs, NeurIPS 2017, https://arxiv.org/abs/1704.00028.
    """
    weight = token_embeddings(discriminator, tokens=fake.soft.shape[-1])
    width = max(real.ids.shape[1], fake.ids.shape[1])

    def wide(field: Tensor) -> Tensor:
        return F.pad(field, (*(0, 0) * (field.dim() - 2), 0, width - field.shape[1]))

    one = wide(weight[real.ids].masked_fill(~real.mask[..., None], 0.0))
    share = torch.rand(real.batch_size, 1, 1, device=weight.device)
    x = torch.lerp(one, wide(fake.soft @ weight).to(one.dtype), share.to(one.dtype))
    if not x.requires_grad:
        x.requires_grad_()
    mask = wide(real.mask) | wide(fake.mask)
    between = Samples(real.prompt, wide(real.ids), mask, real.prompt_mask, soft=_Embedded(x, len(weight)))
    # only plain kernels of recurrent and attention layers can be differentiated twice
    recurrent = any(isinstance(module, nn.RNNBase) for module in discriminator.modules())
    with torch.backends.cudnn.flags(enabled=not recurrent), sdpa_kernel(SDPBackend.MATH):
        scores = realness(discriminator, between).float()
        if scores.dim() == 2:
            scores = scores.sum(dim=1) / mask.sum(dim=1)
        (slope,) = torch.autograd.grad(scores.sum(), x, create_graph=True)
    with torch.autocast(weight.device.type, enabled=False):
        squared = (slope @ (weight.T @ weight) * slope).sum(dim=(1, 2))
    return ((squared + 1e-12).sqrt() - 1).square()  # the root has no derivative at zero
