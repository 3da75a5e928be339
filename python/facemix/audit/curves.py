"""Receiver operating characteristics, thinned out for reports."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from .outcome import Roc

__all__ = ["roc"]

POINTS = 200


def roc(name: str, true: ArrayLike, scores: ArrayLike) -> tuple[Roc, ...]:
    """The curve of a score that is to tell what is true from what is not, or none where all or nothing is true.

    Args:
        name: of the curve.
        true: bool [N].
        scores: float [N].
    """
    from sklearn.metrics import roc_auc_score, roc_curve

    labels = np.asarray(true, bool)
    if labels.all() or not labels.any():
        return ()
    false_positive, true_positive, _ = roc_curve(labels, np.asarray(scores))
    at = np.linspace(0, len(false_positive) - 1, min(POINTS, len(false_positive))).astype(int)
    area = float(roc_auc_score(labels, np.asarray(scores)))
    return (Roc(name, tuple(false_positive[at].tolist()), tuple(true_positive[at].tolist()), area),)
