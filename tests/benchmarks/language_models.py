"""What a round of a pretrained language model costs: peak memory and time of a step, by objective and LoRA.

    python -m tests.benchmarks.language_models HuggingFaceTB/SmolLM2-135M my_lines.txt

Each line of the table builds the players of `recipes/text/language_model` and takes a generator step and a
discriminator pass over 16 samples, after one of each to warm up. On a CPU it is a process of its own, on one thread;
seconds are those of the processor, and the peak is that of the process (`VmHWM`). On a GPU seconds pass on the clock,
and the peak is what torch allocated. Both players and their optimizers are included.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable

import torch

from seqgan_hf.commands.build import build_trainer
from seqgan_hf.commands.recipe import load_recipe
from tests.benchmarks.measuring import peak_memory


RECIPE = "text/language_model"
OBJECTIVES = {
    "SeqGAN, 2 rollouts of every prefix": ["--objective", "SeqGAN", "--objective.rollouts", "2"],
    "GRPO, groups of 4": ["--objective", "GRPO", "--objective.group_size", "4", "--objective.kl", "0.05"],
    "Reinforce, one verdict a sample": ["--objective", "Reinforce"],
}
GENERATORS = {"all weights": ["--generator.lora", "null"], "LoRA": []}
# What saves memory, shown with the objective of the recipe.
SAVING = {
    "LoRA, bfloat16 below": ["--generator.dtype", "bfloat16"],
    "LoRA, activation checkpointing": ["--training.activation_checkpointing", "true"],
}
COLUMNS = "objective", "generator", "generator step", "peak", "discriminator pass", "peak", "a round (10 steps + pass)"


def on_gpu(step: Callable[[], object]) -> tuple[float, float]:
    """MiB at the peak, and seconds."""
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    start = time.perf_counter()
    step()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() / 2**20, time.perf_counter() - start


def on_cpu(step: Callable[[], object]) -> tuple[float, float]:
    """Likewise, of the process and of the processor."""
    start = time.process_time()
    peak = peak_memory(step)[0]
    return peak, time.process_time() - start


def measure(arguments: list[str], cost: Callable[[Callable[[], object]], tuple[float, float]]) -> dict[str, float]:
    """MiB and seconds of one run's parts, in this process."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        given = [RECIPE, *arguments, "--training.output_dir", folder, "--training.num_fakes", "16"]
        given += ["--training.use_cpu", str(cost is on_cpu).lower(), "--training.report_to", "none"]
        recipe, _ = load_recipe(given)
        trainer = build_trainer(recipe)
        steps: dict[str, Callable[[], object]] = {
            "generator": lambda: trainer.train_generator(0, 1),
            "discriminator": lambda: trainer.train_discriminator(0),
        }
        result = {}
        for step in steps.values():
            step()  # optimizers make their state, caches are filled
        for name, step in steps.items():
            result[f"{name} MiB"], result[f"{name} s"] = cost(step)
    return result


def apart(model: str, lines: str, given: list[str]) -> dict[str, float]:
    """The same in a process of its own."""
    command = [sys.executable, "-m", "tests.benchmarks.language_models", model, lines, "--measure", *given]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="id or folder of a causal LM")
    parser.add_argument("lines", help="a text file, one sequence a line")
    parser.add_argument("--measure", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure is not None:
        print(json.dumps(measure(args.measure, on_cpu)))
        return
    model = [f"--{name}.pretrained={args.model}" for name in ("data.tokenizer", "generator", "discriminator")]
    print(f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}")
    for objective, of_objective in OBJECTIVES.items():
        for generator, of_generator in (GENERATORS | (SAVING if objective.startswith("GRPO") else {})).items():
            given = ["--data.train_file", args.lines, *model, *of_objective, *of_generator]
            gpu = torch.cuda.is_available()
            found = measure(given, on_gpu) if gpu else apart(args.model, args.lines, given)
            cells = [
                f"{found[f'{player} {unit}']:.3g} {unit}"
                for player in ("generator", "discriminator")
                for unit in ("s", "MiB")
            ]
            cells.append(f"{(10 * found['generator s'] + found['discriminator s']) / 60:.1f} min")
            print(f"| {objective} | {generator} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
