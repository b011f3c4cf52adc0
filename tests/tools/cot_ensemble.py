"""The small oracle: cooperative training (CoT) that starts from likelihood at its best. For docs/benchmark.md.

    OMP_NUM_THREADS=1 python -m tests.tools.cot_ensemble runs/mediators cot_ensemble.csv

`runs/mediators` is the folder of `tests.tools.mediators`, which trains the generators: for each of three seeds the
first of its four begins, and the ensemble of the four, which knows more than any of them, is the mediator. Then 1,500
rounds of CoT, in which the members learn from real text and samples, and the same with an ensemble that stays as it
is, so that its knowledge is distilled into the generator and no more. Printed, as means and standard errors over the
three: both divergences and both NLLs on 5,000 sequences of each side, and how far each lies beyond the envelope of
likelihood over all temperatures and coins between two of them, in either divergence; then the game beyond the envelope
of the ensemble that stays. The file has the values of each seed. What is trained already is not trained again.
"""

from __future__ import annotations

import sys
from itertools import combinations
from pathlib import Path

import numpy as np
import torch

from seqgan_hf.data.oracle import build_oracle, draw
from seqgan_hf.evaluation.envelope import PLANES, Component, envelope, gaps, mixed_likelihoods
from seqgan_hf.evaluation.loading import load_generator, tempered
from seqgan_hf.evaluation.mixtures import WEIGHTS
from seqgan_hf.models import EnsembleGeneratorForCausalLM
from seqgan_hf.samples import Samples
from tests.tools.mediators import LENGTH, MEASURED, MEMBERS, TASK, logprobs, report, train, train_all, written


ROUNDS = 1500
TEMPERATURES = (0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.2)
SHOWN = (0.8, 0.9, 1.0, 1.1)
GAME = (
    f"oracle/cot {TASK} --data.num_eval 2000 --training.pretrain_epochs 0 --training.discriminator_pretrain_steps 0 "
    f"--discriminator.model_type ensemble_generator --discriminator.config {{}} --training.rounds {ROUNDS} "
    f"--training.eval_rounds {ROUNDS} --training.generator_lr_scheduler linear "
    "--training.discriminator_lr_scheduler linear --training.discriminator_learning_rate 3e-4"
)
VARIANTS = {"the ensemble stays as it is": "--training.discriminator_steps 0", "CoT": ""}
COLUMNS = (
    *("kl_generator_oracle", "kl_oracle_generator", "nll_oracle", "nll_test"),
    *("beyond_likelihood_quality", "beyond_likelihood_coverage", "beyond_fixed_quality", "beyond_fixed_coverage"),
)
KL = PLANES[0]


def train_both(folder: Path, seed: int) -> None:
    """The game and its control, in the folder of the seed's generators."""
    train_all(folder, seed)
    if not (folder / "ensemble").exists():
        members = [load_generator(str(folder / f"member-{number}"), "cpu").model for number in range(MEMBERS)]
        EnsembleGeneratorForCausalLM.from_members(members).save_pretrained(folder / "ensemble")
    start = "--generator.pretrained", str(folder / "member-0" / "generator"), "--training.seed", str(10 * seed)
    for name, options in VARIANTS.items():
        recipe = f"{GAME} --discriminator.pretrained {folder / 'ensemble'} {options}"
        train(folder / name.replace(" ", "-"), recipe, *start)


def components(model, oracle, real: Samples) -> list[Component]:
    """The generator at all temperatures, with what mixtures of them need."""
    drawn = []
    for temperature in TEMPERATURES:
        with tempered(model, temperature):
            drawn.append(written(model, MEASURED))
    found = []
    for temperature, samples in zip(TEMPERATURES, drawn, strict=True):
        with tempered(model, temperature):
            own = [logprobs(model, each) for each in drawn]
            held_out = logprobs(model, real)
        found.append(Component(temperature, held_out, LENGTH, own, logprobs(oracle, samples), LENGTH))
    return found


def rows(folder: Path, seed: int) -> dict[str, list[float]]:
    """Everything that is measured for one seed."""
    torch.manual_seed(seed)
    oracle = build_oracle(100)
    real = draw(oracle, MEASURED, LENGTH, 1000 * seed + 2)
    known, found = logprobs(oracle, real), dict[str, list[float]]()
    places = {"maximum likelihood": "member-0"} | {name: name.replace(" ", "-") for name in VARIANTS}
    curves: list[np.ndarray] = []
    for name, place in places.items():
        each = components(load_generator(str(folder / place), "cpu").model, oracle, real)
        alone = [mixed_likelihoods(0.5, each, one, one, known) for one in range(len(each))]  # a coin of one side
        for temperature, values in zip(TEMPERATURES, alone, strict=True):
            beyond = [gap for curve in curves for gap in gaps(curve, *KL.place(values))]
            if temperature in SHOWN:
                found[f"{name}, temperature {temperature}"] = [*(values[column] for column in COLUMNS[:4]), *beyond]
        pairs = combinations(range(len(each)), 2)
        coins = [mixed_likelihoods(float(w), each, *pair, known) for pair in pairs for w in WEIGHTS]
        curves.append(envelope(KL.place(values) for values in (*alone, *coins)))
    return found


def main(folder: str, table: str | None = None) -> None:
    found = []
    for seed in (1, 2, 3):
        train_both(Path(folder) / str(seed), seed)
        found.append(rows(Path(folder) / str(seed), seed))
    report(found, table, COLUMNS)


if __name__ == "__main__":
    main(*sys.argv[1:])
