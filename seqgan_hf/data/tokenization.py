"""Tokenizers trained on the corpus, or loaded: words, characters, subwords, integers."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Literal

from tokenizers import Encoding, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from ..errors import DataError
from ..samples import Samples
from .network import asking_once


PAD, BOS, EOS, UNK = "<pad>", "<bos>", "<eos>", "<unk>"
BLANK, FILL = "<blank>", "<fill>"  # a missing word of a prompt, and what ends such a prompt; see `infilling`
SUBWORD_VOCAB_SIZE = 8192

# A word carries the space before it (" life"), so that whatever is generated can be appended to a prompt as it stands.
SPACE = " "
NO_LIMIT = 2**31
# Subwords never span more characters than this: the time to learn and find them grows faster than a word's length, and
# a line of a million characters without a space would take minutes.
LONGEST_WORD = 128

TextBatches = Callable[[], Iterable[list[str]]]


@dataclass
class TokenizerConfig:
    """How text becomes tokens.

    Attributes:
        level: the unit: `word`, `char` (one Unicode code point), `bpe` (byte-level, knows every text) or `unigram`.
        pretrained: a folder or Hub id of an existing tokenizer; everything else here is then left unused.
        vocab_size: the most tokens to keep, special tokens included, the most frequent first; `None` keeps every word
            or character, and 8192 subwords.
        min_count: words, characters and BPE merges seen fewer times than this are left out.
        lowercase: lower-case the text first; it cannot be undone when decoding.
        pre_tokenizer: for words only, what splits a line: `WhitespaceSplit`, or the class name of another
            pre-tokenizer of the `tokenizers` library, such as `Whitespace` (punctuation apart) or `BertPreTokenizer`.
    """

    level: Literal["word", "char", "bpe", "unigram"] = "word"
    pretrained: str | None = None
    vocab_size: int | None = None
    min_count: int = 1
    lowercase: bool = False
    pre_tokenizer: str = "WhitespaceSplit"

    def __post_init__(self) -> None:
        if self.level not in TRAINERS:
            raise DataError(f"tokenizer level={self.level!r}", f"one of {sorted(TRAINERS)}")
        if self.min_count < 1:
            raise DataError(f"min_count={self.min_count}", "at least 1, which keeps every token")
        smallest = 256 + 3 if self.level == "bpe" else 5
        if self.vocab_size is not None and self.vocab_size < smallest:
            expected = f"at least {smallest} for level {self.level!r}, special tokens included"
            raise DataError(f"vocab_size={self.vocab_size}", expected)
        if self.pretrained is None and self.pre_tokenizer != "WhitespaceSplit" and self.level != "word":
            problem = f"pre_tokenizer={self.pre_tokenizer!r} with level {self.level!r}"
            raise DataError(problem, "it only with level 'word'", "leave it out")


def build_tokenizer(config: TokenizerConfig, batches: TextBatches) -> PreTrainedTokenizerBase:
    """Load or train a tokenizer.

    Trained ones put the start token in front, pad on the left, spell an `<eos>` that stands in the text as plain text,
    and keep unknown words visible as `<unk>`. Words and subwords are read, and decode, with one more space in front.

    Args:
        config: which one.
        batches: gives the texts to train on, in batches; called once, and only if a tokenizer is trained.

    Raises:
        DataError: if a pretrained tokenizer cannot be loaded or lacks an end token.
    """
    if config.pretrained is not None:
        return load_tokenizer(config.pretrained)
    tokenizer = TRAINERS[config.level](config, batches)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", pair=f"{BOS} $A $B", special_tokens=[(BOS, tokenizer.token_to_id(BOS))]
    )
    return _wrap(tokenizer, pad_token=PAD, bos_token=BOS, eos_token=EOS)


def _word_splitter(name: str) -> pre_tokenizers.PreTokenizer:
    splitter = getattr(pre_tokenizers, name, None)
    try:
        named = [] if name == "WhitespaceSplit" else [splitter()]
    except TypeError:
        expected = "a class of tokenizers.pre_tokenizers that needs no argument"
        fix = "choose WhitespaceSplit, Whitespace, BertPreTokenizer, Punctuation, Digits or UnicodeScripts"
        raise DataError(f"pre_tokenizer={name!r}", expected, fix) from None
    mark = pre_tokenizers.Metaspace(replacement=SPACE, prepend_scheme="always", split=False)
    return pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), *named, mark])


def _numbered(tokens: Iterable[str], config: TokenizerConfig, unknown: str) -> dict[str, int]:
    """Special tokens first, then `tokens` in their order, up to the vocabulary size."""
    different = dict.fromkeys([PAD, BOS, EOS, unknown, *tokens])
    return {token: number for number, token in enumerate(islice(different, config.vocab_size))}


def _tokenizer(
    model: models.Model,
    lowercase: bool = False,
    pre_tokenizer: pre_tokenizers.PreTokenizer | None = None,
    decoder: decoders.Decoder | None = None,
    space_in_front: bool = False,
) -> Tokenizer:
    tokenizer = Tokenizer(model)
    # Always one, not only where there is none: else a text and the same text after a space would be one.
    steps = [normalizers.Lowercase()] * lowercase + [normalizers.Prepend(SPACE)] * space_in_front
    if steps:
        tokenizer.normalizer = normalizers.Sequence(steps)
    if pre_tokenizer is not None:
        tokenizer.pre_tokenizer = pre_tokenizer
    tokenizer.decoder = decoder or decoders.Fuse()
    return tokenizer


def _train_words(config: TokenizerConfig, batches: TextBatches) -> Tokenizer:
    splitter = _word_splitter(config.pre_tokenizer)
    counter = _tokenizer(models.WordLevel({}, unk_token=UNK), config.lowercase, splitter)
    size = config.vocab_size or NO_LIMIT
    trainer = trainers.WordLevelTrainer(vocab_size=size, min_frequency=config.min_count, show_progress=False)
    counter.train_from_iterator(batches(), trainer)
    counted = counter.get_vocab()
    vocabulary = _numbered(sorted(counted, key=counted.__getitem__), config, unknown=SPACE + UNK)
    return _tokenizer(models.WordLevel(vocabulary, unk_token=SPACE + UNK), config.lowercase, splitter)


def _train_characters(config: TokenizerConfig, batches: TextBatches) -> Tokenizer:
    counts: Counter[str] = Counter()
    for texts in batches():
        joined = "".join(texts)
        counts.update(joined.lower() if config.lowercase else joined)
    kept = sorted((c for c, count in counts.items() if count >= config.min_count), key=lambda c: (-counts[c], c))
    # Byte-pair encoding without a single merge splits into characters, twice as fast as a regular expression does.
    model = models.BPE(vocab=_numbered(kept, config, unknown=UNK), merges=[], unk_token=UNK, fuse_unk=False)
    return _tokenizer(model, config.lowercase)


def _train_bpe(config: TokenizerConfig, batches: TextBatches) -> Tokenizer:
    splitter = pre_tokenizers.Sequence(
        [pre_tokenizers.ByteLevel(add_prefix_space=False), pre_tokenizers.FixedLength(LONGEST_WORD)]
    )
    tokenizer = _tokenizer(models.BPE(), config.lowercase, splitter, decoders.ByteLevel(), space_in_front=True)
    trainer = trainers.BpeTrainer(
        vocab_size=config.vocab_size or SUBWORD_VOCAB_SIZE,
        min_frequency=config.min_count,
        special_tokens=[PAD, BOS, EOS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(batches(), trainer)
    return tokenizer


def _few_characters(config: TokenizerConfig, batches: Iterable[list[str]]) -> Iterator[list[str]]:
    """The same batches, then a `DataError` if there were more characters than the vocabulary has room for."""
    size, characters = config.vocab_size or SUBWORD_VOCAB_SIZE, {SPACE}
    for texts in batches:
        characters.update(*(map(str.lower, texts) if config.lowercase else texts))
        yield texts
    smallest = len(characters) + 5  # every character, the special tokens, and a piece of several characters
    if size < smallest:
        problem = f"vocab_size={size} with level 'unigram' and {len(characters)} different characters"
        raise DataError(problem, f"at least {smallest}, as every character is a piece", "raise it, or use level bpe")


def _train_unigram(config: TokenizerConfig, batches: TextBatches) -> Tokenizer:
    if config.min_count > 1:
        problem = f"min_count={config.min_count} with level 'unigram'"
        raise DataError(problem, "1, as pieces are chosen by likelihood", "set vocab_size instead")
    mark = pre_tokenizers.Metaspace(replacement=SPACE, prepend_scheme="never")
    splitter = pre_tokenizers.Sequence([mark, pre_tokenizers.FixedLength(LONGEST_WORD)])
    learned = _tokenizer(models.Unigram(), config.lowercase, splitter, space_in_front=True)
    size = (config.vocab_size or SUBWORD_VOCAB_SIZE) - 3
    trainer = trainers.UnigramTrainer(vocab_size=size, special_tokens=[UNK], unk_token=UNK, show_progress=False)
    learned.train_from_iterator(_few_characters(config, batches()), trainer)
    # Training ends with the same pieces every time, but in another order: sorted, each keeps its id. A special token
    # that is written in the corpus may have become a piece, which would then end sequences: shorter ones spell it.
    trained = json.loads(learned.to_str())["model"]["vocab"]
    pieces = sorted((piece, score) for piece, score in trained if piece not in (PAD, BOS, EOS))
    unknown = [piece for piece, _ in pieces].index(UNK)
    model = models.Unigram(pieces, unk_id=unknown)
    tokenizer = _tokenizer(model, config.lowercase, splitter, space_in_front=True)
    # Outside the model: pieces are looked for in the text, and an "<eos>" written there would become the end token.
    tokenizer.add_special_tokens([PAD, BOS, EOS])
    return tokenizer


TRAINERS = {"word": _train_words, "char": _train_characters, "bpe": _train_bpe, "unigram": _train_unigram}


def _wrap(tokenizer: Tokenizer, **special: str) -> PreTrainedTokenizerFast:
    """For transformers. <unk> is not declared: decoding without special tokens would delete the unknown words."""
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        padding_side="left",
        clean_up_tokenization_spaces=False,
        split_special_tokens=True,
        model_input_names=["input_ids", "attention_mask"],
        **special,
    )


def integer_tokenizer(
    vocab_size: int, bos_token_id: int = 0, eos_token_id: int | None = None, pad_token_id: int | None = None
) -> PreTrainedTokenizerFast:
    """Write ids as numbers: "17" is the token with id 17. A number that is no id of the vocabulary is an error.

    An id below `vocab_size` is an ordinary word, also where it serves as the start token (as in the synthetic task of
    the SeqGAN paper, whose start token 0 may stand anywhere): it never vanishes in decoding. Ids from `vocab_size` on
    are special tokens, called `<bos>`, `<eos>` and `<pad>`.

    Args:
        vocab_size: number of ordinary ids.
        bos_token_id: the start token, put in front of every text.
        eos_token_id: the end token, if there is one.
        pad_token_id: the padding, if there is one.
    """
    names: dict[int, str] = {}
    for name, token_id in ((BOS, bos_token_id), (EOS, eos_token_id), (PAD, pad_token_id)):
        if token_id is not None and token_id >= vocab_size:
            names.setdefault(token_id, name)
    vocabulary = {SPACE + str(number): number for number in range(vocab_size)}
    vocabulary |= {name: token_id for token_id, name in names.items()}
    model = models.WordLevel(vocabulary, unk_token=UNK)  # which the vocabulary does not have
    tokenizer = _tokenizer(model, pre_tokenizer=_word_splitter("WhitespaceSplit"))
    start = tokenizer.id_to_token(bos_token_id)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=[f"{start}:0", "$A:0"], special_tokens=[{"id": start, "ids": [bos_token_id], "tokens": [start]}]
    )
    special = {"bos_token": bos_token_id, "eos_token": eos_token_id, "pad_token": pad_token_id}
    return _wrap(tokenizer, **{role: names[token_id] for role, token_id in special.items() if token_id in names})


def load_tokenizer(name_or_path: str) -> PreTrainedTokenizerBase:
    """An existing tokenizer, with start, end and padding token filled in where it has none.

    A missing start token is the classifier token or the end token, a missing end token the separator, a missing
    padding token the end token (masks tell them apart).

    Raises:
        DataError: if it cannot be loaded, or has nothing to end a sequence with.
    """
    try:
        with asking_once(name_or_path):
            tokenizer = AutoTokenizer.from_pretrained(name_or_path, padding_side="left", trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        problem = f"tokenizer.pretrained={name_or_path!r} could not be loaded ({reason})"
        fix = f"without a network, run `hf download {name_or_path} --local-dir FOLDER` first and name that folder"
        raise DataError(problem, "a folder written by save_pretrained or a Hub id", fix) from error
    if tokenizer.eos_token is None:
        tokenizer.eos_token = tokenizer.sep_token
    if tokenizer.eos_token is None:
        problem = f"the tokenizer {name_or_path!r} without an end token"
        raise DataError(problem, "eos_token or sep_token", "set tokenizer.eos_token and save it to a folder")
    if tokenizer.bos_token is None:
        tokenizer.bos_token = tokenizer.cls_token or tokenizer.eos_token
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def encode_batch(tokenizer: PreTrainedTokenizerBase, texts: list[str]) -> list[list[int]]:
    """Token ids without start and end token; a special token spelled out in the text stays text.

    Raises:
        DataError: the tokens are integers, and the text holds something else or an id outside the vocabulary.
    """
    if not tokenizer.is_fast:
        return tokenizer(texts, add_special_tokens=False, split_special_tokens=True, verbose=False)["input_ids"]
    return [encoding.ids for encoding in _encodings(tokenizer, texts)]


def _encodings(tokenizer: PreTrainedTokenizerBase, texts: list[str], offsets: bool = False) -> list[Encoding]:
    backend = tokenizer.backend_tokenizer
    backend.encode_special_tokens = True
    backend.no_truncation()
    backend.no_padding()
    encode = backend.encode_batch if offsets else backend.encode_batch_fast
    try:
        return encode(texts, add_special_tokens=False)
    except Exception as error:  # `tokenizers` has no other kind for a word without an id
        ids = {token.removeprefix(SPACE) for token in tokenizer.get_vocab() if token.startswith(SPACE)}
        wrong = next((word for text in texts for word in text.split() if word not in ids), None)
        if wrong is None or not ids:
            raise
        problem = f"{wrong[:60]!r} in a text of integer ids"
        raise DataError(problem, f"ids from 0 to {len(ids) - 1}, separated by white space", "correct it") from error


def as_prompts(
    tokenizer: PreTrainedTokenizerBase, rows: Iterable[list[int]], bos_token_id: int, longest: int | None = None
) -> list[list[int]]:
    """Conditions as a generator reads them: the start token, the last `longest` tokens, and `<fill>` after blanks."""
    kept, end = slice(longest and -longest, None), blank_token_ids(tokenizer)[1:]
    return [[bos_token_id, *ids[kept], *end] for ids in rows]


def blank_token_ids(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The ids of `<blank>` and `<fill>`; none of a tokenizer that knows no blanks."""
    added = tokenizer.added_tokens_encoder
    return [added[BLANK], added[FILL]] if BLANK in added and FILL in added else []


