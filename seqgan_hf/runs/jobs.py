"""Runs one after another, or several at once, each a process of its own: one that dies takes no other with it.

A process per run frees all its memory when it ends, is killed alone where memory is short, and is the very command
that a user would type. What is done is not done again: a job is done once its evaluation is written, it goes on from
its newest checkpoint where there is one, and one that failed keeps its reason.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_all_start_methods, get_context
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import torch
import yaml

from ..errors import Interrupted, UserError
from .folder import RunFolder
from .interrupts import handling_signals


@dataclass
class Job:
    """A run of `seqgan-hf train` that evaluates its generator at the end."""

    name: str  # of what is compared, such as the recipe
    kind: str  # `likelihood`, `control` or `objective`
    seed: int
    path: Path  # the run's folder; its recipe, its log and the reason of a failure lie beside it
    recipe: Callable[[], dict[str, Any]] = field(repr=False)  # makes the recipe, once what it needs is done
    needs: Sequence[Job] = field(default=(), repr=False)  # jobs that come first

    @property
    def folder(self) -> RunFolder:
        return RunFolder(self.path)

    def beside(self, ending: str) -> Path:
        return self.path.with_name(f"{self.path.name}{ending}")

    @property
    def done(self) -> bool:
        return (self.folder.evaluation / "metrics.json").exists()

    @property
    def failure(self) -> str | None:
        """Why it failed; `None` if it did not."""
        failed = self.beside(".failed")
        return failed.read_text(encoding="utf-8").strip() if failed.exists() else None

    def write_recipe(self) -> None:
        """Write the recipe, unless it is there already; raises a UserError if the run was begun with another one."""
        path, recipe = self.beside(".yaml"), self.recipe()
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(yaml.safe_dump(recipe, sort_keys=False, allow_unicode=True), encoding="utf-8")
        elif yaml.safe_load(path.read_text(encoding="utf-8")) != yaml.safe_load(yaml.safe_dump(recipe)):
            problem = f"{self.name}, seed {self.seed}, was begun with other settings ({str(path)!r} has them)"
            raise UserError(problem, "the same settings", f"choose another --output, or remove {str(path.parent)!r}")

    def fail(self, reason: str) -> None:
        self.beside(".failed").write_text(reason + "\n", encoding="utf-8")


# A process that has imported everything, and of which each run is a fork, where the system has forks.
PROCESSES: Any = get_context("forkserver" if "forkserver" in get_all_start_methods() else "spawn")
INTERRUPTED = 130  # the exit status of a run that has saved a checkpoint


def _alone(main: Callable[[list[str]], int], command: list[str], log: str, gpu: int | None, threads: int) -> None:
    """A command in a process of its own, of whose output a log is made."""
    if hasattr(os, "setsid"):
        os.setsid()  # Ctrl-C in a terminal reaches it through `Queue.stop` alone, once
    with open(log, "a", encoding="utf-8") as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)
    if gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = str(gpu)
    torch.set_num_threads(threads)
    sys.exit(main(command))


class Queue:
    """Does jobs, `parallel` of them at a time, each on an accelerator of its own where there are several.

    Args:
        jobs: those that others need stand before these.
        parallel: how many at a time.
        main: the command line, by which a process trains.
        preload: the module that imports what every run needs, by its dotted path.
    """

    def __init__(self, jobs: Sequence[Job], parallel: int, main: Callable[[list[str]], int], preload: str):
        PROCESSES.set_forkserver_preload([preload])
        self.jobs, self.parallel, self.main = jobs, parallel, main
        self.running: list[Any] = []
        self.lock, self.stopping = threading.Lock(), False
        self.slots: SimpleQueue[int] = SimpleQueue()
        for slot in range(parallel):
            self.slots.put(slot)
        self.left = [job for job in jobs if not job.done and job.failure is None]
        self.total, self.finished, self.started = len(jobs), len(jobs) - len(self.left), time.monotonic()

    def run(self) -> None:
        """Do what is left to do.

        Raises:
            Interrupted: after Ctrl-C or SIGTERM, once the runs in progress have saved a checkpoint.
            UserError: a run was begun with other settings.
        """
        for job in self.jobs:
            if all(need.done for need in job.needs):
                job.write_recipe()
        print(f"{self.total} runs, {self.finished} of them done", flush=True)
        futures: dict[int, Future] = {}
        # as many threads as jobs, so that one which waits for another keeps no third from its slot
        threads = 1 if self.parallel == 1 else max(1, len(self.left))
        with handling_signals(_interrupt), ThreadPoolExecutor(threads) as pool:
            try:
                for job in self.left:
                    futures[id(job)] = pool.submit(self._do, job, [futures.get(id(need)) for need in job.needs])
                for future in futures.values():
                    future.result()
            except BaseException:
                self.stop()
                pool.shutdown(cancel_futures=True)
                raise

    def _do(self, job: Job, needed: Sequence[Future | None]) -> None:
        for future in needed:  # begun before this one, so that nobody waits for what cannot begin
            if future is not None:
                future.result()
        if lacking := [need for need in job.needs if not need.done]:
            reason = lacking[0].failure or "not done"
            job.path.parent.mkdir(parents=True, exist_ok=True)
            job.fail(f"{lacking[0].name} failed: {reason}")
            return self._tell(job, 0.0)
        job.write_recipe()
        slot, began = self.slots.get(), time.monotonic()
        try:
            status = self._train(job, slot)
        finally:
            self.slots.put(slot)
        if self.stopping or status == INTERRUPTED:
            _interrupt()
        if status or not job.done:
            job.fail(reason_of_failure(job.beside(".log"), status))
        self._tell(job, time.monotonic() - began)

    def _train(self, job: Job, slot: int) -> int:
        """The exit status of the run; below 0 where a signal ended it."""
        command = ["train", str(job.beside(".yaml"))]
        if any(job.folder.checkpoints.glob("checkpoint-*/complete.json")):
            command += ["--training.resume_from_checkpoint", "true"]
        elif job.folder.metrics.exists():
            command += ["--training.overwrite_run", "true"]
        gpus = torch.cuda.device_count() if self.parallel > 1 else 0
        threads = max(1, torch.get_num_threads() // self.parallel)
        given = (self.main, command, str(job.beside(".log")), slot % gpus if gpus > 1 else None, threads)
        with self.lock:
            if self.stopping:
                return INTERRUPTED
            process = PROCESSES.Process(target=_alone, args=given)
            process.start()
            self.running.append(process)
        process.join()
        with self.lock:
            self.running.remove(process)
        return process.exitcode or 0

    def _tell(self, job: Job, seconds: float) -> None:
        with self.lock:
            self.finished += 1
            done = self.finished - (self.total - len(self.left))
            left = (time.monotonic() - self.started) / done * (len(self.left) - done)
            told = f"failed: {job.failure}" if job.failure else f"done in {seconds:.0f} s"
            print(f"[{self.finished}/{self.total}] {job.name}, seed {job.seed}: {told}", end="; ")
            print(f"about {left / 60:.0f} min left" if left >= 60 else f"about {left:.0f} s left", flush=True)

    def stop(self) -> None:
        """Let the runs in progress save a checkpoint and end."""
        with self.lock:
            self.stopping = True
            for process in self.running:
                os.kill(process.pid, signal.SIGINT)


def _interrupt(*signalled: Any) -> None:
    """End the queue, after the units of work in progress."""
    raise Interrupted("Interrupted; run the same command again to go on.")


def reason_of_failure(log: Path, status: int) -> str:
    """One line from the end of a log: what the command said, or by which signal it was ended."""
    if status < 0:
        return f"ended by {signal.Signals(-status).name} (where memory is short, the system does so)"
    lines = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    said = [line.removeprefix("seqgan-hf: ") for line in lines if line.startswith("seqgan-hf: ")]
    return (said or lines or [f"exit status {status}"])[-1]
