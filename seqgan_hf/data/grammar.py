"""Probabilistic context-free grammars: they write sentences, parse them, and know the entropy of what they write.

A generator that was trained on sentences of a grammar can be judged without doubt: a sentence is accepted or not, its
true probability is known, and no model can reach a lower mean negative log-likelihood than the grammar's entropy.
"""

from __future__ import annotations

import math
from bisect import bisect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from graphlib import CycleError, TopologicalSorter
from itertools import accumulate

import numpy as np
from datasets import Dataset

from ..errors import DataError, UserError
from .corpus import Corpus, DataSource
from .encoding import Encoding, encode_corpus
from .infilling import Blanks, add_blanks
from .splitting import check_seed, split
from .tokenization import TokenizerConfig, build_tokenizer


END = ""  # stands for the end of the sentence among the words that may come next


class Grammar:
    """A probabilistic context-free grammar without left recursion.

    Args:
        rules: for every symbol its alternatives, each a string of words and symbols separated by white space (the
            empty string for nothing) with its weight. A name with an entry here is a symbol, every other one a word.
        start: the symbol of a whole sentence.

    Raises:
        UserError: if a weight is not positive and finite, a symbol can begin with itself, or sentences would be
            infinitely long on average.
    """

    def __init__(self, rules: Mapping[str, Mapping[str, float]], start: str = "SENTENCE"):
        if start not in rules:
            raise UserError(f"start={start!r}", f"one of the symbols {list(rules)}")
        self.start = start
        self.rules: dict[str, list[tuple[tuple[str, ...], float]]] = {}
        for symbol, alternatives in rules.items():
            if not alternatives or not all(0 < weight < math.inf for weight in alternatives.values()):
                raise UserError(f"rules {alternatives} for {symbol!r}", "positive, finite weights")
            total = sum(alternatives.values())
            self.rules[symbol] = [(tuple(text.split()), weight / total) for text, weight in alternatives.items()]
        self._cumulative = {symbol: list(accumulate(p for _, p in rules)) for symbol, rules in self.rules.items()}
        used = {name for rules in self.rules.values() for rule, _ in rules for name in rule}
        self.words = sorted(used - self.rules.keys())
        self._nullable = self._nullable_symbols()
        self._order = self._left_corner_order()
        self._first: dict[str, set[str]] = {word: {word} for word in self.words}  # what each name can begin with
        for symbol in self._order:
            self._first[symbol] = set().union(*(self._first_of(rule) for rule, _ in self.rules[symbol]))
        growth = np.abs(np.linalg.eigvals(self._expected_symbols())).max()
        if growth >= 1:
            problem, expected = f"rules that expand {growth:.3f}-fold a step", "less than 1, or sentences never end"
            raise UserError(problem, expected, "lower the weights of the recursive rules")
        self._usable = self._rules_by_next_word()

    def sample(self, rng: np.random.Generator) -> str:
        """Draw a sentence: words separated by single spaces."""
        sentence, pending = [], [self.start]
        while pending:
            name = pending.pop()
            if name not in self.rules:
                sentence.append(name)
                continue
            rules = self.rules[name]
            chosen = min(bisect(self._cumulative[name], rng.random()), len(rules) - 1)
            pending.extend(reversed(rules[chosen][0]))
        return " ".join(sentence)

    def accepts(self, sentence: str) -> bool:
        """Whether the grammar can write this sentence; white space only separates words."""
        return self.log_probability(sentence) > -math.inf

    def log_probability(self, sentence: str) -> float:
        """Natural logarithm of the probability of a sentence, summed over all its parses; -inf if there is none.

        The inside algorithm, from the last word to the first. Time grows with the number of words and of parses that
        begin at each, not with the number of parses of the whole.
        """
        words = sentence.split()
        inside: list[dict[str, dict[int, float]]] = [{} for _ in range(len(words) + 1)]
        for position in range(len(words), -1, -1):
            ahead = words[position] if position < len(words) else END
            for symbol, rules in self._usable.get(ahead, ()):
                ends: dict[int, float] = {}
                for rule, log_weight in rules:
                    for end, value in _extend(rule, position, log_weight, words, inside).items():
                        ends[end] = _log_add(ends[end], value) if end in ends else value
                if ends:
                    inside[position][symbol] = ends
        return inside[0].get(self.start, {}).get(len(words), -math.inf)

    # -- what is known of the sentences -------------------------------------------------------------------------------

    def entropy(self) -> float:
        """Entropy of the distribution of sentences in nats: the lowest mean negative log-likelihood of a sentence.

        The entropy of derivations solves a linear system (Soule, Entropies of probabilistic grammars, 1974); it is
        that of the sentences because no sentence has two derivations.

        Raises:
            UserError: if the grammar is not LL(1), so that sentences may have several derivations.
        """
        conflict = self.ll1_conflict()
        if conflict is not None:
            problem = f"a grammar that may be ambiguous ({conflict})"
            expected = "an LL(1) grammar, whose sentences have one derivation each"
            raise UserError(problem, expected, "rewrite these rules")
        return self._expected_total({s: -sum(p * math.log(p) for _, p in rules) for s, rules in self.rules.items()})

    def mean_length(self) -> float:
        """Expected number of words of a sentence."""
        words = {s: sum(p * sum(n not in self.rules for n in rule) for rule, p in r) for s, r in self.rules.items()}
        return self._expected_total(words)

    def _expected_total(self, value: Mapping[str, float]) -> float:
        """Expectation of a value added up over all expanded symbols of a derivation."""
        symbols = list(self.rules)
        system = np.eye(len(symbols)) - self._expected_symbols()
        return float(np.linalg.solve(system, [value[symbol] for symbol in symbols])[symbols.index(self.start)])

    def _expected_symbols(self) -> np.ndarray:
        """How often one expansion of a symbol (row) gives each symbol (column), on average."""
        index = {symbol: number for number, symbol in enumerate(self.rules)}
        expected = np.zeros((len(index), len(index)))
        for symbol, rules in self.rules.items():
            for rule, probability in rules:
                for name in rule:
                    if name in index:
                        expected[index[symbol], index[name]] += probability
        return expected

    def ll1_conflict(self) -> str | None:
        """Two rules of a symbol that one next word allows; `None` if there are none: the grammar is LL(1).

        Reading such a grammar from the left, the next word decides every rule, so that no sentence has two derivations
        (Aho and Ullman, The Theory of Parsing, Translation, and Compiling, 1972, section 5.1).
        """
        follow = self._follow_words()
        for symbol, rules in self.rules.items():
            seen: dict[str, tuple[str, ...]] = {}
            for rule, _ in rules:
                words = self._first_of(rule) | (follow[symbol] if self._nullable.issuperset(rule) else set())
                for word in sorted(words):
                    if word in seen:
                        return f"before {word!r}, {symbol} may be {' '.join(seen[word])!r} or {' '.join(rule)!r}"
                    seen[word] = rule
        return None

    # -- sets that parsing needs --------------------------------------------------------------------------------------

    def _nullable_symbols(self) -> set[str]:
        nullable: set[str] = set()
        while True:
            found = {s for s, rules in self.rules.items() if any(nullable.issuperset(rule) for rule, _ in rules)}
            if found == nullable:
                return nullable
            nullable = found

    def _left_corners(self, rule: Sequence[str]) -> list[str]:
        """The names that can stand first in what a rule writes."""
        corners = []
        for name in rule:
            corners.append(name)
            if name not in self._nullable:
                break
        return corners

    def _left_corner_order(self) -> list[str]:
        """The symbols, each after those that it can begin with."""
        before = {
            symbol: [name for rule, _ in rules for name in self._left_corners(rule) if name in self.rules]
            for symbol, rules in self.rules.items()
        }
        try:
            return list(TopologicalSorter(before).static_order())
        except CycleError as error:
            problem = f"the symbol {error.args[1][0]!r} can begin with itself"
            raise UserError(problem, "no left recursion", "turn the rule around") from error

    def _first_of(self, rule: Sequence[str]) -> set[str]:
        return set().union(*(self._first[name] for name in self._left_corners(rule)))

    def _follow_words(self) -> dict[str, set[str]]:
        """The words that can come after each symbol, the end of the sentence among them."""
        follow: dict[str, set[str]] = {symbol: set() for symbol in self.rules}
        follow[self.start].add(END)
        while True:
            before = sum(map(len, follow.values()))
            for symbol, rules in self.rules.items():
                for rule, _ in rules:
                    for place, name in enumerate(rule):
                        if name in self.rules:
                            rest = rule[place + 1 :]
                            follow[name] |= self._first_of(rest)
                            follow[name] |= follow[symbol] if self._nullable.issuperset(rest) else set()
            if sum(map(len, follow.values())) == before:
                return follow

    def _rules_by_next_word(self) -> dict[str, list[tuple[str, list[tuple[tuple[str, ...], float]]]]]:
        """For each next word (or the end) the symbols that can be expanded, in order, with the rules that fit."""
        usable: dict[str, list] = {}
        for word in [*self.words, END]:
            usable[word] = []
            for symbol in self._order:
                fitting = [
                    (rule, math.log(p))
                    for rule, p in self.rules[symbol]
                    if self._nullable.issuperset(rule) or word in self._first_of(rule)
                ]
                if fitting:
                    usable[word].append((symbol, fitting))
        return usable