def unknown_parts(tokenizer: PreTrainedTokenizerBase, text: str) -> list[str]:
    """What a tokenizer does not know of a text, in the text's own letters; of a slow tokenizer, whole words."""
    unknown = unknown_token_id(tokenizer)
    if not tokenizer.is_fast:
        return [word for word in text.split() if unknown in encode_batch(tokenizer, [word])[0]]
    [encoding] = _encodings(tokenizer, [text], offsets=True)
    pairs = zip(encoding.ids, encoding.offsets, strict=True)
    return [text[slice(*span)] for token_id, span in pairs if token_id == unknown]


def decode(samples: Samples, tokenizer: PreTrainedTokenizerBase | None) -> list[str]:
    """The text of every continuation, without special tokens, padding and the space that the tokenizer adds in front.

    Nothing else is changed or stripped. Without a tokenizer, the ids, separated by spaces.
    """
    rows = _rows(samples)
    return [" ".join(map(str, row)) for row in rows] if tokenizer is None else decode_ids(tokenizer, rows)


def _rows(samples: Samples) -> list[list[int]]:
    return [ids[mask].tolist() for ids, mask in zip(samples.ids.cpu(), samples.mask.cpu(), strict=True)]


def decode_ids(tokenizer: PreTrainedTokenizerBase, rows: Iterable[list[int]]) -> list[str]:
    """Token ids as text, without special tokens but for the unknown one, and without the space that is added in front.

    What was not known stays visible, unless the unknown token is start, end or padding token as well (GPT-2).
    """
    texts = _spell(tokenizer, rows)
    return [text.removeprefix(SPACE) for text in texts] if spaces_words(tokenizer) else texts


