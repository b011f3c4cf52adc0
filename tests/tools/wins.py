"""How often a trained judge takes a text for more real than one of another file. For docs/results.md.

    python -m tests.tools.wins RUN REAL START SAMPLES...

RUN is a run whose discriminator reads text and had no part in the training of what wrote the files. Printed for each
file: the share of pairs in which its text is taken for more real than one of START, and the share in which a real one
is taken for more real than its text, with standard errors.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from tests.tools.fresh_judge import auc


@torch.no_grad()
def log_odds(folder: Path, texts: list[str]) -> torch.Tensor:
    """Of being real, shape (N,)."""
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    tokenizer, found = AutoTokenizer.from_pretrained(folder), []
    for first in range(0, len(texts), 64):
        read = tokenizer(texts[first : first + 64], padding=True, truncation=True, return_tensors="pt")
        logits = model(**read).logits
        found.append(logits[:, -1] - (logits[:, 0] if logits.shape[1] == 2 else 0))
    return torch.cat(found)


def main() -> None:
    run, *files = sys.argv[1:]
    texts = [Path(file).read_text().splitlines() for file in files]
    real, start, *others = (log_odds(Path(run, "discriminator"), each) for each in texts)
    for name, scores in zip(files[1:], [start, *others], strict=True):
        wins, real_wins = auc(scores, start), auc(real, scores)
        print(f"{name}: wins {wins[0]:.3f} ± {wins[1]:.3f}, real wins {real_wins[0]:.3f} ± {real_wins[1]:.3f}")


if __name__ == "__main__":
    main()
