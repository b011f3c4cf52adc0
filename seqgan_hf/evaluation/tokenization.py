"""How text becomes tokens before n-grams are counted: part of every signature, since it moves BLEU a lot."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from transformers import PreTrainedTokenizerBase

from ..data.tokenization import UNK, unknown_token_id
from ..errors import MissingExtraError, UserError, import_by_path
from ..samples import LongTensor


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


def unknown_share(tokenizer: PreTrainedTokenizerBase | None, ids: LongTensor) -> float:
    """How much of a text a tokenizer does not know: unknown tokens by all, shape (N,), the special ones left out.

    An unknown token that is the end token as well (GPT-2) says nothing, since every text has an end.
    """
    if tokenizer is None:
        return 0.0
    special = {tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id} - {None}
    words = ids[~torch.isin(ids, torch.tensor(sorted(special), dtype=torch.long, device=ids.device))]
    unknown = unknown_token_id(tokenizer)
    return 0.0 if unknown is None else float((words == unknown).sum()) / max(len(words), 1)


def unknown_setting(share: float) -> str:
    """The share as a part of a signature, where there is one: what is unknown is easy to write and to predict."""
    return f"|unknown:{share:.2%}" if share else ""


def unknown_note(share: str, what: str, name: str, left_out: bool = False) -> str:
    """A note that a generator does not know all of `what`; `left_out` if it never writes the unknown token."""
    told = f"{share} of the {what}' tokens are unknown to {name}"
    if left_out:
        return f"{told}, which never writes the unknown token: NLL_test leaves them out"
    return f"{told}. All are read and written as one token, so the more there are, the better NLL and BLEU look"


def written_setting(tokenizer: PreTrainedTokenizerBase, references: LongTensor) -> str:
    """What a signature says of texts as a tokenizer writes them, by its vocabulary and tokens of real texts (N,)."""
    return f"vocabulary:{len(tokenizer)}{unknown_setting(unknown_share(tokenizer, references))}"
