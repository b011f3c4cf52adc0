"""Tokenizers: nothing is lost, no text is taken for a special token, and prompt and continuation join rightly."""

from collections import Counter
from random import Random
from string import ascii_letters

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast, pipeline

from seqgan_hf.data import TokenizerConfig, decode, decode_ids, integer_tokenizer
from seqgan_hf.data.tokenization import (
    build_tokenizer,
    decode_continuations,
    encode_batch,
    load_tokenizer,
    unknown_parts,
    unknown_token_id,
)
from seqgan_hf.errors import DataError
from seqgan_hf.samples import Samples


LEVELS = ["word", "char", "bpe", "unigram"]
TEXTS = [
    "a man life",
    "the <eos> stands <pad> here <unk> and <bos>",
    "▁odd ▁ marks Ġ",
    "床 前 明 月 光",
    "C1=CC=CC=C1 p@ssw0rd!",
]


def build(level: str, texts: list[str] = TEXTS, **arguments):
    return build_tokenizer(TokenizerConfig(level=level, **arguments), lambda: [texts])


@pytest.fixture(scope="module", params=LEVELS)
def tokenizer(request):
    made = build(request.param)
    made.level = request.param
    return made


def decoded(tokenizer, text: str) -> str:
    return tokenizer.decode(tokenizer(text)["input_ids"], skip_special_tokens=True)


def again(tokenizer, texts: list[str]) -> list[str]:
    """Texts that were encoded as training lines are, and decoded as samples are."""
    return decode_ids(tokenizer, encode_batch(tokenizer, texts))


def test_text_comes_back_with_at_most_a_space_more(tokenizer):
    for text in TEXTS:
        assert decoded(tokenizer, text) in (text, " " + text)
    assert again(tokenizer, TEXTS) == TEXTS


WILD = st.text(alphabet=st.characters(codec="utf-8") | st.sampled_from(" \t\n\r<>eos▁Ġ"), max_size=20)


@pytest.mark.parametrize("level", ["char", "bpe", "unigram"])
@settings(max_examples=60, deadline=None)
@given(st.lists(WILD, min_size=1, max_size=4))
def test_any_text_comes_back_as_it_was(level, texts):
    """Spaces in front, line breaks, indentation: nothing is added or stripped, and different texts have other ids."""
    vocab_size = 400 if level == "unigram" else None
    tokenizer = build(level, [*texts, "ab "], vocab_size=vocab_size)
    spaced = [*texts, *(" " + text for text in texts)]
    assert again(tokenizer, spaced) == spaced
    rows = encode_batch(tokenizer, spaced)
    assert len({*map(tuple, rows)}) == len({*spaced})


@settings(max_examples=60, deadline=None)
@given(WILD)
def test_bytes_know_every_text(text):
    assert again(build("bpe"), [text]) == [text]


@pytest.mark.parametrize("level", ["bpe", "unigram", "char"])
def test_a_text_after_a_space_is_another_text(level):
    lines = ["x", " x", "  x", "    return x", "\treturn\n x", " ", "", "\n"]
    tokenizer = build(level, lines)
    assert again(tokenizer, lines) == lines
    assert len({*map(tuple, encode_batch(tokenizer, lines))}) == len(lines)
    assert again(build(level, lines, lowercase=True), [" Return X"]) == [" return x"]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text(alphabet="ab<>eos▁é 👩‍", min_size=1, max_size=20), min_size=1, max_size=4))
def test_any_words_come_back(texts):
    texts = [" ".join(text.split(" ")) for text in texts]
    for text in texts:
        separated = " ".join(text.split())
        assert decoded(build("word", texts), text) == (f" {separated}" if separated else "")
        assert again(build("word", texts), [text]) == [separated]


def test_special_tokens_in_the_text_stay_text(tokenizer):
    special = {tokenizer.pad_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id}
    for text in ("<eos>", "a <eos> <pad><bos>", "man<eos>"):
        [ids] = encode_batch(tokenizer, [text])
        assert not special & set(ids)
        assert not special & set(tokenizer(text)["input_ids"][1:])  # as the pipeline calls it


