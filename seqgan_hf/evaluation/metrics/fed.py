"""Frechet embedding distance of Heusel et al. (2017), https://arxiv.org/abs/1706.08500, equation 6.

For text, with a sentence encoder: Semeniuta et al. (2018), https://arxiv.org/abs/1806.04936 (FD) and de Masson
d'Autume et al. (2019), https://arxiv.org/abs/1905.09922 (FED).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ...errors import UserError


def check_features(sample_features: np.ndarray, reference_features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both as float64 (N, D) and (M, D); raises `UserError` where they cannot be compared."""
    ours, theirs = (np.asarray(features, np.float64) for features in (sample_features, reference_features))
    if ours.ndim != 2 or theirs.ndim != 2 or ours.shape[1] != theirs.shape[1] or min(len(ours), len(theirs)) < 2:
        problem = f"features of shapes {ours.shape} and {theirs.shape}"
        raise UserError(problem, "(N, D) and (M, D) of at least 2 texts each", "use one encoder and more texts")
    if not (np.isfinite(ours).all() and np.isfinite(theirs).all()):
        raise UserError("features that are not finite", "finite numbers", "check the encoder's output")
    return ours, theirs


def frechet_embedding_distance(sample_features: np.ndarray, reference_features: np.ndarray) -> dict[str, float]:
    """Frechet distance between embeddings as two Gaussians: `fed`, 0 for equal means and covariances.

    It sees quality and diversity together, but only what two moments of the encoder's embeddings show, and it is
    biased upward for few texts: compare only values of equally many texts and the same encoder, beside that of real
    text. `|m - m'|^2 + Tr(S + S' - 2 (S S')^(1/2))` for the means m and covariances S of both sets of features: with
    centred features X / sqrt(N - 1) = Q R (so S = R^T R), the eigenvalues of S S' are the squared singular values of
    R R'^T, and the trace of the root is their plain sum. No root of a nearly singular matrix is ever taken, so the
    value is exact to rounding even with fewer texts than dimensions.

    >>> import numpy as np
    >>> frechet_embedding_distance(np.array([[0.0], [2.0]]), np.array([[3.0], [5.0]]))
    {'fed': 9.0}
    """
    ours, theirs = check_features(sample_features, reference_features)
    shift = ours.mean(axis=0) - theirs.mean(axis=0)
    factors: list[Any] = [np.linalg.qr((x - x.mean(axis=0)) / (len(x) - 1) ** 0.5, mode="r") for x in (ours, theirs)]
    overlap = np.linalg.svd(factors[0] @ factors[1].T, compute_uv=False).sum()
    spread = sum(float(np.square(factor).sum()) for factor in factors)
    return {"fed": max(0.0, float(shift @ shift) + spread - 2.0 * float(overlap))}
