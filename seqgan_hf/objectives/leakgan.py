"""LeakGAN: the discriminator leaks its features to the generator, whose Manager sets goals among them."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from ..errors import UserError
from ..functional import masked_mean
from ..generation.likelihood import token_logprobs, weighted_nll
from ..generation.rollouts import complete
from ..generation.sampling import check_sampling, sample
from ..generation.vocabulary import vocabulary_size
from ..samples import BoolTensor, Completions, LongTensor, Samples
from .base import Credit, Loss, Models, Objective, Turn
from .seqgan import SeqGAN
from .statistics import rows_of_processes


CITATION = """@inproceedings{guo2018leakgan,
  title = {Long Text Generation via Adversarial Training with Leaked Information},
  author = {Guo, Jiaxian and Lu, Sidi and Cai, Han and Zhang, Weinan and Yu, Yong and Wang, Jun},
  booktitle = {Proceedings of the Thirty-Second AAAI Conference on Artificial Intelligence},
  pages = {5141--5148},
  year = {2018}
}"""


class LeakPretraining(Objective):
    """Maximum likelihood for the Worker; the Manager sets goals where the features of real text go.

    The loss is the mean over tokens of -log G, minus the sum over blocks of cos(f_(n+1)c - f_nc, Gamma_n) over the
    same number of tokens. The features f carry no gradient. See `LeakGAN`, whose `pretraining` this is.
    """

    citation = CITATION
    adversary = None
    draws = False

    def check(self, models: Models, batch_size: int, conditional: bool) -> None:
        """Refuse a generator without a Manager."""
        super().check(models, batch_size, conditional)
        check_leak_generator(self, models)

    def generator_loss(self, models: Models, real: Samples, fake: Samples | None) -> Loss:
        """The mean over tokens, in nats; `nll_train` is the Worker's part."""
        tokens = real.mask.sum()
        cosines, ends = goal_cosines(models.generator, real)
        worker, _ = weighted_nll(models.generator, real, torch.ones_like(cosines) / tokens)
        manager = -cosines.masked_fill(~ends, 0.0).sum() / tokens
        metrics = {"nll_train": worker.detach(), "goal_cosine": masked_mean(cosines.detach(), real.mask)}
        return Loss(worker + manager, metrics, weight=tokens)


