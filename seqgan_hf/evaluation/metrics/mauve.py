"""MAUVE of Pillutla et al. (2021), https://arxiv.org/abs/2102.01454, through its authors' library."""

from __future__ import annotations

import numpy as np

from ...errors import MissingExtraError
from .fed import check_features


def mauve(sample_features: np.ndarray, reference_features: np.ndarray, seed: int = 0) -> dict[str, float]:
    """Area under the divergence frontier of both distributions over k-means clusters: `mauve` in (0, 1], 1 if equal.

    How well samples and real text cover each other's clusters of embeddings. The value depends on the encoder and on
    the number of texts (the authors use 5,000 and GPT-2 large), so compare only equals. The library's own settings are
    kept: clusters = texts / 10, scaling factor 5; the seed is that of k-means.

    Raises:
        MissingExtraError: `mauve-text` is not installed.

    >>> import numpy as np
    >>> features = np.random.default_rng(0).normal(size=(400, 2))
    >>> round(mauve(features, features)["mauve"], 2)
    1.0
    """
    ours, theirs = check_features(sample_features, reference_features)
    try:
        from mauve import compute_mauve
    except ImportError as error:
        problem, fix = "MAUVE needs its authors' library, mauve-text", 'run `pip install "seqgan-hf[mauve]"`'
        raise MissingExtraError(problem, None, fix) from error
    # With fewer texts than 39 a cluster faiss prints a warning of its own; the cluster number is the authors' rule.
    return {"mauve": float(compute_mauve(p_features=theirs, q_features=ours, seed=seed, verbose=False).mauve)}
