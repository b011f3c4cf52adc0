"""The long description: the README, whose links lead into the repository, where there is no repository around it."""

from __future__ import annotations

import re
from pathlib import Path

from hatchling.metadata.plugin.interface import MetadataHookInterface


LINK = re.compile(r"(!?)\[([^\[\]]*)\]\((?!\w+:|#)([^()\s]+)\)")


def standalone(text: str, repository: str | None = None) -> str:
    """Markdown without relative links.

    They become absolute with the address of a repository; without one, links leave their text and pictures their
    description.
    """

    def replace(link: re.Match[str]) -> str:
        picture, words, place = link.groups()
        if repository:
            return f"{picture}[{words}]({repository.rstrip('/')}/{'raw' if picture else 'blob'}/main/{place})"
        return f"({words})" if picture else words

    return LINK.sub(replace, text)


class LongDescription(MetadataHookInterface):
    def update(self, metadata: dict) -> None:
        text = (Path(self.root) / "README.md").read_text(encoding="utf-8")
        readme = standalone(text, metadata.get("urls", {}).get("Repository"))
        metadata["readme"] = {"content-type": "text/markdown", "text": readme}
