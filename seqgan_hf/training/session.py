"""What all parts of a run may ask: the processes, the device, the folder, the settings, and the callbacks."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainerCallback
from transformers.integrations import get_reporting_integration_callbacks
from transformers.trainer_callback import CallbackHandler, DefaultFlowCallback, TrainerControl, TrainerState

from ..runs.console import show_log
from ..runs.folder import RunFolder
from .arguments import AdversarialTrainingArguments
from .processes import any_process


logger = logging.getLogger(__name__)


class _OwnFlow(DefaultFlowCallback):
    """Evaluation, logging and saving follow this trainer's phases, not the steps and epochs of transformers."""

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> Any:
        return control

    on_epoch_end = on_step_end


class Session:
    """One run in this process, with the settings and the resolved recipe as YAML, kept in the run's folder.

    `state` and `control` are those of the callbacks; `state.global_step` counts the steps of all optimizers.
    """

    def __init__(self, args: AdversarialTrainingArguments, recipe: str | None):
        self.args = args
        precision = "bf16" if args.bf16 else "fp16" if args.fp16 else None  # `None` leaves it to the launcher
        self.accelerator = Accelerator(mixed_precision=precision, cpu=args.use_cpu)
        # several processes on CPUs are told `cpu:0`, which `torch.load` does not know
        self.device = torch.device("cpu") if self.accelerator.device.type == "cpu" else self.accelerator.device
        set_seed(args.seed, device_specific=True)
        self.folder = RunFolder(Path(args.output_dir), recipe)
        self.state = TrainerState(is_local_process_zero=self.accelerator.is_local_main_process)
        self.state.is_world_process_zero = self.accelerator.is_main_process
        self.state.max_steps = sys.maxsize  # phases end a run, not a number of steps
        self.control = TrainerControl()
        self._handler: CallbackHandler | None = None
        self._earlier, self._started = 0.0, time.perf_counter()
        show_log()

    def watch(
        self,
        callbacks: Sequence[TrainerCallback],
        generator: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase | None,
        optimizer: torch.optim.Optimizer,
    ) -> None:
        """Set up the callbacks: those of `args.report_to`, then the given ones."""
        reporting = get_reporting_integration_callbacks(self.args.report_to)
        self._handler = CallbackHandler([_OwnFlow, *reporting, *callbacks], generator, tokenizer, optimizer, None)

    @property
    def callbacks(self) -> list[TrainerCallback]:
        return self._handler.callbacks

    def call(self, event: str, **values: Any) -> None:
        """Tell the callbacks of an event; they may change `control`."""
        self.control = getattr(self._handler, event)(self.args, self.state, self.control, **values)

    @property
    def is_main(self) -> bool:
        return self.accelerator.is_main_process

    def say(self, message: str, *values: Any) -> None:
        """A warning that concerns the run as a whole, from one process of each machine."""
        if self.accelerator.is_local_main_process:
            logger.warning(message, *values)

    def vote(self, *flags: bool) -> list[bool]:
        """For each flag, whether it is set on any process."""
        return any_process(self.accelerator, *flags)

    @property
    def seconds(self) -> float:
        """Wall-clock time of the run, of sessions before a resumption as well."""
        return self._earlier + time.perf_counter() - self._started

    @property
    def hub_model_id(self) -> str:
        return self.args.hub_model_id or Path(self.args.output_dir).resolve().name

    def state_dict(self) -> dict[str, Any]:
        return {"global_step": self.state.global_step, "seconds": self.seconds}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.state.global_step, self._earlier = state["global_step"], state["seconds"]
