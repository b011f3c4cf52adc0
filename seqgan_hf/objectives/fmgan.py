"""FM-GAN: the generator moves its features to those of real text along the cheapest transport."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from ..errors import UserError
from ..functional import transport_plan
from ..generation.relaxation import relax
from ..generation.verdicts import features
from ..generation.vocabulary import special_tokens, token_embeddings
from ..samples import Samples
from .base import Loss, Models, Objective, penalty


class FMGAN(Objective):
    """G minimises, and the discriminator maximises, the feature mover's distance of generated from real sequences.

    That is the least cost of a transport between the two sets of features, sum_ij T_ij (1 - cos(f_i, r_j)), with T by
    IPOT (`transport_plan`) and held fixed. Generated sequences are relaxed (see `relax`), so that the gradient reaches
    the generator through them. The discriminator gives features only; it is not trained to tell real from generated.

    Args:
        ipot_beta, outer, inner: step size, proximal steps and scalings in each, see `transport_plan`.
        beta: inverse temperature of the relaxation.

    References:
        Chen et al., Adversarial Text Generation via Feature-Mover's Distance, NeurIPS 2018,
        https://arxiv.org/abs/1809.06297.
    """

    citation = """@inproceedings{chen2018adversarial,
  title = {Adversarial Text Generation via Feature-Mover's Distance},
  author = {Chen, Liqun and Dai, Shuyang and Tao, Chenyang and Shen, Dinghan and Gan, Zhe and Zhang, Haichao and
            Zhang, Yizhe and Carin, Lawrence},
  booktitle = {Advances in Neural Information Processing Systems},
  volume = {31},
  year = {2018}
}"""

    def __init__(self, ipot_beta: float = 1.0, outer: int = 50, inner: int = 1, beta: float = 100.0):
        if not 0 < ipot_beta < float("inf"):
            raise UserError(f"ipot_beta={ipot_beta}", "a positive number", "1 is the paper's code's")
        if outer < 1 or inner < 1:
            raise UserError(f"outer={outer}, inner={inner}", "at least 1 step each", "50 and 1 are the paper's code's")
        if not 0 < beta < float("inf"):
            raise UserError(f"beta={beta}", "a positive number", "the larger, the nearer to one-hot")
        self.ipot_beta, self.outer, self.inner, self.beta = ipot_beta, outer, inner, beta

    def check(self, models: Models, batch_size: int, conditional: bool) -> None:
        """Refuse a discriminator that cannot read the soft tokens."""
        super().check(models, batch_size, conditional)
        token_embeddings(models.discriminator, padded=bool(special_tokens(models.generator)[0]))

    def _distance(self, models: Models, real: Samples, fake: Samples) -> Tensor:
        """<T, C>, a scalar in [0, 2]."""
        ours, theirs = (F.normalize(features(models.discriminator, part).float(), dim=1) for part in (fake, real))
        costs = torch.cdist(ours, theirs).square() / 2  # 1 - cos, in float32 under autocast, too
        return (transport_plan(costs, self.ipot_beta, self.outer, self.inner) * costs).sum()

    def generator_loss(self, models: Models, real: Samples, fake: Samples) -> Loss:
        """The feature mover's distance."""
        distance = self._distance(models, real, relax(models.generator, fake, self.beta))
        return Loss(distance, {"feature_distance": distance.detach()})

    def discriminator_loss(self, models: Models, real: Samples, fake: Samples) -> Loss:
        """Less the feature mover's distance."""
        with torch.no_grad():
            fake = relax(models.generator, fake.uncredited, self.beta)
        distance = self._distance(models, real, fake)
        return Loss(penalty(models.discriminator) - distance, {"discriminator_loss": -distance.detach()})
