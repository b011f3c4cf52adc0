"""The demo in a real browser: a served page, and pictures of it.

    python -m tests.tools.demo_pictures RUN [RUN] --output docs/figures [--prompt TEXT] [--name NAME]

writes `demo.png`, `demo_narrow.png` and `demo_curves.png`; with a name, the first alone, as `NAME.png`. It needs
playwright, and Debian's chromium.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


BROWSERS = ("chromium", "chromium-browser", "google-chrome")
BROWSER_MISSING = "no chromium (apt-get install chromium)"
SIZES = {"demo": (1200, 800), "demo_narrow": (390, 800)}


def find_browser() -> str | None:
    """The program of a browser; `None` if there is none."""
    return next(filter(None, map(shutil.which, BROWSERS)), None)


@contextmanager
def serving(call: list[str], folder: Path | None = None, **environment: str) -> Iterator[str]:
    """The address of the page that a command serves; it is ended with the block."""
    process = subprocess.Popen(
        call, cwd=folder, env=os.environ | environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        line = process.stdout.readline()
        address = re.search(r"http://\S+", line)
        if address is None:
            raise RuntimeError(f"the page is not there: {line}{process.stderr.read()}")
        yield address[0].rstrip("/")
    finally:
        process.terminate()
        process.communicate(timeout=30)


def demo(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "seqgan_hf", "demo", *arguments]


@contextmanager
def browser() -> Iterator[Any]:
    """Chromium without a window."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        # a container's root may open no sandbox
        opened = play.chromium.launch(executable_path=find_browser(), args=["--no-sandbox"])
        try:
            yield opened
        finally:
            opened.close()


def take_pictures(opened: Any, address: str, folder: Path, prompt: str = "") -> list[Path]:
    """The page with texts, wide and narrow, and with learning curves; returns the files."""
    files = []
    for name in SIZES:
        with texts_in(opened, address, prompt, name) as page:
            files.append(folder / f"{name}.png")
            page.screenshot(path=files[-1], full_page=True)
            if name == "demo":
                page.get_by_role("tab", name="Learning curves").click()
                page.locator("#curves img").wait_for()
                files.append(folder / "demo_curves.png")
                top = {"x": 0, "y": 0, "width": SIZES[name][0], "height": 1300}  # the first of what was measured
                page.screenshot(path=files[-1], full_page=True, clip=top)
    return files


def take_texts(opened: Any, address: str, file: Path, prompt: str = "") -> Path:
    """The wide page with texts; returns the file."""
    with texts_in(opened, address, prompt) as page:
        page.screenshot(path=file, full_page=True)
    return file


@contextmanager
def texts_in(opened: Any, address: str, prompt: str, size: str = "demo") -> Iterator[Any]:
    """The page with texts that begin with a prompt."""
    width, height = SIZES[size]
    page = opened.new_page(viewport={"width": width, "height": height})
    try:
        page.goto(address)
        write(page, prompt)
        page.wait_for_timeout(500)  # what is new fades in
        yield page
    finally:
        page.close()


def write(page: Any, prompt: str) -> None:
    """Type a prompt, and wait for texts that begin with it."""
    page.locator("#texts li").first.wait_for()
    page.get_by_label("Prompt").fill(prompt)
    page.get_by_role("button", name="Write").click()
    page.locator("#texts .prompt", has_text=prompt).first.wait_for()
    page.locator(".generating, .progress-text").first.wait_for(state="detached")


def main() -> None:
    parser = argparse.ArgumentParser(description="Pictures of the demo.")
    parser.add_argument("runs", nargs="+")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--prompt", default="")
    parser.add_argument("--name", help="of one picture, of the texts alone")
    options = parser.parse_args()
    with serving(demo(*options.runs)) as address, browser() as opened:
        if options.name:
            print(take_texts(opened, address, options.output / f"{options.name}.png", options.prompt))
        else:
            print(*take_pictures(opened, address, options.output, options.prompt), sep="\n")


if __name__ == "__main__":
    main()
