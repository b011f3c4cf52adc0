"""How text becomes tokens before n-grams are counted: part of every signature, since it moves BLEU a lot."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence

from transformers import PreTrainedTokenizerBase

from ..data.tokenization import UNK
from ..errors import MissingExtraError, UserError


def treebank() -> Callable[[str], list[str]]:
    """Penn Treebank words as NLTK splits them; this is `nltk.word_tokenize(text, preserve_line=True)`.

    The literature's figures come from `word_tokenize`, which splits sentences first; that needs downloaded data and
    changes nothing on one-sentence lines.
    """
    try:
        from nltk.tokenize import NLTKWordTokenizer
    except ImportError as error:
        fix = 'run `pip install "seqgan-hf[treebank]"`'
        raise MissingExtraError("tokenization 'treebank' needs nltk", None, fix) from error
    return NLTKWordTokenizer().tokenize


TOKENIZATIONS: dict[str, Callable[[], Callable[[str], list[str]]]] = {
    "white_space": lambda: str.split,
    "character": lambda: list,
    "treebank": treebank,
}


def default_tokenization(tokenizer: PreTrainedTokenizerBase | None) -> str:
    """`character` where the tokens of the generator's tokenizer are single characters, else `white_space`."""
    if tokenizer is None:
        return "white_space"
    special = {*tokenizer.all_special_tokens, UNK}
    characters = all(len(token) == 1 for token in tokenizer.get_vocab() if token not in special)
    return "character" if characters else "white_space"


def import_by_path(path: str, what: str) -> Callable:
    """The object at a dotted path such as `my_package.my_module.name`; raises `UserError` if there is none."""
    module, _, name = path.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        problem = f"{what} {path!r} cannot be imported ({error})"
        raise UserError(problem, "the dotted path of an existing object", "check the spelling") from error
    if not callable(found):
        raise UserError(f"{what} {path!r} is a {type(found).__name__}", "a function or a class", "name another")
    return found


def tokenize(texts: Sequence[str], tokenization: str = "white_space", lowercase: bool = False) -> list[list[str]]:
    """Split every text into tokens.

    Args:
        texts: strings.
        tokenization: `white_space`, `treebank` (English), `character` (Chinese, SMILES, passwords), or the dotted path
            of a function from a string to a list of tokens.
        lowercase: fold case first.

    Raises:
        UserError: unknown tokenization, or `texts` is one string.
        MissingExtraError: `treebank` without nltk.

    >>> tokenize(["a man riding a wave."], "treebank")
    [['a', 'man', 'riding', 'a', 'wave', '.']]
    >>> tokenize(["白日依山尽"], "character")
    [['白', '日', '依', '山', '尽']]
    """
    if isinstance(texts, str):
        raise UserError(f"the text {texts[:60]!r}", "a list of texts", "put it into a list")
    if tokenization in TOKENIZATIONS:
        split = TOKENIZATIONS[tokenization]()
    elif "." in tokenization:
        split = import_by_path(tokenization, "tokenization")
    else:
        expected = f"one of {', '.join(TOKENIZATIONS)}, or the dotted path of a function"
        raise UserError(f"tokenization={tokenization!r}", expected, "check the spelling")
    return [split(text.lower() if lowercase else text) for text in texts]
