"""Where sequences come from: text files, datasets, integer ids, a built-in grammar. See `docs/data.md`."""

from .batches import materialize, stream_samples, to_samples
from .corpus import Corpus, DataSource
from .corpus_report import corpus_report
from .grammar_data import GrammarData
from .ids import IdsData
from .oracle import OracleData, build_oracle, load_oracle
from .text import TextData
from .tokenization import TokenizerConfig, decode_batch, integer_tokenizer


__all__ = [
    "Corpus",
    "DataError",
    "DataSource",
    "GrammarData",
    "IdsData",
    "OracleData",
    "build_oracle",
    "load_oracle",
    "TextData",
    "TokenizerConfig",
    "corpus_report",
    "decode_batch",
    "integer_tokenizer",
    "materialize",
    "stream_samples",
    "to_samples",
]
