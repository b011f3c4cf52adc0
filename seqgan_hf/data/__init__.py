"""Where sequences come from: text files, datasets, integer ids, a grammar, an oracle. See `docs/how-to/data.md`."""

from .batches import materialize, stream_samples, to_samples
from .corpus import Corpus, DataSource
from .corpus_report import corpus_report, write_corpus_report
from .grammar import GrammarData
from .ids import IdsData
from .infilling import Blanks
from .lines import from_one_line, one_line
from .oracle import OracleData, build_oracle, load_oracle
from .text import TextData
from .tokenization import TokenizerConfig, decode, decode_ids, integer_tokenizer


__all__ = [
    "Blanks",
    "Corpus",
    "DataSource",
    "GrammarData",
    "IdsData",
    "OracleData",
    "TextData",
    "TokenizerConfig",
    "build_oracle",
    "corpus_report",
    "decode",
    "decode_ids",
    "from_one_line",
    "integer_tokenizer",
    "load_oracle",
    "materialize",
    "one_line",
    "stream_samples",
    "to_samples",
    "write_corpus_report",
]
