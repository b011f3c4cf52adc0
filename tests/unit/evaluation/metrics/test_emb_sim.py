"""EmbSim: words keep their company, whatever else changes."""

import numpy as np
import pytest

from seqgan_hf.errors import UserError
from seqgan_hf.evaluation.metrics import emb_sim as module
from seqgan_hf.evaluation.metrics.emb_sim import emb_sim
from tests.tools.small_language import REFERENCES, SAMPLERS


REAL = [text.split() for text in REFERENCES]


def value(samples, references=REAL):
    return emb_sim(samples, references)["emb_sim"]


def test_of_a_few_words_it_is_known():
    """Real: a and b are the only company of x, and so alike. Samples: a beside x, b beside y, so a is like b no more.

    With all factors the cosines are those of the rows of |PPMI| as a matrix. By hand: W of (x, y, a, b) has rows
    (1,1,0,0), (1,1,0,0), (0,0,1,1), (0,0,1,1) in the references, and unit rows in the samples: cosines 1 / sqrt(2).
    """
    references = [["x", "a"], ["x", "b"], ["y", "a"], ["y", "b"]]
    assert value([["x", "a"], ["y", "b"]], references) == pytest.approx(np.log10(1 / np.sqrt(2)))
    assert value(references, references) == pytest.approx(0)


def test_real_text_is_nearest_and_shuffled_words_are_far():
    fresh = [text.split() for text in SAMPLERS["real"]]
    rng = np.random.default_rng(0)
    shuffled = [list(rng.permutation(text)) for text in fresh]
    assert value(REAL) == pytest.approx(0, abs=1e-9)
    assert value(shuffled) < value(fresh) < 0


def test_words_that_are_missing_count_as_nothing():
    few = [text for text in REAL if "dogs" not in text][:3]
    known = {word for text in few for word in text}
    words = {word for text in REAL for word in text}
    assert value(few) <= np.log10(len(known) / len(words))
    assert value([["nothing", "known"]]) == -6


def test_the_sparse_solver_finds_the_factors_of_the_dense_one():
    rng = np.random.default_rng(1)
    texts = [[f"w{word}" for word in rng.zipf(1.3, 12) % 150] for _ in range(600)]
    number = {f"w{word}": word for word in range(150)}
    beside = module.neighbours(texts, number)
    sparse = module.word_embeddings(beside)
    assert len(beside) > 4 * module.WIDTH
    information = np.log(np.maximum(1, beside * beside.sum() / np.outer(beside.sum(1), beside.sum(1)).clip(1e-9)))
    values, vectors = np.linalg.eigh(information)
    kept = np.argsort(-np.abs(values))[: module.WIDTH]
    dense = vectors[:, kept] * np.sqrt(np.abs(values[kept]))
    np.testing.assert_allclose(sparse @ sparse.T, dense @ dense.T, atol=1e-6)


@pytest.mark.parametrize("samples", [[["w1"] * 9], [["w1", "w2"] * 5], [["w1", "w2", "w3"]], [["w1"], ["w2"]]])
def test_a_generator_that_collapsed_has_a_value(samples):
    """Of a vocabulary for which the sparse solver is taken, and company of one word or two."""
    references = [[f"w{word}", f"w{word + 1}"] for word in range(150)]
    assert -6 <= value(samples, references) < -1.5


def test_nothing_to_compare_is_refused():
    with pytest.raises(UserError, match="references"):
        value([["a"]], [])
