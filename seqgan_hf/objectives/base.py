"""The contract of an objective: what the generator learns from, and how the gradient reaches it."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.swa_utils import get_ema_multi_avg_fn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..errors import UserError
from ..functional import masked_mean
from ..generation.modes import train_without_dropout
from ..generation.sampling import sample
from ..generation.verdicts import realness
from ..samples import Samples
from .statistics import shared_mean


Adversary = Literal["classifier", "language_model"]
Phase = Literal["pretrain_generator", "pretrain_discriminator", "adversarial"]


class Loss(NamedTuple):
    """What an objective gives back: a scalar to differentiate, and values to log.

    Attributes:
        value: differentiable scalar, shape ().
        metrics: name to a number or a tensor of shape () (kept on the device until it is logged).
        weight: how much `value` counts when the batches of one step (of several processes, or accumulated) are
            averaged: the number of tokens for a mean over tokens; batches of equally many sequences all count 1.
    """

    value: Tensor
    metrics: Mapping[str, Tensor | float] = {}
    weight: Tensor | float = 1.0


class Credit(NamedTuple):
    """A batch of samples with what its tokens are credited with, and values to log once a batch.

    Attributes:
        samples: with `advantages`, and `logprobs` where the objective needs them.
        metrics: see `Loss`.
    """

    samples: Samples
    metrics: Mapping[str, Tensor | float] = {}


class Copy(NamedTuple):
    """A frozen model that begins as a copy of the generator, at the first generator step of the objective's own.

    Attributes:
        decay: after every step of the generator the copy keeps this share of itself and takes the rest from the
            generator (an exponential moving average); `None` leaves it as it is until `Models.refresh`.
    """

    decay: float | None = None


class Turn(NamedTuple):
    """A part of a run's schedule.

    Attributes:
        phase: what is trained.
        units: epochs of the generator's pretraining, d-steps of the discriminator's, or adversarial rounds.
        generator_steps, discriminator_steps: of each round.
    """

    phase: Phase
    units: int
    generator_steps: int = 0
    discriminator_steps: int = 0


class Models:
    """The models that an objective is given: both players, and each declared copy by its name (`models["reference"]`).

    Until the copies begin, their names mean the generator itself, which they would be equal to.

    Args:
        generator: any causal LM.
        discriminator: the trained opponent; `None` if the objective has none.
        copies: what the objective declares; made by `begin`.
        tokenizer: writes samples as text, for objectives that read text; `None` where there is no text.

    Raises:
        UserError: a copy has the name of a player, or one that no folder should have.
    """

    def __init__(
        self,
        generator: PreTrainedModel,
        discriminator: PreTrainedModel | None = None,
        copies: Mapping[str, Copy] | None = None,
        tokenizer: PreTrainedTokenizerBase | None = None,
    ):
        self.generator, self.discriminator, self.tokenizer = generator, discriminator, tokenizer
        self._declared = dict(copies or {})
        for name, copied in self._declared.items():
            if not isinstance(copied, Copy):
                raise UserError(f"{copied!r:.80} for the copy {name!r}", "a `Copy`", "declare `Copy()`, for example")
            if not isinstance(copied.decay, float | int | None) or not 0 <= (copied.decay or 0) < 1:
                problem = f"Copy(decay={copied.decay!r}) for {name!r}"
                raise UserError(problem, "a share in [0, 1)", "None leaves it as it is")
            if name in ("generator", "discriminator") or not name.isidentifier():
                expected = "a name of letters and digits that no player has"
                raise UserError(f"a copy named {name!r}", expected, "choose another")
        self._copies: dict[str, PreTrainedModel] = {}

    def __getitem__(self, name: str) -> PreTrainedModel:
        return self.generator if name in self._declared.keys() - self._copies.keys() else self._copies[name]

    def begin(self) -> None:
        """Make the copies that are not there yet, without dropout; a UserError if the generator cannot be copied."""
        for name in (name for name in self._declared if name not in self._copies):
            # what is never trained is shared: of a generator with an adapter, the adapter alone is there twice
            fixed = {id(p): p for p in self.generator.parameters() if not p.requires_grad}
            try:
                copied = copy.deepcopy(self.generator, fixed)
            except Exception as error:  # a model of one's own may hold anything
                problem = f"the generator cannot be copied as {name!r} ({type(error).__name__}: {error})"
                fix = "keep what cannot be copied out of it, or choose an objective without copies"
                raise UserError(problem, "a model that `copy.deepcopy` takes", fix) from error
            self._copies[name] = copied.requires_grad_(False)
            train_without_dropout(self._copies[name])  # the generator may have been left with it

    @contextmanager
    def generator_learns(self, objective: Objective) -> Iterator[None]:
        """The players as a generator step needs them; while it lasts, the discriminator's weights have no gradients.

        A generator that learns from its own samples has no dropout: grad log G(y) is that of the policy that drew y.
        Under dropout it would be another's, and even a constant reward would have an effect: it pulls the weights
        without dropout towards those with it.
        """
        self.generator.train()
        if objective.draws and not objective.off_policy:
            train_without_dropout(self.generator)
        if self.discriminator is not None:
            train_without_dropout(self.discriminator)
        with frozen(self.discriminator):
            yield

    @torch.no_grad()
    def follow(self) -> None:
        """Move the averaged copies towards the generator, which just stepped; buffers become equal to its own."""
        for name, model in self._copies.items():
            if (decay := self._declared[name].decay) is not None:
                both = zip(model.parameters(), self.generator.parameters(), strict=True)
                followed, own = zip(*((mine, its) for mine, its in both if mine is not its), strict=True)
                get_ema_multi_avg_fn(decay)(list(followed), list(own), None)
                for buffer, its in zip(model.buffers(), self.generator.buffers(), strict=True):
                    buffer.copy_(its)

    @torch.no_grad()
    def refresh(self, name: str) -> None:
        """Make a copy equal to the generator again."""
        self[name].load_state_dict(self.generator.state_dict())

    def players(self) -> dict[str, PreTrainedModel]:
        """The generator and, where there is one, the discriminator, by name."""
        players = {"generator": self.generator, "discriminator": self.discriminator}
        return {name: model for name, model in players.items() if model is not None}

    def of_step(self, objective: Objective) -> list[PreTrainedModel]:
        """What a step of either player computes: both players, or the generator alone where there is no opponent."""
        return [self.generator] if objective.adversary is None else list(self.players().values())

    def named(self) -> dict[str, PreTrainedModel]:
        """All models that a checkpoint holds, by name."""
        return self.players() | self._copies


@contextmanager
def frozen(*models: nn.Module | None) -> Iterator[None]:
    """No gradients for the parameters of these models; they still pass through them to what they read."""
    trainable = [p for model in models if model is not None for p in model.parameters() if p.requires_grad]
    try:
        for parameter in trainable:
            parameter.requires_grad_(False)
        yield
    finally:
        for parameter in trainable:
            parameter.requires_grad_(True)


def penalty(discriminator: PreTrainedModel) -> Tensor | float:
    """What a discriminator adds to its loss (its `regularization`), if anything."""
    regularization = getattr(discriminator, "regularization", None)
    return 0.0 if regularization is None else regularization()


class Objective(ABC):
    """One paper's way to train a generator.

    The arguments of `__init__` are its configuration, nothing else is. An objective returns losses; only the trainer
    steps optimizers. A subclass in your own file is named by its dotted path in a recipe. `docs/design.md` walks
    through one step.

    Attributes:
        citation: BibTeX of the paper; it goes into the model card.
        adversary: the trained opponent: a sequence classifier, a causal LM, or none.
        draws: whether a generator step learns from samples that `sample` draws. It is then without dropout, as they
            were drawn; otherwise dropout is on.
        off_policy: whether these samples are another model's and learnt as real text is, with dropout.
        labels: names of a classifier's labels; the first is that of generated text.
        paired: whether row i of the real and of the generated sequences continue the same prompt in discriminator
            steps, too.
        updates: generator steps on one batch of samples.
    """

    citation: ClassVar[str] = ""
    adversary: ClassVar[Adversary | None] = "classifier"
    draws: ClassVar[bool] = True
    off_policy: ClassVar[bool] = False
    labels: Sequence[str] = ("FAKE", "REAL")
    paired: ClassVar[bool] = False
    updates: int = 1

    def copies(self) -> dict[str, Copy]:
        """The frozen models that it needs beside the players, by name."""
        return {}

    def check(self, models: Models, batch_size: int, conditional: bool) -> None:
        """Refuse models and settings that no run could follow; called when a trainer is made, before any training.

        Args:
            batch_size: B, rows of a generator step on one process.
            conditional: whether the training sequences have prompts of their own.

        Raises:
            UserError: no opponent of the kind that `adversary` names, or `updates` below 1. A subclass that refuses
                more calls this one, too, and draws no random numbers.
        """
        name, opponent = type(self).__name__, models.discriminator
        if not isinstance(self.updates, int) or self.updates < 1:
            problem = f"{name}.updates={self.updates!r}"
            raise UserError(problem, "1 or more steps on a batch of samples", "set it higher")
        if self.adversary is None:
            return
        wanted = {"classifier": "a sequence classifier", "language_model": "a causal language model"}
        if self.adversary not in wanted:
            problem = f"{name}.adversary={self.adversary!r}"
            raise UserError(problem, "classifier, language_model or None", "set one of these")
        if opponent is None or opponent.can_generate() != (self.adversary == "language_model"):
            given = "no discriminator" if opponent is None else f"the discriminator {type(opponent).__name__}"
            raise UserError(f"{given} for the objective {name}", wanted[self.adversary], "pass one")

    def check_sequences(self, models: Models, real: Samples | None) -> None:
        """Refuse training sequences that it cannot learn from; called after `check`.

        Args:
            models: the players, on their device.
            real: all of the generator's training sequences; `None` where they are streamed.
        """

    def schedule(self, turns: list[Turn]) -> list[Turn]:
        """The turns of a run, in order; given those of the settings: pretraining of G, of D, adversarial rounds."""
        return turns

    def sample(self, models: Models, real: Samples, max_new_tokens: int) -> Samples:
        """Draw what a generator step learns from: by default a continuation of each of the B real prompts.

        Args:
            real: a batch of training sequences, shape (B, T).
            max_new_tokens: the longest continuation.
        """
        return sample(models.generator, real.prompt, max_new_tokens, prompt_mask=real.prompt_mask)

    def fakes(self, models: Models, prompts: Samples, max_new_tokens: int) -> Samples:
        """Draw what the discriminator is shown as generated, by default as `sample` does.

        It continues the prompts of training sequences; if the objective is `paired`, row i answers row i.
        """
        return self.sample(models, prompts, max_new_tokens)

    def credit(self, models: Models, real: Samples, fake: Samples) -> Credit:
        """Credit the tokens of a batch, once, before its `updates`; called without autograd."""
        return Credit(fake)

    @abstractmethod
    def generator_loss(self, models: Models, real: Samples, fake: Samples | None) -> Loss:
        """The loss of one generator step.

        Args:
            models: the generator has dropout only if the objective does not draw, or is `off_policy`; the parameters
                of the discriminator are frozen meanwhile, and its dropout is off.
            real: a batch of training sequences, shape (B, T).
            fake: the samples of `credit`; `None` if the objective draws none.
        """

    def discriminator_loss(self, models: Models, real: Samples, fake: Samples) -> Loss:
        """Cross-entropy of telling real from generated sequences: -E_real log D - E_G log(1 - D) (SeqGAN, eq. 5).

        The two expectations are averaged, not summed. A discriminator with a method `regularization` has its result
        added. Sequences of both kinds go through the model together, unless the generated ones are soft.

        Args:
            models: the discriminator in train mode; the parameters of the generator are frozen meanwhile.
            real: a batch of training sequences.
            fake: as many rows of what `fakes` drew; fewer in the last batch, unless the objective is `paired`.
        """
        if fake.soft is None:
            both, sizes = Samples.concatenate([real.uncredited, fake.uncredited]), [real.batch_size, fake.batch_size]
            of_real, of_fake = realness(models.discriminator, both).float().split(sizes)
            real_counted, fake_counted = both.mask.split(sizes)
        else:  # soft tokens are not joined with ids
            of_real, of_fake = (realness(models.discriminator, part).float() for part in (real, fake))
            real_counted, fake_counted = real.mask, fake.mask
        if of_real.dim() == 1:
            real_counted, fake_counted = torch.ones_like(of_real).bool(), torch.ones_like(of_fake).bool()
        # -log sigmoid(s) = softplus(-s) and -log(1 - sigmoid(s)) = softplus(s)
        loss = (shared_mean(F.softplus(-of_real), real_counted) + shared_mean(F.softplus(of_fake), fake_counted)) / 2
        with torch.no_grad():
            right_real = masked_mean((of_real > 0).float(), real_counted)
            right_fake = masked_mean((of_fake < 0).float(), fake_counted)
        metrics = {"discriminator_accuracy": (right_real + right_fake) / 2, "discriminator_loss": loss.detach()}
        return Loss(loss + penalty(models.discriminator), metrics)

    def after_step(self, player: Literal["generator", "discriminator"], models: Models) -> None:
        """Called after every step of a player; the copies have followed by then."""

    def state_dict(self) -> dict[str, Any]:
        """What must survive a checkpoint, of this process."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what `state_dict` gave."""
