"""How far methods of a benchmark on the grammar lie beyond maximum likelihood at temperatures down to 0.3.

    python -m tests.tools.colder benchmarks/grammar gad fgan maligan quickstart

Of the generators in the benchmark's `runs/`: 4,000 samples at each temperature for the share that the grammar accepts,
and the exact NLL of its held-out sentences, of coins between two temperatures as well. Printed for each method and
temperature: accepted; nats a sentence above the entropy; how much more it accepts than the envelope at its NLL, and
how much lower its NLL is than the envelope's at its share. Means and standard errors over seeds 1, 2 and 3.
"""

from __future__ import annotations

import sys

import numpy as np
import torch

from seqgan_hf.data import GrammarData
from seqgan_hf.data.grammar import english_grammar, is_english_sentence
from seqgan_hf.data.tokenization import decode
from seqgan_hf.evaluation.loading import load_generator
from seqgan_hf.generation.likelihood import token_logprobs
from seqgan_hf.generation.sampling import sample
from seqgan_hf.generation.vocabulary import start_prompt
from seqgan_hf.training.batches import as_samples


LIKELIHOOD = ("maximum-likelihood", "maximum-likelihood-longer", "maximum-likelihood-early-stopped")
COLD = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1)
SHOWN = COLD[2:]
SHARES = np.linspace(0, 1, 21).clip(1e-12, 1 - 1e-12)  # of the second side of a coin


def measure(folder: str, held_out, temperatures, seed: int) -> dict[float, tuple[float, np.ndarray]]:
    """By temperature: the share that is accepted, and log G of every held-out sentence."""
    loaded, found = load_generator(folder, "cpu"), {}
    for temperature in temperatures:
        torch.manual_seed(seed)
        drawn = sample(loaded.model, start_prompt(loaded.model, 4000), held_out.ids.shape[1], temperature=temperature)
        accepted = np.mean([is_english_sentence(text) for text in decode(drawn, loaded.tokenizer)])
        with torch.no_grad():
            parts = [token_logprobs(loaded.model, part, temperature).sum(1) for part in held_out.split(500)]
        found[temperature] = accepted, torch.cat(parts).double().numpy()
    return found


def coins(points: dict[float, tuple[float, np.ndarray]]) -> list[tuple[float, float]]:
    """NLL and accepted share of coins between every two temperatures."""
    sides = list(points.values())
    return [
        (-np.logaddexp(np.log1p(-w) + one[1], np.log(w) + other[1]).mean(), (1 - w) * one[0] + w * other[0])
        for number, one in enumerate(sides)
        for other in sides[number:]
        for w in SHARES
    ]


def main(folder: str, *methods: str) -> None:
    corpus = GrammarData(num_train=500, num_eval=2000).load()
    held_out = as_samples(corpus.eval, corpus.bos_token_id, corpus.pad_token_id)
    entropy, gaps = english_grammar().entropy(), {}
    for seed in (1, 2, 3):
        measured = [
            measure(f"{folder}/runs/{name}/seed-{seed}/generator", held_out, COLD, seed) for name in LIKELIHOOD
        ]
        nll, accepted = np.array(sorted(point for each in measured for point in coins(each))).T
        best = np.maximum.accumulate(accepted)
        for method in methods:
            points = measure(f"{folder}/runs/{method}/seed-{seed}/generator", held_out, SHOWN, seed)
            for temperature, (share, logprobs) in points.items():
                own, reached = -logprobs.mean(), best >= share
                quality = share - best[np.searchsorted(nll, own, side="right") - 1]
                coverage = nll[np.argmax(reached)] - own if reached.any() else np.nan
                gaps.setdefault((method, temperature), []).append((share, own - entropy, quality, coverage))
    titles = ["method", "temperature", "accepted", "NLL above the entropy", "beyond in quality", "in coverage"]
    print(f"| {' | '.join(titles)} |\n" + "|---" * len(titles) + "|")
    for (method, temperature), rows in gaps.items():
        mean, error = np.mean(rows, axis=0), np.std(rows, axis=0, ddof=1) / len(rows) ** 0.5
        cells = [f"{m:+.4f} ± {e:.4f}" for m, e in zip(mean, error, strict=True)]
        print(f"| {method} | {temperature} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main(*sys.argv[1:])
