"""Comparisons of two evaluations on the same images, and what may be said about a whole grid of epsilons."""

import math
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr
from scipy.stats import binomtest

from robustbench_aig.statistics.intervals import (
    FEW_IMAGES,
    Floats,
    Interval,
    accuracy,
    checked_counts,
    critical,
    mean_interval,
    wilson,
)

Alternative = Literal["two-sided", "greater"]
"""What a p-value speaks for: the two differ, or the first is more accurate than the second."""

_CHUNK = 2_000_000  # resampling weights held at once: 16 MB


class Comparison(NamedTuple):
    """Two evaluations of the same images.

    Attributes:
        difference: accuracy of the first minus that of the second, in [-1, 1].
        p_value: of the hypothesis that the accuracies are equal.
        test: ``mcnemar-exact`` or ``sign-flip``.
    """

    difference: Interval
    p_value: float
    test: str


def compare(
    a: npt.ArrayLike,
    b: npt.ArrayLike,
    *,
    seed: int,
    alternative: Alternative = "two-sided",
    confidence: float = 0.95,
    resamples: int = 10_000,
) -> Comparison:
    """Difference in accuracy on the same images, by the methods that suit the verdicts.

    Two deterministic evaluations (all shares 0 or 1): :func:`paired_difference_interval` and :func:`mcnemar_exact`;
    otherwise :func:`paired_bootstrap` and :func:`sign_flip`.

    Args:
        a: (N,) shares of correct draws in [0, 1], one per image.
        b: (N,) the same of the second evaluation, image by image; its number of draws may differ.
        seed: of the resampling; not used for deterministic evaluations.
        alternative: ``greater`` for the p-value of "a is more accurate than b".
        confidence: two-sided coverage in (0, 1) of the interval.
        resamples: of the bootstrap and of the sign flips.

    Raises:
        ValueError: for no images, shapes that differ, or values outside [0, 1].
    """
    first, second = _pair(a, b)
    if _binary(first) and _binary(second):
        interval = paired_difference_interval(first, second, confidence)
        return Comparison(interval, mcnemar_exact(first, second, alternative), "mcnemar-exact")
    interval = paired_bootstrap(first, second, seed=seed, confidence=confidence, resamples=resamples)
    p_value = sign_flip(first, second, seed=seed, alternative=alternative, resamples=resamples)
    return Comparison(interval, p_value, "sign-flip")


def mcnemar_exact(a: npt.ArrayLike, b: npt.ArrayLike, alternative: Alternative = "two-sided") -> float:
    """Exact McNemar test: are the images that only one of the two gets right split evenly? 1 when there are none.

    Args:
        a: (N,) booleans or 0/1, whether the first is right on each image.
        b: (N,) the same of the second.
        alternative: ``greater`` for the p-value of "a is more accurate than b".

    Raises:
        ValueError: for no images, shapes that differ, or other values.
    """
    first, second = _verdicts(a, b)
    only_first = int(np.count_nonzero(first & ~second))
    discordant = int(np.count_nonzero(first ^ second))
    return float(binomtest(only_first, discordant, alternative=alternative).pvalue) if discordant else 1.0


