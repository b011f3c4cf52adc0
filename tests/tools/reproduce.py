"""Hashes of four small runs: does a change of the code change what training gives, bit for bit?

    python -m tests.tools.reproduce before.json --tree PATH            # a checkout of the old edition
    python -m tests.tools.reproduce after.json --compare before.json

Each run is hashed by the weights of its models and by `metrics.jsonl` without times. Hashes differ between machines,
so they are compared on one machine, with one thread, and never pinned.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from safetensors.torch import load_file


ROOT = Path(__file__).parents[2]
# Endings of names: times, and what the two editions log beside a value: errors, intervals, signatures.
LEFT_OUT = ("seconds", "_per_second", "seconds_left", "seconds_left_at_least", "memory_gib")
LEFT_OUT += ("_se", "_low", "_high", "intervals", "signatures")
SHORT = ["--training.rounds", "2", "--training.eval_samples", "200", "--training.disable_tqdm", "true"]
TEXT = [
    *SHORT,
    *("--training.pretrain_epochs", "2", "--training.discriminator_pretrain_steps", "1"),
    *("--training.eval_rounds", "1", "--objective.rollouts", "2"),
]


def runs(captions: Path) -> dict[str, tuple[int, list[str]]]:
    """Number of processes and arguments of `seqgan-hf train` by the run's name."""
    grammar = ["recipes/text/grammar.yaml", *TEXT, "--training.generator_steps", "3", "--data.num_train", "1000"]
    grammar += ["--data.num_eval", "200", "--training.num_fakes", "500"]
    text = ["recipes/text/seqgan.yaml", *TEXT, "--data.train_file", str(captions), "--training.num_fakes", "200"]
    return {
        "quickstart": (1, ["recipes/oracle/quickstart.yaml", "--training.disable_tqdm", "true"]),
        "text": (1, [*text, "--evaluation.metrics", '["bleu", "distinct"]']),
        "grammar": (1, grammar),
        "two processes": (2, grammar),
    }


def train(processes: int, arguments: list[str], folder: Path, tree: Path = ROOT) -> None:
    """One run in a process of its own, with one thread."""
    command = [sys.executable, "-m"]
    if processes > 1:
        command += ["torch.distributed.run", "--standalone", "--nproc_per_node", str(processes), "-m"]
    command += ["seqgan_hf", "train", *arguments, "--training.output_dir", str(folder)]
    env = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(tree)}
    subprocess.run(command, cwd=tree, env=env, check=True, stderr=subprocess.DEVNULL)


def hash_of_weights(folder: Path) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(load_file(folder / "model.safetensors").items()):
        digest.update(name.encode())
        digest.update(tensor.contiguous().view(-1).numpy().tobytes())
    return digest.hexdigest()[:16]


def hash_of_metrics(path: Path) -> str:
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    kept = [{key: value for key, value in line.items() if not key.endswith(LEFT_OUT)} for line in lines]
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()[:16]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path, help="where the hashes are written")
    parser.add_argument("--captions", type=Path, default=ROOT / "../shared/data/image_coco/train.txt")
    parser.add_argument("--only", nargs="*", help="names of runs")
    parser.add_argument("--tree", type=Path, default=ROOT, help="the checkout whose package and recipes run")
    parser.add_argument(
        "--compare", type=Path, help="hashes of another tree; the exit status says whether they differ"
    )
    options = parser.parse_args()
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        captions = Path(folder) / "captions.txt"
        if not options.only or "text" in options.only:
            captions.write_text("".join(options.captions.read_text().splitlines(keepends=True)[:500]))
        for name, (processes, arguments) in runs(captions).items():
            if options.only and name not in options.only:
                continue
            run = Path(folder) / name.replace(" ", "_")
            train(processes, arguments, run, options.tree.resolve())
            found[name] = {model: hash_of_weights(run / model) for model in ("generator", "discriminator")}
            found[name]["metrics"] = hash_of_metrics(run / "metrics.jsonl")
            print(name, found[name], flush=True)
    options.output.write_text(json.dumps(found, indent=2) + "\n")
    if options.compare:
        before = json.loads(options.compare.read_text())
        sys.exit(f"hashes differ from {options.compare}" if any(before[name] != found[name] for name in found) else 0)


if __name__ == "__main__":
    main()
