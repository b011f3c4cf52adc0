"""Models that a recipe names: which class is built for which opponent."""

from __future__ import annotations

import pytest

from seqgan_hf.commands.build_models import build_discriminator, build_generator
from seqgan_hf.commands.recipe import DiscriminatorSettings, GeneratorSettings, recipe_parser
from seqgan_hf.data import TextData
from seqgan_hf.data.oracle import OracleData
from seqgan_hf.data.tokenization import TokenizerConfig, build_tokenizer
from seqgan_hf.errors import RecipeError
from seqgan_hf.models import CNNDiscriminatorForSequenceClassification, RNNGeneratorForCausalLM
from seqgan_hf.objectives import MLE, SeqGAN


TOKENS = ("vocab_size", "bos_token_id", "eos_token_id", "pad_token_id")


class Cooperative(SeqGAN):
    """Its opponent is a language model, as in CoT."""

    adversary = "language_model"


@pytest.fixture(scope="module")
def corpus():
    return OracleData(vocab_size=20, length=6, num_train=8, num_eval=4).load()


def test_an_objective_without_an_adversary_gets_none(corpus):
    assert build_discriminator(corpus, MLE(), DiscriminatorSettings(pretrained="no/such")) is None


def test_a_classifier_knows_the_vocabulary_and_its_labels(corpus):
    model = build_discriminator(corpus, SeqGAN(), DiscriminatorSettings("cnn_discriminator"))
    assert isinstance(model, CNNDiscriminatorForSequenceClassification)
    assert model.config.vocab_size == 20 and model.config.pad_token_id == corpus.pad_token_id
    assert model.config.id2label == {0: "FAKE", 1: "REAL"}


def test_an_opponent_that_is_a_language_model_knows_what_the_generator_knows(corpus):
    config = {"hidden_size": 8}
    generator = build_generator(corpus, GeneratorSettings(config=config))
    model = build_discriminator(corpus, Cooperative(), DiscriminatorSettings("rnn_generator", config))
    assert type(model) is type(generator) is RNNGeneratorForCausalLM
    assert [getattr(model.config, name) for name in TOKENS] == [getattr(generator.config, name) for name in TOKENS]
    assert [getattr(model.config, name) for name in TOKENS] == [getattr(corpus, name) for name in TOKENS]


def test_a_classifier_is_no_language_model(corpus):
    with pytest.raises(RecipeError, match="discriminator.model_type='cnn_discriminator' .*AutoModelForCausalLM"):
        build_discriminator(corpus, Cooperative(), DiscriminatorSettings("cnn_discriminator", {"dropout": 0.1}))


def test_a_language_model_is_asked_for_where_no_discriminator_is_named(corpus):
    settings = recipe_parser().parse_args(["--data", "OracleData", "--objective", "CoT"]).discriminator
    message = "for Cooperative, .* nothing is named: expected a language model as the opponent, such as rnn_generator"
    with pytest.raises(RecipeError, match=message):
        build_discriminator(corpus, Cooperative(), DiscriminatorSettings(**vars(settings)))


@pytest.mark.parametrize("same", [True, False])
def test_a_discriminator_of_other_ids_is_named_even_where_its_vocabulary_is_as_large(same, tmp_path, caplog):
    words = ["a cat sits", "a dog runs"]
    (tmp_path / "lines.txt").write_text("\n".join(words * 9))
    corpus = TextData(train_file=str(tmp_path / "lines.txt"), eval_size=2, tokenizer=TokenizerConfig()).load()
    model = build_discriminator(corpus, SeqGAN(), DiscriminatorSettings("cnn_discriminator"))
    model.save_pretrained(tmp_path / "judge")
    rarer = [["dog dog dog a", "cat runs sits"]]  # the same words in another order
    other = corpus.tokenizer if same else build_tokenizer(TokenizerConfig(), lambda: rarer)
    other.save_pretrained(tmp_path / "judge")
    assert len(other) == len(corpus.tokenizer)
    build_discriminator(corpus, SeqGAN(), DiscriminatorSettings(pretrained=str(tmp_path / "judge")))
    assert bool([each for each in caplog.messages if "other ids of the data's tokens" in each]) != same


def test_models_fit_a_corpus_without_any_settings(corpus):
    generator, objective = build_generator(corpus), SeqGAN()
    discriminator = build_discriminator(corpus, objective)
    assert isinstance(generator, RNNGeneratorForCausalLM) and generator.config.vocab_size == corpus.vocab_size
    assert isinstance(discriminator, CNNDiscriminatorForSequenceClassification)
    assert discriminator.config.label2id == {"FAKE": 0, "REAL": 1}
    assert generator.config.max_prompt_length == corpus.max_prompt_length
