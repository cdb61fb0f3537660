"""Mutual information of class and gates: how much the graph of an image tells about its class, in bits."""

import numpy as np
import numpy.typing as npt

from robustbench_aig.statistics.measure import Measure, plain

Array = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]

PERMUTATIONS = 100


def information(
    opened: npt.NDArray[np.bool_], labels: Labels, *, seed: int, permutations: int = PERMUTATIONS
) -> dict[str, Measure]:
    """Mutual information of the class with each gate, summed over gates, and what shuffled classes give.

    A gate's chance of being open is its mean decision over draws. The bias of few images is taken off to first order,
    which for one draw is the correction of Miller and Madow (1955). ``information_null`` is the mean over permutations
    of the classes, ``information_p`` the share of them that gives as much; the image is what is permuted.

    Args:
        opened: (S, N, L) decisions.
        labels: (N,).
        seed: of the permutations.
        permutations: how many.
    """
    chance = opened.mean(0)
    order = np.argsort(labels, kind="stable")
    starts = np.flatnonzero(np.diff(labels[order], prepend=-1))
    generator = np.random.default_rng(seed)
    value = _bits(chance[order], starts)
    null = np.array([_bits(chance[generator.permutation(len(labels))], starts) for _ in range(permutations)])
    return {
        "information": plain(value, len(labels)),
        "information_null": plain(float(null.mean()), len(labels)),
        "information_p": plain(float((1 + (null >= value).sum()) / (1 + permutations)), len(labels)),
    }


def _bits(chance: Array, starts: npt.NDArray[np.int64]) -> float:
    """Bits of images (N, L) that are sorted into classes beginning at ``starts``."""
    n = len(chance)
    sizes = np.diff(starts, append=n)[:, None]
    rates = np.add.reduceat(chance, starts) / sizes
    spreads = np.add.reduceat(chance**2, starts) / sizes - rates**2
    rate, spread = chance.mean(0), (chance**2).mean(0) - chance.mean(0) ** 2
    bits = _entropy(rate) - (sizes * _entropy(rates)).sum(0) / n
    # Each plug-in entropy is too small by variance / (2 N p (1 - p)); the classes' add up to more than the whole's.
    bias = (_lost(rates, spreads).sum(0) - _lost(rate, spread)) / (2 * n * np.log(2))
    # Rounded, so that equal numbers are equal also where they were added up in another order.
    return round(float((bits - bias).sum()), 12) + 0.0


def _entropy(rate: Array) -> Array:
    inside = np.clip(rate, 1e-12, 1 - 1e-12)
    bits: Array = -(inside * np.log2(inside) + (1 - inside) * np.log2(1 - inside))
    return bits


def _lost(rate: Array, spread: Array) -> Array:
    """Variance between images over p (1 - p): 1 for 0/1 decisions, 0 for a gate that is the same for all."""
    inside = rate * (1 - rate)
    lost: Array = np.divide(spread.clip(0), inside, out=np.zeros_like(inside), where=inside > 1e-9)
    return lost
