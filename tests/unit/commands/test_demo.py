"""`seqgan-hf demo`: texts with their colours, the page that shows them, and what it says of mistakes."""

from __future__ import annotations

import json
import re
import socket
from html import unescape
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image
from transformers import PreTrainedTokenizerBase

from seqgan_hf.commands import demo, main
from seqgan_hf.commands.demo_texts import END, colour, load_players, show, write
from seqgan_hf.commands.generate import Drawing, generate_texts
from seqgan_hf.data.tokenization import TokenizerConfig, build_tokenizer, integer_tokenizer
from seqgan_hf.errors import UserError
from seqgan_hf.evaluation.loading import encode_prompts, load_generator
from seqgan_hf.models import (
    CNNDiscriminatorConfig,
    CNNDiscriminatorForSequenceClassification,
    RNNGeneratorConfig,
    RNNGeneratorForCausalLM,
)
from tests.tools.judges import save_judge
from tests.tools.small_runs import quickstart


LINES = {"word": ["a dog sees <b>the</b> river", "the dog & a cat"], "char": ["床前明月光，", "疑是地上霜。"]}
PROMPTS = {"word": "a dog", "char": "床前", "ids": "3 4"}


@pytest.fixture(autouse=True)
def nothing_loaded():
    """Players are kept by the names of their folders, which another test may have had."""
    load_players.cache_clear()


def tokenizer_of(kind: str) -> PreTrainedTokenizerBase:
    if kind == "ids":
        return integer_tokenizer(12, bos_token_id=0)
    return build_tokenizer(TokenizerConfig(kind), lambda: [LINES[kind]])