def spaces_words(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether every text is read with a space in front; any tells, and this one is an id, too."""
    return _spell(tokenizer, encode_batch(tokenizer, ["0"]))[0].startswith(SPACE)


def decode_continuations(tokenizer: PreTrainedTokenizerBase, prompts: Sequence[str], samples: Samples) -> list[str]:
    """Each prompt as it was given, with its continuation behind it.

    Both are decoded together, so that what stands between them is what the tokenizer puts there.
    """
    given = encode_batch(tokenizer, list(prompts))
    starts = _spell(tokenizer, given)
    rows = [[*ids, *row] for ids, row in zip(given, _rows(samples), strict=True)]
    texts = _spell(tokenizer, rows)
    return [prompt + text[len(start) :] for prompt, start, text in zip(prompts, starts, texts, strict=True)]


def _spell(tokenizer: PreTrainedTokenizerBase, rows: Iterable[list[int]]) -> list[str]:
    """Token ids as text, without special tokens but for the unknown one; spaces are those of the tokens."""
    hidden = special_token_ids(tokenizer)
    unknown = unknown_token_id(tokenizer)
    if unknown not in (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id):
        hidden -= {unknown}
    shown = [[token_id for token_id in row if token_id not in hidden] for row in rows]
    return tokenizer.batch_decode(shown, clean_up_tokenization_spaces=False)


def special_token_ids(tokenizer: PreTrainedTokenizerBase) -> set[int]:
    """Ids that stand for no text: start, end, padding and the like, and the unknown token."""
    special = {token_id for token_id, token in tokenizer.added_tokens_decoder.items() if token.special}
    unknown = unknown_token_id(tokenizer)
    return special | set(tokenizer.all_special_ids) | ({unknown} if unknown is not None else set())


def unknown_token_id(tokenizer: PreTrainedTokenizerBase) -> int | None:
    """The id that stands for unknown words, declared or not; `None` if every text can be written."""
    if tokenizer.unk_token_id is not None or not tokenizer.is_fast:
        return tokenizer.unk_token_id
    spelled = (tokenizer.backend_tokenizer.token_to_id(token) for token in (SPACE + UNK, UNK))
    return next((token_id for token_id in spelled if token_id is not None), None)