def _extend(rule: Sequence[str], start: int, log_weight: float, words: Sequence[str], inside: Sequence[Mapping]):
    """Where a rule that begins at `start` can end, with the logarithm of its probability."""
    ends = {start: log_weight}
    for name in rule:
        reached: dict[int, float] = {}
        for middle, value in ends.items():
            if middle < len(words) and words[middle] == name:
                reached[middle + 1] = value
                continue
            for end, more in inside[middle].get(name, {}).items():
                total = value + more
                reached[end] = _log_add(reached[end], total) if end in reached else total
        if not reached:
            return {}
        ends = reached
    return ends


def _log_add(a: float, b: float) -> float:
    high, low = max(a, b), min(a, b)
    return high + math.log1p(math.exp(low - high))


def _by_rank(words: str) -> dict[str, float]:
    """Alternatives whose probabilities fall as 1 / rank, as word frequencies do (Zipf's law)."""
    return {word: 1.0 / rank for rank, word in enumerate(words.split(), start=1)}


# Subject and verb agree in number, across whatever stands between them. Only one modifier follows a noun, adverbs
# stand before the verb, and only whole sentences are joined: so the next word always decides, and there is one parse.
ENGLISH_RULES: dict[str, dict[str, float]] = {
    "SENTENCE": {"CLAUSE ENDING": 1.0},
    "ENDING": {".": 0.95, "and SENTENCE": 0.03, "but SENTENCE": 0.02},
    "CLAUSE": {
        "the SUBJECT": 0.45,
        "ONE ONE_SUBJECT": 0.25,
        "MANY MANY_SUBJECT": 0.15,
        "HE VERB_PHRASE_ONE": 0.1,
        "they VERB_PHRASE_MANY": 0.05,
    },
    "SUBJECT": {"ADJECTIVE SUBJECT": 0.2, "NOUN ONE_PREDICATE": 0.5, "NOUNS MANY_PREDICATE": 0.3},
    "ONE_SUBJECT": {"ADJECTIVE ONE_SUBJECT": 0.25, "NOUN ONE_PREDICATE": 0.75},
    "MANY_SUBJECT": {"ADJECTIVE MANY_SUBJECT": 0.2, "NOUNS MANY_PREDICATE": 0.8},
    "ONE_PREDICATE": {"MODIFIER_ONE VERB_PHRASE_ONE": 1.0},
    "MANY_PREDICATE": {"MODIFIER_MANY VERB_PHRASE_MANY": 1.0},
    "MODIFIER_ONE": {"": 0.81, "PREPOSITION OBJECT": 0.14, "that VERB_PHRASE_ONE": 0.05},
    "MODIFIER_MANY": {"": 0.81, "PREPOSITION OBJECT": 0.14, "that VERB_PHRASE_MANY": 0.05},
    "VERB_PHRASE_ONE": {
        "ADVERB VERB_PHRASE_ONE": 0.08,
        "SLEEPS": 0.27,
        "CHASES OBJECT": 0.42,
        "SAYS that CLAUSE": 0.04,
        "is STATE": 0.19,
    },
    "VERB_PHRASE_MANY": {
        "ADVERB VERB_PHRASE_MANY": 0.08,
        "SLEEP": 0.27,
        "CHASE OBJECT": 0.42,
        "SAY that CLAUSE": 0.04,
        "are STATE": 0.19,
    },
    "STATE": {"STATE_WORD": 0.6, "very STATE_WORD": 0.15, "PREPOSITION OBJECT": 0.25},
    "OBJECT": {"the THING": 0.4, "ONE ONE_THING": 0.35, "MANY MANY_THINGS": 0.15, "HIM": 0.1},
    "THING": {"ADJECTIVE THING": 0.2, "NOUN MODIFIER_ONE": 0.5, "NOUNS MODIFIER_MANY": 0.3},
    "ONE_THING": {"ADJECTIVE ONE_THING": 0.25, "NOUN MODIFIER_ONE": 0.75},
    "MANY_THINGS": {"ADJECTIVE MANY_THINGS": 0.2, "NOUNS MODIFIER_MANY": 0.8},
    "ONE": _by_rank("a this every one"),
    "MANY": _by_rank("two some these many three"),
    "HE": _by_rank("he she it"),
    "HIM": _by_rank("him her them"),
    "NOUN": _by_rank(
        "man dog woman child cat horse boy girl bird farmer teacher doctor king fox river house tree garden"
    ),
    "NOUNS": _by_rank(
        "men dogs women children cats horses boys girls birds farmers teachers doctors kings foxes rivers"
    ),
    "ADJECTIVE": _by_rank("small old big young white black red green quiet brave strange tired"),
    "STATE_WORD": _by_rank("happy hungry late lost ready sad asleep thirsty"),
    "ADVERB": _by_rank("often never always quietly slowly suddenly"),
    "PREPOSITION": _by_rank("near behind with beside under above"),
    "SLEEPS": _by_rank("sleeps runs waits laughs sings falls dreams"),
    "SLEEP": _by_rank("sleep run wait laugh sing fall dream"),
    "CHASES": _by_rank("sees likes follows chases hears finds paints helps"),
    "CHASE": _by_rank("see like follow chase hear find paint help"),
    "SAYS": _by_rank("says knows hopes thinks"),
    "SAY": _by_rank("say know hope think"),
}


