"""The parts of a run. Each has a state, and only has to be named here to be in every checkpoint."""

from __future__ import annotations

from collections.abc import Sequence

from accelerate.utils import gather_object
from transformers import PreTrainedTokenizerBase, TrainerCallback

from ..data.reading import text_reader
from ..evaluation.base import Evaluator
from ..objectives import Models, Objective, Turn
from ..objectives.base import Phase
from ..runs.console import watched
from .batches import TrainingData
from .best import Best
from .callbacks import Announcements, CollapseWarnings, LogLines, ModelCard, ProgressBar, PushToHub, TrackSamples
from .checkpoint import Checkpoints, Part
from .checks import checkpoint_activations
from .evaluation import Evaluation
from .forecast import Forecast
from .player import Player
from .processes import check_same_data
from .progress import Progress
from .session import Session
from .units import Units


class Parts:
    """What decides what happens next in a run, and what watches it; all know each other.

    Attributes:
        players: `pretrained` and `generator`, two optimizers of one model, and `discriminator` where there is one.
        progress: means and rates of a unit of work.
        units: what is done, and what may interrupt it.
        best: the best evaluation so far.
        evaluation: when the generator is measured.
        forecast: how long the run will go on.
        checkpoints: saves and loads the state of all of these.
        bar: shows where the run is.
        push: uploads the run.
    """

    def __init__(
        self,
        session: Session,
        models: Models,
        objectives: dict[str, Objective],
        data: TrainingData,
        turns: list[Turn],
        evaluators: list[Evaluator],
        tokenizer: PreTrainedTokenizerBase | None,
        max_new_tokens: int,
        callbacks: Sequence[TrainerCallback],
    ):
        self.session = session
        args, generator, discriminator = session.args, models.generator, models.discriminator
        self.progress, self.best = Progress(session), Best(session)
        self.units = units = Units(session, self.progress)
        self.evaluation = Evaluation(session, models, data, units, self.best, evaluators, tokenizer, max_new_tokens)
        self.forecast = Forecast(args, turns, units, self.progress.meter)
        if args.activation_checkpointing:
            checkpoint_activations(models)
        own = (session, self.progress)
        rates = {"pretrained": args.pretrain_learning_rate, "generator": args.generator_learning_rate}
        norms = {"pretrained": args.pretrain_max_grad_norm, "generator": args.generator_max_grad_norm}
        self.players = {key: Player("generator", generator, rates[key], norms[key], *own) for key in rates}
        if discriminator is not None:
            rate, norm = args.discriminator_learning_rate, args.discriminator_max_grad_norm
            trunk = args.discriminator_trunk_learning_rate
            self.players["discriminator"] = Player("discriminator", discriminator, rate, norm, *own, trunk)
        collapse = CollapseWarnings()
        shared: dict[str, Part] = {**self.players, "units": units, "evaluation": self.evaluation, "collapse": collapse}
        if session.accelerator.scaler is not None:
            shared["scaler"] = session.accelerator.scaler
        by_process: dict[str, Part] = {**objectives, "progress": self.progress}
        fingerprint, tokenizers = data.fingerprint(), own_tokenizers(models, tokenizer)
        check_same_data(session.accelerator, fingerprint)
        self.checkpoints = Checkpoints(session, models, self.best, shared, by_process, fingerprint, tokenizers)
        units.checkpoints = self.checkpoints
        self.push = PushToHub(session, models)
        self.bar = LogLines() if args.disable_tqdm or not watched() else ProgressBar()
        watching: list[TrainerCallback] = [self.bar, collapse, TrackSamples(session), ModelCard(session), *callbacks]
        watching += [self.push] if args.push_to_hub else []
        watching.append(Announcements(session, objectives, models, data, max_new_tokens, turns, self.units))
        session.watch(watching, generator, tokenizer, self.players["generator"].optimizer)

    def anneal(self, phase: Phase, totals: dict[str, int]) -> None:
        """Set the learning rates of a unit that begins, by how much of a player's training, of `totals`, is done."""
        args, done = self.session.args, self.units.done
        epochs, rounds, steps = (totals[name] for name in ("pretrain_generator", "adversarial", "discriminator_steps"))
        if phase == "pretrain_generator":
            self.players["pretrained"].anneal(args.pretrain_lr_scheduler, done[phase] / epochs)
            return
        # the same on all processes, whose clocks differ
        used = min(1.0, max(gather_object([self.units.time_used]))) if args.max_seconds else 0.0
        if phase == "adversarial":
            self.players["generator"].anneal(args.generator_lr_scheduler, max(used, done[phase] / rounds))
        if "discriminator" in self.players:
            part = max(used, self.units.discriminator_steps / max(1, steps))
            self.players["discriminator"].anneal(args.discriminator_lr_scheduler, part)


def own_tokenizers(models: Models, tokenizer: PreTrainedTokenizerBase | None) -> dict[str, PreTrainedTokenizerBase]:
    """Tokenizers by the name of the model that reads with them: the generator's, and that of a reader of text."""
    reader = text_reader(models.discriminator)
    both = {"generator": tokenizer, "discriminator": None if reader is None else reader.tokenizer}
    return {name: own for name, own in both.items() if own is not None}