@pytest.mark.parametrize("level", LEVELS)
def test_special_tokens_inside_words_are_never_learnt(level, tmp_path):
    rng = Random(0)
    name = lambda: "".join(rng.choices(ascii_letters, k=rng.randint(3, 8)))  # noqa: E731
    texts = [f"{name()}{special}{name()}" for special in ("<eos>", "<pad>", "<bos>") for _ in range(400)]
    tokenizer = build(level, texts, vocab_size=300 if level in ("bpe", "unigram") else None)
    tokenizer.save_pretrained(tmp_path)
    for same in (tokenizer, AutoTokenizer.from_pretrained(tmp_path)):
        special = {same.pad_token_id, same.bos_token_id, same.eos_token_id}
        assert len(special) == 3
        assert not any(special & set(ids) for ids in encode_batch(same, texts))
        assert [decoded(same, text).strip() for text in texts] == texts


@pytest.mark.parametrize("lowercase", [False, True])
def test_unigram_says_how_many_characters_there_are(lowercase):
    texts = ["".join(chr(0x4E00 + (7 * row + place) % 200) for place in range(24)) + "aA" for row in range(100)]
    characters = 200 + (1 if lowercase else 2) + 1  # the space in front is one
    for size in (50, characters + 4):
        message = f"vocab_size={size} with level 'unigram' and {characters} .* at least {characters + 5}"
        with pytest.raises(DataError, match=message):
            build("unigram", texts, vocab_size=size, lowercase=lowercase)
    assert len(build("unigram", texts, vocab_size=characters + 5, lowercase=lowercase)) == characters + 5


def test_unknown_stays_visible(tokenizer):
    text = decoded(tokenizer, "a 秦 man")
    if unknown_token_id(tokenizer) is None:
        assert text == " a 秦 man"  # bytes know every text
    else:
        assert text.strip() == "a <unk> man"
        assert unknown_token_id(tokenizer) in tokenizer("a 秦 man")["input_ids"]


