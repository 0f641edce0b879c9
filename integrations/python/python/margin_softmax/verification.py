"""How well scores tell the same identity from different ones: error rates, accuracy over folds, identification, as-norm.

A score says how alike two items are, the higher the more; float64 is rounded to float32. ``same`` says of each pair whether its
items are of the same identity: booleans, or integers 0 and 1. Every threshold accepts the pairs that score at least as high, so
pairs of equal score are accepted together. A score that is NaN or infinite, and pairs of one kind only, raise ``ValueError``.

>>> import numpy as np
>>> from margin_softmax import verification
>>> scores = np.array([0.9, 0.7, 0.6, 0.3, 0.8, 0.4, 0.2, 0.1], np.float32)
>>> same = np.array([1, 1, 1, 1, 0, 0, 0, 0])
>>> verification.eer(scores, same)
0.25
>>> verification.tar_at_far(scores, same, 0.0)
0.25
"""

from typing import Optional, TypedDict, Union

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ._native import verification as _native

__all__ = [
    "PairAccuracy",
    "as_norm",
    "eer",
    "min_dcf",
    "nearest",
    "pair_accuracy",
    "pair_cosines",
    "rank1",
    "roc",
    "tar_at_far",
    "top_k",
    "with_distractors",
]


class PairAccuracy(TypedDict):
    """Accuracy over folds of pairs."""

    mean: float
    deviation: float
    """The sample standard deviation over the folds."""
    standard_error: float
    """Deviation / √folds, which LFW asks for."""
    folds: list[float]
    thresholds: list[float]


def _floats(values: ArrayLike) -> NDArray[np.float32]:
    array = np.asarray(values)
    if array.dtype.kind not in "fiu":
        raise TypeError(f"an array of {array.dtype}, expected floating-point numbers")
    return np.ascontiguousarray(array, np.float32)


def _flags(same: ArrayLike) -> NDArray[np.bool_]:
    array = np.asarray(same)
    if array.dtype.kind in "iu" and np.isin(array, (0, 1)).all():
        array = array.astype(np.bool_)
    if array.dtype.kind != "b":
        raise TypeError("`same` must hold booleans, or integers that are 0 or 1")
    return np.ascontiguousarray(array)


def eer(scores: ArrayLike, same: ArrayLike) -> float:
    """The equal error rate, linear between two thresholds; ½ for scores that are all equal."""
    return _native.eer(_floats(scores), _flags(same))


def min_dcf(
    scores: ArrayLike, same: ArrayLike, target_prior: float = 0.01, miss: float = 1.0, false_alarm: float = 1.0
) -> float:
    """The least detection cost over all thresholds, by the cost of the better of rejecting and accepting everything.

    The defaults are those of VoxCeleb. VoxSRC has a ``target_prior`` of 0.05, NIST SRE 2010 one of 0.001.
    """
    return _native.min_dcf(_floats(scores), _flags(same), target_prior, miss, false_alarm)


def tar_at_far(scores: ArrayLike, same: ArrayLike, far: float) -> float:
    """The largest true accept rate of all thresholds whose false accept rate is at most ``far``; nothing is interpolated."""
    return _native.tar_at_far(_floats(scores), _flags(same), far)


def roc(
    scores: ArrayLike, same: ArrayLike, points: Optional[int] = None
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float32]]:
    """False accept rates, true accept rates and thresholds, from infinity down to the lowest score.

    One point for each score that occurs, or about ``points`` of them, thinned so that low rates stay visible.
    """
    return _native.roc(_floats(scores), _flags(same), points)


def pair_accuracy(scores: ArrayLike, same: ArrayLike, folds: Union[int, ArrayLike] = 10) -> PairAccuracy:
    """Accuracy by the protocol of LFW: each fold at the threshold that suits all others best.

    ``folds``: how many, of neighbouring pairs, or an array with the fold of each pair.
    """
    return _native.pair_accuracy(_floats(scores), _flags(same), folds if isinstance(folds, int) else np.asarray(folds))


def top_k(nearest: ArrayLike, probes: ArrayLike) -> list[float]:
    """The share of the probes with their identity among the r nearest, for r = 1 to k.

    ``nearest`` [N, k]: identities of the items nearest to each probe, the nearest first; ``probes`` [N]: their own.
    """
    return _native.top_k(np.asarray(nearest), np.asarray(probes))


def rank1(nearest: ArrayLike, probes: ArrayLike) -> float:
    """The share of the probes whose nearest item has their identity."""
    return top_k(nearest, probes)[0]


def with_distractors(distractors: ArrayLike, probes: ArrayLike, scores: ArrayLike) -> list[float]:
    """The same as `top_k` for mates that are hidden among distractors, as MegaFace has it.

    ``distractors`` [P, k]: the largest scores of each probe with the distractors; ``probes`` [N] and ``scores`` [N]: of each
    search the probe's row there, and its score with the mate. A distractor that scores as high is placed before the mate.
    """
    return _native.with_distractors(_floats(distractors), np.asarray(probes), _floats(scores))


def as_norm(
    scores: ArrayLike, pairs: ArrayLike, enrolled: ArrayLike, tested: Optional[ArrayLike] = None
) -> NDArray[np.float32]:
    """Adaptive s-norm (AS-norm1): ½·[(s − μ(e))/σ(e) + (s − μ(t))/σ(t)].

    ``pairs`` [N, 2]: rows of ``enrolled`` and of ``tested`` (the same array if absent), which have the largest scores of each
    item with the cohort, [items, k]; see `nearest`.
    """
    other = None if tested is None else _floats(tested)
    return _native.as_norm(_floats(scores), np.asarray(pairs), _floats(enrolled), other)


def pair_cosines(
    left: ArrayLike, right: ArrayLike, pairs: ArrayLike, device: str = "best", threads: Optional[int] = None
) -> NDArray[np.float32]:
    """Cosines of pairs [N, 2] of rows of ``left`` [L, D] and of ``right`` [R, D], in bounded memory."""
    return _native.pair_cosines(_floats(left), _floats(right), np.asarray(pairs), device, threads)


def nearest(
    probes: ArrayLike, gallery: ArrayLike, k: int, device: str = "best", threads: Optional[int] = None
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The ``k`` rows of ``gallery`` [M, D] nearest to each of ``probes`` [N, D], and their cosines: both [N, k]."""
    return _native.nearest(_floats(probes), _floats(gallery), k, device, threads)
