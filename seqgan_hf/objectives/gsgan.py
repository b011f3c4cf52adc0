"""GSGAN: soft tokens are fed back, so that a token's gradient passes through all that follow it."""

from __future__ import annotations

from ..errors import UserError
from ..generation.relaxation import fed_back_embeddings, sample_soft
from ..samples import Samples
from .base import Models
from .relgan import LossName, RelGAN


class GSGAN(RelGAN):
    """RelGAN's game on Gumbel-softmax samples that the generator writes while it reads its own soft tokens.

    Args:
        tau_start, tau_end: the temperature 1 / beta in the beginning and at the end.
        tau_steps: generator steps in which it goes from one to the other, in a straight line.
        loss: see `RelGAN`.

    References:
        Kusner and Hernández-Lobato, GANS for Sequences of Discrete Elements with the Gumbel-softmax Distribution,
        2016, https://arxiv.org/abs/1611.04051.
    """

    citation = """@article{kusner2016gans,
  title = {{GANS} for Sequences of Discrete Elements with the {Gumbel}-softmax Distribution},
  author = {Kusner, Matt J. and Hern{\\'a}ndez-Lobato, Jos{\\'e} Miguel},
  journal = {arXiv preprint arXiv:1611.04051},
  year = {2016}
}"""

    def __init__(
        self, tau_start: float = 5.0, tau_end: float = 1.0, tau_steps: int = 5000, loss: LossName = "standard"
    ):
        if tau_start <= 0 or tau_end <= 0:
            raise UserError(f"tau_start={tau_start}, tau_end={tau_end}", "positive temperatures", "5 and 1 are usual")
        super().__init__(loss, beta_steps=tau_steps)
        self.tau_start, self.tau_end = tau_start, tau_end

    @property
    def beta(self) -> float:
        """1 / tau, of generator and discriminator steps alike."""
        gone = min(self.steps / self.beta_steps, 1.0)
        return 1 / (self.tau_start + gone * (self.tau_end - self.tau_start))

    def check(self, models: Models, batch_size: int, conditional: bool) -> None:
        """Refuse models that cannot read soft tokens, the generator its own among them."""
        super().check(models, batch_size, conditional)
        fed_back_embeddings(models.generator)

    def relaxed(self, models: Models, fake: Samples) -> Samples:
        """New samples of the same length after the same prompts, with soft tokens that were fed back."""
        prompts = fake.prompt, fake.ids.shape[1], self.beta
        return sample_soft(models.generator, *prompts, prompt_mask=fake.prompt_mask)