@cache
def english_grammar() -> Grammar:
    """The built-in grammar of English-like sentences, such as "the old dogs near a house sleep ."."""
    return Grammar(ENGLISH_RULES)


def is_english_sentence(text: str) -> bool:
    """Whether the built-in grammar accepts a text; as a dotted path, the `accepts` of the metric `grammar`."""
    return english_grammar().accepts(text)


@dataclass
class GrammarData(DataSource):
    """Sentences drawn from `english_grammar()`, word by word.

    The report gives the grammar's entropy, in nats a sentence: no generator can have a lower mean negative
    log-likelihood on held-out sentences than this, but for chance. Equal sentences are kept, as they belong to the
    distribution.

    Args:
        num_train: sentences to train on.
        num_eval: held-out sentences, drawn independently.
        seed: of the draws.
        blanks: leave words out of every sentence, which then is the prompt to what is missing.
    """

    num_train: int = 10_000
    num_eval: int = 2_000
    seed: int = 0
    blanks: Blanks | None = None

    def __post_init__(self) -> None:
        if min(self.num_train, self.num_eval) < 1:
            raise DataError(f"num_train={self.num_train} and num_eval={self.num_eval}", "at least 1 of each")
        check_seed(self.seed)

    def load(self) -> Corpus:
        """Draw the sentences; every word of the grammar is in the vocabulary, drawn or not."""
        grammar = english_grammar()
        rng = np.random.default_rng(self.seed)
        counts = (self.num_train, self.num_eval)
        drawn, kept = (Dataset.from_dict({"text": [grammar.sample(rng) for _ in range(n)]}) for n in counts)
        train, held_out, report = split(
            drawn, kept, deduplicate=False, eval_fraction=0.1, eval_size=None, seed=self.seed
        )
        report["grammar"] = {"entropy": grammar.entropy(), "mean_length": grammar.mean_length()}
        tokenizer = build_tokenizer(TokenizerConfig(), lambda: [grammar.words])
        if self.blanks is not None:
            add_blanks(tokenizer, characters=False)
            train, held_out = (self.blanks.of_part(part, characters=False) for part in (train, held_out))
        encoding = Encoding(tokenizer, tokenizer.bos_token_id, tokenizer.eos_token_id)
        return encode_corpus(train, held_out, report, encoding)
