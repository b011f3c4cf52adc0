"""The model card of a run, written from what the run recorded: never by hand."""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import EvalResult, ModelCard, ModelCardData
from transformers import PreTrainedModel

from seqgan_hf import __version__

from ..evaluation.record import Estimate
from ..evaluation.report import SHOWN_TEXTS, format_estimate, format_value
from .curves import draw_runs
from .folder import RunFolder
from .record import UNITS, Run, read_lines


PICTURE = "learning_curve.png"
LIBRARIES = ("torch", "transformers", "datasets", "tokenizers", "accelerate")
# How to load the models of a run: the Auto class, and the task of the Hub, by the kind of a discriminator.
AUTO_CLASSES = {"classifier": "AutoModelForSequenceClassification", "language_model": "AutoModelForCausalLM"}
TASKS = {"classifier": "text-classification", "language_model": "text-generation"}
JUDGEMENT = """judge = pipeline("text-classification", model=model, tokenizer=tokenizer)
print(judge("a text to judge", top_k=None))"""
LIKELIHOOD = """inputs = tokenizer("a text to judge", return_tensors="pt")
print(-model(**inputs, labels=inputs["input_ids"]).loss.item())  # mean log-likelihood of a token, in nats"""


def describe_model(model: PreTrainedModel) -> dict[str, Any]:
    """The class of a model, its size, and whether it loads without code from its repository."""
    return {
        "class": type(model).__name__,
        "parameters": model.num_parameters(),
        "carries_code": type(model)._auto_class is not None,
    }


def versions() -> dict[str, str]:
    """Of this package, of Python and of the libraries below it."""
    found = {"seqgan_hf": __version__, "Python": platform.python_version()}
    return found | {name: metadata.version(name) for name in LIBRARIES}


def public_recipe(text: str) -> str:
    """The recipe with the last part of every local path only: the rest would tell the world about the machine."""

    def shorten(node: Any, key: str = "") -> Any:
        if isinstance(node, dict):
            return {name: shorten(value, str(name)) for name, value in node.items()}
        if isinstance(node, list):
            return [shorten(value, key) for value in node]
        return public_name(node, key) if isinstance(node, str) else node

    return yaml.safe_dump(shorten(yaml.safe_load(text)), sort_keys=False, allow_unicode=True)


# Settings whose value is a local path, whatever it looks like.
LOCAL_KEYS = re.compile(r"(?:file|files|dir|path|folder)$")
# However a path can begin, on any system.
LOCAL_PATH = re.compile(r"file:|/|~\w*(?:[/\\]|$)|\.{1,2}[/\\]|[A-Za-z]:[/\\]|\\\\|\\\w{2,}\\")
REPOSITORY = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")


def public_name(value: str, key: str = "") -> str:
    """The last part of a local path, in the manner of any system; addresses, ids on the Hub and texts as they are.

    What could be an id or a text is a path if it exists here, so this has to be asked where the run takes place. `key`
    is the name of the setting that has this value.
    """
    if re.match(r"(?!file:)\w{2,}://", value):  # https://, hf://, s3://, but for a name and password in it
        return re.sub(r"//[^/@]*@", "//", value, count=1)
    local = LOCAL_PATH.match(value) or LOCAL_KEYS.search(key) or os.path.exists(value)
    if not local and (REPOSITORY.fullmatch(value) or re.search(r"\s", value)):
        return value
    last = re.split(r"[/\\]", value.rstrip("/\\"))[-1] if local else value.rpartition("/")[2]
    return "~" if last.startswith("~") else last


def public_signature(signature: str) -> str:
    """A signature with the last part of every local path only."""
    settings = (setting.partition(":") for setting in signature.split("|"))
    return "|".join(f"{name}{colon}{public_name(value, name)}" for name, colon, value in settings)


def public_metrics(path: Path) -> bytes:
    """A `metrics.jsonl` with the last part of every local path only, in its signatures."""
    lines = read_lines(path)
    for line in lines:
        if signatures := line.get("signatures"):
            line["signatures"] = {name: public_signature(signature) for name, signature in signatures.items()}
    return "".join(json.dumps(line) + "\n" for line in lines).encode()


