"""What a strict build of the site does not see: missing names, a search that finds nothing, pages too wide to read.

    python -m tests.tools.look_at_site build/site [--pictures FOLDER]

Every page is opened in a headless chromium, where there is one, as narrow as a telephone and as wide as a screen; with
a folder for pictures, one of each page in each width is kept there. `make site` runs it.
"""

from __future__ import annotations

import argparse
import ast
import importlib
import json
import pkgutil
import sys
from pathlib import Path

from sphinx.util.inventory import InventoryFile

import seqgan_hf
from seqgan_hf.evaluation.catalog import METRICS
from tests.tools.demo_pictures import BROWSER_MISSING, find_browser
from tests.tools.documents import snippets


WIDTHS = (400, 1280)  # pixels
# As the index of the search holds them, without endings: a word of a page's text, and one of its title.
SEARCHED = {"collaps": ("terms", "learn/first-hour"), "rankgan": ("titleterms", "methods/rankgan")}


def exported() -> set[str]:
    """What packages and modules name in `__all__`, and the functions of metrics."""
    found = {metric.function.__name__ for metric in METRICS.values()} | {*seqgan_hf.__all__}
    for module in pkgutil.walk_packages(seqgan_hf.__path__, "seqgan_hf."):
        if not module.name.endswith("__main__"):
            found |= {*getattr(importlib.import_module(module.name), "__all__", ())}
    return found


def imported() -> set[str]:
    """What the Python of the documents imports from the package."""
    trees = [ast.parse(snippet.text) for snippet in snippets() if snippet.language == "python"]
    nodes = [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    return {each.name for node in nodes if (node.module or "").partition(".")[0] == "seqgan_hf" for each in node.names}


def unlisted(site: Path) -> list[str]:
    """Public names that the reference does not show."""
    found = InventoryFile.loads((site / "objects.inv").read_bytes(), uri="").data
    kinds = ("py:class", "py:function", "py:exception", "py:data")
    shown = {name.rpartition(".")[2] for kind in kinds for name in found.get(kind, ())}
    return sorted((exported() | imported()) - shown)


def unfound(site: Path) -> list[str]:
    """Words that the site's search does not know to be on their pages."""
    text = (site / "searchindex.js").read_text(encoding="utf-8")
    index = json.loads(text[text.index("{") : text.rindex("}") + 1])
    missing = []
    for word, (kind, page) in SEARCHED.items():
        pages = index[kind].get(word, [])  # one page is its number alone
        if index["docnames"].index(page) not in (pages if isinstance(pages, list) else [pages]):
            missing.append(f"{page}: not found by a search for {word}")
    return missing


def too_wide(site: Path, pictures: Path | None) -> list[str]:
    """Pages that are wider than a window, or ask for what is not on the site."""
    from playwright.sync_api import sync_playwright

    problems = []
    with sync_playwright() as browsers:
        browser = browsers.chromium.launch(executable_path=find_browser(), args=["--no-sandbox"])
        for width in WIDTHS:
            page = browser.new_page(viewport={"width": width, "height": 900})
            page.on("request", lambda asked: asked.url.startswith("http") and problems.append(f"asks for {asked.url}"))
            for file in sorted(path for path in site.rglob("*.html") if "_modules" not in path.parts):
                page.goto(file.as_uri(), wait_until="load")
                name = file.relative_to(site)
                if (needed := page.evaluate("document.documentElement.scrollWidth")) > width:
                    problems.append(f"{name}: {needed} pixels wide in a window of {width}")
                if pictures is not None:
                    page.screenshot(path=pictures / f"{'-'.join(name.with_suffix('').parts)}-{width}.png")
        browser.close()
    return problems


def main() -> int:
    parser = argparse.ArgumentParser(description="Looks at a site that was built.")
    parser.add_argument("site", type=Path)
    parser.add_argument("--pictures", type=Path, help="a folder for pictures of all pages")
    options = parser.parse_args()
    site, pictures = options.site.resolve(), options.pictures
    problems = [f"{name}: public, and not in the reference" for name in unlisted(site)]
    problems += unfound(site)
    if find_browser() is not None:
        if pictures is not None:
            pictures.mkdir(parents=True, exist_ok=True)
        problems += too_wide(site, pictures)
    elif pictures is not None:
        problems.append(f"no pictures: {BROWSER_MISSING}")
    else:
        print(f"the pages are not looked at: {BROWSER_MISSING}")
    print("\n".join(problems))
    return int(bool(problems))


if __name__ == "__main__":
    sys.exit(main())
