"""The small oracle: what of cooperative training (CoT) is the game. For docs/benchmark.md.

    OMP_NUM_THREADS=1 python -m tests.tools.cot_controls runs/cot cot_controls.csv

For each of three seeds the generator begins as 16 epochs of maximum likelihood leave an LSTM of 32, and the mediator,
of 256 units with dropout, as one model of the oracle's sequences and this generator's. Then CoT, and what it would be
without its parts: a mediator that stays as it began; one that goes on learning from samples only; dropout in the
generator's steps; and a generator that learns its own samples with dropout, without any mediator. Printed, as means
and standard errors over the three: both divergences and both NLLs, measured on 5,000 sequences of each side. The file
has the values of each seed. What is trained already is not trained again.
"""

from __future__ import annotations

import sys
from pathlib import Path

from seqgan_hf.data.oracle import build_oracle, draw
from seqgan_hf.evaluation.loading import load_generator
from seqgan_hf.objectives import CoT
from tests.tools.mediators import LENGTH, MEASURED, TASK, of_model, report, train


ROUNDS = 1000
LIKELIHOOD = (
    f"oracle/mle {TASK} --training.per_device_train_batch_size 128 --training.pretrain_epochs 16 "
    "--training.eval_epochs 100"
)
MEDIATOR = "--discriminator.config.embedding_size 128 --discriminator.config.hidden_size 256"
COT = (
    f"oracle/cot {TASK} --data.num_eval 2000 --training.pretrain_epochs 0 {MEDIATOR} "
    "--discriminator.config.dropout 0.5"
)
START = f"{COT} --training.discriminator_pretrain_steps 2000 --training.rounds 0"
GAME = (
    f"{COT} --training.discriminator_pretrain_steps 0 --training.rounds {ROUNDS} --training.eval_rounds {ROUNDS} "
    "--training.generator_lr_scheduler linear --training.discriminator_lr_scheduler linear "
    "--training.discriminator_learning_rate 1e-3"
)
FROZEN = "--training.discriminator_steps 0"
# DPG without a judge: its own samples as they were at the start, all of the same weight, with dropout.
ITS_OWN = (
    f"oracle/dpg {TASK} --data.num_eval 2000 --training.pretrain_epochs 0 --training.discriminator_pretrain_steps 0 "
    "--objective.exponent 1e-9 --training.eval_rounds 30 --generator.config.dropout 0.3"
)


class SamplesOnly(CoT):
    """The mediator sees no real text: what it is shown as real are samples."""

    def discriminator_loss(self, models, real, fake):
        return super().discriminator_loss(models, fake, fake)


class Dropout(CoT):
    """The generator has dropout where it learns."""

    off_policy = True


HERE = "--objective tests.tools.cot_controls"
DROPOUT = f"{HERE}.Dropout --generator.config.dropout 0.3"
VARIANTS = {
    "CoT": "",
    "the mediator stays as it began": FROZEN,
    "it learns from samples only": f"{HERE}.SamplesOnly",
    "CoT, dropout in the generator's steps": DROPOUT,
    "the mediator stays, dropout in the generator's steps": f"{DROPOUT} {FROZEN}",
}


def place(folder: Path, name: str) -> Path:
    return folder / name.replace(" ", "-").replace(",", "").replace("'", "")


def rows(folder: Path, seed: int, oracle) -> dict[str, list[float]]:
    """Everything that is measured for one seed."""
    own = "--training.seed", str(10 * seed)
    train(folder / "likelihood", LIKELIHOOD, *own)
    start = "--generator.pretrained", str(folder / "likelihood" / "generator")
    train(folder / "mediator", START, *start, *own)
    train(place(folder, "its own samples"), ITS_OWN, *start, *own)
    start += "--discriminator.pretrained", str(folder / "mediator" / "discriminator")
    for name, options in VARIANTS.items():
        train(place(folder, name), f"{GAME} {options}", *start, *own)
    real = draw(oracle, MEASURED, LENGTH, 1000 * seed + 2)
    first = load_generator(str(folder / "likelihood"), "cpu").model
    found = {
        f"maximum likelihood, temperature {temperature}": of_model(first, oracle, real, temperature)
        for temperature in (0.7, 0.8, 0.9, 1.0)
    }
    found["the mediator before the game"] = of_model(
        load_generator(str(folder / "mediator" / "discriminator"), "cpu").model, oracle, real
    )
    for name in (*VARIANTS, "its own samples"):
        model = load_generator(str(place(folder, name)), "cpu").model
        for temperature in (0.9, 1.0):
            found[f"{name}, temperature {temperature}"] = of_model(model, oracle, real, temperature)
    return found


def main(folder: str, table: str | None = None) -> None:
    oracle = build_oracle(100)
    report([rows(Path(folder) / str(seed), seed, oracle) for seed in (1, 2, 3)], table)


if __name__ == "__main__":
    main(*sys.argv[1:])
