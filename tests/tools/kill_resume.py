"""Kill a run with SIGKILL at random moments, go on each time, and compare its weights with those of a run left alone.

    python -m tests.tools.kill_resume                       # 20 moments, one process
    python -m tests.tools.kill_resume --processes 2         # the same with two, started by torchrun
    python -m tests.tools.kill_resume --kills 3 --output runs/kill

Moments are drawn over the time from the first line of the log to the end. A run that has no checkpoint yet begins
anew, as its user would; any other goes on with `--training.resume_from_checkpoint true`.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path


ROOT = Path(__file__).parents[2]
# A few seconds of all phases, with a checkpoint after every unit.
SETTINGS = {
    "data.num_train": 256,
    "data.num_eval": 32,
    "data.vocab_size": 50,
    "data.length": 8,
    "training.pretrain_epochs": 6,
    "training.discriminator_pretrain_steps": 6,
    "training.rounds": 12,
    "training.generator_steps": 2,
    "training.discriminator_steps": 2,
    "training.num_fakes": 256,
    "training.eval_samples": 32,
    "training.save_every": 1,
    "training.disable_tqdm": "true",
    "training.use_cpu": "true",
    "training.overwrite_run": "true",
}


def command(folder: Path, processes: int, resume: bool) -> list[str]:
    """A short run of the quick start."""
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
    call = [sys.executable, *(launcher if processes > 1 else []), "-m", "seqgan_hf", "train"]
    batch = 32 // processes
    settings = SETTINGS | {
        "training.output_dir": folder,
        "training.per_device_train_batch_size": batch,
        "training.discriminator_batch_size": batch,
        "training.resume_from_checkpoint": str(resume).lower(),
    }
    options = [part for name, value in settings.items() for part in (f"--{name}", str(value))]
    return [*call, str(ROOT / "recipes/oracle/quickstart.yaml"), *options]


def start(folder: Path, processes: int) -> subprocess.Popen:
    """The run, in a process group of its own; it goes on where there is something to go on from."""
    resume = any((folder / "checkpoints").glob("checkpoint-*"))
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    log = (folder.parent / f"{folder.name}.log").open("a")
    call = command(folder, processes, resume)
    return subprocess.Popen(call, env=environment, stdout=log, stderr=log, start_new_session=True)


def finish(folder: Path, processes: int) -> float:
    """Run to the end; returns the seconds that it took from the first line of its log."""
    run = start(folder, processes)
    wait_for_log(run, folder)
    begin = time.monotonic()
    if status := run.wait():
        raise SystemExit(f"the run failed with status {status}:\n{(folder.parent / f'{folder.name}.log').read_text()}")
    return time.monotonic() - begin


def wait_for_log(run: subprocess.Popen, folder: Path) -> None:
    """Until the run has logged something, or ended."""
    while run.poll() is None and not (
        (folder / "metrics.jsonl").exists() and (folder / "metrics.jsonl").stat().st_size
    ):
        time.sleep(0.02)


def kill(folder: Path, processes: int, after: float) -> str:
    """Start a run and kill all its processes some seconds after its first line; returns where it was."""
    run = start(folder, processes)
    wait_for_log(run, folder)
    try:
        run.wait(timeout=after)
    except subprocess.TimeoutExpired:
        os.killpg(run.pid, signal.SIGKILL)
        run.wait()
    found = [path.name for path in (folder / "checkpoints").glob("checkpoint-*")]
    return max(found, key=lambda name: int(name.rpartition("-")[2]), default="no checkpoint")


def weights(folder: Path) -> dict[str, bytes]:
    """What the run has come to."""
    return {name: (folder / name / "model.safetensors").read_bytes() for name in ("generator", "discriminator")}


def compare(output: Path, kills: int, processes: int, seed: int = 0) -> bool:
    """Kill a run so often, each time resumed to the end from the state in which it was left; print each outcome."""
    rng, alone, killed = random.Random(seed), output / "alone", output / "killed"
    seconds = finish(alone, processes)
    expected, equal = weights(alone), 0
    print(f"{processes} process(es), {seconds:.1f} s from the first line of the log when left alone", flush=True)
    for number in range(1, kills + 1):
        shutil.rmtree(killed, ignore_errors=True)
        moment = rng.uniform(0, seconds)
        where = kill(killed, processes, moment)
        finish(killed, processes)
        same = weights(killed) == expected
        equal += same
        print(f"{number:3d}. killed after {moment:5.2f} s, {where}: {'equal' if same else 'DIFFERENT'}", flush=True)
    print(f"{equal} of {kills} ended with the weights of the run that was left alone")
    return equal == kills


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--kills", type=int, default=20, help="how many moments (default: 20)")
    parser.add_argument("--processes", type=int, default=1, help="of the run (default: 1)")
    parser.add_argument("--seed", type=int, default=0, help="draws the moments")
    parser.add_argument("--output", type=Path, help="folder for the runs (default: a temporary one)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        output = options.output or Path(folder)
        output.mkdir(parents=True, exist_ok=True)
        return 0 if compare(output, options.kills, options.processes, options.seed) else 1


if __name__ == "__main__":
    sys.exit(main())