def test_declared_unknown_words_stay_visible_wherever_samples_are_written(tmp_path):
    """As in BERT's tokenizer, whose [UNK] is a special token."""
    words = {"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3, "a": 4, "cat": 5, "[USER]": 6}
    backend = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    named = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    made = PreTrainedTokenizerFast(tokenizer_object=backend, additional_special_tokens=["[USER]"], **named)
    made.save_pretrained(tmp_path)
    tokenizer = load_tokenizer(str(tmp_path))
    row = [2, *encode_batch(tokenizer, ["a zebra cat"])[0], 6, 3, 0]
    samples = Samples(torch.tensor([[2]]), torch.tensor([row]), torch.ones(1, len(row), dtype=torch.bool))
    assert decode_ids(tokenizer, [row]) == decode(samples, tokenizer) == ["a [UNK] cat"]
    tokenizer.eos_token = "[UNK]"
    assert decode_ids(tokenizer, [[4, 1, 5, 1]]) == ["a cat"]


def padded(rows: list[list[int]], pad: int) -> Samples:
    """Rows as samples; the first has more padding than it needs."""
    width = max(map(len, rows)) + 1
    ids = torch.tensor([row + [pad] * (width - len(row)) for row in rows])
    return Samples(
        torch.zeros(len(rows), 1).long(), ids, torch.arange(width) < torch.tensor([*map(len, rows)])[:, None]
    )


def test_samples_are_decoded_without_the_first_space_and_nothing_else(tokenizer):
    """At every level: end token, padding and the space that was added vanish, all other white space stays."""
    texts = ["a man life", "床 前", "the <eos> stands", ""]
    ends = [tokenizer.eos_token_id]
    rows = [ids + ends for ids in encode_batch(tokenizer, texts)]
    assert decode(padded(rows, tokenizer.pad_token_id), tokenizer) == decode_ids(tokenizer, rows) == texts
    first = [row[:-1] for row in rows]  # cut off before the end token
    assert decode(padded(first, tokenizer.pad_token_id), tokenizer) == texts
    assert decode(padded([tokenizer("a man")["input_ids"]], tokenizer.pad_token_id), tokenizer) == ["a man"]
    text = "  a\n man\t life "
    [kept] = decode(padded(encode_batch(tokenizer, [text]), tokenizer.pad_token_id), tokenizer)
    expected = {
        "word": "a man life",  # white space between words counts as one space
        "bpe": text,
        "char": "  a<unk> man<unk> life ",  # line break and tab are no character of the corpus
        "unigram": "  a<unk> man<unk> life ",
    }
    assert kept == expected[tokenizer.level]


def test_samples_without_a_tokenizer_are_written_as_ids():
    assert decode(padded([[3, 0, 17], [], [5]], pad=9), None) == ["3 0 17", "", "5"]
    assert decode(padded([[3, 0, 17], [5]], pad=0), integer_tokenizer(20)) == ["3 0 17", "5"]


def test_every_unknown_character_is_counted():
    assert decoded(build("char"), "a秦汉n") == "a<unk><unk>n"


def test_start_token_in_front_and_padding_on_the_left(tokenizer):
    batch = tokenizer(["a", "a man life", ""], padding=True)
    assert [ids[-1] == tokenizer.bos_token_id for ids in batch["input_ids"]] == [False, False, True]
    for ids, mask in zip(batch["input_ids"], batch["attention_mask"], strict=True):
        assert ids[mask.index(1)] == tokenizer.bos_token_id
        assert set(ids[: mask.index(1)]) <= {tokenizer.pad_token_id}
    assert set(batch) == {"input_ids", "attention_mask"}


def test_saved_tokenizer_is_the_same(tokenizer, tmp_path):
    tokenizer.save_pretrained(tmp_path)
    for loaded in (AutoTokenizer.from_pretrained(tmp_path), load_tokenizer(str(tmp_path))):
        assert len(loaded) == len(tokenizer) and loaded.padding_side == "left"
        for text in [*TEXTS, "a 秦 <eos>", ""]:
            assert loaded(text)["input_ids"] == tokenizer(text)["input_ids"]
            assert decoded(loaded, text) == decoded(tokenizer, text)
        assert encode_batch(loaded, TEXTS) == encode_batch(tokenizer, TEXTS)


def always(tokens: list[int], vocab_size: int, tokenizer) -> GPT2LMHeadModel:
    """A model whose k-th token after the prompt "a man" is the k-th of `tokens`, by position alone."""
    length = len(tokenizer("a man")["input_ids"])
    config = GPT2Config(
        vocab_size=vocab_size,
        n_positions=length + len(tokens) + 1,
        n_embd=vocab_size,
        n_layer=0,
        n_head=1,
        tie_word_embeddings=False,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model = GPT2LMHeadModel(config)
    with torch.no_grad():
        model.transformer.wte.weight.zero_()
        model.transformer.wpe.weight.zero_()
        model.lm_head.weight.copy_(torch.eye(vocab_size))
        for place, token in enumerate(tokens):
            model.transformer.wpe.weight[length - 1 + place, token] = 1.0
    return model


@pytest.mark.parametrize(
    ("level", "continuation", "expected"),
    [
        ("word", "life here", "a man life here"),
        ("bpe", "life here", "a man life here"),
        ("unigram", "life here", "a man life here"),
        ("char", "life", "a manlife"),
        ("char", " life", "a man life"),
    ],
)
def test_stock_pipeline_joins_prompt_and_continuation(level, continuation, expected, tmp_path):
    tokenizer = build(level)
    [ids] = encode_batch(tokenizer, [continuation])
    always([*ids, tokenizer.eos_token_id], len(tokenizer), tokenizer).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    generate = pipeline("text-generation", model=str(tmp_path), device="cpu")
    [answer] = generate("a man", max_new_tokens=len(ids) + 1, do_sample=False)
    assert answer["generated_text"] == expected


def test_vocabulary_is_the_most_frequent_words():
    texts = ["b b b a a c", "a b c d"]
    tokenizer = build("word", texts, vocab_size=6)
    assert tokenizer.get_vocab() == {"<pad>": 0, "<bos>": 1, "<eos>": 2, " <unk>": 3, " b": 4, " a": 5}
    assert set(build("word", texts, min_count=2).get_vocab()) == {
        "<pad>",
        "<bos>",
        "<eos>",
        " <unk>",
        " b",
        " a",
        " c",
    }
    assert len(build("word", [f"w{i}" for i in range(40_000)])) == 40_004  # beyond the library's default of 30,000


def test_vocabulary_is_the_most_frequent_characters():
    tokenizer = build("char", ["bbbaac", "abcd"], vocab_size=6)
    assert tokenizer.get_vocab() == {"<pad>": 0, "<bos>": 1, "<eos>": 2, "<unk>": 3, "b": 4, "a": 5}
    assert "d" not in build("char", ["bbbaac", "abcd"], min_count=2).get_vocab()


@pytest.mark.parametrize("level", ["bpe", "unigram"])
def test_subword_vocabulary_size_includes_special_tokens(level):
    texts = [f"word{i} other{i % 7} thing{i % 11}" for i in range(200)]
    assert len(build(level, texts, vocab_size=300)) <= 300
    if level == "bpe":
        assert len(build(level, texts, vocab_size=300)) == 300


def test_training_is_deterministic():
    texts = [f"w{i % 50} w{i % 7}" for i in range(300)]
    for level in LEVELS:
        assert build(level, texts).get_vocab() == build(level, texts).get_vocab()


def test_lower_case_and_named_pre_tokenizer():
    assert decoded(build("word", ["A Man"], lowercase=True), "A MAN") == " a man"
    assert decoded(build("char", ["A Man"], lowercase=True), "A MAN") == "a man"
    split = build("word", ["a dog, a cat."], pre_tokenizer="Whitespace")
    assert decoded(split, "a dog, a cat.") == " a dog , a cat ."
    assert Counter(split.get_vocab())[" ,"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"level": "syllable"}, "expected one of"),
        ({"min_count": 0}, "min_count=0"),
        ({"vocab_size": 4}, "at least 5"),
        ({"level": "bpe", "vocab_size": 100}, "at least 259"),
        ({"level": "char", "pre_tokenizer": "Whitespace"}, "only with level 'word'"),
        ({"pre_tokenizer": "Klingon"}, "pre_tokenizer='Klingon'"),
        ({"pre_tokenizer": "Split"}, "pre_tokenizer='Split'"),
        ({"level": "unigram", "min_count": 2}, "Set vocab_size instead"),
    ],
)
def test_mistakes_are_named(arguments, message):
    with pytest.raises(DataError, match=message):
        build_tokenizer(TokenizerConfig(**arguments), lambda: [["a"]])


