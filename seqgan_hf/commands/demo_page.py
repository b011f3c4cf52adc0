"""The page of the demo, built with gradio."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, get_args

import gradio as gr
from matplotlib.image import imread

from ..errors import UserError
from ..evaluation.report import format_value
from ..runs.card import run_facts
from ..runs.curves import TITLES, draw_runs
from ..runs.folder import RunFolder
from ..runs.record import Run, measured_metrics, read_runs
from .demo_texts import Colours, Written, show, write
from .generate import Drawing


CSS = """
.runs { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(20rem, 100%), 1fr)); gap: 1rem 2rem; }
.runs h3 { margin: 0 0 .5rem; overflow-wrap: anywhere; }
.runs ol { list-style: none; margin: 0; padding: 0; }
.runs li { display: flex; gap: .75rem; align-items: baseline; padding: .35rem 0; line-height: 1.7; }
.runs .text { white-space: pre-wrap; overflow-wrap: anywhere; min-width: 0; }
.runs mark { color: #111; padding: .15em 0; }
.runs .prompt, .runs .verdict, .legend { color: var(--block-title-text-color); }
.runs .verdict { font-variant-numeric: tabular-nums; font-size: .85rem; }
.runs .problem { color: #c2410c; font-weight: 600; overflow-wrap: anywhere; }
.runs .note { font-style: italic; overflow-wrap: anywhere; }
#curves img { max-height: 24rem; object-fit: contain; }
.legend { margin: 0 0 .35rem; font-size: .85rem; }
.legend .bar { display: inline-block; width: 8rem; height: .8em; border-radius: 2px; vertical-align: middle; }
"""
LOOK: dict[str, Any] = {"css": CSS, "theme": gr.themes.Default(), "footer_links": []}
INTRODUCTION = (
    "### seqgan-hf demo\nA text GAN writes; the colour behind each token says how real its discriminator finds it."
)


def build_page(runs: Sequence[str], fixed: bool) -> gr.Blocks:
    """The page for one or two runs; with `fixed` nobody can name others."""
    names = [*runs, ""][:2]
    with gr.Blocks(title="seqgan-hf demo", analytics_enabled=False) as page:
        gr.Markdown(INTRODUCTION)
        if fixed:  # kept by the server, where no visitor changes them
            boxes: list[Any] = [gr.State(name) for name in names]
        else:
            with gr.Row():
                labels = "Run", "Beside it (may be empty)"
                boxes = [
                    gr.Textbox(name, label=label, min_width=280) for name, label in zip(names, labels, strict=True)
                ]
        with gr.Row(equal_height=True):
            prompt = gr.Textbox(label="Prompt", placeholder="every sample begins with it", scale=6, min_width=280)
            button = gr.Button("Write", variant="primary", scale=0, min_width=140)
        settings = _settings()
        with gr.Tab("Texts"):
            texts = gr.HTML(elem_id="texts")
        with gr.Tab("Learning curves"):
            metrics = gr.Dropdown(label="Metrics", multiselect=True)
            picture = gr.Image(show_label=False, buttons=["download", "fullscreen"], elem_id="curves")
            notes, values = gr.Markdown(elem_id="notes"), gr.Markdown(elem_id="values")
        with gr.Tab("About the runs"), gr.Row():
            facts = [gr.Markdown(elem_id=name) for name in ("facts", "facts_beside")]
        named = [page.load, *(box.submit for box in boxes if not fixed)]
        gr.on(named, describe, boxes, [metrics, picture, notes, values, *facts], api_name="describe")
        gr.on(metrics.input, draw, [*boxes, metrics], [picture, notes], api_name="draw")
        written = [*boxes, prompt, *settings]
        gr.on([*named, button.click, prompt.submit], write_texts, written, texts, api_name="write")
    return page


def _settings() -> list[gr.components.Component]:
    """What is asked for beside the prompt, in the order of the arguments of `write_texts`."""
    with gr.Row():
        drawing = [
            gr.Slider(0, 2, 1, step=0.05, label="Temperature", info="0: greedy"),
            gr.Slider(0.05, 1, 1, step=0.05, label="Top-p", info="1: all tokens"),
            gr.Slider(1, 20, 5, step=1, label="Samples", info="of each run"),
            gr.Number(0, label="Seed", info="empty: another each time", precision=0),
        ]
    with gr.Row():
        choices = list(get_args(Colours))
        colours = gr.Radio(choices, value=choices[0], label="Colours", scale=3)
        rollouts = gr.Slider(1, 32, 8, step=1, label="Rollouts", info="for action values", scale=1)
    return [*drawing, colours, rollouts]


def write_texts(
    first: str,
    second: str,
    prompt: str,
    temperature: float,
    top_p: float,
    number: int,
    seed: int | None,
    colours: Colours,
    rollouts: int,
) -> str:
    """Samples of one run or two as HTML, or in their place what is wrong."""
    names = _named(first, second)
    results: list[Written | UserError] = []
    for name in names:
        try:
            drawing = Drawing(temperature=temperature, top_p=top_p, seed=seed)
            results.append(write(name, prompt, int(number), drawing, colours, int(rollouts)))
        except UserError as error:
            results.append(error)
    return show(_labels(names), results, colours, rollouts)


def describe(first: str, second: str) -> list[Any]:
    """What was measured, its learning curves and last values, and what each run is; or what is wrong with it."""
    names = _named(first, second)
    runs, _ = _read(names)
    measured = measured_metrics(runs)
    chosen = [name for name in TITLES if name in measured] or measured[:1]
    values = _last_values(runs, measured) if runs else ""
    record = [gr.Dropdown(measured, value=chosen), *draw(first, second, chosen), values]
    facts = [f"# {label}\n\n{_facts(name)}" for label, name in zip(_labels(names), names, strict=True)]
    return [*record, facts[0], gr.Markdown("".join(facts[1:]), visible=len(facts) > 1)]


def _facts(name: str) -> str:
    try:
        return run_facts(RunFolder(Path(name)))
    except UserError as error:
        return str(error)


def draw(first: str, second: str, metrics: Sequence[str]) -> tuple[gr.Image, str]:
    """Learning curves, a panel for each metric, and notes on what they do not show."""
    runs, problems = _read(_named(first, second))
    with TemporaryDirectory() as folder:
        path = Path(folder) / "curves.png"
        drawn, notes = draw_runs(runs, path, metrics) if runs else (False, [])
        image = gr.Image(imread(path) if drawn else None, visible=drawn)
        return image, "\n".join(f"- {note}" for note in [*problems, *notes])


def _read(names: Sequence[str]) -> tuple[list[Run], list[str]]:
    """The records that can be read, and what is wrong with the others."""
    runs: list[Run] = []
    held, problems = list[str](), list[str]()
    for name in names:
        try:
            runs = read_runs([*held, name])
            held.append(name)
        except UserError as error:
            problems.append(str(error))
    for run, label in zip(runs, _labels(held), strict=True):
        run.label = label
    return runs, problems


def _labels(names: Sequence[str]) -> list[str]:
    """The last part of each name, where that tells them apart."""
    short = [Path(name).name or name for name in names]
    return short if len(set(short)) == len(short) else list(names)


def _last_values(runs: Sequence[Run], metrics: Sequence[str]) -> str:
    """A table: a row for each metric, a column for each run."""
    lines = [f"| measured last | {' | '.join(run.label for run in runs)} |", "|---" * (len(runs) + 1) + "|"]
    for metric in metrics:
        values = [run.last(metric) for run in runs]
        cells = ["-" if value is None else format_value(value) for value in values]
        lines.append(f"| {metric} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _named(first: str, second: str) -> list[str]:
    """The runs that are named; the first is asked for in any case."""
    return [first.strip(), *([second.strip()] if second.strip() else [])]
