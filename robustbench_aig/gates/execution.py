"""What an attack did to the gates: execution rates, flips under common noise and their nulls, by layer and group of
classes."""

from collections.abc import Container, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from robustbench_aig.contracts.scores import Scores
from robustbench_aig.statistics.intervals import mean_intervals

if TYPE_CHECKING:
    from robustbench_aig.contracts.units import Layout

Array = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


def flips(layout: "Layout", before: Bools, after: Bools) -> Array:
    """(N, D) share of draws in which a decision differs between two sets of routes (S, N, L), draw by draw.

    A router's decision differs by the share of its units that are exchanged. Draws in which one of the two did not
    reach the decision, because it left at an exit before, do not count; NaN where none is left.
    """
    moved, both = layout.changes(before, after)
    return _share(moved, both)


def unit_flips(layout: "Layout", before: Bools, after: Bools) -> Array:
    """(N, L) likewise for every unit: share of draws in which it runs for one of the two alone."""
    both = layout.reached(before) & layout.reached(after)
    return _share(layout.unit_changes(before, after), both)


def _share(moved: npt.NDArray[Any], both: Bools) -> Array:
    with np.errstate(invalid="ignore"):
        return np.asarray(moved.sum(0, dtype=np.float64) / both.sum(0))


def other_draw(routes: Bools) -> Bools:
    """Routes (S, N, L) of the same images in other draws: what independent noise changes."""
    return np.roll(routes, 1, axis=0)


def groups(
    labels: npt.NDArray[np.int64], classes: Sequence[str], categories: Mapping[str, Sequence[int]]
) -> dict[str, Any]:
    """Boolean masks (N,) by name: ``all``, each category and each class that has images.

    A class whose name is taken, by ``all``, a category or another class, is called ``class NAME``, or ``class NAME
    (LABEL)`` where that is taken too.
    """
    masks = {"all": np.ones(len(labels), bool)}
    for name, members in categories.items():
        masks[_free((name, f"category {name}"), masks)] = np.isin(labels, list(members))
    for number, name in enumerate(classes):
        masks[_free((name, f"class {name}", f"class {name} ({number})"), masks)] = labels == number
    return {name: mask for name, mask in masks.items() if mask.any()}


def _free(names: Sequence[str], taken: Container[str]) -> str:
    """The first of the names that is not taken; the last one with stars where all are."""
    found = next((name for name in names if name not in taken), names[-1])
    while found in taken:
        found += "*"
    return found


def table(
    clean: Scores, attacked: Scores, masks: Mapping[str, npt.NDArray[np.bool_]], layout: "Layout"
) -> pd.DataFrame:
    """One row per group and layer.

    The interval of ``shift`` is over images (95 %), each image contributing its paired difference of open shares.

    Args:
        clean: the scores of the clean images.
        attacked: the scores of the same images after the attack, under the same noise.
        masks: groups of images.
        layout: of the network.
    """
    before, after = clean.open.mean(0), attacked.open.mean(0)
    membership = np.stack(list(masks.values())).astype(float)
    sizes = membership.sum(1, keepdims=True)

    def mean(values: npt.NDArray[Any]) -> Array:
        known = ~np.isnan(values)
        if known.all():
            return np.asarray(membership @ values / sizes)
        with np.errstate(invalid="ignore"):
            return np.asarray(membership @ np.where(known, values, 0) / (membership @ known))

    difference = after - before
    intervals = [interval for mask in masks.values() for interval in mean_intervals(difference[mask])]
    columns = {
        "n": np.broadcast_to(sizes.astype(int), (len(masks), len(layout))),
        "rate_clean": mean(before),
        "rate_adv": mean(after),
        "shift": mean(difference),
        "lo": np.array([interval.lo for interval in intervals]),
        "hi": np.array([interval.hi for interval in intervals]),
        "prob_clean": mean(clean.prob),
        "prob_adv": mean(attacked.prob),
        "flip_rate": mean(unit_flips(layout, clean.open, attacked.open)),
        "flip_rate_null": mean(unit_flips(layout, clean.open, other_draw(clean.open))),
    }
    layers = len(layout)
    keys = {
        "group": np.repeat(list(masks), layers),
        "layer": np.tile(np.arange(1, layers + 1), len(masks)),
        "block": np.tile(list(layout.names), len(masks)),
    }
    return pd.DataFrame(keys | {name: values.reshape(-1) for name, values in columns.items()})