def test_tokenizer_without_special_tokens_is_completed_or_refused(tmp_path):
    tokenizer = build("word")
    tokenizer.pad_token = tokenizer.bos_token = None
    tokenizer.save_pretrained(tmp_path / "half")
    half = load_tokenizer(str(tmp_path / "half"))
    assert half.bos_token_id == half.pad_token_id == half.eos_token_id == tokenizer.eos_token_id
    tokenizer.eos_token = None
    tokenizer.save_pretrained(tmp_path / "none")
    with pytest.raises(DataError, match="without an end token"):
        load_tokenizer(str(tmp_path / "none"))


# -- prompts ----------------------------------------------------------------------------------------------------------


def test_parts_that_are_not_known_are_named_as_they_were_written():
    for level, text, parts in (
        ("word", " a  postive man", ["postive"]),
        ("char", "a 秦汉 man", ["秦", "汉"]),
        ("bpe", "a 秦汉 man", []),
        ("unigram", "a 秦汉 man", ["秦汉"]),
    ):
        assert unknown_parts(build(level), text) == parts
    assert unknown_parts(build("word", ["a man"], lowercase=True), "A Zebra man") == ["Zebra"]


@pytest.mark.parametrize(
    ("level", "prompt", "continuation", "expected"),
    [
        ("word", "  a  postive\tman ", "life here", "  a  postive\tman  life here"),
        ("char", " a 秦", "n life", " a 秦n life"),
        ("bpe", "  a\n", "life", "  a\n life"),
        ("bpe", "<eos> 秦", "  life", "<eos> 秦   life"),
        ("unigram", "  a 秦", "life", "  a 秦 life"),
    ],
)
def test_a_prompt_is_printed_as_it_was_given(level, prompt, continuation, expected):
    """Whatever the generator makes of it, and however the tokenizer joins both."""
    tokenizer = build(level, [*TEXTS, "\n"])
    rows = [[*row, tokenizer.eos_token_id] for row in encode_batch(tokenizer, [continuation, ""])]
    samples = padded(rows, tokenizer.pad_token_id)
    assert decode_continuations(tokenizer, [prompt, prompt], samples) == [expected, prompt]


