"""A measured number with the interval that its kind of number has, and how many images it speaks of."""

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from robustbench_aig.statistics.intervals import cluster_mean, critical, mean_interval, proportion

Array = npt.NDArray[np.float64]

NAN = float("nan")


class Measure(NamedTuple):
    """What one measure says of N images.

    Attributes:
        value: the estimate; NaN where there is nothing to measure.
        lo: lower end of its 95 % interval over images; NaN where it has none.
        hi: upper end.
        n: images that it speaks of.
    """

    value: float
    lo: float
    hi: float
    n: int


def plain(value: float, n: int) -> Measure:
    """A number without an interval, such as a maximum or a count."""
    return Measure(float(value), NAN, NAN, n)


def share(values: npt.ArrayLike) -> Measure:
    """Mean of per-image shares (N,) in [0, 1]; the interval is that of an accuracy: by :func:`.statistics.proportion`
    where every image says all or nothing, otherwise by :func:`.statistics.cluster_mean`."""
    array = np.asarray(values, np.float64).clip(0, 1)
    value, lo, hi, _ = proportion(array) if np.isin(array, (0, 1)).all() else cluster_mean(array)
    return Measure(value, lo, hi, len(array))


def difference(values: npt.ArrayLike, reach: float = 1.0) -> Measure:
    """Mean of per-image differences (N,) in [-reach, reach]; see :func:`.statistics.mean_interval`."""
    array = np.asarray(values, np.float64) / reach
    value, lo, hi, _ = mean_interval(array)
    return Measure(reach * value, reach * lo, reach * hi, len(array))


def mean(values: npt.ArrayLike) -> Measure:
    """Mean of per-image values (N,) without bounds, mean ± 1.96 sd/√N; no interval where they do not vary."""
    array = np.asarray(values, np.float64)
    if len(array) == 0:
        return plain(NAN, 0)
    centre = float(array.mean())
    if np.ptp(array) == 0:
        return plain(centre, len(array))
    half = critical(0.95) * float(array.std(ddof=1)) / math.sqrt(len(array))
    return Measure(centre, centre - half, centre + half, len(array))
