"""What a run on the built-in grammar wrote before and after, its numbers, and what to do next.

python recipes/text/before_and_after.py runs/demo
"""

from __future__ import annotations

import sys
from pathlib import Path

from seqgan_hf.data.grammar import english_grammar, is_english_sentence
from seqgan_hf.errors import RunFolderError, UserError
from seqgan_hf.runs.record import Run, is_number, read_run, unit


SHOWN = 6  # sentences of each evaluation
NUMBERS = {
    "grammar_acceptance": "the share of what it writes that the grammar accepts; 1 would be perfect.",
    "nll_test_sequence": "how surprised the generator is by a real sentence that it has not seen, in nats; lower is\n"
    "      better, and none can be below {entropy:.2f}, the entropy of the grammar.",
    "distinct_2": "different pairs of neighbouring words, a share of all; low where sentences repeat each other.",
}
NEXT = """What next
  More sentences:
    seqgan-hf generate {folder} --num_samples 20
  How it went, as a picture:
    seqgan-hf curves {folder} --axis epochs --metrics grammar_acceptance nll_test --output curves.png
  The control: how much of this is the discriminator's work?
    seqgan-hf train text/demo --objective ConstantReward --training.output_dir runs/constant
  Your own text, one sample a line:
    seqgan-hf train text/seqgan --data.train_file my_lines.txt
  docs/learn/first-hour.md goes on from here."""


def stages(run: Run) -> dict[str, dict]:
    """The lines of the log with the first evaluation, the last one before the game, and the last one of all."""
    measured = [line for line in run.lines if is_number(line.get("grammar_acceptance"))]
    pretrained = [line for line in measured if unit(line)[0] == "pretrain_generator"]
    if not pretrained:
        problem = f"the run {run.name!r} did not measure `grammar` while its generator was pretrained"
        raise RunFolderError(problem, "one of text/demo", "train it: `seqgan-hf train text/demo`")
    chosen = {
        "After one pass over the training sentences": pretrained[0],
        f"After {len(pretrained)} passes, before the game": pretrained[-1],
        f"After {run.rounds} rounds against the discriminator": measured[-1],
    }
    return chosen


def story(folder: str) -> str:
    """What is printed.

    Raises:
        RunFolderError: `folder` holds no run, or none of `text/demo`.
    """
    found, parts = stages(read_run(folder)), []
    for title, line in found.items():
        phase, number = unit(line)
        texts = (Path(folder) / "samples" / f"{phase}-{number}.txt").read_text(encoding="utf-8").splitlines()
        rows = [f"  {'ok ' if is_english_sentence(text) else ' x '} {text}" for text in texts[:SHOWN]]
        parts.append("\n".join([f"{title} ({line['grammar_acceptance']:.0%} grammatical)", *rows]))
    numbers = ["The numbers at these three times"]
    for name, meaning in NUMBERS.items():
        values = ", ".join(f"{line[name]:.3g}" for line in found.values())
        numbers.append(f"  {name}  {values}\n      {meaning.format(entropy=english_grammar().entropy())}")
    return "\n\n".join([*parts, "\n".join(numbers), NEXT.format(folder=folder)])


if __name__ == "__main__":
    try:
        print(story(sys.argv[1] if len(sys.argv) > 1 else "runs/demo"))
    except UserError as error:
        sys.exit(f"{Path(__file__).name}: {error}")