class LeakGAN(SeqGAN):
    """A Manager sets goals in the discriminator's feature space, a Worker earns what it moves towards them.

    With f_t the features of the first t tokens and Gamma_n the goal in force in the block of c tokens behind nc:
    Manager: -(1/B) sum_n R_n cos(f_(n+1)c - f_nc, Gamma_n), where R_n is the rank of the mean D of completions of the
    block's end among those of the batch, rescaled; Worker: -(1/B) sum_t cos(f_t - f_nc, Gamma_n) log G(y_t | Y_1:t-1).
    The verdict reaches the Manager only, and no parameter has a gradient from both. With `kl` the Worker pays for
    leaving the generator that the game began with.

    Args:
        rollouts: completions of the end of each block; 0 ranks D of the whole sequence in all its blocks.
        rank_delta: delta in R = sigmoid(delta (1/2 - rank / B)), rank 1 the best, equal ones at their mean rank; 0 is
            the control: a constant reward, and no verdict of the discriminator.
        exploration_temperature: of the samples and completions; their likelihoods are those of temperature 1.
        pretrain_cycles: the d-steps and epochs of pretraining are dealt out to so many turns, the discriminator first.
        likelihood_weight: of the loss of `LeakPretraining` on real sequences, a sum over tokens and a mean over B.
        kl: see `Reinforce`; against the cosine that a token earns.
        max_rows: see `SeqGAN`.

    References:
        Guo et al., Long Text Generation via Adversarial Training with Leaked Information, AAAI 2018,
        https://arxiv.org/abs/1709.08624.
    """

    citation = CITATION

    def __init__(
        self,
        rollouts: int = 4,
        rank_delta: float = 12.0,
        exploration_temperature: float = 1.0,
        pretrain_cycles: int = 10,
        likelihood_weight: float = 0.0,
        kl: float = 0.0,
        max_rows: int | None = None,
    ):
        super().__init__(rollouts, max_rows=max_rows, likelihood_weight=likelihood_weight, kl=kl)
        check_sampling(1, exploration_temperature, 0, 1.0)
        if not 0 <= rank_delta < float("inf"):
            raise UserError(f"rank_delta={rank_delta}", "a number from 0 on", "0 rewards every sequence alike")
        if pretrain_cycles < 1:
            raise UserError(f"pretrain_cycles={pretrain_cycles}", "at least 1 turn", "1 is the discriminator, once")
        self.rank_delta, self.pretrain_cycles = rank_delta, pretrain_cycles
        self.exploration_temperature = exploration_temperature

    def check(self, models: Models, batch_size: int, conditional: bool) -> None:
        """Refuse models without a Manager or without features of prefixes; give the generator the discriminator's."""
        super().check(models, batch_size, conditional)
        check_leak_generator(self, models)
        generator: Any = models.generator
        discriminator: Any = models.discriminator
        wrong = UserError(
            f"LeakGAN with the discriminator {type(discriminator).__name__}",
            "one with features of prefixes, which the generator can compute",
            "use `cnn_discriminator`",
        )
        if not hasattr(discriminator, "prefix_features") or hasattr(discriminator, "text_reader"):
            raise wrong  # the second reads other tokens than the generator's
        try:
            self.after_step("discriminator", models)
        except ValueError as error:
            raise UserError(str(error)) from error
        tried = torch.arange(8, device=generator.device)[None] % vocabulary_size(generator)
        with torch.no_grad():
            own, _ = generator.base_model.goals(F.pad(tried, (1, 0)))
            theirs = discriminator.prefix_features(tried)
        if own.shape != theirs.shape or not torch.allclose(own.float(), theirs.float(), rtol=1e-2, atol=1e-2):
            raise wrong

    def schedule(self, turns: list[Turn]) -> list[Turn]:
        """Both pretrainings in turns, the discriminator's first."""
        of_generator, of_discriminator, *rest = turns
        pretraining = []
        for done, end in pairwise(range(self.pretrain_cycles + 1)):
            for turn in (of_discriminator, of_generator):
                share = turn.units * end // self.pretrain_cycles - turn.units * done // self.pretrain_cycles
                pretraining.append(turn._replace(units=share))
        return pretraining + rest

    def sample(self, models: Models, real: Samples, max_new_tokens: int) -> Samples:
        check_prompts(real)
        return sample(models.generator, real.prompt, max_new_tokens, self.exploration_temperature)

    def completions(self, models: Models, samples: Samples) -> Iterator[Completions]:
        """Of the prefixes at whose end a block ends."""
        generator, temperature = models.generator, self.exploration_temperature
        ends = (block_begins(generator, samples) + generator.config.goal_steps).unique().tolist()
        settings = {"max_rows": self.max_rows, "prefix_lengths": ends}
        return complete(generator, samples, self.rollouts, temperature, **settings)

    def action_values(self, models: Models, samples: Samples, real: Samples) -> Tensor:
        """The mean D of the completions of the end of each token's block, shape (B, T)."""
        values = super().action_values(models, samples, real)
        return values.gather(1, block_ends(models.generator, samples) - 1)

    def advantages(self, models: Models, values: Tensor, samples: Samples) -> Tensor:
        """R, the rescaled rank among the sequences of all processes that reach the token's block, shape (B, T)."""
        begins = block_begins(models.generator, samples).clamp(min=0)
        reached = samples.lengths[:, None] > begins
        return rescaled_ranks(values, reached, self.rank_delta)

    def credit(self, models: Models, real: Samples, fake: Samples) -> Credit:
        """R, which the Manager earns; what leaving the reference costs is the Worker's to pay, in the loss."""
        ranks, metrics = self._compared(models, real, fake)
        return Credit(fake._replace(advantages=ranks), metrics)

    def generator_loss(self, models: Models, real: Samples, fake: Samples) -> Loss:
        """The losses of Manager and Worker, a sum over blocks or tokens and a mean over B."""
        cosines, ends = goal_cosines(models.generator, fake)
        earned, kl = cosines.detach(), None
        if self.kl:
            with torch.no_grad():
                price, kl = self._price(models, fake, token_logprobs(models.generator, fake))
            earned = earned - price
        worker, logprobs = weighted_nll(models.generator, fake, earned / fake.batch_size)
        manager = -(fake.advantages * cosines).masked_fill(~ends, 0.0).sum() / fake.batch_size
        cosine = masked_mean(cosines.detach(), fake.mask)
        metrics: dict[str, Any] = {"nll_policy": -masked_mean(logprobs, fake.mask), "goal_cosine": cosine}
        metrics |= {} if kl is None else {"kl_reference": kl}
        loss = worker + manager
        if self.likelihood_weight:
            of_real = LeakPretraining().generator_loss(models, real, None)
            loss = loss + self.likelihood_weight / real.batch_size * of_real.weight * of_real.value
            metrics |= {"nll_train": of_real.metrics["nll_train"]}
        return Loss(loss, metrics)

    def after_step(self, player: Literal["generator", "discriminator"], models: Models) -> None:
        """The generator reads the features of the discriminator as it is now."""
        if player == "discriminator":
            generator: Any = models.generator
            generator.take_features(models.discriminator)


