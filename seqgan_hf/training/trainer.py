"""Algorithm 1 of SeqGAN (Yu et al. 2017): pretrain G, pretrain D, then alternate. On Accelerate."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from typing import Any

import torch
from datasets import Dataset, IterableDataset
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainerCallback

from ..evaluation.base import Evaluator
from ..evaluation.record import Estimate
from ..generation.modes import train_without_dropout
from ..objectives import MLE, Models, Objective, Turn
from ..objectives.base import frozen
from ..runs.console import without_bars_of_files
from ..samples import Samples
from .arguments import AdversarialTrainingArguments
from .batches import InMemoryData, as_samples, training_data
from .checks import (
    check_enough_data,
    check_fakes,
    check_generator,
    check_models,
    check_objective,
    check_pretraining,
    check_share,
)
from .compiling import sharing
from .evaluation import held_out_evaluators
from .parts import Parts
from .player import Player
from .processes import share_weights, together
from .results import save_results
from .schedule import schedule, totals
from .session import Session
from .suppression import suppress_special_tokens


# Streams of random numbers that are drawn from one seed and must not repeat each other; 4 is that of evaluations.
PRETRAIN, FAKES, DISCRIMINATOR, GENERATOR, _, SHARE = range(6)


class AdversarialTrainer:
    """Trains a generator against a discriminator.

    Args:
        generator: any causal LM with a cache.
        discriminator: what `objective.adversary` asks for: any sequence classifier over the same token ids, or a
            causal LM; left unused if that is `None`.
        objective: what the generator learns from.
        args: the settings.
        train_dataset: rows with `input_ids` and, for conditional generation, `prompt_ids` (see `data.Corpus`); or
            `Samples`.
        eval_dataset: held-out rows of the same kind; NLL_test is measured on them.
        processing_class: the tokenizer; it is saved with the generator, writes the samples as text, and says which
            tokens stand for no text: the generator never writes these unless a training sequence holds them.
        callbacks: `TrainerCallback`s, besides those of `args.report_to`.
        evaluators: further measurements of the generator at every evaluation.
        pretraining: how the generator is pretrained; maximum likelihood by default.
        recipe: the resolved recipe as YAML, kept in the run's folder.

    Raises:
        UserError: the models do not fit the data, or each other.
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
        self.session = session = Session(args, recipe)
        self.args, self.tokenizer = args, processing_class
        self.objective, self.pretraining = objective, pretraining or MLE()
        self.turns = schedule(objective, args)
        (bos, pad), accelerator, device = check_generator(generator), session.accelerator, session.device
        place = (device, accelerator.process_index, accelerator.num_processes)
        self.data, self.max_new_tokens = training_data(train_dataset, bos, pad, args.max_new_tokens, *place)
        self.real = self.data  # what the discriminator is shown as real
        if args.discriminator_share and objective.adversary:
            self.data, self.real = check_share(self.data).parted((args.seed, SHARE), args.discriminator_share)
        kept: Any
        for kept in (generator.config, generator.generation_config):  # adapters are saved with the second alone
            kept.conditional = self.data.conditional  # whoever samples needs prompts
        batch_sizes: list[int] = [args.per_device_train_batch_size, args.pretrain_batch_size]
        check_enough_data(self.data, *(size * accelerator.num_processes for size in batch_sizes))
        check_pretraining(self.pretraining)
        # `generate` and pipelines write what the generator is trained to write, from its checkpoints as well
        own = {name: getattr(generator.config, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
        generator.generation_config.update(do_sample=True, top_k=0, max_new_tokens=self.max_new_tokens, **own)
        opponent = discriminator if objective.adversary else None
        self.models = Models(generator, opponent, objective.copies(), processing_class)
        check_models(self.models, self.data, self.max_new_tokens)
        for model in self.models.players().values():
            nn.Module.to(model, device)
        if processing_class is not None:
            suppress_special_tokens(self.models.players().values(), self.data, processing_class)
        for given, batch_size in zip((self.objective, self.pretraining), batch_sizes, strict=True):
            check_objective(given, self.models, self.data, batch_size)
        share_weights(accelerator, self.models.named())
        if eval_dataset is not None:
            rows = as_samples(eval_dataset, bos, pad).to(device)
            evaluators = [*held_out_evaluators(rows, self.models, objective, self.real, args), *evaluators]
        objectives = {"objective": self.objective, "pretraining": self.pretraining}
        known = (list(evaluators), processing_class, self.max_new_tokens, callbacks or [])
        self.parts = Parts(session, self.models, objectives, self.data, self.turns, *known)

    # --- Algorithm 1 -------------------------------------------------------------------------------------------------

    def train(self) -> None:
        """Train from the beginning, or from a checkpoint (`args.resume_from_checkpoint`), to the end.

        Raises:
            Interrupted: after Ctrl-C or SIGTERM, once a checkpoint is saved.
            TrainingError: the numbers went bad.
        """
        with together(self.session.accelerator), without_bars_of_files():
            self.parts.checkpoints.open_run()
            with self.parts.units.interruptible(), closing(self.parts.bar):
                self.session.call("on_train_begin")
                for turn in self.turns:
                    self._take(turn)
            save_results(self.objective, self.parts.evaluation, self.parts.checkpoints.tokenizers)
            self.session.call("on_train_end")

    def _take(self, turn: Turn) -> None:
        """Train until so many units of the turn's phase are done."""
        for unit in self.parts.units.of(turn.phase, turn.units):
            self.parts.anneal(turn.phase, totals(self.turns))
            if turn.phase == "pretrain_generator":
                self.pretrain_generator(unit)
            elif turn.phase == "pretrain_discriminator":
                self.train_discriminator(self.parts.units.discriminator_steps)
            else:
                for _ in self.parts.units.within("generator_steps", 1):
                    self.train_generator(unit, turn.generator_steps)
                for _ in self.parts.units.within("discriminator_steps", turn.discriminator_steps):
                    self.train_discriminator(self.parts.units.discriminator_steps)
            self._report(turn, unit + 1)

    def pretrain_generator(self, epoch: int) -> None:
        """One pass over the data."""
        batches = self.data.epoch((self.args.seed, PRETRAIN, epoch), self.args.pretrain_batch_size)
        for group in self._groups(batches):
            self.generator_step(self.pretraining, group, self.parts.players["pretrained"])

    def train_generator(self, round: int, steps: int) -> None:
        """The g-steps of a round, each on a batch of prompts of its own."""
        self.models.begin()
        batches = self.data.endless((self.args.seed, GENERATOR, round), self.args.per_device_train_batch_size)
        for group in itertools.islice(self._groups(batches), steps):
            self.generator_step(self.objective, group, self.parts.players["generator"])

    def generator_step(self, objective: Objective, batches: list[Samples], player: Player) -> None:
        """Draw sequences, credit their tokens, and follow the gradient of the mean loss over `batches`."""
        models, autocast = self.models, self.session.accelerator.autocast
        with models.generator_learns(objective):
            drawn: list[tuple[Samples, Samples | None]] = []
            for _ in range(objective.updates):
                self.session.call("on_step_begin")  # of the first update, before what it learns from is drawn
                drawn = drawn or [(real, self._draw(objective, real) if objective.draws else None) for real in batches]
                with sharing(self.args, models.of_step(objective)):
                    for real, fake in drawn:
                        with autocast(), player.compiled():
                            loss = objective.generator_loss(models, real, fake)
                        player.backward(loss)
                        self.parts.progress.meter.count(real if fake is None else fake)
                    stepped = player.step()
                if stepped:
                    models.follow()
                    objective.after_step("generator", models)

    def _draw(self, objective: Objective, real: Samples) -> Samples:
        with torch.no_grad(), self.session.accelerator.autocast():
            fake = objective.sample(self.models, real, self.max_new_tokens)
            fake, metrics = objective.credit(self.models, real, fake)
        self.parts.progress.add(metrics)
        return fake

    def train_discriminator(self, index: int) -> None:
        """The d-step of this index in the run: fresh samples of G, and some epochs of telling them from real ones."""
        half, player = self.args.discriminator_batch_size // 2, self.parts.players["discriminator"]
        prompts, fakes = self.draw_fakes(index)
        with frozen(self.models.generator):
            for epoch in range(self.args.discriminator_epochs):
                seed = (self.args.seed, DISCRIMINATOR, index, epoch)
                # rows that answer each other stand in one order; else real sequences are drawn from all there are
                paired = self.objective.paired
                real = prompts.epoch((*seed, 0), half) if paired else self.real.endless((*seed, 1), half)
                for group in self._groups(zip(fakes.epoch((*seed, 0), half), real, strict=False)):
                    self.session.call("on_step_begin")
                    self.models.discriminator.train()
                    with sharing(self.args, self.models.of_step(self.objective)):
                        for fake, real_batch in group:
                            with self.session.accelerator.autocast(), player.compiled():
                                loss = self.objective.discriminator_loss(self.models, real_batch, fake)
                            player.backward(loss)
                            self.parts.progress.meter.count(fake, real_batch)
                        stepped = player.step()
                    if stepped:
                        self.objective.after_step("discriminator", self.models)

    def draw_fakes(self, index: int) -> tuple[InMemoryData, InMemoryData]:
        """Training sequences, and what G writes to their prompts: this process's share of `num_fakes` of both."""
        count, device = self.args.num_fakes or len(self.real), self.session.device
        prompts = self.real.take((self.args.seed, FAKES, index), -(-count // self.session.accelerator.num_processes))
        train_without_dropout(self.models.generator)
        with torch.no_grad(), self.session.accelerator.autocast():
            fakes = self.objective.fakes(self.models, prompts, self.max_new_tokens)
        check_fakes(self.objective, prompts, fakes)
        return InMemoryData(prompts, device), InMemoryData(fakes, device)

    def _groups(self, batches: Iterator[Any]) -> Iterator[list[Any]]:
        """The batches of one step each, until any process has no more or a callback ends the run."""
        while True:
            group = list(itertools.islice(batches, self.args.gradient_accumulation_steps))
            if any(self.session.vote(not group, self.session.control.should_training_stop)):
                return
            yield group

    def evaluate(self, name: str = "evaluation") -> dict[str, Estimate]:
        """Draw samples and measure the generator; the first are written to a file of this name."""
        return self.parts.evaluation.run(name)

    def _report(self, turn: Turn, done: int) -> None:
        values = self.parts.progress.measure()
        due = self.parts.evaluation.due(turn.phase, done, turn.units)
        results = self.parts.evaluation.after(turn.phase, done, turn.units, due)
        values |= self.parts.forecast.after(turn, done, due)
        self.parts.progress.report(turn.phase, done, turn.units, values, results)

    def push_to_hub(self, commit_message: str = "End of training") -> str | None:
        """Upload the finished run; see `PushToHub.push`."""
        return self.parts.push.push(commit_message)
