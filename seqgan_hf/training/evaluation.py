"""When a run is measured, by which process, and which of its checkpoints is the best."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from accelerate.utils import gather_object
from transformers import PreTrainedTokenizerBase

from ..data.lines import one_line
from ..data.tokenization import decode
from ..evaluation.base import Evaluator
from ..evaluation.likelihood import HeldOutNLL
from ..evaluation.record import Estimate
from ..evaluation.verdicts import HeldOutVerdicts, writable
from ..generation.modes import evaluating
from ..generation.sampling import sample
from ..objectives import Models, Objective
from ..objectives.base import Phase
from ..samples import Samples
from .arguments import AdversarialTrainingArguments
from .batches import TrainingData, seeded
from .best import Best
from .session import Session
from .units import Units


# Sequences that are written as text at every evaluation.
SHOWN_SAMPLES = 50
# The stream of random numbers that evaluations draw from; see `trainer`.
EVALUATION = 4


def held_out_evaluators(
    rows: Samples, models: Models, objective: Objective, real: TrainingData, args: AdversarialTrainingArguments
) -> list[Evaluator]:
    """NLL_test of held-out rows, and where there is an opponent its verdicts on some of them beside `real` ones."""
    found: list[Evaluator] = [HeldOutNLL(rows, models.tokenizer)]
    if models.discriminator is not None:
        rows = writable(models.generator, rows).select(slice(0, args.eval_samples))
        seen = real.take((args.seed, EVALUATION), rows.batch_size)
        found.append(HeldOutVerdicts(models, objective, rows, seen))
    return found


def interval(args: AdversarialTrainingArguments, phase: str) -> int:
    """How many units of a phase lie between two evaluations by the settings; 0 for no evaluation."""
    return {"pretrain_generator": args.eval_epochs, "adversarial": args.eval_rounds}.get(phase, 0)


@dataclass
class Evaluation:
    """Measures the generator now and then; nothing that training does depends on it.

    All evaluators see the same continuations, of at most `max_new_tokens`, of prompts in `data`.
    """

    session: Session
    models: Models
    data: TrainingData
    units: Units
    best: Best
    evaluators: list[Evaluator]
    tokenizer: PreTrainedTokenizerBase | None
    max_new_tokens: int
    last: dict[str, Any] = field(default_factory=dict)  # name, global_step, results, flags

    def due(self, phase: Phase, done: int, total: int) -> bool:
        """Whether a unit is followed by an evaluation: by the settings, or because a callback asked for one."""
        control, every = self.session.control, interval(self.session.args, phase)
        (asked,) = self.session.vote(control.should_evaluate)
        control.should_evaluate = False
        return bool(every and (done % every == 0 or done == total) or asked)

    @torch.no_grad()
    def run(self, name: str) -> dict[str, Estimate]:
        """Draw samples and measure the generator; the first are written to a file of this name."""
        session, samples = self.session, self._draw()
        results = self._measure(samples, self.evaluators)
        texts = [one_line(text) for text in decode(samples.select(slice(0, SHOWN_SAMPLES)), self.tokenizer)]
        if session.is_main:
            session.folder.write_samples(name, texts)
        measured = {key: result.to_dict() for key, result in results.items()}
        flags = [flag for evaluator in self.evaluators for flag in evaluator.flags]
        self.last = {"name": name, "global_step": session.state.global_step, "results": measured, "flags": flags}
        metrics = {key: result.value for key, result in results.items()}
        # callbacks of transformers look for names with the prefix `eval_`
        metrics |= {f"eval_{key}": value for key, value in metrics.items()}
        session.call("on_evaluate", metrics=metrics, texts=texts)
        self.best.consider(self.last, results)
        return results

    @torch.no_grad()
    def after(self, phase: Phase, done: int, total: int, due: bool) -> dict[str, Estimate]:
        """The evaluation that follows a unit, if it is due.

        What the discriminator knows once it is pretrained is measured whatever is due: it says how much can be won.
        """
        if due:
            return self.run(f"{phase}-{done}")
        judges = [each for each in self.evaluators if isinstance(each, HeldOutVerdicts)]
        if phase != "pretrain_discriminator" or done < total or not judges:
            return {}
        with self.units.untimed():
            return self._measure(self._draw(), judges)

    def _draw(self) -> Samples:
        """As many samples as `eval_samples`, of all processes, from a random source of their own."""
        args, accelerator, generator = self.session.args, self.session.accelerator, self.models.generator
        seed = (args.seed, EVALUATION, accelerator.process_index, *self.units.done.values())
        rng = torch.Generator(device=self.session.device).manual_seed(seeded(seed))
        share = -(-args.eval_samples // accelerator.num_processes)
        prompts = self.data.take((args.seed, EVALUATION), share)
        drawn = sample(generator, prompts.prompt, self.max_new_tokens, rng=rng, prompt_mask=prompts.prompt_mask)
        return drawn.map(accelerator.gather).select(slice(0, args.eval_samples))

    def _measure(self, samples: Samples, evaluators: Sequence[Evaluator]) -> dict[str, Estimate]:
        """Their results. Evaluators are shared out among the processes: each sees all samples."""
        accelerator, generator, found = self.session.accelerator, self.models.generator, []
        untrained = HeldOutVerdicts if self.units.discriminator_steps == 0 else ()
        with evaluating(generator):
            for index, evaluator in enumerate(evaluators):
                mine = index % accelerator.num_processes == accelerator.process_index
                if mine and not isinstance(evaluator, untrained):
                    found.append((index, evaluator.evaluate(generator, samples, self.session.args.seed)))
        found = sorted(gather_object(found), key=lambda pair: pair[0])
        return {name: result for _, results in found for name, result in results.items()}

    def state_dict(self) -> dict[str, Any]:
        return self.last

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.last = state
