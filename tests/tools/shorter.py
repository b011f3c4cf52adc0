"""The programs of the documents, with less work to do: what `tests/contracts/test_commands.py` puts on the path.

`seqgan-hf` trains tiny models for a unit or two, and reads tiny runs where the documents name those of a reader.
`python` is the real one; what cannot be done in seconds, or not on one machine, is only written down (`NOT_RUN`).
"""

from __future__ import annotations

import os
import re
import runpy
import shlex
import shutil
import sys
from itertools import pairwise
from pathlib import Path

import sklearn.linear_model  # noqa: F401  (imported here for all calls, which need it)
import yaml
from matplotlib.figure import Figure

from seqgan_hf.commands import main
from seqgan_hf.commands.recipe_names import find_recipe
from seqgan_hf.runs import card
from tests.tools.small_runs import options, short_settings


# What is not run, and why; each is understood by tests/contracts/test_documents.py all the same. The tests that are
# named do the same work, or the same command.
NOT_RUN = {
    r"seqgan-hf train (oracle|text|molecules|tunes)/\w+": "a recipe as it is: test_every_recipe_runs_and_says_how_to_"
    "be_run, in unit/commands/test_cli.py",
    r"seqgan-hf benchmark .*": "a minute even in miniature: runs/test_benchmark.py",
    r"seqgan-hf demo .*": "serves until it is ended: runs/test_demo_page.py",
    r"python app\.py": "serves until it is ended: unit/runs/test_space.py",
    r"python -m tests\.tools\.demo_pictures .*": "opens a browser: runs/test_demo_page.py",
    r"(torchrun|accelerate) .*": "several processes or GPUs: runs/test_processes.py",
    r"seqgan-hf train \$?\S+ .*--data\.dataset ORG/NAME .*": "a dataset of the Hub: unit/data/test_hub.py",
    r"python adversarial_grpo\.py": "runs/test_trl.py",
    r"python convert_abc\.py to_abc .*": "needs a generator that has learnt: contracts/test_tunes.py",
    r"python convert_published_oracle\.py .*": "a file of the paper's authors: unit/data/test_oracle.py",
    r"pip .*": "installs: `make test-wheel` does, contracts/test_first_hour.py in part",
    r"hf download .*": "a network",
    r"make [\w-]+|pytest .*|python -m pytest .*": "the checks of the project itself",
    r"python -m tests\.tools\.(survey|reproduce|mediators|cot_controls|cot_ensemble) .*": "minutes to hours",
    r"python -m tests\.tools\.(fresh_judge|wins) .*": "reads what hours of training wrote",
    r"python -m tests\.tools\.mutations": "contracts/test_mutations.py",
    r"python tests/tools/mutate\.py .*": "minutes to hours",
    r"python -m tests\.benchmarks\.(measure_corpus|cost_growth|company) .*": "minutes, which they measure",
    r"python -m tests\.tools\.colder .*": "reads a benchmark of hours",
}


def is_run(words: list[str]) -> bool:
    line = " ".join([Path(words[0]).name, *words[1:]])
    return not any(re.fullmatch(pattern, line) for pattern in NOT_RUN)


def seqgan_hf(arguments: list[str]) -> int:
    if _log("seqgan-hf", arguments):
        return 0
    card.draw_runs = lambda runs, picture: (False, [])  # to draw takes as long as the rest of a tiny run
    Figure.savefig = lambda figure, place, **options: Path(place).touch()
    os.fsync = lambda descriptor: None
    name, *rest = arguments
    _provide(name, rest)
    return main([name, *(_train if name == "train" else _few_samples)(rest)])


def python(arguments: list[str]) -> int:
    if _log("python", arguments):
        return 0
    if arguments[0] == "-c":
        sys.argv = arguments
        exec(compile(arguments[1], "-c", "exec"), {"__name__": "__main__"})
    elif arguments[0] == "-m":
        sys.argv = arguments[1:]
        runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv = arguments
        sys.path.insert(0, str(Path(arguments[0]).resolve().parent))
        runpy.run_path(arguments[0], run_name="__main__")
    return 0


def nothing(arguments: list[str]) -> int:
    """For programs that are never run."""
    _log("", arguments)
    return 0


def _log(program: str, arguments: list[str]) -> bool:
    """Write the call down; whether it is to be left out."""
    left_out = not program or not is_run([program, *arguments])
    with open(os.environ["CALLS"], "a", encoding="utf-8") as file:
        print("left out" if left_out else "run", shlex.join([program, *arguments]), file=file)
    return left_out


def _provide(name: str, arguments: list[str]) -> None:
    """Runs of the reader that a command reads, where an earlier one has not made them: copies of tiny ones."""
    for before, word in pairwise(["", *arguments]):
        if found := re.match(r"runs/[\w-]+|(PAPER|SHORT|CONSTANT|MLE|MODEL)$", word):
            place = Path(found[0])
            if not place.exists() and before not in ("--training.output_dir", "--output"):
                shutil.copytree(Path(os.environ["RUNS"]) / ("ids" if _of_ids(word, arguments) else "words"), place)


def _of_ids(run: str, arguments: list[str]) -> bool:
    return "--oracle" in arguments or "oracle" in run or run.isupper() or "--points" in arguments


def _train(arguments: list[str]) -> list[str]:
    """The same training, in a second, from the start."""
    recipe, *given = arguments
    content = yaml.safe_load(Path(find_recipe(recipe)).read_text(encoding="utf-8"))
    chosen = dict(zip(given[::2], given[1::2], strict=True))
    if "--config" in chosen:
        for section, part in yaml.safe_load(Path(chosen["--config"]).read_text(encoding="utf-8")).items():
            content[section] = content.get(section, {}) | part
    if "--data" in chosen:
        content["data"] = {"class_path": chosen["--data"]}
    if "--discriminator.pretrained" in chosen:
        content["discriminator"] = {}
    settings = short_settings(content) | {"training.rounds": 1, "training.num_fakes": 32}
    other = {"--objective", "--objective.class_path"} & chosen.keys()
    if "rollouts" in content["objective"].get("init_args", {}) and not other:
        settings["objective.rollouts"] = 1
    for name, small in settings.items():
        if (asked := chosen.get(f"--{name}", "")).isdigit():
            settings[name] = min(int(asked), small)
    if not any(name.startswith(("--evaluation", "--training.eval")) for name in chosen):
        settings |= {"training.eval_epochs": 0, "training.eval_rounds": 0}
    fresh = {} if "--training.resume_from_checkpoint" in chosen else {"training.overwrite_run": "true"}
    return [*arguments, *options(settings | fresh)]


def _few_samples(arguments: list[str]) -> list[str]:
    """Fewer samples, where their number is said or a default of many."""
    if "--num_samples" in arguments or "--model" in arguments:
        return [*arguments, "--num_samples", "20"]
    return arguments
