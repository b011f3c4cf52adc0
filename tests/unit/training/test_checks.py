"""What is checked before a run begins."""

import pytest

from tests.tools.small_runs import build, small_corpus
from tests.tools.tiny import build_discriminator


@pytest.mark.parametrize(("size", "warned"), [(13, False), (14, True)])
def test_a_discriminator_of_a_larger_vocabulary_is_warned_of(size, warned, tmp_path, caplog):
    caplog.set_level("WARNING", logger="seqgan_hf")
    build(small_corpus(), tmp_path, discriminator=build_discriminator("bert", vocab_size=size))
    assert ("The discriminator knows 14 token ids, the generator 13" in caplog.text) == warned