def check_leak_generator(objective: Objective, models: Models) -> None:
    """Raise a UserError for a generator without a Manager."""
    if models.generator.config.model_type != "leak_generator":
        problem = f"{type(objective).__name__} with the generator {type(models.generator).__name__}"
        raise UserError(problem, "one with a Manager and a Worker", "set `generator.model_type` to `leak_generator`")


def check_prompts(samples: Samples) -> None:
    """Raise a UserError for prompts of unequal length: a goal changes after so many tokens, at once in all rows."""
    if samples.prompt_mask is not None and not samples.prompt_mask.all():
        problem = "padded prompts for a generator with a Manager"
        raise UserError(problem, "prompts of one length", "use data without prompts, or another generator")


def goal_cosines(generator: Any, samples: Samples) -> tuple[Tensor, BoolTensor]:
    """cos(f_t - f_nc, Gamma_n) of every token t of block n, and which tokens are the last of their block.

    Returns:
        Shapes (B, T) and (B, T); gradients reach the Manager only, and no token after a sequence's end counts.
    """
    check_prompts(samples)
    features, goals = generator.base_model.goals(samples.sequences)
    before = samples.prompt.shape[1] - 1
    ends, begins = block_ends(generator, samples), block_begins(generator, samples)
    read = torch.arange(1, samples.ids.shape[1] + 1, device=ends.device)
    moved = features[:, before + read] - features[:, before + begins]
    return F.cosine_similarity(moved, goals[:, before + read - 1], dim=2), samples.mask & (read == ends)


def block_begins(generator: Any, samples: Samples) -> LongTensor:
    """How many tokens of the continuation come before each token's block (negative: it begins in the prompt), (T,)."""
    before, steps = samples.prompt.shape[1] - 1, generator.config.goal_steps
    positions = torch.arange(before, before + samples.ids.shape[1], device=samples.ids.device)
    return positions // steps * steps - before


def block_ends(generator: Any, samples: Samples) -> LongTensor:
    """How many tokens each sequence has at the end of each token's block, its whole length at most, (B, T)."""
    return torch.minimum(block_begins(generator, samples) + generator.config.goal_steps, samples.lengths[:, None])


def rescaled_ranks(values: Tensor, counted: BoolTensor, delta: float) -> Tensor:
    """sigmoid(delta (1/2 - rank / N)) in each column, rank 1 the largest of its N counted values of all processes.

    Equal values have the mean of their ranks. Any increasing function of the values gives the same.

    Args:
        values: shape (B, T).
        counted: what is ranked, shape (B, T); the result elsewhere means nothing.
    """
    others = rows_of_processes(values.masked_fill(~counted, torch.nan))  # which is neither above nor equal
    above, equal = ((compare(others, values[:, None])).sum(dim=1) for compare in (torch.gt, torch.eq))
    ranks, count = above + (equal + 1) / 2, (~others.isnan()).sum(dim=0)
    return torch.sigmoid(delta * (0.5 - ranks / count.clamp(min=1)))
