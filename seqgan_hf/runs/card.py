"""The model card of a run, written from what the run recorded: never by hand."""

from __future__ import annotations

import math
import platform
import re
import shutil
from importlib import metadata
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import EvalResult, ModelCard, ModelCardData
from transformers import PreTrainedModel

from seqgan_hf import __version__

from ..evaluation.report import format_value
from .folder import RunFolder
from ..errors import RunFolderError


SHOWN_SAMPLES = 10
PICTURE = "learning_curve.png"
LIBRARIES = ("torch", "transformers", "datasets", "tokenizers", "accelerate")




# --- What a card needs to know of a run ------------------------------------------------------------------------------


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

    What could be an id or a text is a path if it exists here, so this has to be asked where the run takes place.

    Args:
        value: of a setting.
        key: its name.
    """
    if re.match(r"(?!file:)\w{2,}://", value):  # https://, hf://, s3://, but for a name and password in it
        return re.sub(r"//[^/@]*@", "//", value, count=1)
    local = LOCAL_PATH.match(value) is not None or LOCAL_KEYS.search(key) is not None or _exists(value)
    if not local and (REPOSITORY.fullmatch(value) or re.search(r"\s", value)):
        return value
    last = re.split(r"[/\\]", value.rstrip("/\\"))[-1] if local else value.rpartition("/")[2]
    return "~" if last.startswith("~") else last


def _exists(value: str) -> bool:
    try:
        return Path(value).exists()
    except (OSError, ValueError):  # too long for a path, or with a null character in it
        return False


def _public_signature(signature: str) -> str:
    settings = (setting.partition(":") for setting in signature.split("|"))
    return "|".join(f"{name}{colon}{public_name(value, name)}" for name, colon, value in settings)


# --- The card --------------------------------------------------------------------------------------------------------


def write_card(folder: RunFolder) -> Path:
    """Write `README.md` beside the generator of a finished run, and the learning curve that it shows."""
    if folder.own(folder.figures / PICTURE).exists():
        shutil.copyfile(folder.figures / PICTURE, folder.generator / PICTURE)
    path = folder.generator / "README.md"
    path.write_text(str(model_card(folder)), encoding="utf-8")
    return path


def model_card(
    folder: RunFolder,
    model_id: str | None = None,
    discriminator_id: str | None = None,
    license: str | None = None,
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
    summary = read_summary(folder)
    recipe = yaml.safe_load(summary["recipe"]) if summary["recipe"] else {}
    name = (model_id or folder.path.resolve().name).rpartition("/")[2]
    data = _metadata(name, summary, recipe, license or summary["license"])
    parts = [
        f"# {name}",
        _introduction(summary),
        _usage(folder, summary, model_id, discriminator_id),
        _objective(summary),
        _data(summary, recipe),
        _results(summary, has_picture=(folder.generator / PICTURE).exists()),
        _samples(folder, summary),
        _training(summary),
        _limits(summary),
        "## Versions\n\n" + "\n".join(f"- {name}: {version}" for name, version in summary["versions"].items()),
    ]
    body = "\n\n".join(part for part in parts if part)
    return ModelCard(f"---\n{data.to_yaml()}\n---\n\n{body}\n")


def discriminator_card(folder: RunFolder, model_id: str, generator_id: str, license: str | None = None) -> ModelCard:
    """The card of the discriminator in a repository of its own."""
    summary, name = read_summary(folder), model_id.rpartition("/")[2]
    data = ModelCardData(
        license=license or summary["license"],
        library_name="transformers",
        pipeline_tag="text-classification",
        base_model=_base_model(summary, "discriminator"),
        tags=["seqgan-hf", "text-gan", "discriminator"],
    )
    model = summary["discriminator"]
    parts = [
        f"# {name}",
        f"The discriminator ({model['class']}, {model['parameters']:,} parameters) that [{generator_id}]"
        f"(https://huggingface.co/{generator_id}) was trained against by {summary['objective']['name']}. It says how "
        "likely a text is a real one of the corpus, and is calibrated for nothing else: on texts of other sources and "
        "other generators its scores mean little.",
        f"## Use\n\n{_judge_snippet(model_id, None, model['carries_code'])}",
    ]
    return ModelCard(f"---\n{data.to_yaml()}\n---\n\n" + "\n\n".join(parts) + "\n")


def read_summary(folder: RunFolder) -> dict[str, Any]:
    """What the trainer recorded when the run ended."""
    summary = folder.read_summary()
    if summary is None or not folder.generator.is_dir():
        raise RunFolderError(
f"{str(folder.path)!r}",
f"the folder of a run that has ended, with `generator` and `{folder.summary.name}` in it",
"train to the end first, or resume with --training.resume_from_checkpoint true")
    return summary


def _metadata(name: str, summary: dict, recipe: dict, license: str | None) -> ModelCardData:
    arguments = recipe.get("data", {}).get("init_args", {})
    dataset = arguments.get("dataset")
    # a name without an owner may be what is left of a path
    dataset = dataset if isinstance(dataset, str) and REPOSITORY.fullmatch(dataset) else None
    source = recipe.get("data", {}).get("class_path", "text").rpartition(".")[2]
    evaluation = summary["evaluation"]
    results = [
        EvalResult(
            task_type="text-generation",
            dataset_type=dataset or source.lower(),
            dataset_name=dataset or source,
            dataset_split="held-out",
            metric_type=key,
            metric_name=key,
            metric_value=float(value),
            metric_args={"signature": _public_signature(evaluation["signatures"][key])},
        )
        for key, value in _values(evaluation).items()
        if math.isfinite(value)
    ]
    return ModelCardData(
        model_name=name,
        license=license,
        library_name="transformers",
        pipeline_tag="text-generation",
        base_model=_base_model(summary, "generator"),
        tags=["seqgan-hf", "text-gan", summary["objective"]["name"].lower()],
        datasets=[dataset] if dataset else None,
        eval_results=results or None,
    )


def _base_model(summary: dict, section: str) -> str | None:
    """The id on the Hub of the model whose weights the run began with; `None` for new ones and those of a folder."""
    recipe = yaml.safe_load(summary["recipe"]) if summary["recipe"] else {}
    loaded = (recipe.get(section) or {}).get("pretrained")
    # a name without an owner may be what is left of a path
    return loaded if isinstance(loaded, str) and REPOSITORY.fullmatch(loaded) else None


def _values(evaluation: dict) -> dict[str, float]:
    """The values themselves, without their errors and bounds."""
    metrics = evaluation.get("metrics", {})
    return {key: value for key, value in metrics.items() if not re.search(r"_(se|low|high)$", key)}


def _introduction(summary: dict) -> str:
    generator, discriminator = summary["generator"], summary["discriminator"]
    against, base = "", _base_model(summary, "generator")
    if discriminator:
        against = f" against a discriminator ({discriminator['class']}, {discriminator['parameters']:,} parameters)"
    return (
        f"A text generator ({generator['class']}, {generator['parameters']:,} parameters)"
        f"{f', begun as [{base}](https://huggingface.co/{base}),' if base else ','} trained{against} with the "
        f"objective {summary['objective']['name']} of seqgan_hf. This card was written by the training run."
    )


def _usage(folder: RunFolder, summary: dict, model_id: str | None, discriminator_id: str | None) -> str:
    where = model_id or str(folder.generator)
    code = ", trust_remote_code=True" if summary["generator"]["carries_code"] else ""
    call = (
        '"", num_return_sequences=3' if not summary["data"]["conditional"] else '"a condition", num_return_sequences=3'
    )
    lines = [
        "## Use",
        "",
        "```python",
        "from transformers import pipeline",
        "",
        f'generator = pipeline("text-generation", model="{where}"{code})',
        f"for sample in generator({call}):",
        '    print(sample["generated_text"])',
        "```",
    ]
    if summary["discriminator"] and not (model_id and discriminator_id == ""):
        place = (discriminator_id or model_id) if model_id else str(folder.discriminator)
        subfolder = "discriminator" if model_id and not discriminator_id else None
        if (folder.discriminator / "tokenizer_config.json").exists():
            lines += ["", "How real a text looks to the discriminator:", ""]
            lines += [_judge_snippet(place, subfolder, summary["discriminator"]["carries_code"])]
        else:
            lines += ["", "The discriminator reads token ids: no tokenizer could be saved for it."]
    if code:
        lines += ["", "`trust_remote_code=True` runs the modeling file that lies beside the weights. After "]
        lines[-1] += (
            "`import seqgan_hf.models` the class of the installed package is used, and the option is not needed."
        )
    return "\n".join(lines)


def _judge_snippet(model_id: str, subfolder: str | None, carries_code: bool) -> str:
    options = [f'subfolder="{subfolder}"'] if subfolder else []
    options += ["trust_remote_code=True"] if carries_code else []
    return f"""```python
from transformers import AutoModelForSequenceClassification, AutoTokenizer, pipeline

place, options = "{model_id}", dict({", ".join(options)})
model = AutoModelForSequenceClassification.from_pretrained(place, **options)
tokenizer = AutoTokenizer.from_pretrained(place, **options)
judge = pipeline("text-classification", model=model, tokenizer=tokenizer)
print(judge("a text to judge", top_k=None))
```"""


def _objective(summary: dict) -> str:
    objective = summary["objective"]
    citation = f"\n\n```bibtex\n{objective['citation']}\n```" if objective["citation"] else ""
    return f"## Objective\n\n{objective['name']}: {objective['description']}{citation}"


def _data(summary: dict, recipe: dict) -> str:
    facts, data = summary["data"], recipe.get("data", {})
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
        return (
            "## Results\n\nNothing was measured in this run (no held-out data, or evaluation was turned off)."
            + picture
        )
    metrics = evaluation["metrics"]
    when = "with these weights" if evaluation["of_these_weights"] else "before the end: these weights are later ones"
    lines = ["## Results", "", f"Measured at `{evaluation['name']}`, {when}.", ""]
    lines += ["| value | | standard error | signature |", "|---|---|---|---|"]
    for key, value in _values(evaluation).items():
        signature = _public_signature(evaluation["signatures"][key]).replace("|", "\\|")
        lines.append(f"| {key} | {format_value(value)} | {format_value(metrics.get(f'{key}_se'))} | `{signature}` |")
    lines += ["", "Only values with equal signatures can be compared. `nll_*` are in nats."]
    return "\n".join(lines) + picture


def _samples(folder: RunFolder, summary: dict) -> str:
    path = folder.own(folder.samples / f"{summary['evaluation'].get('name')}.txt")
    if not path.exists():
        return ""
    lines = path.read_text(encoding="utf-8").splitlines()[:SHOWN_SAMPLES]
    shown = "\n".join(line.replace("`", "'") or "(empty)" for line in lines)
    return f"## Samples\n\nThe first {len(lines)} of that evaluation, not selected.\n\n```text\n{shown}\n```"


def _training(summary: dict) -> str:
    done = ", ".join(f"{name.replace('_', ' ')} {count}" for name, count in summary["progress"].items())
    lines = [
        "## Training",
        "",
        f"Done: {done}; {summary['global_step']:,} optimizer steps, {summary['seconds']:.0f} s.",
    ]
    if summary["recipe"]:
        lines += ["", "The whole recipe, as `seqgan-hf train recipe.yaml` reads it (of local paths, the last part):"]
        lines += ["", "```yaml", summary["recipe"].strip(), "```"]
    return "\n".join(lines)


def _limits(summary: dict) -> str:
    metrics = summary["evaluation"].get("metrics", {})

    def figures(*prefixes: str) -> str:
        found = [f"{key} {format_value(value)}" for key, value in _values(summary["evaluation"]).items()]
        found = [figure for figure in found if figure.startswith(prefixes)]
        return f" Measured here: {', '.join(found)}." if found else " Not measured in this run."

    remedy = "" if "copy_rate" in metrics else " `seqgan-hf evaluate --model ... --train ...` measures it."
    diversity, copying = figures("nll_test", "self_bleu", "distinct"), figures("copy_rate")
    return f"""## Known limits

- Mode seeking: adversarial training rewards a generator for writing some kinds of text well, not for writing all
  kinds that its corpus holds. Read quality beside diversity and held-out likelihood.{diversity}
- Memorisation: samples can be training texts word for word, or hold long pieces of them.{copying}{remedy}
- Bias: it repeats what its corpus holds, prejudices, errors and private details included; nothing was filtered. It
  knows no facts, and should not be used where somebody relies on what it writes.
- Length and language: it writes at most {summary["data"]["max_new_tokens"]} tokens, in the manner of its corpus."""
