"""The demo as a person meets it: a run, its page, and a browser."""

from __future__ import annotations

import struct
from importlib.util import find_spec

import pytest

from seqgan_hf.commands import main
from tests.tools.demo_pictures import (
    BROWSER_MISSING,
    browser,
    demo,
    find_browser,
    serving,
    take_pictures,
    take_texts,
    write,
)
from tests.tools.small_runs import ROOT, quickstart, short_run


# not imported here, which would take each worker of the suite two seconds
MISSING = [name for name in ("gradio", "playwright") if find_spec(name) is None]
pytestmark = [
    pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)}"),
    pytest.mark.skipif(find_browser() is None, reason=BROWSER_MISSING),
]


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    assert main(short_run(ROOT / "recipes/text/grammar.yaml", folder / "words", folder)) == 0
    assert main(quickstart(folder / "ids")) == 0
    with serving(demo(str(folder / "words"), str(folder / "ids"))) as url:
        yield url


@pytest.fixture(scope="module")
def opened():
    with browser() as program:
        yield program


@pytest.fixture
def page(opened, address):
    """A page in which nothing goes wrong and that asks no other machine for anything."""
    page, wrong = opened.new_page(), []
    page.set_default_timeout(60_000)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("request", lambda request: wrong.append(request.url) if not own(request.url, address) else None)
    page.goto(address)
    page.locator("#texts li").first.wait_for()
    yield page
    page.close()
    assert wrong == []


def own(url: str, address: str) -> bool:
    return url.startswith((address, address.replace("127.0.0.1", "localhost"), "data:", "blob:"))


def texts(page, column: int) -> list[str]:
    return page.locator("#texts section").nth(column).locator("li .text").all_inner_texts()


def test_a_prompt_is_continued_with_a_colour_behind_each_token(page):
    write(page, "the dog")
    page.get_by_label("Beside it").fill("")
    page.get_by_label("Beside it").press("Enter")
    page.locator("#texts section").nth(1).wait_for(state="detached")
    written = texts(page, 0)
    assert len(written) == 5 and all(text.startswith("the dog") for text in written)
    marks = page.locator("#texts mark")
    colours = set(marks.evaluate_all("marks => marks.map(mark => getComputedStyle(mark).backgroundColor)"))
    assert len(colours) > 3 and "rgba(0, 0, 0, 0)" not in colours
    page.get_by_label("none").check()
    page.get_by_role("button", name="Write").click()
    marks.first.wait_for(state="detached")
    assert texts(page, 0)[0].rstrip("∎") == written[0].rstrip("∎")  # the seed is the same


def test_at_temperature_0_all_samples_are_equal(page):
    before = texts(page, 0)
    assert len(set(before)) > 1
    page.get_by_label("number input for Temperature").fill("0")
    page.get_by_label("number input for Temperature").press("Tab")
    page.get_by_role("button", name="Write").click()
    page.locator("#texts li", has_text=before[1][:30]).first.wait_for(state="detached")
    assert [len(set(texts(page, column))) for column in (0, 1)] == [1, 1]


def test_what_is_no_run_and_words_that_are_not_known_are_named_in_the_page(page):
    run = page.get_by_label("Run", exact=True)
    known = run.input_value()
    run.fill("nowhere/at/all")
    run.press("Enter")
    problem = page.get_by_role("alert").filter(has_text="no folder 'nowhere/at/all': expected a run's folder")
    problem.wait_for()
    assert len(texts(page, 1)) == 5  # the other run goes on
    run.fill(known)
    page.get_by_label("Prompt").fill("the <b>zebra</b> ${1 + 1} {{value}}")
    page.get_by_role("button", name="Write").click()
    page.locator(".note").wait_for()
    assert "'<b>zebra</b>'" in page.locator(".note").inner_text()
    assert texts(page, 0)[0].startswith("the <b>zebra</b> ${1 + 1} {{value}} ")
    assert "in a text of integer ids" in page.get_by_role("alert").inner_text()


def test_curves_can_be_chosen_and_facts_stand_side_by_side(page):
    page.get_by_role("tab", name="Learning curves").click()
    picture = page.locator("#curves img")
    picture.wait_for()
    before = picture.get_attribute("src")
    page.get_by_label("Metrics").click()
    page.get_by_role("option", name="reward", exact=True).click()
    page.wait_for_function("before => document.querySelector('#curves img').getAttribute('src') != before", arg=before)
    assert "nll_oracle" in page.locator("#values").inner_text()
    page.get_by_role("tab", name="About the runs").click()
    for place, size in (("#facts", "131"), ("#facts_beside", "20")):
        page.locator(place).filter(has_text=f"vocabulary: {size} tokens").wait_for()


def test_pictures_of_the_page_hold_all_of_it(opened, address, tmp_path):
    files = take_pictures(opened, address, tmp_path, "the")
    assert [file.name for file in files] == ["demo.png", "demo_curves.png", "demo_narrow.png"]
    for file in [*files, take_texts(opened, address, tmp_path / "words.png", "the")]:
        width, height = struct.unpack(">II", file.read_bytes()[16:24])
        assert width == (390 if "narrow" in file.name else 1200) and height > 700
    page = opened.new_page(viewport={"width": 390, "height": 800})
    page.goto(address)
    page.locator("#texts li").first.wait_for()
    assert page.evaluate("document.documentElement.scrollWidth") <= 390  # nothing has to be scrolled sideways
    page.close()
