"""Intervals for accuracies and for per-image means, with the image as the unit.

A stochastic model is scored on several draws per image. Draws of one image are not independent images: an interval
on the pooled draws is far too narrow (a nominal 95 % covers about 55 % at ten draws), so no function here pools them.
An interval is never of width zero, also when every image agrees: 0 of 1000 correct is [0, 0.0037], not [0, 0].
"""

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri

Floats = npt.NDArray[np.float64]

FEW_IMAGES = 20
"""With fewer images than this on one side, sd/sqrt(N) is too noisy for a normal interval to keep its coverage."""


class Interval(NamedTuple):
    """A point estimate inside its confidence interval.

    Attributes:
        value: the estimate; ``lo <= value <= hi``.
        lo: lower end.
        hi: upper end.
        method: how the ends were found, such as ``wilson``, for reports.
    """

    value: float
    lo: float
    hi: float
    method: str


def accuracy(correct: npt.ArrayLike, draws: int, confidence: float = 0.95) -> Interval:
    """Expected accuracy of one draw, with the interval that suits the number of draws.

    Args:
        correct: (N,) the number of draws, 0 to ``draws``, on which each image is classified correctly.
        draws: scoring draws per image; 1 for a deterministic model.
        confidence: two-sided coverage in (0, 1).

    Returns:
        :func:`proportion` at one draw, otherwise :func:`cluster_mean`; fractions in [0, 1].

    Raises:
        ValueError: for no images, or counts that are not whole numbers in 0 … ``draws``.
    """
    counts = checked_counts(correct, draws)
    return proportion(counts, confidence) if draws == 1 else cluster_mean(counts / draws, confidence)


def proportion(correct: npt.ArrayLike, confidence: float = 0.95) -> Interval:
    """Accuracy of deterministic verdicts.

    Wilson's score interval (Wilson 1927); at 0 or N correct the exact one of Clopper and Pearson (1934).

    Args:
        correct: (N,) booleans or 0/1, one per image.
        confidence: two-sided coverage in (0, 1).

    Raises:
        ValueError: for no images or other values.
    """
    counts = checked_counts(correct, 1)
    return _binomial(float(counts.mean()), counts.size, confidence)


def cluster_mean(share: npt.ArrayLike, confidence: float = 0.95) -> Interval:
    """Mean of a per-image share, such as k of S correct draws: mean ± z·sd/√N, clipped to [0, 1].

    Where fewer than ``FEW_IMAGES`` images have a share above 0, or below 1, or all shares are equal, the interval is
    that of :func:`proportion` with the mean as its fraction of N images. It is conservative, since no variable in
    [0, 1] varies more than a 0/1 one of the same mean.

    Args:
        share: (N,) fractions in [0, 1], one per image.
        confidence: two-sided coverage in (0, 1).

    Raises:
        ValueError: for no images or values outside [0, 1].
    """
    shares = _in_range(share, 0.0, 1.0)
    mean = float(shares.mean())
    few = min(np.count_nonzero(shares > 0), np.count_nonzero(shares < 1)) < FEW_IMAGES
    if few or np.ptp(shares) == 0:
        return _binomial(mean, shares.size, confidence)
    half = critical(confidence) * float(shares.std(ddof=1)) / math.sqrt(shares.size)
    return Interval(mean, max(0.0, mean - half), min(1.0, mean + half), "image-cluster")


def worst_shares(correct: npt.ArrayLike, draws: int, n: int) -> Floats:
    """Per image, the unbiased estimate C(k, n) / C(S, n) of the chance that n fresh draws are all correct.

    The plug-in (k/S)^n is biased upwards. The mean is :func:`worst_at`; :func:`cluster_mean` gives its interval.

    Args:
        correct: (N,) correct draws k of each image, 0 to ``draws``.
        draws: scoring draws S per image.
        n: how many times the adversary may query the model, 1 to ``draws``.

    Returns:
        (N,) fractions in [0, 1].

    Raises:
        ValueError: if n is not in 1 … ``draws``, and as :func:`accuracy` does.
    """
    if not 1 <= n <= draws:
        raise ValueError(f"worst@{n} needs 1 <= n <= draws, and there are {draws} draws; score with more draws")
    total = math.comb(draws, n)
    table = np.array([math.comb(k, n) / total for k in range(draws + 1)])
    return np.asarray(table[checked_counts(correct, draws)], dtype=np.float64)