def save(folder: Path, kind: str, judge: str | None = "ids", labels: int = 2) -> str:
    """Fresh models as a run leaves them, without its record; returns the folder's name."""
    torch.manual_seed(0)
    tokenizer = tokenizer_of(kind)
    tokens = {"vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id or 0}
    ends = {"bos_token_id": tokenizer.bos_token_id or 0, "eos_token_id": tokenizer.eos_token_id}
    config = RNNGeneratorConfig(embedding_size=6, hidden_size=8, initializer_range=1.0, **tokens, **ends)
    generator = RNNGeneratorForCausalLM(config)
    generator.generation_config.max_new_tokens = 8
    generator.save_pretrained(folder / "generator")
    tokenizer.save_pretrained(folder / "generator")
    if judge == "ids":
        sizes = {"embedding_size": 6, "filter_sizes": [1, 2], "num_filters": [4, 4]}
        sizes["id2label"] = dict(enumerate(["generated", "happy", "sad"] if labels == 3 else ["FAKE", "REAL"]))
        model = CNNDiscriminatorForSequenceClassification(CNNDiscriminatorConfig(**tokens, **sizes))
        model.save_pretrained(folder / "discriminator")
    elif judge == "text":
        settings = Path(save_judge(folder / "discriminator"), "config.json")
        settings.write_text(json.dumps(json.loads(settings.read_text()) | {"reads": "text"}))
    return str(folder)


# --- Texts -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prompted", [True, False])
@pytest.mark.parametrize("kind", PROMPTS)
def test_the_demo_writes_what_generate_writes(kind, prompted, tmp_path):
    run, prompt = save(tmp_path, kind), PROMPTS[kind] if prompted else ""
    drawing = Drawing(temperature=1.2, top_p=0.95, seed=3)
    written = write(run, prompt, 30, drawing, "none", 1)
    texts = generate_texts(load_generator(run, "cpu"), 30, prompt or None, drawing=drawing)
    assert written.values is None and written.notes == []
    page = unescape(re.sub(r"<[^>]*>", "", re.sub(r"</li>", "\n", show([""], [written], "none", 1))))
    assert [line.removesuffix(END) for line in page.splitlines()] == texts
    generator = load_generator(run, "cpu")
    [samples] = drawing.draw(generator.model, encode_prompts(generator, [prompt] * 30), None)
    ended = (samples.ids == generator.model.config.eos_token_id).any(dim=1).tolist() if kind != "ids" else [False] * 30
    assert [line.endswith(END) for line in page.splitlines()] == ended and any(ended) == (kind != "ids")


@pytest.mark.parametrize("colours", ["action values", "verdicts on prefixes"])
@pytest.mark.parametrize("judge", ["ids", "text"])
@pytest.mark.parametrize("kind", PROMPTS)
def test_every_token_has_its_colour(kind, judge, colours, tmp_path):
    """For words, characters without spaces and ids, with classifiers that read ids or text."""
    written = write(save(tmp_path, kind, judge), PROMPTS[kind], 5, Drawing(seed=0), colours, 2)
    assert written.notes == [] and ((written.values >= 0) & (written.values <= 1)).all()
    page = show(["a run"], [written], colours, 2)
    marks = re.findall(r'<mark style="background:(#\w{6})" title="([\d.]+)">(.*?)</mark>', page)
    rows = zip(written.pieces, written.values.tolist(), strict=True)
    expected = [value for pieces, values in rows for value in values[: len(pieces)]]
    assert [(css, title) for css, title, _ in marks] == [(colour(value), f"{value:.3f}") for value in expected]
    assert len({css for css, _, _ in marks}) > 1 or (kind, judge) == ("char", "text")  # which knows Latin letters only
    assert "Mean D over 2 completions" in page if colours == "action values" else "as if it ended there" in page


def test_colours_go_from_red_to_blue():
    red, blue = (tuple(int(css[i : i + 2], 16) for i in (1, 3, 5)) for css in (colour(0.0), colour(1.0)))
    assert red[0] > red[2] and blue[2] > blue[0]


def test_what_a_discriminator_cannot_say_is_said_instead(tmp_path):
    """None is there, or one that tells more than real from generated."""
    alone, classes = save(tmp_path / "alone", "word", None), save(tmp_path / "classes", "word", labels=3)
    for run, reason in (
        (alone, "holds no discriminator"),
        (classes, "tells 3 classes apart"),
    ):
        for colours in ("action values", "verdicts on prefixes"):
            written = write(run, "", 2, Drawing(seed=0), colours, 1)
            [note] = written.notes
            assert note.startswith("No colours: ") and reason in note
            page = show(["a run"], [written], colours, 1)
            assert note in unescape(page) and "<mark" not in page and "legend" not in page
        assert write(run, "", 2, Drawing(seed=0), "none", 1).notes == []


def test_texts_and_names_are_no_html(tmp_path):
    written = write(save(tmp_path, "word"), "<i>a</i>", 8, Drawing(seed=0), "none", 1)
    assert written.notes == ["Not known to the generator, which reads each as unknown: '<i>a</i>'"]
    coloured = write(str(tmp_path), "", 8, Drawing(seed=0), "verdicts on prefixes", 1)
    page = show(["<u>", "b", "c"], [written, UserError("<s>"), coloured], "verdicts on prefixes", 1)
    assert set(re.findall(r"</?(\w+)", page)) == {"div", "section", "h3", "ol", "li", "span", "p", "mark"}
    assert (
        "&lt;s&gt;" in page and page.count("&lt;b&gt;the&lt;/b&gt;") > page.count("&lt;b&gt;the&lt;/b&gt;</mark>") > 0
    )


def test_mistakes_in_a_prompt_are_those_of_generate(tmp_path):
    with pytest.raises(UserError, match="'dog' in a text of integer ids: expected ids from 0 to 11"):
        write(save(tmp_path, "ids"), "dog", 1, Drawing(), "none", 1)
    generator, *_ = load_players(save(tmp_path / "other", "word"))
    generator.model.config.conditional = True
    with pytest.raises(UserError, match="without prompts, which it was trained to continue"):
        write(str(tmp_path / "other"), "", 1, Drawing(), "none", 1)


# --- The command -----------------------------------------------------------------------------------------------------


def test_without_gradio_one_line_says_what_to_install(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(demo, "find_spec", lambda name: None)
    assert main(["demo", str(tmp_path)]) == 1
    assert capsys.readouterr().err == 'seqgan-hf: The demo needs gradio. Run `pip install "seqgan-hf[demo]"`.\n'


def test_the_page_is_closed_by_an_interrupt(monkeypatch, capsys):
    """As any command: one line, and the exit status of an interrupt."""
    page = Mock(**{"launch.return_value": (None, "http://127.0.0.1:1", None)})
    monkeypatch.setattr(demo, "load_players", Mock())
    monkeypatch.setattr("seqgan_hf.commands.demo_page.build_page", lambda *arguments: page)
    monkeypatch.setattr(demo.threading, "Event", lambda: Mock(**{"wait.side_effect": KeyboardInterrupt}))
    assert main(["demo", "run"]) == 130
    page.close.assert_called_once()
    out, err = capsys.readouterr()
    assert out == "The demo is at http://127.0.0.1:1 until you press Ctrl-C.\n" and err == "seqgan-hf: interrupted\n"


def test_mistakes_are_one_line_on_the_terminal(tmp_path, capsys):
    pytest.importorskip("gradio")
    (tmp_path / "empty").mkdir()
    (tmp_path / "cut").mkdir()
    (tmp_path / "cut" / "metrics.jsonl").write_text("{}\n")
    run = save(tmp_path / "run", "ids")
    capsys.readouterr()  # what saving it wrote
    for runs, message in (
        (["nowhere/at/all"], "no folder 'nowhere/at/all': expected a run's folder"),
        ([run, str(tmp_path / "empty")], "holds no model: expected a run's folder"),
        ([str(tmp_path / "cut")], "has not ended, so it holds no generator yet"),
    ):
        assert main(["demo", *runs]) == 1
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1 and "Unexpected" not in error
    for port in ("0", "65536"):
        assert main(["demo", run, "--port", port]) == 1
        assert f"port {port}: expected a number from 1 to 65535" in capsys.readouterr().err
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert main(["demo", run, "--port", str(port)]) == 1
    line = f"seqgan-hf: port {port} is taken: expected a free one. Set --port, or leave it out to have one found.\n"
    assert capsys.readouterr().err.lower() == line.lower()


# --- The page, through gradio's client -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A run with its record."""
    folder = tmp_path_factory.mktemp("runs")
    assert main(quickstart(folder / "oracle")) == 0
    return folder / "oracle"


@pytest.fixture
def ask(request):
    """Serves the page of some runs, and gives a client of it."""
    gradio, client = pytest.importorskip("gradio"), pytest.importorskip("gradio_client")
    from seqgan_hf.commands.demo_page import build_page

    pages = []

    def serve(*runs, fixed: bool = False):
        pages.append(build_page([str(run) for run in runs], fixed))
        _, url, _ = pages[-1].launch(prevent_thread_lock=True, quiet=True)
        return client.Client(url, verbose=False)

    yield serve
    for page in pages:
        page.close()
    gradio.close_all()


def test_the_page_answers_for_one_run_and_for_two(ask, trained, tmp_path):
    other = save(tmp_path / "words", "word")
    client = ask(trained, other)
    page = client.predict(prompt="", number=3, api_name="/write")
    assert re.findall("<h3>(.*?)</h3>", page) == ["oracle", "words"] and page.count("<li>") == 6 and "<mark" in page
    assert page == client.predict(prompt="", number=3, seed=0, api_name="/write")
    assert page != client.predict(prompt="", number=3, seed=1, api_name="/write")
    cold = client.predict(prompt="", number=3, temperature=0, colours="none", api_name="/write")
    assert [len(set(re.findall("<li>.*?</li>", part))) for part in cold.split("</ol>")[:2]] == [1, 1]
    page = client.predict(second="", prompt="1 2", number=2, api_name="/write")
    assert page.count("<section>") == 1 and page.count('<span class="prompt">1 2</span>') == 2
    page = client.predict(first="nowhere/at/all", prompt="", api_name="/write")
    assert 'role="alert">no folder &#x27;nowhere/at/all&#x27;' in page and page.count("<li>") == 5
    assert "Seed" not in page
    page = client.predict(prompt="", seed=-1, api_name="/write")
    assert page.count("seed=-1: expected a number from 0 to 2**63 - 1") == 2


@pytest.fixture
def figures(monkeypatch) -> list[tuple[Figure, np.ndarray]]:
    """Figures, and the pixels of their files."""
    kept, save = [], Figure.savefig

    def keep(figure: Figure, path: str, **options) -> None:
        save(figure, path, **options)
        kept.append((figure, pixels(path)))

    monkeypatch.setattr(Figure, "savefig", keep)
    return kept


def pixels(path: str) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB"), float)


def shows(picture: dict | str, kept: tuple[Figure, np.ndarray], last: dict) -> bool:
    """Whether the page's picture is the figure, whose curves end with the last line of the record."""
    figure, drawn = kept
    ends = [axes.lines[0].get_ydata()[-1] for axes in figure.axes]
    found = pixels(picture["value"] if isinstance(picture, dict) else picture)  # compressed on its way
    assert ends == [last[name] for name in ("nll_oracle", "nll_test", "jsd_oracle")]
    return found.shape == drawn.shape and np.abs(found - drawn).mean() < 2


def test_the_page_shows_what_a_run_has_measured_and_learnt_from(ask, trained, figures, tmp_path):
    client = ask(trained)
    metrics, picture, notes, values, facts, beside = client.predict(api_name="/describe")
    assert metrics["value"] == ["nll_oracle", "nll_test", "jsd_oracle"] and notes == ""
    last = json.loads((trained / "metrics.jsonl").read_text().splitlines()[-1])
    assert shows(picture, figures[-1], last)
    assert f"| nll_oracle | {last['nll_oracle']:.3f} |" in values
    assert "- training sequences: 64\n" in facts and "SeqGAN" in facts and facts.startswith("# oracle\n")
    saved = save(tmp_path / "saved", "word")
    metrics, picture, notes, values, facts, beside = client.predict(second=saved, api_name="/describe")
    assert "holds no metrics.jsonl" in beside["value"] and "training sequences" in facts
    # what is wrong with one run takes nothing from the other
    assert metrics["value"] == ["nll_oracle", "nll_test", "jsd_oracle"] and "metrics.jsonl" in notes
    assert len(figures) == 2 and shows(picture, figures[-1], last)
    assert f"| nll_oracle | {last['nll_oracle']:.3f} |" in values
    metrics, picture, notes, values, *_ = client.predict(first=saved, second=str(trained), api_name="/describe")
    assert "metrics.jsonl" in notes and f"| nll_oracle | {last['nll_oracle']:.3f} |" in values
    metrics, picture, notes, values, *_ = client.predict(first=saved, api_name="/describe")
    assert metrics["value"] == [] and "metrics.jsonl" in notes and values == ""


def test_visitors_of_a_fixed_page_cannot_name_other_runs(ask, tmp_path):
    client = ask(save(tmp_path / "words", "word"), fixed=True)
    known = client.view_api(return_format="dict")["named_endpoints"]
    named = {each["parameter_name"] for endpoint in known.values() for each in endpoint["parameters"]}
    assert not named & {"first", "second"}
    assert client.predict(prompt="a", number=2, api_name="/write").count("<li>") == 2
