"""What is wrong with samples, in words, and where nothing can be said about them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from itertools import chain

import numpy as np

from .catalog import Texts
from .record import Estimate, Result


# Patterns of names, +1 if values above real text's are bad and -1 if those below are, and what it means where each
# pattern has a bad value.
SYMPTOMS = (
    (("bleu_.*",), 1, "better than real text at its own game: mode seeking"),
    (("self_bleu_.*",), 1, "samples repeat one another more than real text does: lack of diversity"),
    (("distinct_.*",), -1, "samples repeat one another more than real text does: lack of diversity"),
    (("copy_rate",), 1, "samples are training texts more often than held-out text is: copying"),
    # short samples have a large share that is copied by chance, and long ones long runs
    (("longest_copy", "longest_copy_share"), 1, "longer runs of training text than in held-out text: copying"),
    (("lm_score",), -1, "likelier than real text under a language model: mode seeking or copying"),
    (("nll_oracle",), -1, "likelier under the oracle than its own text is: mode seeking"),
    (("lm_score",), 1, "less likely than real text under a language model: not fluent"),
    (("bleu_.*",), -1, "fewer n-grams are real than in real text: not fluent"),
    (("reverse_lm_score",), 1, "less can be learnt from the samples than from real text: something is missing"),
    (("judge_accuracy",), 1, "a fresh judge tells samples from real text more often than real text from real text"),
)
# Lengths are far off where the mean is larger or smaller than real text's by more than this factor.
FAR_OFF = 1.5


def find_flags(results: Mapping[str, Result], samples: Texts, real: Texts | None) -> list[str]:
    """What is wrong, one line for each symptom; first, as `cannot judge: ...`, why other lines may be missing.

    A value is bad if its interval lies wholly on the bad side of real text's interval.
    """
    flags = [] if real is None else _far_from_real(samples, real)
    for patterns, sign, meaning in SYMPTOMS:
        bad = [[name for name in _named(pattern, results) if _is_bad(results[name], sign)] for pattern in patterns]
        if all(bad):
            values = (f"{n} {results[n].value:.3f} (real text {results[n].real.value:.3f})" for n in chain(*bad))
            flags.append(f"{', '.join(values)}: {meaning}")
    return [f"cannot judge: {why}" for why in _blind_spots(results, samples, real)] + flags


def compared(results: Mapping[str, Result]) -> tuple[list[str], list[str]]:
    """Values that can be a symptom: those with an interval beside one of real text, and those that are not judged."""
    names = dict.fromkeys(chain(*(_named(pattern, results) for patterns, *_ in SYMPTOMS for pattern in patterns)))
    judged = [name for name in names if _has_interval(results[name]) and _has_interval(results[name].real)]
    return judged, [name for name in names if name not in judged]


def short_sighted(texts: Texts, option: str = "--tokenization") -> str | None:
    """Why metrics that count tokens see nothing in these real texts, and the remedy; `None` where they do.

    `option` is how the setting of the tokenization is called where it is set.
    """
    tokenization = texts.settings.tokenization
    different = set(map(tuple, texts.tokens))
    texts_with = Counter(chain.from_iterable(map(set, different)))
    alone = float(np.mean([all(texts_with[token] == 1 for token in text) for text in different]))
    median = float(np.median([len(text) for text in texts.tokens]))
    if median <= 2:
        why, fix = f"the median text has {median:g} token{'s' * (median != 1)}", "give longer texts"
    elif alone >= 0.5 and len(different) > 1:
        why, fix = f"{alone:.0%} of the different texts share no token with another", "give more real texts"
    else:
        return None
    if tokenization != "character":
        fix = f"set {option} character"
    return f"{why} (tokenization {tokenization}): {fix}"


def _blind_spots(results: Mapping[str, Result], samples: Texts, real: Texts | None) -> list[str]:
    found = ["there is 1 sample: give more"] if len(samples) == 1 else []
    if why := short_sighted(samples if real is None else real):
        found.append(why)
    if not found and not compared(results)[0]:
        fix = "give `references`" if real is None else "give more texts, or choose more metrics"
        found.append(f"no value has an interval beside one of real text: {fix}")
    return found


def _named(pattern: str, results: Mapping[str, Result]) -> list[str]:
    return [name for name in results if re.fullmatch(pattern, name)]


def _has_interval(estimate: Estimate | None) -> bool:
    return estimate is not None and estimate.low is not None


def _is_bad(result: Result, sign: int) -> bool:
    if not (_has_interval(result) and _has_interval(result.real)):
        return False
    return result.low > result.real.high if sign > 0 else result.high < result.real.low


def _far_from_real(samples: Texts, real: Texts) -> list[str]:
    """Flags if more samples are empty than real texts are, and if samples are far longer or shorter."""
    flags, counts = [], [(sum(not text.strip() for text in texts.texts), len(texts)) for texts in (samples, real)]
    ours, theirs = (Estimate.of_share(*count) for count in counts)
    if ours.low > theirs.high:
        (empty, of), (real_empty, of_real) = counts
        flags.append(f"{empty} of {of} samples are empty ({real_empty} of {of_real} real texts)")
    ours, theirs = (Estimate.of_mean(np.array([len(t) for t in texts.tokens], float)) for texts in (samples, real))
    far = _has_interval(ours) and _has_interval(theirs)
    if far and (ours.low > FAR_OFF * theirs.high or FAR_OFF * ours.high < theirs.low):
        means = f"samples have {ours.value:.1f} tokens on average, real texts {theirs.value:.1f}"
        flags.append(f"{means}: lengths are far off")
    return flags
