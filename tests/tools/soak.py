"""Let a run go on for an hour and watch its memory, file handles, log and folder: all but the record should stay flat.

    python -m tests.tools.soak --seconds 3600 --output runs/soak      # soak.csv and soak.png; Linux only

The run is the quick start without an end, with a checkpoint after every round; it is interrupted when the time is up.
"""

from __future__ import annotations

import argparse
import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from matplotlib.figure import Figure


ROOT = Path(__file__).parents[2]
MIB = 2**20
COLUMNS = ("seconds", "memory_mib", "file_handles", "threads", "log_kib", "record_kib", "checkpoints_mib", "round")


def measure(pid: int, log: Path, run: Path) -> dict[str, float]:
    """Resident memory, open files and threads of a process; sizes of what it has written."""
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    record = run / "metrics.jsonl"
    lines = record.read_text().splitlines() if record.exists() else []
    kept = [path.stat().st_size for path in (run / "checkpoints").rglob("*") if path.is_file()]
    return {
        "memory_mib": round(int(status["VmRSS"].split()[0]) / 1024, 1),
        "file_handles": len(os.listdir(f"/proc/{pid}/fd")),
        "threads": int(status["Threads"]),
        "log_kib": round(log.stat().st_size / 1024, 1),
        "record_kib": round(record.stat().st_size / 1024, 1) if record.exists() else 0,
        "checkpoints_mib": round(sum(kept) / MIB, 2),
        "round": sum('"phase": "adversarial"' in line for line in lines),
    }


def soak(output: Path, seconds: float, every: float, options: list[str]) -> list[dict[str, float]]:
    """Run, measure, interrupt."""
    output.mkdir(parents=True, exist_ok=True)
    run, log = output / "run", output / "log.txt"
    call = [sys.executable, "-m", "seqgan_hf", "train", str(ROOT / "recipes/oracle/quickstart.yaml")]
    call += ["--training.rounds", "1000000", "--training.save_every", "1", "--training.disable_tqdm", "true"]
    call += ["--training.overwrite_run", "true", "--training.output_dir", str(run), *options]
    rows, start = [], time.monotonic()
    with log.open("w") as file, (output / "soak.csv").open("w", newline="") as table:
        process = subprocess.Popen(call, stdout=file, stderr=file, env=os.environ | {"PYTHONPATH": str(ROOT)})
        writer = csv.DictWriter(table, COLUMNS)
        writer.writeheader()
        while process.poll() is None and time.monotonic() - start < seconds:
            time.sleep(every)
            try:
                rows.append({"seconds": round(time.monotonic() - start, 1)} | measure(process.pid, log, run))
            except OSError:  # a checkpoint was removed, or the run ended, while it was looked at
                continue
            writer.writerow(rows[-1])
            table.flush()
        process.send_signal(signal.SIGINT)
        print(f"the run ended with status {process.wait()} (130: interrupted)")
    return rows


def draw(rows: list[dict[str, float]]) -> Figure:
    names = COLUMNS[1:-1]
    figure = Figure(figsize=(7, 1.5 * len(names)), layout="constrained")
    for axes, name in zip(figure.subplots(len(names), sharex=True), names, strict=True):
        axes.plot([row["seconds"] / 60 for row in rows], [row[name] for row in rows])
        axes.set_ylabel(name)
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.3)
    axes.set_xlabel("minutes")
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=3600, help="how long (default: an hour)")
    parser.add_argument("--every", type=float, default=10, help="seconds between two measurements (default: 10)")
    parser.add_argument("--output", type=Path, default=Path("runs/soak"), help="folder (default: runs/soak)")
    options, overrides = parser.parse_known_args()
    rows = soak(options.output, options.seconds, options.every, overrides)
    draw(rows).savefig(options.output / "soak.png", dpi=120)
    half = rows[len(rows) // 2 :]
    for name in COLUMNS[1:]:
        print(f"{name}: {half[0][name]} after half of the time, {rows[-1][name]} at the end")


if __name__ == "__main__":
    main()