def worst_at(correct: npt.ArrayLike, draws: int, n: int) -> float:
    """Accuracy against an adversary who queries each image n times and wins with one error: mean of p_i^n, unbiased.

    Compare it with its own value on clean images: only the difference is an effect of the attack. Arguments and
    errors are those of :func:`worst_shares`.
    """
    return float(worst_shares(correct, draws, n).mean())


def mean_intervals(differences: npt.ArrayLike, confidence: float = 0.95) -> list[Interval]:
    """Means of per-image differences in [-1, 1], such as the shift of execution rates; one interval per column.

    Normal interval after adding one image at -1 and one at +1 (Bonett and Price 2012, for differences of 0/1 pairs),
    so that a column of zeros does not claim certainty; the value is the plain mean.

    Args:
        differences: (N, M) differences of N images in M quantities.
        confidence: two-sided coverage in (0, 1).

    Returns:
        M intervals within [-1, 1].

    Raises:
        ValueError: for no images, another number of axes, or values outside [-1, 1].
    """
    values = _in_range(differences, -1.0, 1.0, axes=2)
    padded = np.concatenate([values, np.full((1, values.shape[1]), -1.0), np.full((1, values.shape[1]), 1.0)])
    half = critical(confidence) * padded.std(axis=0, ddof=1) / math.sqrt(len(padded))
    value, centre = values.mean(axis=0), padded.mean(axis=0)
    # At low confidence the shrunken centre may lie further from the mean than the half-width.
    lo, hi = np.maximum(np.minimum(centre - half, value), -1.0), np.minimum(np.maximum(centre + half, value), 1.0)
    return [Interval(float(v), float(a), float(b), "adjusted-normal") for v, a, b in zip(value, lo, hi, strict=True)]


def mean_interval(differences: npt.ArrayLike, confidence: float = 0.95) -> Interval:
    """:func:`mean_intervals` for one quantity: (N,) differences in [-1, 1]."""
    return mean_intervals(_in_range(differences, -1.0, 1.0)[:, None], confidence)[0]


def critical(confidence: float) -> float:
    """The two-sided standard normal quantile: 1.96 at a confidence of 0.95.

    Raises:
        ValueError: if the confidence is not in (0, 1).
    """
    if not 0.0 < confidence < 1.0:
        raise ValueError(f"confidence must lie between 0 and 1, not {confidence}")
    return float(ndtri((1.0 + confidence) / 2.0))


def wilson(fraction: float, n: int, confidence: float) -> tuple[float, float]:
    """Ends of Wilson's score interval of a fraction of n."""
    z2 = critical(confidence) ** 2
    centre = (fraction + z2 / (2 * n)) / (1 + z2 / n)
    half = math.sqrt(z2 * (fraction * (1 - fraction) / n + z2 / (4 * n * n))) / (1 + z2 / n)
    return max(0.0, centre - half), min(1.0, centre + half)


def _binomial(fraction: float, n: int, confidence: float) -> Interval:
    lo, hi = wilson(fraction, n, confidence)
    if 0.0 < fraction < 1.0:
        return Interval(fraction, lo, hi, "wilson")
    exact = ((1.0 - confidence) / 2.0) ** (1.0 / n)
    lo, hi = (0.0, 1.0 - exact) if fraction == 0.0 else (exact, 1.0)
    return Interval(fraction, lo, hi, "clopper-pearson")


def checked_counts(correct: npt.ArrayLike, draws: int, axes: int = 1) -> npt.NDArray[np.int64]:
    """Correct draws as integers, the images along the last of ``axes`` axes.

    Raises:
        ValueError: for no images, no draws, another number of axes, or counts that are not whole numbers in
            0 … ``draws``.
    """
    if draws < 1:
        raise ValueError(f"a model is scored on at least one draw, not {draws}")
    array = _in_range(correct, 0.0, draws, axes)
    counts = array.astype(np.int64)
    if not np.array_equal(array, counts):
        raise ValueError("counts of correct draws must be whole numbers")
    return counts


def _in_range(values: npt.ArrayLike, low: float, high: float, axes: int = 1) -> Floats:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != axes or array.size == 0:
        raise ValueError(f"expected values of at least one image in {axes} axes, got shape {array.shape}")
    if not np.all((array >= low) & (array <= high)):  # also refuses NaN
        raise ValueError(f"values must lie in [{low:g}, {high:g}]")
    return array
