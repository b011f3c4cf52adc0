"""Algorithm 1 of SeqGAN (Yu et al. 2017): pretrain G, pretrain D, then alternate. On Accelerate."""

from __future__ import annotations

import inspect
import itertools
import json
import signal
import sys
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError
from typing import TYPE_CHECKING, Any

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, gather_object, set_seed
from safetensors import SafetensorError
from torch import Tensor, nn
from tqdm.auto import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase, Trainer, TrainerCallback
from transformers.integrations import get_reporting_integration_callbacks
from transformers.trainer_callback import CallbackHandler, DefaultFlowCallback, TrainerControl, TrainerState

from ..errors import DataError, RunFolderError, TrainingError, UserError
from ..evaluation.base import Evaluator
from ..evaluation.likelihood import HeldOutNLL
from ..generation.modes import evaluating, train_without_dropout
from ..generation.sampling import sample
from ..generation.vocabulary import special_tokens, vocabulary_size
from ..objectives import MLE, Loss, Objective
from ..runs.card import describe_model, public_recipe, versions, write_card
from ..runs.folder import SHOWN_SAMPLES, RunFolder, decode, writable
from ..runs.hub import classifier_tokenizer, open_repositories, push_run
from ..runs.learning_curve import plot_learning_curve
from ..samples import Samples
from .arguments import AdversarialTrainingArguments
from .batches import InMemoryData, seeded, training_data
from .callbacks.collapse import CollapseMonitor
from .callbacks.trackers import log_samples
from .checkpoint import (
    COMPLETE,
    PREFIX,
    CheckpointWriter,
    checkpoints,
    fault,
    remove_after,
    rng_state,
    rotate,
    set_rng_state,
    tidy,
    way_back,
)
from .processes import (
    agreed,
    alone_by_mistake,
    any_process,
    average_gradients,
    check_same_data,
    check_same_weights,
    share_weights,
    together,
)
from .progress import Meter, log_line, rates


if TYPE_CHECKING:
    from datasets import Dataset, IterableDataset

# Streams of random numbers that are drawn from one seed and must not repeat each other.
PRETRAIN, FAKES, DISCRIMINATOR, GENERATOR, EVALUATION = range(5)
# Steps of a model in a row that may be left out, for bad losses or gradients, before the run gives up.
MAX_BAD_STEPS = 5
# Where there are no progress bars, seconds between two lines of the log at least.
LOG_SECONDS = 30.0
# What bars and lines show, where it was measured.
SHOWN = ("nll_train", "reward", "discriminator_loss", "discriminator_accuracy", "nll_test", "nll_oracle")

# What the progress bars say.
PHASE_NAMES = {
    "pretrain_epochs": "pretrain generator",
    "discriminator_pretrain_steps": "pretrain discriminator",
    "rounds": "adversarial",
}


class _OwnFlow(DefaultFlowCallback):
    """Evaluation, logging and saving follow this trainer's phases, not the steps and epochs of transformers."""

    def on_step_end(self, args, state, control, **kwargs):
        return control

    on_epoch_end = on_step_end


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).strip().splitlines()[0]}" if str(error) else type(error).__name__


class Interrupted(Exception):
    """The user asked a run to end; a checkpoint has been saved."""