def write_card(folder: RunFolder) -> Path:
    """Draw the learning curve of a finished run, and write `README.md` with it beside the generator."""
    summary, picture = folder.read_summary(), folder.own(folder.figures / PICTURE)
    run = Run(folder.path.resolve().name, summary["objective"]["name"], read_lines(folder.metrics))
    drawn, _ = draw_runs([run], picture)
    if drawn:
        shutil.copyfile(picture, folder.generator / PICTURE)
    path = folder.generator / "README.md"
    path.write_text(str(model_card(folder)), encoding="utf-8")
    return path


def model_card(
    folder: RunFolder, model_id: str | None = None, discriminator_id: str | None = None, license: str | None = None
) -> ModelCard:
    """The card of a finished run.

    Args:
        folder: of the run.
        model_id: the repository it is written for; by default the generator's own folder.
        discriminator_id: the repository of the discriminator; `None` if it lies in the folder `discriminator` of
            `model_id`, and "" if it is not shared.
        license: as the Hub names it (`apache-2.0`, ...); by default what the run was given, or none.

    Raises:
        RunFolderError: the run did not end.
    """
    summary = folder.read_summary()
    name = (model_id or folder.path.resolve().name).rpartition("/")[2]
    parts = [
        f"# {name}",
        f"{_introduction(summary)} This card was written by the training run.",
        _usage(folder, summary, model_id, discriminator_id),
        _objective(summary),
        _data(summary),
        _results(summary, has_picture=(folder.generator / PICTURE).exists()),
        _samples(folder, summary),
        _training(summary),
        _limits(summary),
        "## Versions\n\n" + "\n".join(f"- {name}: {version}" for name, version in summary["versions"].items()),
    ]
    return _card(_metadata(name, summary, license), parts)


def run_facts(folder: RunFolder) -> str:
    """What a run that has ended was trained on and how, as Markdown: these parts of its card."""
    summary = folder.read_summary()
    return "\n\n".join([_introduction(summary), _data(summary), _objective(summary), _training(summary)])


def discriminator_card(folder: RunFolder, model_id: str, generator_id: str, license: str | None = None) -> ModelCard:
    """The card of the discriminator in a repository of its own."""
    summary, name = folder.read_summary(), model_id.rpartition("/")[2]
    model = summary["discriminator"]
    data = ModelCardData(
        license=license or summary["license"],
        library_name="transformers",
        pipeline_tag=TASKS[model["kind"]],
        base_model=_base_model(summary, "discriminator"),
        tags=["seqgan-hf", "text-gan", "discriminator"],
    )
    meaning = {
        "classifier": "It says how likely a text is a real one of the corpus, and is calibrated for nothing else: on "
        "texts of other sources and other generators its scores mean little.",
        "language_model": "It is a language model that says how likely each token of a text is, and served to train "
        "the generator: it is not meant for writing texts.",
    }
    parts = [
        f"# {name}",
        f"The discriminator ({_size(model)}) that [{generator_id}](https://huggingface.co/{generator_id}) was trained "
        f"against by {summary['objective']['name']}. {meaning[model['kind']]}",
        f"## Use\n\n{_judge_snippet(model, model_id, None)}",
    ]
    return _card(data, parts)


def samples_file(folder: RunFolder, summary: dict) -> Path | None:
    """The samples of the evaluation that a card reports; `None` if there are none."""
    path = folder.own(folder.samples / f"{summary['evaluation'].get('name')}.txt")
    return path if path.exists() else None


def _card(data: ModelCardData, parts: list[str]) -> ModelCard:
    body = "\n\n".join(part for part in parts if part)
    return ModelCard(f"---\n{data.to_yaml()}\n---\n\n{body}\n")


@cache  # a card asks several times, and pure Python reads a recipe in milliseconds
def _settings(recipe: str | None) -> dict[str, Any]:
    return yaml.safe_load(recipe) if recipe else {}