def test_a_prompt_is_joined_as_a_pretrained_tokenizer_joins():
    """Pieces of words without a space, others with one, which is of the decoder, not of the token."""
    words = {"[UNK]": 0, "[SEP]": 1, "play": 2, "##ing": 3, "cat": 4}
    backend = Tokenizer(models.WordPiece(words, unk_token="[UNK]"))
    backend.pre_tokenizer, backend.decoder = pre_tokenizers.Whitespace(), decoders.WordPiece()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="[SEP]", unk_token="[UNK]")
    samples = padded([[3, 4, 1], [4, 1]], 1)
    assert decode_continuations(tokenizer, ["a play", "play"], samples) == ["a playing cat", "play cat"]
    assert decode_ids(tokenizer, [[4, 2, 3, 1]]) == ["cat playing"]


# -- integers ---------------------------------------------------------------------------------------------------------


def test_start_token_of_the_oracle_is_an_ordinary_word():
    tokenizer = integer_tokenizer(5)
    assert tokenizer("3 0 4")["input_ids"] == [0, 3, 0, 4]
    assert tokenizer.decode([3, 0, 0, 4], skip_special_tokens=True) == " 3 0 0 4"
    assert len(tokenizer) == 5 and not tokenizer.all_special_ids


def test_integers_with_special_tokens_after_them(tmp_path):
    tokenizer = integer_tokenizer(10, bos_token_id=10, eos_token_id=11, pad_token_id=12)
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id) == (10, 11, 12)
    assert tokenizer.decode([10, 7, 0, 11, 12], skip_special_tokens=True) == " 7 0"
    tokenizer.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    assert loaded(["7 0", "1"], padding=True)["input_ids"] == [[10, 7, 0], [12, 10, 1]]


def test_existing_id_as_end_token_is_written_out():
    tokenizer = integer_tokenizer(5, bos_token_id=0, eos_token_id=4)
    assert tokenizer.decode([1, 4], skip_special_tokens=True) == " 1 4" and tokenizer.eos_token_id is None


@pytest.mark.parametrize("text", ["7", "3 5", "-1", "03", "3.0", "three", "<bos>", "1 <unk>"])
def test_what_is_no_id_of_the_vocabulary_is_an_error(text, tmp_path):
    """It was read as id 0 without a word, which is a real note."""
    tokenizer = integer_tokenizer(5, bos_token_id=5, eos_token_id=6, pad_token_id=7)
    tokenizer.save_pretrained(tmp_path)
    wrong = text.split()[-1]
    for same in (tokenizer, AutoTokenizer.from_pretrained(tmp_path)):
        with pytest.raises(DataError, match=f"'{wrong}' in a text of integer ids: expected ids from 0 to 4"):
            encode_batch(same, ["0 1", text])
        assert again(same, ["3 0  4", ""]) == ["3 0 4", ""] and unknown_token_id(same) is None


def test_spaces_are_those_of_the_tokens_whoever_writes_the_text():
    """A tokenizer that would tidy up spaces does so neither with a prompt nor without one."""
    text = "the cat sat , the cat ."
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=build("word", [text]).backend_tokenizer, clean_up_tokenization_spaces=True
    )
    ids = torch.tensor(encode_batch(tokenizer, [text]))
    samples = Samples(torch.zeros(1, 1, dtype=torch.long), ids[:, 2:], torch.ones_like(ids[:, 2:], dtype=torch.bool))
    assert tokenizer.decode(ids[0]).strip() != text
    assert [text.strip() for text in decode(samples, tokenizer)] == ["sat , the cat ."]
    assert decode_continuations(tokenizer, ["the cat"], samples) == [text]