def paired_difference_interval(a: npt.ArrayLike, b: npt.ArrayLike, confidence: float = 0.95) -> Interval:
    """Newcombe's interval for the difference of two paired proportions (Statistics in Medicine 1998, method 10).

    It joins the Wilson intervals of both proportions with their correlation, and behaves at 0 and 100 %.
    Arguments and errors are those of :func:`mcnemar_exact`; the result lies in [-1, 1].
    """
    first, second = _verdicts(a, b)
    n = first.size
    table = [int(np.count_nonzero(x & y)) for x in (first, ~first) for y in (second, ~second)]
    both, only_first, only_second, neither = table
    p_first, p_second = (both + only_first) / n, (both + only_second) / n
    lo_first, hi_first = wilson(p_first, n, confidence)
    lo_second, hi_second = wilson(p_second, n, confidence)

    product = float(both * neither - only_first * only_second)
    if product > 0:  # continuity correction of a positive correlation
        product = max(product - n / 2, 0.0)
    margins = (both + only_first) * (only_second + neither) * (both + only_second) * (only_first + neither)
    phi = product / math.sqrt(margins) if margins else 0.0

    def join(x: float, y: float) -> float:
        return math.sqrt(max(x * x - 2 * phi * x * y + y * y, 0.0))

    value = p_first - p_second
    lo = value - join(p_first - lo_first, hi_second - p_second)
    hi = value + join(hi_first - p_first, p_second - lo_second)
    return Interval(value, max(lo, -1.0), min(hi, 1.0), "newcombe")


def paired_bootstrap(
    a: npt.ArrayLike, b: npt.ArrayLike, *, seed: int, confidence: float = 0.95, resamples: int = 10_000
) -> Interval:
    """Percentile bootstrap over images of the mean difference between two evaluations.

    Where fewer than ``FEW_IMAGES`` images differ there is too little to resample (none at all would give a width of
    zero), and the interval is that of :func:`~robustbench_aig.statistics.intervals.mean_interval`.

    Args:
        a: (N,) shares of correct draws in [0, 1], one per image.
        b: (N,) the same of the second evaluation, image by image.
        seed: of the resampling.
        confidence: two-sided coverage in (0, 1).
        resamples: how many times the images are drawn anew.

    Returns:
        mean(a) - mean(b) and its interval, in [-1, 1].

    Raises:
        ValueError: for no images, shapes that differ, or values outside [0, 1].
    """
    first, second = _pair(a, b)
    difference = first - second
    if np.count_nonzero(difference) < FEW_IMAGES:
        return mean_interval(difference, confidence)
    value, means = float(difference.mean()), resampled_means(difference[:, None], resamples, seed)
    lo, hi = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(value, min(float(lo), value), max(float(hi), value), "paired-bootstrap")


def sign_flip(
    a: npt.ArrayLike, b: npt.ArrayLike, *, seed: int, alternative: Alternative = "two-sided", resamples: int = 10_000
) -> float:
    """Randomisation test of equal accuracy: flip the sign of each image's difference at random (Fisher 1935).

    McNemar's test for shares: the two agree, up to the randomisation, on 0/1 verdicts. The smallest value it
    can give is 1 / (resamples + 1). Arguments and errors are those of :func:`compare`.
    """
    first, second = _pair(a, b)
    difference = np.round(first - second, 12)  # so that 0.3 - 0.1 and 0.2 - 0 are one size
    sizes, images = np.unique(np.abs(difference), return_counts=True)
    generator = np.random.Generator(np.random.PCG64(seed))
    # The sum over images of one size with random signs is binomial: no need for a sign per image.
    flipped = (2 * generator.binomial(images, 0.5, size=(resamples, images.size)) - images) @ sizes
    observed = difference.sum()
    if alternative == "two-sided":
        flipped, observed = np.abs(flipped), np.abs(observed)
    return float((1 + np.count_nonzero(flipped >= observed - 1e-9)) / (resamples + 1))


def holm(p_values: npt.ArrayLike) -> Floats:
    """p-values adjusted for their number by Holm's step-down method (1979), in the order given.

    Args:
        p_values: (E,) in [0, 1].

    Returns:
        (E,) adjusted values; those at most alpha are significant with a family-wise error of alpha.

    Raises:
        ValueError: for no values, or values outside [0, 1].
    """
    p = np.asarray(p_values, dtype=np.float64)
    if p.ndim != 1 or p.size == 0 or not np.all((p >= 0) & (p <= 1)):
        raise ValueError("expected a vector of p-values in [0, 1]")
    order, adjusted = np.argsort(p, kind="stable"), np.empty_like(p)
    adjusted[order] = np.minimum(np.maximum.accumulate(p[order] * np.arange(p.size, 0, -1)), 1.0)
    return adjusted


