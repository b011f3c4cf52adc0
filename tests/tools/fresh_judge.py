"""How well an encoder, fine-tuned anew for each file, tells its texts from real ones. For docs/results.md.

    python -m tests.tools.fresh_judge ENCODER REAL SAMPLES...

No file is at an advantage, as no judge has learnt from another's samples. Of both kinds of text, equally many, one
half teaches the judge and the other tests it, then the other way round. Printed for each file: the share of pairs of a
real text and a sample in which the real one is taken for more real (the AUC; .5 would be perfect), with its standard
error.
"""

from __future__ import annotations

import math
import sys
from pathlib import Path

import torch
from torch.nn import functional as F
from transformers import AutoModelForSequenceClassification, AutoTokenizer


PASSES, BATCH, RATE, TRUNK_RATE = 4, 64, 1e-3, 5e-5


class Judge:
    def __init__(self, encoder: str):
        self.tokenizer = AutoTokenizer.from_pretrained(encoder)
        self.model = AutoModelForSequenceClassification.from_pretrained(encoder, num_labels=1)

    def log_odds(self, texts: list[str]) -> torch.Tensor:
        """Of being real, shape (N,)."""
        read = self.tokenizer(texts, padding=True, truncation=True, return_tensors="pt")
        return self.model(**read).logits.squeeze(1)

    def learn(self, texts: list[str], real: torch.Tensor) -> None:
        trunk = list(self.model.base_model.parameters())
        head = [each for each in self.model.parameters() if not any(each is other for other in trunk)]
        optimizer = torch.optim.AdamW([{"params": head, "lr": RATE}, {"params": trunk, "lr": TRUNK_RATE}])
        steps = PASSES * math.ceil(len(texts) / BATCH)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        self.model.train()
        for rows in (rows for _ in range(PASSES) for rows in torch.randperm(len(texts)).split(BATCH)):
            loss = F.binary_cross_entropy_with_logits(self.log_odds([texts[row] for row in rows]), real[rows])
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
            optimizer.step()
            schedule.step()

    @torch.no_grad()
    def score(self, texts: list[str]) -> torch.Tensor:
        self.model.eval()
        return torch.cat([self.log_odds(texts[first : first + BATCH]) for first in range(0, len(texts), BATCH)])


def auc(real: torch.Tensor, fake: torch.Tensor) -> tuple[float, float]:
    """With its standard error, of Hanley and McNeil's placements."""
    wins = (real[:, None] > fake).double() + (real[:, None] == fake).double() / 2
    variance = wins.mean(1).var() / len(real) + wins.mean(0).var() / len(fake)
    return float(wins.mean()), float(variance.sqrt())


def crossed(encoder: str, real: list[str], fake: list[str]) -> tuple[float, float]:
    """The mean of both halves' AUC."""
    found = []
    for half in range(2):
        torch.manual_seed(0)
        judge = Judge(encoder)
        lessons = real[half::2] + fake[half::2]
        judge.learn(lessons, torch.tensor([1.0] * len(real[half::2]) + [0.0] * len(fake[half::2])))
        found.append(auc(judge.score(real[1 - half :: 2]), judge.score(fake[1 - half :: 2])))
    return sum(value for value, _ in found) / 2, math.hypot(*(error for _, error in found)) / 2


def main() -> None:
    encoder, real, *files = sys.argv[1:]
    texts = Path(real).read_text().splitlines()
    for file in files:
        samples = Path(file).read_text().splitlines()
        count = min(len(texts), len(samples))
        value, error = crossed(encoder, texts[:count], samples[:count])
        print(f"{file}: {value:.3f} ± {error:.3f} ({count} of each)", flush=True)


if __name__ == "__main__":
    main()
