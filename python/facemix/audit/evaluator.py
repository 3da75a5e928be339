"""Who is on a recovered photograph: said by a classifier that no attack trains with."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from facemix.data import Labelled

__all__ = ["Evaluator"]

COMPONENTS = 100


class Evaluator:
    """Fisherfaces (Belhumeur et al. 1997): principal components of the pixels, then linear discriminant analysis.

    Args:
        faces: photographs of known people, some of them more than once.
    """

    def __init__(self, faces: Labelled) -> None:
        from sklearn.decomposition import PCA
        from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
        from sklearn.pipeline import make_pipeline

        pixels = _pixels(np.asarray(faces.images))
        components = PCA(min(COMPONENTS, len(pixels) // 2), whiten=True, svd_solver="full")
        self._fitted = make_pipeline(components, LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto"))
        self._fitted.fit(pixels, faces.labels("identity").numpy())

    def __call__(self, images: NDArray[np.generic]) -> NDArray[np.int64]:
        """Images [N, C, H, W], of any brightness and contrast -> the person on each: int64 [N]."""
        return self._fitted.predict(_pixels(images))


def _pixels(images: NDArray[np.generic]) -> NDArray[np.float64]:
    flat = images.reshape(len(images), -1).astype(np.float64)
    flat -= flat.mean(1, keepdims=True)
    return flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-12)