class AdversarialTrainer:
    """Trains a generator against a discriminator.

    Args:
        generator: any causal LM with a cache.
        discriminator: any sequence classifier over the same token ids; `None` if the objective is not adversarial.
        objective: what the generator is rewarded for.
        args: the settings.
        train_dataset: rows with `input_ids` and, for conditional generation, `prompt_ids` (see `data.Corpus`); or
            `Samples`.
        eval_dataset: held-out rows of the same kind; NLL_test is measured on them.
        processing_class: the tokenizer; it is saved with the generator and writes the samples as text.
        callbacks: `TrainerCallback`s, besides those of `args.report_to`.
        evaluators: further measurements of the generator at every evaluation.
        pretraining: how the generator is pretrained; maximum likelihood by default.
        recipe: the resolved recipe as YAML, kept in the run's folder.

    Raises:
        ValueError: the models do not fit the data, or each other.
        DataError: the training data cannot be used as asked.
    """

    def __init__(
        self,
        generator: PreTrainedModel,
        discriminator: PreTrainedModel | None,
        objective: Objective,
        args: AdversarialTrainingArguments,
        train_dataset: Dataset | IterableDataset | Samples,
        eval_dataset: Dataset | Samples | None = None,
        processing_class: PreTrainedTokenizerBase | None = None,
        callbacks: Sequence[TrainerCallback] | None = None,
        evaluators: Iterable[Evaluator] = (),
        pretraining: Objective | None = None,
        recipe: str | None = None,
    ):
        self.args = args
        # `None` leaves it to the launcher
        precision = "bf16" if args.bf16 else "fp16" if args.fp16 else None
        self.accelerator = Accelerator(mixed_precision=precision, cpu=args.use_cpu)
        # several processes on CPUs are told `cpu:0`, which `torch.load` does not know
        self.device = torch.device("cpu") if self.accelerator.device.type == "cpu" else self.accelerator.device
        set_seed(args.seed, device_specific=True)
        self.generator, self.discriminator = generator.to(self.device), discriminator
        self.objective, self.pretraining = objective, pretraining or MLE()
        self.processing_class = processing_class
        self.folder = RunFolder(Path(args.output_dir), recipe)
        self._load_data(train_dataset, eval_dataset, evaluators)
        self._check_models()
        self.data_fingerprint = self.data.fingerprint()
        check_same_data(self.accelerator, self.data_fingerprint)
        share_weights(self.accelerator, self._models())
        self._create_optimizers()
        # how many units of each kind are done; the inner ones count within a round
        self.progress = dict.fromkeys(
            ("pretrain_epochs", "discriminator_pretrain_steps", "rounds", "generator_phases", "discriminator_steps"), 0
        )
        self.best: dict[str, Any] = {}
        self.evaluation: dict[str, Any] = {}  # the last one: its name, values and their signatures
        self.bad_steps = dict.fromkeys(self._models(), 0)  # of each model, in a row
        self._weights: list[Tensor | float] = []  # of the batches of a step
        self.monitor = CollapseMonitor()
        self._seconds = 0.0
        self._sums: dict[str, list[Tensor | float]] = defaultdict(list)
        self._interrupt: int | None = None
        self._phase = "pretrain_epochs"
        self._bar: tqdm | None = None
        self._shown: dict[str, str] = {}
        self._started = time.perf_counter()
        self._logged = -LOG_SECONDS
        self.meter = Meter(self.device)
        self._set_up_callbacks(callbacks or [])

    # --- Algorithm 1 -------------------------------------------------------------------------------------------------

    def train(self) -> None:
        """Train from the beginning, or from a checkpoint (`args.resume_from_checkpoint`), to the end.

        Raises:
            Interrupted: after Ctrl-C or SIGTERM, once a checkpoint is saved.
            TrainingError: the numbers went bad.
        """
        with together(self.accelerator):
            self._begin()
            with self._interruptible():
                self._run_phases()
            self._finish()

    def _run_phases(self) -> None:
        # step 1: pretrain G by maximum likelihood
        for epoch in self._units("pretrain_epochs", self.args.pretrain_epochs):
            self._pretrain_generator(epoch)
            self._report("pretrain_generator", epoch=epoch + 1, total=self.args.pretrain_epochs)

        # step 2: pretrain D on samples of the pretrained G
        for step in self._units("discriminator_pretrain_steps", self._discriminator_pretrain_steps):
            self._train_discriminator(step)
            self._report("pretrain_discriminator", step=step + 1, total=self._discriminator_pretrain_steps)

        # step 3: alternate
        for round in self._units("rounds", self.args.rounds):
            for _ in self._units("generator_phases", 1, within=round):
                self._train_generator(round)
            for step in self._units("discriminator_steps", self._discriminator_steps, within=round):
                self._train_discriminator(
                    self._discriminator_pretrain_steps + round * self._discriminator_steps + step
                )
            self._report("adversarial", round=round + 1, total=self.args.rounds)

    def _pretrain_generator(self, epoch: int) -> None:
        """One pass over the data."""
        batches = self.data.epoch((self.args.seed, PRETRAIN, epoch), self.args.per_device_train_batch_size)
        for group in self._groups(batches):
            self._generator_step(self.pretraining, group, self.pretrain_optimizer, self.args.pretrain_max_grad_norm)

    def _train_generator(self, round: int) -> None:
        """The g-steps of a round: each draws sequences, values their tokens, and follows the policy gradient."""
        batches = self.data.endless((self.args.seed, GENERATOR, round), self.args.per_device_train_batch_size)
        for group in itertools.islice(self._groups(batches), self.args.generator_steps):
            self._generator_step(self.objective, group, self.generator_optimizer, self.args.generator_max_grad_norm)

    def _generator_step(
        self, objective: Objective, batches: list[Samples], optimizer: torch.optim.Optimizer, max_norm: float
    ) -> None:
        """One update of G from the mean loss over `batches`."""
        if objective.adversarial:
            # grad log G(y) is that of the policy that drew y. Under dropout it would be another's, and even a constant
            # reward would have an effect: it pulls the weights without dropout towards those with it.
            train_without_dropout(self.generator)
        else:
            self.generator.train()
        for real in batches:
            with self._frozen_discriminator(), self.accelerator.autocast():
                fake = None
                if objective.adversarial:
                    fake = objective.sample(
                        self.generator, real.prompt, self.max_new_tokens, prompt_mask=real.prompt_mask
                    )
                discriminator = self.discriminator if objective.adversarial else None
                loss = objective.generator_loss(self.generator, discriminator, real, fake)
            self._backward(loss)
            self.meter.count(real if fake is None else fake)
        if self._step(self.generator, optimizer, max_norm, "generator"):
            objective.after_generator_step(self.generator)

    def _train_discriminator(self, index: int) -> None:
        """One d-step: fresh samples of G, and some epochs of telling them from real sequences."""
        half = self.args.discriminator_batch_size // 2
        fakes = self._fakes(index)
        for epoch in range(self.args.discriminator_epochs):
            seed = (self.args.seed, DISCRIMINATOR, index, epoch)
            pairs = zip(fakes.epoch((*seed, 0), half), self.data.endless((*seed, 1), half), strict=False)
            for group in self._groups(pairs):
                self.discriminator.train()
                for fake, real in group:
                    with self.accelerator.autocast():
                        loss = self.objective.discriminator_loss(self.discriminator, real, fake)
                    self._backward(loss)
                    self.meter.count(real, fake)
                self._step(
                    self.discriminator,
                    self.discriminator_optimizer,
                    self.args.discriminator_max_grad_norm,
                    "discriminator",
                )

    def _fakes(self, index: int) -> InMemoryData:
        """Fresh samples of G, as many as there are training sequences unless told otherwise, for this process."""
        count = self.args.num_fakes or len(self.data)
        share = -(-count // self.accelerator.num_processes)
        prompts = self._prompts((self.args.seed, FAKES, index), share)
        with self.accelerator.autocast():
            fakes = sample(self.generator, prompts.prompt, self.max_new_tokens, prompt_mask=prompts.prompt_mask)
        return InMemoryData(fakes, self.device)

    def _prompts(self, seed: tuple[int, ...], count: int) -> Samples:
        """`count` training sequences whose prompts are continued; all of them again once they are used up."""
        batches = self.data.endless(seed, count)
        parts = [next(batches)]
        while sum(part.batch_size for part in parts) < count:
            parts.append(next(batches))
        return Samples.concatenate(parts).select(slice(0, count))

    def _groups(self, batches: Iterator[Any]) -> Iterator[list[Any]]:
        """The batches of one step each, until any process has no more or a callback ends the run."""
        while True:
            group = list(itertools.islice(batches, self.args.gradient_accumulation_steps))
            if any(any_process(self.accelerator, not group, self.control.should_training_stop)):
                return
            self.control = self.callback_handler.on_step_begin(self.args, self.state, self.control)
            yield group

    # --- Gradients ---------------------------------------------------------------------------------------------------

    def _backward(self, loss: Loss) -> None:
        """Add a batch to the gradient of the step; batches count by their weights, relative to the first one's."""
        self._weights.append(loss.weight)
        # 1, or NaN where the loss is not finite: the gradient then says so, on all processes, without another wait
        finite = 1 + 0 * loss.value.detach()
        self.accelerator.backward(loss.value * (finite * loss.weight / self._weights[0]))
        for name, value in loss.metrics.items():
            self._sums[name].append(value)

    def _step(self, model: nn.Module, optimizer: torch.optim.Optimizer, max_norm: float, name: str) -> bool:
        """Average gradients over processes, clip them, and update; a step of bad numbers is left out."""
        average_gradients(self.accelerator, model, self._weights)
        self._weights.clear()
        self.accelerator.unscale_gradients(optimizer)
        gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
        norm = nn.utils.get_total_norm(gradients)
        finite = bool(norm.isfinite())
        if finite:
            if max_norm:
                nn.utils.clip_grads_with_norm_(model.parameters(), max_norm, norm)
            self._sums[f"{name}_grad_norm"].append(norm)
            self.bad_steps[name] = 0
        self.control = self.callback_handler.on_pre_optimizer_step(self.args, self.state, self.control)
        if finite or self.accelerator.scaler is not None:  # a gradient scaler leaves bad steps out by itself
            optimizer.step()
        self.control = self.callback_handler.on_optimizer_step(self.args, self.state, self.control)
        optimizer.zero_grad()
        self.state.global_step += 1
        self.control = self.callback_handler.on_step_end(self.args, self.state, self.control)
        if not finite:
            self._count_bad_step(name)
        return finite

    def _count_bad_step(self, name: str) -> None:
        self.bad_steps[name] += 1
        self._sums["bad_steps"].append(1.0)
        where = ", ".join(f"{unit} {done}" for unit, done in self.progress.items() if done)
        message = (
            f"got a {name} loss or gradient that is not finite in the phase {PHASE_NAMES[self._phase]!r} at step "
            f"{self.state.global_step} (done: {where or 'nothing'})"
        )
        self._warn(f"{message}; the step is left out")
        if self.bad_steps[name] >= MAX_BAD_STEPS:
            raise TrainingError(
                f"{message}, {self.bad_steps[name]} times in a row",
                "finite numbers",
                f"lower the learning rate or clip the gradient, and {way_back(self.folder.checkpoints)}",
            )

    def _check_finite_weights(self) -> None:
        """A checkpoint is something to go back to, so none is made of weights that went bad.

        Raises:
            TrainingError: names some of these parameters, and the checkpoint from before.
        """
        named = {f"{name}.{key}": p for name, model in self._models().items() for key, p in model.named_parameters()}
        finite = torch.stack([parameter.isfinite().all() for parameter in named.values()]).tolist()
        bad = [name for name, good in zip(named, finite, strict=True) if not good]
        if bad:
            raise TrainingError(
                f"weights that are not finite ({', '.join(bad[:3])}{(', ...' if len(bad) > 3 else '')}) "
                f"at step {self.state.global_step}",
                "finite numbers",
                f"lower the learning rate or clip the gradient, and {way_back(self.folder.checkpoints)}; "
                "no checkpoint is made of them",
            )

    @contextmanager
    def _frozen_discriminator(self) -> Iterator[None]:
        """No gradients for D's parameters; they still pass through it to the generator's soft samples."""
        if self.discriminator is None:
            yield
            return
        trainable = [parameter for parameter in self.discriminator.parameters() if parameter.requires_grad]
        for parameter in trainable:
            parameter.requires_grad_(False)
        try:
            yield
        finally:
            for parameter in trainable:
                parameter.requires_grad_(True)

    # --- Set-up ------------------------------------------------------------------------------------------------------

    def _load_data(self, train_dataset, eval_dataset, evaluators: Iterable[Evaluator]) -> None:
        config = self.generator.config
        if config.bos_token_id is None:
            raise UserError("a generator without `bos_token_id`", "a start token", "set it in its config")
        eos, pad = special_tokens(self.generator)
        pad_token_id = pad if eos or config.pad_token_id is not None else None
        place = (self.device, self.accelerator.process_index, self.accelerator.num_processes)
        self.data, self.max_new_tokens = training_data(
            train_dataset, config.bos_token_id, pad_token_id, self.args.max_new_tokens, *place
        )
        batch = self.args.per_device_train_batch_size * self.accelerator.num_processes
        if isinstance(self.data, InMemoryData) and len(self.data) < batch:
            raise DataError(
                f"{len(self.data)} training sequences",
                f"at least one batch of {batch}",
                "set a smaller `training.per_device_train_batch_size`, or give more data",
            )
        self.evaluators = list(evaluators)
        if eval_dataset is not None:
            held_out, _ = training_data(eval_dataset, config.bos_token_id, pad_token_id, None, self.device)
            self.evaluators.insert(0, HeldOutNLL(held_out.samples))

    def _check_models(self) -> None:
        vocab_size = vocabulary_size(self.generator)
        if isinstance(self.data, InMemoryData):
            largest = int(self.data.samples.ids.max())
            if largest >= vocab_size:
                raise UserError(
                    f"token id {largest} in the training data",
                    f"ids below the generator's vocabulary of {vocab_size}",
                    f"set `generator.config.vocab_size` to at least {largest + 1}, or use a smaller tokenizer",
                )
        self._check_length(self.generator, "generator")
        if not self.objective.adversarial:
            self.discriminator = None
            return
        if self.discriminator is None:
            raise UserError("no discriminator", f"one for the objective {type(self.objective).__name__}", "pass one")
        judged = self.discriminator.get_input_embeddings().weight.shape[0]
        if judged < vocab_size:
            raise UserError(
                f"a discriminator that knows {judged} token ids",
                f"the generator's {vocab_size}",
                f"set `discriminator.config.vocab_size` to {vocab_size}",
            )
        self._check_length(self.discriminator, "discriminator")
        self.discriminator.to(self.device)

    def _check_length(self, model: PreTrainedModel, name: str) -> None:
        """Models with a table of positions have a longest sequence."""
        longest = getattr(model.config, "max_position_embeddings", None)
        prompt = self.data.samples.prompt.shape[1] if isinstance(self.data, InMemoryData) else 1
        if longest is not None and prompt + self.max_new_tokens > longest:
            raise UserError(
                f"sequences of {prompt + self.max_new_tokens} tokens for a {name} of {longest} positions",
                "no more than these",
                f"set `training.max_new_tokens`, or a longer `{name}.config`",
            )

    @property
    def _discriminator_pretrain_steps(self) -> int:
        return self.args.discriminator_pretrain_steps if self.objective.adversarial else 0

    @property
    def _discriminator_steps(self) -> int:
        return self.args.discriminator_steps if self.objective.adversarial else 0

    def _create_optimizers(self) -> None:
        """Adam with a state of its own for each of the three phases."""

        def optimizer(model: PreTrainedModel, learning_rate: float) -> torch.optim.Optimizer:
            kind, options = Trainer.get_optimizer_cls_and_kwargs(self.args, model)
            options["lr"] = learning_rate
            parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
            created = kind(parameters, weight_decay=self.args.weight_decay, **options)
            return self.accelerator.prepare_optimizer(created, device_placement=False)

        self.pretrain_optimizer = optimizer(self.generator, self.args.pretrain_learning_rate)
        self.generator_optimizer = optimizer(self.generator, self.args.generator_learning_rate)
        self.discriminator_optimizer = None
        if self.discriminator is not None:
            self.discriminator_optimizer = optimizer(self.discriminator, self.args.discriminator_learning_rate)

    def _set_up_callbacks(self, callbacks: Sequence[TrainerCallback]) -> None:
        reporting = get_reporting_integration_callbacks(self.args.report_to)
        self.callback_handler = CallbackHandler(
            [_OwnFlow, *reporting, *callbacks],
            self.generator,
            self.processing_class,
            self.generator_optimizer,
            None,
        )
        self.state = TrainerState(is_local_process_zero=self.accelerator.is_local_main_process)
        self.state.is_world_process_zero = self.accelerator.is_main_process
        self.state.max_steps = sys.maxsize  # phases end a run, not a number of steps
        self.control = TrainerControl()

    def _begin(self) -> None:
        resumed = None
        with agreed(self.accelerator):
            if self.accelerator.is_main_process:
                resumed = self._open_folder()
        if self.accelerator.num_processes > 1:
            (resumed,) = broadcast_object_list([resumed])
        if resumed is not None:
            with agreed(self.accelerator):
                self._resume(resumed)
        if alone := alone_by_mistake(self.accelerator):
            self._warn(alone)
        self.control = self.callback_handler.on_train_begin(self.args, self.state, self.control)

    def _open_folder(self) -> Path | None:
        """Make the run's folder ready; the checkpoint to go on from, if any."""
        resumed = None
        if self.args.resume_from_checkpoint not in (None, False, "false", "False"):
            with self.folder.permitted():
                tidy(self.folder.checkpoints)
            resumed = self._find_checkpoint()
        self.folder.open(resuming=resumed is not None, overwrite=self.args.overwrite_run)
        if self.args.push_to_hub:  # a missing token is said now, not hours later
            place = "none" if self.discriminator is None else self.args.hub_discriminator
            open_repositories(self._hub_model_id, place, self.args.hub_private_repo, self.args.hub_token)
        return resumed

    def _resume(self, path: Path) -> None:
        differences = self.folder.recipe_differences(path)
        for difference in differences:
            self._warn(f"the recipe is not the one that the checkpoint was made with: {difference}")
        try:
            metrics_lines = self._load_checkpoint(path)
        except (RuntimeError, LookupError, ValueError, OSError, SafetensorError, UnpicklingError) as error:
            differ = f"; the recipes differ in {', '.join(differences)}" if differences else ""
            raise RunFolderError(
                f"checkpoint {str(path)!r}, which does not fit this run or is damaged ({_first_line(error)}{differ})",
                "one of the same models and objective",
                "resume with the recipe that it was made with, or name an older checkpoint",
            ) from error
        if self.accelerator.is_main_process:  # the course that the run took after this checkpoint is given up
            with self.folder.permitted():
                later = remove_after(self.folder.checkpoints, self.state.global_step)
            if later:
                self._warn(f"going on from {path.name}; removed, as they came after it: {', '.join(later)}")
            self.folder.truncate_metrics(metrics_lines)

    # --- Units of work -----------------------------------------------------------------------------------------------

    def _units(self, name: str, total: int, within: int | None = None) -> Iterator[int]:
        """What is still to do of `total` units; between two of them a run can be interrupted and resumed.

        Args:
            name: the counter in `self.progress`; those of inner loops begin anew with every unit of the outer one.
            within: the number of the outer unit, for inner loops.
        """
        while self.progress[name] < total and not self.control.should_training_stop:
            if within is None:
                self._phase = name
                self.meter.begin(name, self.progress[name])
                self._open_bar(name, total)
                self.control = self.callback_handler.on_epoch_begin(self.args, self.state, self.control)
            yield self.progress[name]
            self.progress[name] += 1
            self._decide_together()
            if within is None:
                self.progress["generator_phases"] = self.progress["discriminator_steps"] = 0
                self._save_if_due(name, total)
            self._stop_if_interrupted()

    def _decide_together(self) -> None:
        """Signals and callbacks may reach one process only."""
        control = self.control
        interrupted, control.should_training_stop, control.should_save = any_process(
            self.accelerator, self._interrupt is not None, control.should_training_stop, control.should_save
        )
        if interrupted and self._interrupt is None:
            self._interrupt = signal.SIGTERM

    def _save_if_due(self, name: str, total: int) -> None:
        done = self.progress[name]
        due = done == total or (self.args.save_every and done % self.args.save_every == 0)
        if due or self.control.should_save or self.control.should_training_stop:
            self.control.should_save = False
            self.save_checkpoint()

    @contextmanager
    def _interruptible(self) -> Iterator[None]:
        """Let Ctrl-C and SIGTERM end the run after the unit of work in progress; a second Ctrl-C ends it at once."""

        def handle(number: int, frame) -> None:
            if number == self._interrupt == signal.SIGINT:
                raise KeyboardInterrupt
            if self._interrupt is None:
                self._warn(self._farewell())
            self._interrupt = number  # launchers answer Ctrl-C with a SIGTERM of their own: that is no second one

        try:
            previous = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
        except ValueError:  # not in the main thread: signals are somebody else's
            previous = {}
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)
            if self._bar is not None:
                self._bar.close()

    def _farewell(self) -> str:
        """What a signal is answered with; launchers kill what does not end soon, and a unit may take longer."""
        kept = checkpoints(self.folder.checkpoints)  # their bytes are not read now: a signal is answered at once
        again = f"resume from {kept[-1].name}" if kept else "start anew: there is no checkpoint yet"
        return (
            "ending after the unit in progress (an epoch of pretraining, the g-steps of a round, a d-step), with a "
            f"checkpoint; if it is killed before, {again}. Ctrl-C once more ends it at once"
        )

    def _stop_if_interrupted(self) -> None:
        if self._interrupt is None:
            return
        path = self.save_checkpoint()
        raise Interrupted(
            f"interrupted; a checkpoint is saved in {path}. To go on: the same command with "
            "--training.resume_from_checkpoint true"
        )

    # --- Reports -----------------------------------------------------------------------------------------------------

    def _report(self, phase: str, total: int, **unit: int) -> None:
        """Log the means of what happened in a unit and, when it is due, an evaluation; one line in metrics.jsonl."""
        ((name, done),) = unit.items()
        metrics = self._means() | self._speed()
        every = {"pretrain_generator": self.args.eval_epochs, "adversarial": self.args.eval_rounds}.get(phase, 0)
        (asked,) = any_process(self.accelerator, self.control.should_evaluate)
        if every and (done % every == 0 or done == total) or asked:
            self.control.should_evaluate = False
            metrics |= self.evaluate(f"{phase}-{done}")
        if phase == "adversarial":
            for warning in self.monitor.update(metrics):
                self._warn(warning)
        metrics["phase_seconds_left"] = round(self.meter.seconds_left(done, total), 3)
        self.meter.resume_clock()
        seconds = self._seconds + time.perf_counter() - self._started
        line = {"phase": phase, name: done, "global_step": self.state.global_step, "seconds": round(seconds, 3)}
        self.state.epoch = float(done)
        self.state.log_history.append(line | metrics)
        if self.accelerator.is_main_process:
            self.folder.append_metrics(line | metrics)
        self.callback_handler.on_log(self.args, self.state, self.control, {f"{phase}/{name}": done} | metrics)
        self.control = self.callback_handler.on_epoch_end(self.args, self.state, self.control)
        self._show_progress(done, total, metrics)

    def _means(self) -> dict[str, float]:
        """The means of what was collected in a unit, over the processes that did."""
        place = {"dtype": torch.float32, "device": self.device}
        own = {
            name: float(torch.stack([torch.as_tensor(value, **place) for value in values]).mean())
            for name, values in self._sums.items()
        }
        self._sums.clear()
        every = gather_object([own]) if self.accelerator.num_processes > 1 else [own]
        values: dict[str, list[float]] = defaultdict(list)
        for name, value in sorted(item for means in every for item in means.items()):
            values[name].append(value)
        return {name: sum(means) / len(means) for name, means in values.items()}

    def _open_bar(self, name: str, total: int) -> None:
        """One bar a phase, which counts its units; reopened only when the phase changes."""
        if self.args.disable_tqdm or not self.accelerator.is_local_main_process:
            return
        if self._bar is not None and self._bar.desc.rstrip(": ") == PHASE_NAMES[name]:
            return
        if self._bar is not None:
            self._bar.close()
        self._bar = tqdm(total=total, initial=self.progress[name], desc=PHASE_NAMES[name], dynamic_ncols=True)

    def _speed(self) -> dict[str, float]:
        work = [self.meter.work()]
        return rates(gather_object(work) if self.accelerator.num_processes > 1 else work)

    def _show_progress(self, done: int, total: int, metrics: dict[str, float]) -> None:
        """The bar; where there is none, a line in the log, but not many a minute."""
        if self._bar is None:
            if done == total or time.perf_counter() - self._logged > LOG_SECONDS:
                self._logged = time.perf_counter()
                self._warn(log_line(PHASE_NAMES[self._phase], done, total, metrics, SHOWN))
            return
        self._shown |= {key: f"{metrics[key]:.3f}" for key in SHOWN if key in metrics}
        if "sequences_per_second" in metrics:
            self._shown["sequences/s"] = f"{metrics['sequences_per_second']:,.0f}"
        self._bar.set_postfix(self._shown, refresh=False)
        self._bar.update(done - self._bar.n)

    def _warn(self, message: str) -> None:
        if self.accelerator.is_local_main_process:
            tqdm.write(f"seqgan-hf: {message}", file=sys.stderr)

    # --- Evaluation --------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def evaluate(self, name: str = "evaluation") -> dict[str, float]:
        """Draw samples and measure the generator; nothing that training does depends on it.

        Args:
            name: of the file that the first samples are written to.
        """
        seed = (self.args.seed, EVALUATION, self.accelerator.process_index, *self.progress.values())
        rng = torch.Generator(device=self.device).manual_seed(seeded(seed))
        share = -(-self.args.eval_samples // self.accelerator.num_processes)
        prompts = self._prompts((self.args.seed, EVALUATION), share)
        samples = sample(self.generator, prompts.prompt, self.max_new_tokens, rng=rng, prompt_mask=prompts.prompt_mask)
        samples = self._gather(samples).select(slice(0, self.args.eval_samples))
        metrics, signatures = self._measure(samples)
        step = self.state.global_step
        self.evaluation = {"name": name, "global_step": step, "metrics": metrics, "signatures": signatures}
        if self.accelerator.is_main_process:
            shown = samples.select(slice(0, SHOWN_SAMPLES))
            self.folder.write_samples(name, shown, self.processing_class)
            log_samples(self.callback_handler.callbacks, decode(shown, self.processing_class), step)
        # callbacks of transformers look for names with the prefix `eval_`
        prefixed = {f"eval_{key}": value for key, value in metrics.items()}
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics | prefixed)
        self._remember_best(metrics)
        return metrics

    def _measure(self, samples: Samples) -> tuple[dict[str, float], dict[str, str]]:
        """All values and their signatures. Evaluators are shared out among the processes: each sees all samples."""
        results = []
        with evaluating(self.generator):
            for index, evaluator in enumerate(self.evaluators):
                if index % self.accelerator.num_processes != self.accelerator.process_index:
                    continue
                found = evaluator.evaluate(self.generator, samples)
                names = [name for name in found if not name.endswith("_se")]
                signed = {name: evaluator.signature(name, samples.batch_size, self.args.seed) for name in names}
                results.append((index, found, signed))
        if self.accelerator.num_processes > 1:
            results = sorted(gather_object(results), key=lambda result: result[0])
        metrics: dict[str, float] = {}
        signatures: dict[str, str] = {}
        for _, found, signed in results:
            metrics |= found
            signatures |= signed
        return metrics, signatures

    def _gather(self, samples: Samples) -> Samples:
        if self.accelerator.num_processes == 1:
            return samples
        return Samples(*(None if field is None else self.accelerator.gather(field) for field in samples))

    def _remember_best(self, metrics: dict[str, float]) -> None:
        name = self.args.metric_for_best_model
        if name is None or not metrics:
            return
        if name not in metrics:
            raise UserError(f"metric_for_best_model={name!r}", f"one of {', '.join(sorted(metrics))}", "choose one")
        value = metrics[name]
        better = (
            not self.best
            or (value > self.best["value"]) == self.args.greater_is_better
            and value != self.best["value"]
        )
        if better:
            self.best = {"value": value, "checkpoint": None, "evaluation": self.evaluation}
            self.state.best_metric = value
            self.control.should_save = True  # at the end of the unit of work; that checkpoint is kept

    # --- Checkpoints -------------------------------------------------------------------------------------------------

    def save_checkpoint(self) -> Path:
        """Everything that the run needs to go on exactly as if it had not stopped; returns the checkpoint's folder.

        Raises:
            TrainingError: the weights differ between processes, or are not finite.
            RunFolderError: it cannot be written.
        """
        check_same_weights(self.accelerator, self._models())
        with agreed(self.accelerator):
            self._check_finite_weights()
        writer = CheckpointWriter(self.folder.checkpoints, f"{PREFIX}{self.state.global_step}")
        if self.best and self.best["checkpoint"] is None:
            self.best["checkpoint"] = writer.path.name
        for write in (self._write_shared_state, self._write_own_state, self._seal):
            with agreed(self.accelerator), writer.clear_of_errors():
                write(writer)
        self.control = self.callback_handler.on_save(self.args, self.state, self.control)
        return writer.path

    def _write_shared_state(self, writer: CheckpointWriter) -> None:
        if self.accelerator.is_main_process:
            writer.begin()
            for name, model in self._models().items():
                model.save_pretrained(writer.aside / name)
            torch.save(self._shared_state(), writer.aside / "trainer.pt")

    def _write_own_state(self, writer: CheckpointWriter) -> None:
        torch.save(self._own_state(), writer.aside / f"process-{self.accelerator.process_index}.pt")

    def _seal(self, writer: CheckpointWriter) -> None:
        if self.accelerator.is_main_process:
            progress = {"progress": self.progress, "best": self.best, "evaluation": self.evaluation}
            lines = self.folder.count_metrics()
            writer.commit(progress | {"metrics_lines": lines, "training_data": self.data_fingerprint})
            rotate(self.folder.checkpoints, self.args.save_total_limit, keep=self.best.get("checkpoint"))

    def _models(self) -> dict[str, PreTrainedModel]:
        models = {"generator": self.generator, "discriminator": self.discriminator}
        return {name: model for name, model in models.items() if model is not None}

    def _optimizers(self) -> dict[str, torch.optim.Optimizer]:
        optimizers = {
            "pretrain": self.pretrain_optimizer,
            "generator": self.generator_optimizer,
            "discriminator": self.discriminator_optimizer,
        }
        return {name: optimizer for name, optimizer in optimizers.items() if optimizer is not None}

    def _shared_state(self) -> dict[str, Any]:
        """What is the same on all processes."""
        return {
            "optimizers": {name: optimizer.state_dict() for name, optimizer in self._optimizers().items()},
            "processes": self.accelerator.num_processes,
            "scaler": None if self.accelerator.scaler is None else self.accelerator.scaler.state_dict(),
            "global_step": self.state.global_step,
            "bad_steps": self.bad_steps,
            "monitor": self.monitor.state_dict(),
            "seconds": self._seconds + time.perf_counter() - self._started,
        }

    def _own_state(self) -> dict[str, Any]:
        """What may differ from process to process."""
        return {
            "rng": rng_state(),
            "objective": self.objective.state_dict(),
            "pretraining": self.pretraining.state_dict(),
            "sums": {name: [float(value) for value in values] for name, values in self._sums.items()},
        }

    def _find_checkpoint(self) -> Path:
        """The checkpoint that `resume_from_checkpoint` names, or the newest whole one."""
        named = self.args.resume_from_checkpoint
        if named not in (True, "true", "True"):
            path = Path(named)
            if (broken := fault(path)) is None:
                return path
            raise RunFolderError(
                f"resume_from_checkpoint={named!r}, where {broken}",
                "a whole checkpoint",
                "give its folder, or `true` for the newest whole one",
            )
        for path in reversed(checkpoints(self.folder.checkpoints)):
            if (broken := fault(path)) is None:
                return path
            self._warn(f"got a broken {path.name}: {broken} -> expected a whole one -> it is left out")
        raise RunFolderError(
            f"no whole checkpoint in {str(self.folder.checkpoints)!r}",
            "one to resume from",
            "check `training.output_dir`, or start anew without resume_from_checkpoint",
        )

    def _load_checkpoint(self, path: Path) -> int:
        """Take back everything; returns how many lines of metrics had been written."""
        for name, model in self._models().items():
            load_weights(model, path / name)
        state = torch.load(path / "trainer.pt", map_location=self.device, weights_only=True)
        for name, optimizer in self._optimizers().items():
            optimizer.load_state_dict(state["optimizers"][name])
        if self.accelerator.scaler is not None:
            self.accelerator.scaler.load_state_dict(state["scaler"])
        self.state.global_step, self.bad_steps = state["global_step"], state["bad_steps"]
        self.monitor.load_state_dict(state["monitor"])
        self._seconds = state["seconds"]
        self._load_own_state(path, state["processes"])
        done = json.loads((path / COMPLETE).read_text())
        self.progress, self.best, self.evaluation = done["progress"], done["best"], done["evaluation"]
        if done["training_data"] != self.data_fingerprint:
            self._warn(
                "got other training data than the checkpoint was made with (their fingerprints differ) -> expected "
                "the same -> it goes on with the new ones; check `data` if that is not what you want"
            )
        if self.best and not (self.folder.checkpoints / self.best["checkpoint"]).exists():
            self._warn(
                f"got a checkpoint whose best one so far, {self.best['checkpoint']}, is not in this run's folder -> "
                "expected it there -> the best is sought anew from here; copy it there to keep it"
            )
            self.best = {}
        self.state.best_metric = self.best.get("value")
        return done["metrics_lines"]

    def _load_own_state(self, path: Path, saved: int) -> None:
        index, number = self.accelerator.process_index, self.accelerator.num_processes
        state = torch.load(path / f"process-{min(index, saved - 1)}.pt", map_location=self.device, weights_only=True)
        self.objective.load_state_dict(state["objective"])
        self.pretraining.load_state_dict(state["pretraining"])
        self._sums.update(state["sums"])
        if number == saved:
            set_rng_state(state["rng"])
            return
        self._warn(
            f"got a checkpoint of {saved} processes for a run on {number} -> expected as many -> it goes on, with "
            "other batches and random numbers than it would have had"
        )
        set_seed(seeded((self.args.seed, self.state.global_step, index)) % 2**32)

    def _finish(self) -> None:
        """Save the models as anyone can load them, the picture of the run, and the card."""
        if self.args.load_best_model_at_end and self.best.get("checkpoint"):
            self.evaluation = self.best["evaluation"] | {"of_these_weights": True}
            for name, model in self._models().items():
                load_weights(model, self.folder.checkpoints / self.best["checkpoint"] / name)
        # `generate` and pipelines then write what the generator was trained to write
        self.generator.generation_config.update(do_sample=True, top_k=0, max_new_tokens=self.max_new_tokens)
        with agreed(self.accelerator):
            if self.accelerator.is_main_process:
                self._write_results()
        self.control = self.callback_handler.on_train_end(self.args, self.state, self.control)
        if self.args.push_to_hub:
            self.push_to_hub()

    def _write_results(self) -> None:
        with writable(self.folder.path):
            for name, model in self._models().items():
                model.save_pretrained(self.folder.path / name)
            self._save_tokenizers()
            title = f"{type(self.objective).__name__}"
            plot_learning_curve(self.folder.read_metrics(), self.folder.figures / "learning_curve.png", title)
            self.folder.write_summary(self._summary())
            write_card(self.folder)

    def _save_tokenizers(self) -> None:
        if self.processing_class is None:
            return
        self.processing_class.save_pretrained(self.folder.generator)
        if self.discriminator is None:
            return
        eos, _ = special_tokens(self.generator)
        tokenizer = classifier_tokenizer(self.processing_class, eos[0] if eos else None)
        if tokenizer is None:
            self._warn("the tokenizer is not a fast one, so none is saved for the discriminator")
        else:
            tokenizer.save_pretrained(self.folder.discriminator)

    # --- Sharing -----------------------------------------------------------------------------------------------------

    def push_to_hub(self, commit_message: str = "End of training") -> str | None:
        """Upload the finished run, from the main process only; the arguments `hub_*` say where and how.

        Returns:
            The address of the repository; `None` on other processes.

        Raises:
            HubError: see `hub.push_run`.
            RunFolderError: the run did not end.
        """
        if not self.accelerator.is_main_process:
            return None
        args = self.args
        place = {"token": args.hub_token, "discriminator": args.hub_discriminator}
        return push_run(self.folder, self._hub_model_id, args.hub_private_repo, commit_message=commit_message, **place)

    @property
    def _hub_model_id(self) -> str:
        return self.args.hub_model_id or Path(self.args.output_dir).resolve().name

    def _summary(self) -> dict[str, Any]:
        """What the model card needs to know."""
        in_memory, step = isinstance(self.data, InMemoryData), self.state.global_step
        held_out = next((e.held_out.batch_size for e in self.evaluators if isinstance(e, HeldOutNLL)), None)
        return {
            "objective": {
                "name": type(self.objective).__name__,
                "description": (inspect.getdoc(self.objective) or "").partition("\n\n")[0],
                "citation": self.objective.citation,
            },
            "generator": describe_model(self.generator),
            "discriminator": None if self.discriminator is None else describe_model(self.discriminator),
            "data": {
                "train": len(self.data) if in_memory else None,
                "held_out": held_out,
                "vocab_size": vocabulary_size(self.generator),
                "max_new_tokens": self.max_new_tokens,
                "conditional": in_memory and self.data.samples.prompt.shape[1] > 1,
            },
            "evaluation": {"of_these_weights": self.evaluation["global_step"] == step} | self.evaluation
            if self.evaluation
            else {},
            "progress": {name: done for name, done in self.progress.items() if done},
            "global_step": step,
            "seconds": self._seconds + time.perf_counter() - self._started,
            "versions": versions(),
            "license": self.args.hub_license,
            "recipe": public_recipe(self.folder.recipe.read_text("utf-8")) if self.folder.recipe.exists() else None,
        }


def load_weights(model: PreTrainedModel, folder: Path) -> None:
    """Put the weights that `save_pretrained` wrote into a model that exists."""
    saved = type(model).from_pretrained(folder, dtype=model.dtype, use_safetensors=True)
    model.load_state_dict(saved.state_dict())
