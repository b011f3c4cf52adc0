"""The small oracle: what several generators know more than one, and three ways to use it. For docs/benchmark.md.

    OMP_NUM_THREADS=1 python -m tests.tools.mediators runs/mediators mediators.csv

For each of three seeds, four generators trained by maximum likelihood (and one that reads from right to left), then:
their ensemble; one generator distilled from it; and one of them that proposes, where a discriminator chooses that is
a logistic regression on log-likelihood ratios, log M(Y) - log G(Y), fitted on 1,000 sequences of the oracle that no
model was trained on and as many of G's own. The generators are those that maximum likelihood is best with (of 32, 64
and 128 units, dropout 0, .3 and .5, 5 to 50 epochs; by NLL_test). Printed, as means and standard errors over the
three: both divergences and both NLLs, measured on 5,000 sequences of each side; of the discriminators the AUC on
others, and the effective number of 16 proposals. The file has the values of each seed. What is trained already is not
trained again.
"""

from __future__ import annotations

import csv
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from seqgan_hf.data import OracleData
from seqgan_hf.data.corpus import Corpus
from seqgan_hf.data.oracle import build_oracle, draw
from seqgan_hf.evaluation.loading import load_generator, tempered
from seqgan_hf.generation.likelihood import sequence_logprobs
from seqgan_hf.generation.resampling import effective_sample_size, log_normalizer
from seqgan_hf.generation.sampling import sample
from seqgan_hf.generation.vocabulary import start_prompt
from seqgan_hf.models import EnsembleGeneratorForCausalLM
from seqgan_hf.samples import Samples


LENGTH, MEMBERS, FITTED, MEASURED, PROPOSALS = 10, 4, 1000, 5000, 16
COLUMNS = "kl_generator_oracle", "kl_oracle_generator", "nll_oracle", "nll_test", "auc", "effective_proposals"
TASK = "--data.vocab_size 100 --data.length 10 --data.num_train 5000"
SIZE = "--generator.config.embedding_size 128 --generator.config.hidden_size 128"
LIKELIHOOD = (
    f"oracle/mle {TASK} {SIZE} --generator.config.dropout 0.5 --training.per_device_train_batch_size 128 "
    "--training.pretrain_epochs 40 --training.pretrain_learning_rate 3e-3 --training.eval_epochs 100"
)
DISTILLED = f"oracle/distillation {SIZE} --training.pretrain_epochs 4 --training.eval_rounds 100"


@dataclass
class Backwards(OracleData):
    """The oracle's sequences from right to left."""

    def load(self) -> Corpus:
        corpus = super().load()
        corpus.train.ids.copy_(corpus.train.ids.flip(1))
        corpus.eval.ids.copy_(corpus.eval.ids.flip(1))
        return corpus


def train(folder: Path, recipe: str, *options: str) -> None:
    if not (folder / "summary.json").exists():
        command = ["seqgan-hf", "train", *recipe.split(), "--training.output_dir", str(folder), *options]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def train_all(folder: Path, seed: int) -> None:
    """The generators of one seed, in `folder`."""
    own = "--training.seed", str(10 * seed)
    for number in range(MEMBERS):
        train(folder / f"member-{number}", LIKELIHOOD, "--training.seed", str(10 * seed + number))
    train(folder / "backwards", LIKELIHOOD, "--data.class_path", "tests.tools.mediators.Backwards", *own)
    teachers = ", ".join(str(folder / f"member-{number}") for number in range(MEMBERS))
    train(folder / "distilled", DISTILLED, "--objective.teacher", f"[{teachers}]", *own)


def logprobs(model, samples: Samples) -> np.ndarray:
    return sequence_logprobs(model, samples).double().numpy()


def written(model, count: int) -> Samples:
    return sample(model, start_prompt(model, count), LENGTH)


class Ratios:
    """A discriminator: logistic regression on log M(Y) - log G(Y) for each of some language models."""

    def __init__(self, generator, others, backwards, real: Samples):
        self.generator, self.others, self.backwards = generator, others, backwards
        fake = written(generator, FITTED)
        features = np.concatenate([self.features(real), self.features(fake)])
        self.regression = LogisticRegression().fit(features, np.repeat([1, 0], [len(real.ids), FITTED]))

    def features(self, samples: Samples) -> np.ndarray:
        own = logprobs(self.generator, samples)
        found = [logprobs(model, samples) - own for model in self.others]
        flipped = Samples(samples.prompt, samples.ids.flip(1), samples.mask)
        found += [logprobs(model, flipped) - own for model in self.backwards]
        return np.stack(found, axis=1)

    def log_odds(self, samples: Samples) -> np.ndarray:
        return self.regression.decision_function(self.features(samples))

    def auc(self, real: Samples) -> float:
        verdicts = np.concatenate([self.log_odds(real), self.log_odds(written(self.generator, len(real.ids)))])
        return roc_auc_score(np.repeat([1, 0], [len(real.ids), len(real.ids)]), verdicts)


