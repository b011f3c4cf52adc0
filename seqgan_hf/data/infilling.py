"""Lines with blanks: some words of each are left out, and to write them is what a generator learns."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

from datasets import Features, Value
from tokenizers import AddedToken, decoders, processors
from transformers import PreTrainedTokenizerBase

from ..errors import DataError, UserError
from ..samples import Samples
from .sources import Rows
from .splitting import Part
from .streaming import Stream
from .tokenization import BLANK, FILL, SPACE, blank_token_ids, decode, spaces_words


@dataclass
class Blanks:
    """Which words of a line are missing: the line with a `<blank>` for each becomes the prompt, they the sequence.

    A word is what white space separates; at tokenizer level `char`, it is a character. The same line has the same
    blanks for the same seed, wherever it stands.

    Attributes:
        share: how many of a line's words are missing, rounded, at least one.
        contiguous: whether they stand side by side, or anywhere.
        seed: of the choice.
    """

    share: float = 0.5
    contiguous: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise DataError(f"blanks.share={self.share}", "a share above 0 and at most 1", "0.5 is MaskGAN's")

    def leave_out(self, text: str, characters: bool = False) -> tuple[str, str]:
        """The text with its blanks, and what is missing; a text without words is left as it is.

        Raises:
            DataError: the text holds a `<blank>` of its own.
        """
        if BLANK in text:
            raise DataError(f"{BLANK!r} in the text {text[:60]!r}", "it only where a word is missing", "replace it")
        words = list(text) if characters else text.split()
        if not text.strip():
            return "", text
        rng, between = random.Random(f"{self.seed}:{text}"), "" if characters else SPACE
        count, missing = max(1, round(self.share * len(words))), ""
        while not missing.strip():  # a space alone is nothing to write
            first = rng.randrange(len(words) - count + 1)
            chosen = range(first, first + count) if self.contiguous else rng.sample(range(len(words)), count)
            missing = between.join(words[place] for place in sorted(chosen))
        return between.join(BLANK if place in chosen else word for place, word in enumerate(words)), missing

    def of_part(self, part: Part, characters: bool) -> Part:
        """Rows with a column `text` as rows with what is missing, `text`, and with the line, `prompt`."""
        return replace(part, rows=self._of_rows(part.rows, characters))

    def of_stream(self, stream: Stream, characters: bool) -> Stream:
        """As `of_part`, while the stream is read."""
        return replace(
            stream, rows=self._of_rows(stream.rows, characters), first=self.of_part(stream.first, characters)
        )

    def _of_rows(self, rows: Rows, characters: bool) -> Rows:
        features = Features({"text": Value("string"), "prompt": Value("string")})
        # with a plain dict, as `datasets` takes the fingerprint of its cache from these arguments
        return rows.map(_row, fn_kwargs={"settings": asdict(self), "characters": characters}, features=features)


def _row(row: dict[str, str | None], settings: dict, characters: bool) -> dict[str, str | None]:
    if row["text"] is None:  # encoding it will name the row
        return {"text": None, "prompt": ""}
    prompt, missing = Blanks(**settings).leave_out(row["text"], characters)
    return {"text": missing, "prompt": prompt}


def add_blanks(tokenizer: PreTrainedTokenizerBase, characters: bool) -> None:
    """Teach a tokenizer the token of a blank, and the one that ends a prompt with blanks; both once.

    White space around a blank belongs to it, so that words beside it are read as in any other place. What a pipeline
    of `transformers` is given as a prompt begins and ends as in training.
    """
    if blank_token_ids(tokenizer):
        return
    spaced = spaces_words(tokenizer)
    strips = {"lstrip": not characters, "rstrip": spaced and not characters}
    tokenizer.add_tokens([AddedToken(BLANK, special=False, normalized=False, **strips)])
    tokenizer.add_tokens([AddedToken(FILL, special=True, normalized=False)], special_tokens=True)
    if not tokenizer.is_fast:
        return
    backend, start = tokenizer.backend_tokenizer, tokenizer.bos_token
    if not characters:
        backend.decoder = decoders.Sequence([decoders.Replace(BLANK, SPACE + BLANK), backend.decoder])
    ids = {token: tokenizer.convert_tokens_to_ids(token) for token in (start, FILL)}
    backend.post_processor = processors.TemplateProcessing(
        single=[f"{start}:0", "$A:0", f"{FILL}:0"],
        special_tokens=[{"id": token, "ids": [token_id], "tokens": [token]} for token, token_id in ids.items()],
    )


def fill_in(tokenizer: PreTrainedTokenizerBase, prompts: Sequence[str], samples: Samples) -> list[str]:
    """Each prompt with its blanks filled, one word each, in order.

    Where words are left over, the last blank takes them all; where there are too few, blanks stay.

    Raises:
        UserError: a prompt without a blank.
    """
    if (whole := next((prompt for prompt in prompts if BLANK not in prompt), None)) is not None:
        fix = "write one where a word is missing"
        raise UserError(f"the prompt {whole[:60]!r} without {BLANK!r}", "at least one in each prompt", fix)
    characters = not tokenizer.added_tokens_decoder[blank_token_ids(tokenizer)[0]].lstrip
    texts = []
    for prompt, text in zip(prompts, decode(samples, tokenizer), strict=True):
        words, parts = list(text) if characters else text.split(), prompt.split(BLANK)
        last = len(parts) - 2
        words[last:] = ["".join(words[last:]) if characters else SPACE.join(words[last:])] if words[last:] else []
        words += [BLANK] * (last + 1 - len(words))
        texts.append("".join(part + word for part, word in zip(parts, [*words, ""], strict=True)))
    return texts