def _metadata(name: str, summary: dict, license: str | None) -> ModelCardData:
    source = _settings(summary["recipe"]).get("data", {})
    dataset = _hub_id(source.get("init_args", {}).get("dataset"))
    name_of_data = dataset or source.get("class_path", "text").rpartition(".")[2]
    results = [
        EvalResult(
            task_type="text-generation",
            dataset_type=dataset or name_of_data.lower(),
            dataset_name=name_of_data,
            dataset_split="held-out",
            metric_type=key,
            metric_name=key,
            metric_value=estimate.value,
            metric_args={"signature": estimate.signature}
            | ({} if estimate.low is None else {"low": estimate.low, "high": estimate.high}),
        )
        for key, estimate in _estimates(summary).items()
        if estimate.value is not None
    ]
    return ModelCardData(
        model_name=name,
        license=license or summary["license"],
        library_name="transformers",
        pipeline_tag="text-generation",
        base_model=_base_model(summary, "generator"),
        tags=["seqgan-hf", *(["text-gan"] if summary["discriminator"] else []), summary["objective"]["name"].lower()],
        datasets=[dataset] if dataset else None,
        eval_results=results or None,
    )


def _hub_id(value: Any) -> str | None:
    """The value if it is an id on the Hub: a name without an owner may be what is left of a path."""
    return value if isinstance(value, str) and REPOSITORY.fullmatch(value) else None


def _base_model(summary: dict, section: str) -> str | None:
    """The id on the Hub of the model whose weights the run began with; `None` for new ones and those of a folder."""
    return _hub_id((_settings(summary["recipe"]).get(section) or {}).get("pretrained"))


def _estimates(summary: dict) -> dict[str, Estimate]:
    """The results of the last evaluation, without paths in their signatures; a value may be `None`."""
    results = summary["evaluation"].get("results", {}).items()
    return {key: Estimate(r["value"], r["low"], r["high"], public_signature(r["signature"])) for key, r in results}


def _size(model: dict) -> str:
    return f"{model['class']}, {model['parameters']:,} parameters"


def _introduction(summary: dict) -> str:
    generator, discriminator = summary["generator"], summary["discriminator"]
    base = _base_model(summary, "generator")
    begun = f" begun as [{base}](https://huggingface.co/{base})," if base else ""
    against = f" against a discriminator ({_size(discriminator)})" if discriminator else ""
    objective = f"the objective {summary['objective']['name']} of seqgan_hf"
    return f"A text generator ({_size(generator)}),{begun} trained{against} with {objective}."


def _usage(folder: RunFolder, summary: dict, model_id: str | None, discriminator_id: str | None) -> str:
    code = ", trust_remote_code=True" if summary["generator"]["carries_code"] else ""
    # runs of before this was recorded have none
    prompt = json.dumps(summary["data"].get("prompt", "").replace("`", "'"), ensure_ascii=False)
    text = f"""## Use

```python
from transformers import pipeline

generator = pipeline("text-generation", model="{model_id or folder.generator}"{code})
for sample in generator({prompt}, num_return_sequences=3):
    print(sample["generated_text"])
```"""
    model = summary["discriminator"]
    if model and not (model_id and discriminator_id == ""):
        place = (discriminator_id or model_id) if model_id else str(folder.discriminator)
        subfolder = "discriminator" if model_id and not discriminator_id else None
        if (folder.discriminator / "tokenizer_config.json").exists():
            question = "How real a text looks to" if model["kind"] == "classifier" else "How likely a text is to"
            text += f"\n\n{question} the discriminator:\n\n{_judge_snippet(model, place, subfolder)}"
        else:
            text += "\n\nThe discriminator reads token ids: no tokenizer could be saved for it."
    if code:
        text += "\n\n`trust_remote_code=True` runs the modeling file that lies beside the weights. After `import "
        text += "seqgan_hf.models` the class of the installed package is used, and the option is not needed."
    return text


def _judge_snippet(model: dict, model_id: str, subfolder: str | None) -> str:
    options = [f'subfolder="{subfolder}"'] if subfolder else []
    options += ["trust_remote_code=True"] if model["carries_code"] else []
    auto, is_classifier = AUTO_CLASSES[model["kind"]], model["kind"] == "classifier"
    return f"""```python
from transformers import {auto}, AutoTokenizer{", pipeline" if is_classifier else ""}

place, options = "{model_id}", dict({", ".join(options)})
model = {auto}.from_pretrained(place, **options)
tokenizer = AutoTokenizer.from_pretrained(place, **options)
{JUDGEMENT if is_classifier else LIKELIHOOD}
```"""


