"""Which tokens a run keeps its generator from writing: what stands for no text and in no training sequence."""

from __future__ import annotations

import pytest
import torch
from datasets import Dataset

from seqgan_hf.data import OracleData, TokenizerConfig, integer_tokenizer
from seqgan_hf.data.tokenization import build_tokenizer, encode_batch
from seqgan_hf.generation.vocabulary import suppressed_tokens
from seqgan_hf.models import RNNGeneratorConfig, RNNGeneratorForCausalLM
from seqgan_hf.objectives import MLE, CoT
from seqgan_hf.samples import Samples
from seqgan_hf.training import AdversarialTrainer, AdversarialTrainingArguments
from seqgan_hf.training.batches import training_data
from seqgan_hf.training.suppression import suppress_special_tokens
from tests.tools import tiny
from tests.tools.small_runs import BRIEF, SHORT, small_corpus


LINES = ["a man rides", "a man", "the man sees a bird"] * 8
PAD, BOS, EOS, UNK = range(4)  # of tokenizers trained on text


def build_tokenizer_of(level: str, **options):
    return build_tokenizer(TokenizerConfig(level=level, **options), lambda: [LINES])


def build_generator(tokenizer, vocab_size: int | None = None, eos: int | None = EOS):
    torch.manual_seed(0)
    tokens = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": eos, "pad_token_id": tokenizer.pad_token_id}
    sizes = {"hidden_size": 8, "embedding_size": 8, "vocab_size": vocab_size or len(tokenizer)}
    return RNNGeneratorForCausalLM(RNNGeneratorConfig(**sizes, **tokens))


def rows_of(tokenizer, texts: list[str]) -> Dataset:
    return Dataset.from_dict({"input_ids": [[*ids, EOS] for ids in encode_batch(tokenizer, texts)]})


def suppressed(tokenizer, rows, generator=None) -> list[int]:
    generator = generator or build_generator(tokenizer)
    data, _ = training_data(rows, BOS, PAD, 20, torch.device("cpu"), 0, 1)
    suppress_special_tokens([generator], data, tokenizer)
    return suppressed_tokens(generator)


@pytest.mark.parametrize(
    ("level", "options", "expected"),
    [
        ("word", {}, [PAD, BOS, UNK]),
        ("word", {"min_count": 9}, [PAD, BOS]),  # "bird" is unknown, and stands in the training lines as such
        ("word", {"vocab_size": 6}, [PAD, BOS]),
        ("char", {}, [PAD, BOS, UNK]),
        ("bpe", {}, [PAD, BOS]),
    ],
)
def test_special_tokens_that_no_training_line_holds(level, options, expected):
    tokenizer = build_tokenizer_of(level, **options)
    assert suppressed(tokenizer, rows_of(tokenizer, LINES)) == expected


def test_what_is_found_replaces_what_was_found_in_other_data():
    tokenizer = build_tokenizer_of("word")
    generator = build_generator(tokenizer)
    assert suppressed(tokenizer, rows_of(tokenizer, LINES), generator) == [PAD, BOS, UNK]
    assert suppressed(tokenizer, rows_of(tokenizer, ["a zebra"]), generator) == [PAD, BOS]


def test_padding_holds_no_token():
    """Rows of unequal length are filled up with the padding token, which is not thereby in a sequence."""
    tokenizer = build_tokenizer_of("word")
    ids = torch.tensor([[4, EOS, PAD], [5, BOS, EOS]])
    samples = Samples(torch.full((2, 1), BOS), ids, torch.tensor([[True, True, False], [True] * 3]))
    assert suppressed(tokenizer, samples) == [PAD, UNK]


def test_of_a_stream_start_and_padding_token_alone():
    tokenizer = build_tokenizer_of("word")
    assert suppressed(tokenizer, rows_of(tokenizer, LINES).to_iterable_dataset()) == [PAD, BOS]


def test_the_end_token_can_always_be_written_even_where_it_is_others_as_well():
    tokenizer = build_tokenizer_of("word")
    rows = Dataset.from_dict({"input_ids": [[4, 5], [5, 4]]})  # cut lines, none of which ends
    assert suppressed(tokenizer, rows) == [PAD, BOS, UNK]
    assert suppressed(tokenizer, rows, build_generator(tokenizer, eos=None)) == [PAD, BOS, EOS, UNK]
    tokenizer.pad_token = tokenizer.bos_token = tokenizer.eos_token  # as in GPT-2's
    assert EOS not in suppressed(tokenizer, rows)


def test_ids_that_the_tokenizer_has_no_name_for():
    """As in embeddings that were rounded up to a multiple of 64: they would vanish in the text."""
    tokenizer = build_tokenizer_of("word")
    size = len(tokenizer)
    found = suppressed(tokenizer, rows_of(tokenizer, LINES), build_generator(tokenizer, size + 3))
    assert found == [PAD, BOS, UNK, size, size + 1, size + 2]


def test_ids_of_the_data_are_never_suppressed_only_for_being_absent():
    """The synthetic task has no special token: its start token 0 is a word like any other."""
    corpus = OracleData(vocab_size=5000, length=5, hidden_size=8, num_train=20, num_eval=5).load()
    generator = build_generator(corpus.tokenizer, eos=None)
    assert suppressed(corpus.tokenizer, corpus.train, generator) == []
    notes = integer_tokenizer(5, bos_token_id=5, eos_token_id=6, pad_token_id=7)
    rows = Dataset.from_dict({"input_ids": [[3, 6], [1, 2, 6]]})
    assert suppressed(notes, rows, build_generator(notes, eos=6)) == [5, 7]


def test_a_run_writes_no_special_token_at_any_time(tmp_path):
    """From random weights on, with the mediator and the copy of a language model; and it is saved."""
    tokenizer = build_tokenizer_of("word")
    rows = rows_of(tokenizer, LINES)
    drawn = []

    class Watched(CoT):
        def sample(self, models, real, max_new_tokens):
            drawn.append(super().sample(models, real, max_new_tokens))
            return drawn[-1]

    args = AdversarialTrainingArguments(output_dir=str(tmp_path), **(SHORT | BRIEF | {"pretrain_epochs": 0}))
    players = build_generator(tokenizer), build_generator(tokenizer)
    AdversarialTrainer(*players, Watched(), args, rows, rows, tokenizer).train()
    assert drawn and not {PAD, BOS, UNK} & {token for s in drawn for token in s.ids[s.mask].tolist()}
    for name in ("generator", "discriminator"):
        loaded = RNNGeneratorForCausalLM.from_pretrained(tmp_path / name)
        assert suppressed_tokens(loaded) == [PAD, BOS, UNK]


def test_without_a_tokenizer_nothing_is_known_of_the_tokens(tmp_path):
    corpus = small_corpus()
    args = AdversarialTrainingArguments(output_dir=str(tmp_path), **(SHORT | BRIEF))
    generator = tiny.build_generator("lstm", eos=None)
    AdversarialTrainer(generator, None, MLE(), args, corpus.train)
    assert suppressed_tokens(generator) == []
