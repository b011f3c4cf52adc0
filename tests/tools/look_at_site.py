"""What a strict build of the site does not see: missing names, a search that finds nothing, pages too wide to read.

    python tests/tools/look_at_site.py build/site [PICTURES]

Every page is opened in a headless chromium, where there is one, as narrow as a telephone and as wide as a screen; with
a second folder, pictures of all pages are kept there. `make site` runs it.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

from sphinx.util.inventory import InventoryFile

import seqgan_hf
from seqgan_hf import objectives


WIDTHS = (400, 1280)  # pixels
# As the index of the search holds them, without endings: a word of a page's text, and one of its title.
SEARCHED = {"collaps": ("terms", "learn/first-hour"), "rankgan": ("titleterms", "methods/rankgan")}


def unlisted(site: Path) -> list[str]:
    """Public names that the reference does not show."""
    found = InventoryFile.loads((site / "objects.inv").read_bytes(), uri="").data
    kinds = ("py:class", "py:function", "py:exception", "py:data")
    shown = {name.rpartition(".")[2] for kind in kinds for name in found.get(kind, ())}
    return sorted({*seqgan_hf.__all__, *objectives.__all__} - shown)


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
        browser = browsers.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
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


def main(site: str, pictures: str | None = None) -> int:
    folder = Path(site).resolve()
    problems = [f"{name}: public, and not in the reference" for name in unlisted(folder)]
    problems += unfound(folder)
    if shutil.which("chromium"):
        if pictures is not None:
            Path(pictures).mkdir(parents=True, exist_ok=True)
        problems += too_wide(folder, None if pictures is None else Path(pictures))
    else:
        print("no chromium: the pages are not looked at")
    print("\n".join(problems))
    return int(bool(problems))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