def _objective(summary: dict) -> str:
    objective = summary["objective"]
    citation = f"\n\n```bibtex\n{objective['citation']}\n```" if objective["citation"] else ""
    return f"## Objective\n\n{objective['name']}: {objective['description']}{citation}"


def _data(summary: dict) -> str:
    facts, data = summary["data"], _settings(summary["recipe"]).get("data", {})
    lines = ["## Data", ""]
    if data:
        given = ", ".join(f"{key}={value!r}" for key, value in data.get("init_args", {}).items() if value is not None)
        lines.append(f"- source: `{data['class_path']}({given})`")
    for name, key in (("training sequences", "train"), ("held-out sequences", "held_out")):
        lines.append(f"- {name}: {'unknown (streamed or none)' if facts[key] is None else format(facts[key], ',')}")
    lines.append(f"- vocabulary: {facts['vocab_size']:,} tokens; length: at most {facts['max_new_tokens']} tokens")
    return "\n".join(lines)


def _results(summary: dict, has_picture: bool) -> str:
    evaluation = summary["evaluation"]
    picture = f"\n\n![learning curve]({PICTURE})" if has_picture else ""
    if not evaluation:
        nothing = "Nothing was measured in this run (no held-out data, or evaluation was turned off)."
        return f"## Results\n\n{nothing}{picture}"
    when = "with these weights" if evaluation["of_these_weights"] else "before the end: these weights are later ones"
    measured = f"Measured at `{evaluation['name']}`, {when}; in brackets, 95% confidence intervals."
    flags = [f"- {flag}" for flag in evaluation.get("flags", ())]
    lines = ["## Results", "", measured, "", *flags, *[""] * bool(flags)]
    lines += ["| metric | value | signature |", "|---|---|---|"]
    for key, estimate in _estimates(summary).items():
        signature = estimate.signature.replace("|", "\\|")
        lines.append(f"| {key} | {format_estimate(estimate)} | `{signature}` |")
    lines += ["", "Only values with equal signatures can be compared. `nll_*` are in nats."]
    return "\n".join(lines) + picture


def _samples(folder: RunFolder, summary: dict) -> str:
    path = samples_file(folder, summary)
    if path is None:
        return ""
    lines = path.read_text(encoding="utf-8").splitlines()[:SHOWN_TEXTS]
    shown = "\n".join(line.replace("`", "'") or "(empty)" for line in lines)
    return f"## Samples\n\nThe first {len(lines)} of that evaluation, not selected.\n\n```text\n{shown}\n```"


def _training(summary: dict) -> str:
    done = summary["progress"]
    units = ", ".join(f"{phase} {done[phase]} {unit}s" for phase, unit in UNITS.items() if phase in done)
    cost = f"{summary['global_step']:,} optimizer steps, {summary['seconds']:.0f} s"
    text = f"## Training\n\nDone: {units}; {cost}."
    if summary["recipe"]:
        text += "\n\nThe whole recipe, as `seqgan-hf train recipe.yaml` reads it (of local paths, the last part):"
        text += f"\n\n```yaml\n{summary['recipe'].strip()}\n```"
    return text


def _limits(summary: dict) -> str:
    estimates = _estimates(summary)

    def figures(*prefixes: str) -> str:
        found = [f"{key} {format_value(e.value)}" for key, e in estimates.items() if key.startswith(prefixes)]
        return f" Measured here: {', '.join(found)}." if found else " Not measured in this run."

    remedy = "" if "copy_rate" in estimates else " `seqgan-hf evaluate --model ... --train ...` measures it."
    diversity, copying = figures("nll_test", "self_bleu", "distinct"), figures("copy_rate")
    return f"""## Known limits

- Mode seeking: adversarial training rewards a generator for writing some kinds of text well, not for writing all
  kinds that its corpus holds. Read quality beside diversity and held-out likelihood.{diversity}
- Memorisation: samples can be training texts word for word, or hold long pieces of them.{copying}{remedy}
- Bias: it repeats what its corpus holds, prejudices, errors and private details included; nothing was filtered. It
  knows no facts, and should not be used where somebody relies on what it writes.
- Length and language: it writes at most {summary["data"]["max_new_tokens"]} tokens, in the manner of its corpus."""