def of_model(model, oracle, real: Samples, temperature: float = 1.0) -> list[float]:
    """KL(G‖O), KL(O‖G), NLL_oracle and NLL_test (nats a token) of a generator."""
    with tempered(model, temperature):
        fake = written(model, MEASURED)
        own, known, held_out = logprobs(model, fake), logprobs(oracle, fake), logprobs(model, real)
    backward = logprobs(oracle, real) - held_out
    return [(own - known).mean(), backward.mean(), -known.mean() / LENGTH, -held_out.mean() / LENGTH]


def of_ratios(ratios: Ratios, oracle, real: Samples, other: Samples) -> list[float]:
    """The same of G exp(s) / Z, by weights of proposals; then the AUC and the effective number of proposals."""
    fake = written(ratios.generator, MEASURED * PROPOSALS)
    own, known, log_weights = logprobs(ratios.generator, fake), logprobs(oracle, fake), ratios.log_odds(fake)
    log_z = sum(map(float, log_normalizer(torch.from_numpy(log_weights)))) / 2
    weights = np.exp(log_weights - log_weights.max())
    forward = np.average(own + log_weights - log_z - known, weights=weights)
    held_out = logprobs(ratios.generator, real) + ratios.log_odds(real) - log_z
    backward = (logprobs(oracle, real) - held_out).mean()
    nll_oracle = np.average(-known, weights=weights) / LENGTH
    size = effective_sample_size(torch.from_numpy(log_weights).view(-1, PROPOSALS)).mean().item()
    return [forward, backward, nll_oracle, -held_out.mean() / LENGTH, ratios.auc(other), size]


def rows(folder: Path, seed: int, oracle) -> dict[str, list[float]]:
    """Everything that is measured for one seed."""
    torch.manual_seed(seed)
    counts = enumerate((FITTED, 1000, MEASURED))
    fit, other, real = (draw(oracle, count, LENGTH, 1000 * seed + number) for number, count in counts)
    names = [f"member-{number}" for number in range(MEMBERS)]
    models = {name: load_generator(str(folder / name), "cpu").model for name in [*names, "backwards", "distilled"]}
    members = [models[name] for name in names]
    found = {
        f"maximum likelihood, temperature {temperature}": of_model(members[0], oracle, real, temperature)
        for temperature in (0.7, 0.8, 0.9, 1.0)
    }
    ensemble = EnsembleGeneratorForCausalLM.from_members(members)
    found["ensemble of four"] = of_model(ensemble, oracle, real)
    found["one generator distilled from it"] = of_model(models["distilled"], oracle, real)
    back = [models["backwards"]]
    for name, others, backwards in (
        ("three others", members[1:], []),
        ("one from right to left", [], back),
        ("all four", members[1:], back),
    ):
        ratios = Ratios(members[0], others, backwards, fit)
        found[f"the first with ratios to {name}"] = of_ratios(ratios, oracle, real, other)
    # the real text that all models were trained on: the mistake to avoid
    shown = draw(oracle, MEASURED, LENGTH, 1).select(slice(0, FITTED))
    ratios = Ratios(members[0], members[1:], back, shown)
    found["the same, fitted on training text"] = of_ratios(ratios, oracle, real, other)
    return found


def report(found: list[dict[str, list[float]]], table: str | None, columns: Sequence[str] = COLUMNS) -> None:
    """Print means and standard errors over seeds, and write the values of each seed where a file is named."""
    columns = columns[: max(map(len, found[0].values()))]
    print(f"| | {' | '.join(columns)} |\n|{'---|' * (len(columns) + 1)}")
    for name in found[0]:
        values = np.array([each[name] for each in found])
        mean, error = values.mean(axis=0), values.std(axis=0, ddof=1) / len(values) ** 0.5
        cells = [f"{m:.3f} ± {e:.3f}" for m, e in zip(mean, error, strict=True)]
        print(f"| {name} | {' | '.join(cells + [''] * (len(columns) - len(cells)))} |")
    if table is not None:
        with open(table, "w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(["generator", "seed", *columns])
            for seed, each in enumerate(found, 1):
                writer.writerows([name, seed, *(f"{value:.6g}" for value in values)] for name, values in each.items())


def main(folder: str, table: str | None = None) -> None:
    oracle, found = build_oracle(100), []
    for seed in (1, 2, 3):
        train_all(Path(folder) / str(seed), seed)
        found.append(rows(Path(folder) / str(seed), seed, oracle))
    report(found, table)


if __name__ == "__main__":
    main(*sys.argv[1:])
