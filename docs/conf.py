"""The site: `make docs` builds it into build/site and serves it."""

import contextlib
import io
import os
import re
from importlib import metadata

from docutils import nodes
from sphinx.util.docutils import SphinxDirective

from seqgan_hf.commands import COMMANDS, main


project = "seqgan_hf"
author = "the seqgan_hf contributors"
copyright = f"{author}, Apache License 2.0"
version = release = metadata.version("seqgan-hf")
html_title = f"seqgan_hf {release}"

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode", "sphinx_copybutton"]

# Markdown as GitHub reads it: links to headings by their words, `$` is a dollar.
myst_heading_anchors = 4
highlight_language = "shell"

# Docstrings: Google's sections, single backticks for code.
default_role = "code"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_rtype = False
napoleon_use_ivar = True
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_default_options = {"members": True, "show-inheritance": True}

html_theme = "furo"
html_static_path = ["_static"]
html_css_files = ["site.css"]
copybutton_exclude = ".linenos, .gp, .go, .c1"


class Commands(SphinxDirective):
    """What `--help` says of every command, each under its heading."""

    def run(self):
        os.environ["COLUMNS"] = "84"
        found = []
        for name in COMMANDS:
            with contextlib.redirect_stdout(io.StringIO()) as said, contextlib.suppress(SystemExit):
                main([name, "--help"])
            plain = "".join(c for c in said.getvalue() if c.isprintable() or c == "\n")
            usage, _, text = plain.partition("\n\n")
            title, text = f"seqgan-hf {name}", text if usage.count("\n") > 20 else f"{usage}\n\n{text}"
            section = nodes.section(ids=[name], names=[name])
            section += [nodes.title(title, title), nodes.literal_block(text, text, language="none", classes=["help"])]
            found.append(section)
        return found


def separate(app, what, name, obj, options, lines):
    """Code and what follows it, as in `Tensor`s, which reStructuredText would not take for code."""
    lines[:] = [re.sub(r"(?<!`)`([^`]+)`(?=\w)", r"`\1`\\ ", line) for line in lines]


def setup(app):
    app.add_directive("commands", Commands)
    app.connect("autodoc-process-docstring", separate, priority=900)  # after napoleon
