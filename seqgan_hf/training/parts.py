"""The parts of a run. Each has a state, and only has to be named here to be in every checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase, TrainerCallback

from ..evaluation.base import Evaluator
from ..objectives import Models, Objective
from .batches import TrainingData
from .callbacks import CollapseWarnings, LogLines, ModelCard, ProgressBar, PushToHub, TrackSamples
from .checkpoint import Checkpoints, Part
from .evaluation import Best, Evaluation
from .player import Player
from .processes import check_same_data
from .progress import Progress
from .session import Session
from .units import Units


@dataclass
class Parts:
    """What decides what happens next in a run, and what watches it.

    Attributes:
        players: `pretrained` and `generator`, two optimizers of one model, and `discriminator` where there is one.
        progress: means and rates of a unit of work.
        units: what is done, and what may interrupt it.
        best: the best evaluation so far.
        evaluation: when the generator is measured.
        checkpoints: saves and loads the state of all of these.
        bar: shows where the run is.
        push: uploads the run.
    """

    players: dict[str, Player]
    progress: Progress
    units: Units
    best: Best
    evaluation: Evaluation
    checkpoints: Checkpoints
    bar: ProgressBar | LogLines
    push: PushToHub


def make_parts(
    session: Session,
    models: Models,
    objectives: dict[str, Objective],
    data: TrainingData,
    evaluators: list[Evaluator],
    tokenizer: PreTrainedTokenizerBase | None,
    max_new_tokens: int,
    callbacks: Sequence[TrainerCallback],
) -> Parts:
    """All parts of a run, which know each other, and its callbacks."""
    args, progress = session.args, Progress(session)
    units, best = Units(session, progress), Best(session)
    evaluation = Evaluation(session, models, data, units, best, evaluators, tokenizer, max_new_tokens)
    own = (session, progress)
    players = {
        "pretrained": Player(
            "generator", models.generator, args.pretrain_learning_rate, args.pretrain_max_grad_norm, *own
        ),
        "generator": Player(
            "generator", models.generator, args.generator_learning_rate, args.generator_max_grad_norm, *own
        ),
    }
    if models.discriminator is not None:
        rate, norm = args.discriminator_learning_rate, args.discriminator_max_grad_norm
        players["discriminator"] = Player("discriminator", models.discriminator, rate, norm, *own)
    collapse = CollapseWarnings()
    shared: dict[str, Part] = {**players, "units": units, "evaluation": evaluation, "collapse": collapse}
    if session.accelerator.scaler is not None:
        shared["scaler"] = session.accelerator.scaler
    by_process: dict[str, Part] = {**objectives, "progress": progress}
    fingerprint = data.fingerprint()
    check_same_data(session.accelerator, fingerprint)
    units.checkpoints = Checkpoints(session, models, best, shared, by_process, fingerprint, tokenizer)
    push = PushToHub(session, models.discriminator is not None)
    bar = LogLines() if args.disable_tqdm else ProgressBar()
    watching: list[TrainerCallback] = [bar, collapse, TrackSamples(session)]
    watching += [ModelCard(session), *callbacks, *([push] if args.push_to_hub else [])]
    session.watch(watching, models.generator, tokenizer, players["generator"].optimizer)
    return Parts(players, progress, units, best, evaluation, units.checkpoints, bar, push)