def simultaneous_band(
    correct: npt.ArrayLike, draws: int, *, seed: int, confidence: float = 0.95, resamples: int = 2_000
) -> tuple[Floats, Floats]:
    """A band that holds the whole accuracy curve at once, by a max-|t| bootstrap over images.

    The same resampled images serve every epsilon, as the same images were attacked at each. The quantile of the
    largest |t| over the grid takes the place of 1.96 in :func:`~robustbench_aig.statistics.intervals.accuracy`, so
    the band is never inside the interval of a single epsilon and stays honest at 0 and 100 %.

    Args:
        correct: (E, N) correct draws, 0 to ``draws``, of each image at each epsilon.
        draws: scoring draws per image; 1 for a deterministic model.
        seed: of the resampling.
        confidence: coverage in (0, 1) of the band as a whole.
        resamples: how many times the images are drawn anew.

    Returns:
        lower and upper ends, each (E,), fractions in [0, 1].

    Raises:
        ValueError: if ``correct`` has not two axes, and as ``accuracy`` does.
    """
    counts = checked_counts(correct, draws, axes=2)
    shares = counts.T / draws
    varying = shares[:, np.ptp(shares, axis=0) > 0]
    largest = critical(confidence)
    if varying.size:
        error = varying.std(axis=0, ddof=1) / math.sqrt(len(shares))
        t = (resampled_means(varying, resamples, seed) - varying.mean(axis=0)) / error
        largest = max(largest, float(np.quantile(np.abs(t).max(axis=1), confidence)))
    pointwise = 1.0 - 2.0 * float(ndtr(-largest))
    rows = [accuracy(row, draws, pointwise) for row in counts]
    return np.array([row.lo for row in rows]), np.array([row.hi for row in rows])


def resampled_means(values: Floats, resamples: int, seed: int) -> Floats:
    """Column means (resamples, M) of values (N, M) under drawing the N rows anew with replacement."""
    # Rows repeat (a share is one of S + 1 values), and only how often each distinct row is drawn matters.
    rows, images = np.unique(values, axis=0, return_counts=True)
    generator, n = np.random.Generator(np.random.PCG64(seed)), len(values)
    chunk = max(1, _CHUNK // len(rows))
    sizes = [min(chunk, resamples - start) for start in range(0, resamples, chunk)]
    return np.concatenate([generator.multinomial(n, images / n, size=size) @ rows / n for size in sizes])


def _pair(a: npt.ArrayLike, b: npt.ArrayLike) -> tuple[Floats, Floats]:
    first, second = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if first.ndim != 1 or first.size == 0 or first.shape != second.shape:
        raise ValueError(f"expected two vectors over the same images, got shapes {first.shape} and {second.shape}")
    if not all(np.all((x >= 0) & (x <= 1)) for x in (first, second)):
        raise ValueError("shares must lie in [0, 1]")
    return first, second


def _binary(shares: Floats) -> bool:
    return bool(np.all((shares == 0) | (shares == 1)))


def _verdicts(a: npt.ArrayLike, b: npt.ArrayLike) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    first, second = _pair(a, b)
    if not (_binary(first) and _binary(second)):
        raise ValueError("verdicts must be true or false")
    return first == 1, second == 1


def strongest_difference(first: Floats, second: Floats) -> tuple[Interval, int]:
    """Where the first of two evaluations is most ahead: the paired difference in accuracy, and the epsilon's number.

    The interval is corrected for the choice of the epsilon (Bonferroni).

    Args:
        first: (E, N) shares of correct draws.
        second: the same of the other.
    """
    number = int((first.mean(1) - second.mean(1)).argmax())
    return compare(first[number], second[number], seed=0, confidence=1 - 0.05 / len(first)).difference, number
