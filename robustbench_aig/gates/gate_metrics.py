"""Whole-graph measures of what an attack did to the gates: distances, compute, classes, mediation and detection.

Rates and flips by layer are in :mod:`robustbench_aig.gates.execution`. Clean and attacked scores are compared
draw by draw, under the same noise, unless a measure says otherwise.
"""

import numpy as np
import numpy.typing as npt

from robustbench_aig.contracts.scores import Scores
from robustbench_aig.contracts.trace import Costs
from robustbench_aig.contracts.units import Layout
from robustbench_aig.gates import execution
from robustbench_aig.gates.information import information
from robustbench_aig.gates.mediation import Crossed, mediation
from robustbench_aig.gates.prototypes import Labels, Reader
from robustbench_aig.statistics.measure import Measure, mean, plain, share


def distances(clean: Scores, attacked: Scores, costs: Costs, layout: Layout) -> dict[str, Measure]:
    """How far graphs moved, each image's mean over draws.

    ``hamming`` is the share of decisions that differ, of those that both images reached, ``hamming_max`` that of the
    image that moved most, ``hamming_macs`` the share of the skippable multiply-adds that differ, ``graph_kept`` how
    often not one decision differs.
    ``hamming_null`` is the distance between two draws on the clean image, ``hamming_independent`` between one on the
    clean and another on the attacked image.
    """
    moved = clean.open != attacked.open
    changed, both = layout.changes(clean.open, attacked.open)
    by_image = changed.sum((0, 2)) / both.sum((0, 2))
    other = execution.other_draw(clean.open)
    null = np.nanmean(execution.flips(layout, clean.open, other), 1)
    weights = (costs.units / costs.units.sum().clamp_min(1)).numpy()
    return {
        "hamming": share(by_image),
        "hamming_max": plain(by_image.max(), len(by_image)),
        "hamming_null": share(null) if len(clean.open) > 1 else plain(0, len(null)),
        "hamming_independent": share(np.nanmean(execution.flips(layout, other, attacked.open), 1)),
        "hamming_macs": share(moved.mean(0) @ weights),
        "graph_kept": share((~moved.any(2)).mean(0)),
    }


def compute(clean: Scores, attacked: Scores, costs: Costs, layout: Layout) -> dict[str, Measure]:
    """Multiply-adds before (C) and after (C'), each image's mean over draws.

    ``macs_ratio`` is C' / C (``_p95`` and ``_max`` over images). ``recovered_up`` is the share of what gates saved
    that is spent again, (C' - C) / (ceiling - C), ``recovered_down`` the share of what gates spend that is saved,
    (C - C') / (C - floor), as means over images. Images with nothing to recover (C at the ceiling, or at the floor)
    are left out and counted. A mean of ratios is ruled by images that are close to them, so ``_pooled`` gives the
    ratio of the means of all images beside it.
    """
    before, after = clean.macs, attacked.macs
    n, floor, ceiling = len(before), costs.extreme(layout, -1), costs.extreme(layout, 1)
    ratio, rise = after / before, after - before
    saved, spent = ceiling - before, before - floor
    full, bare = saved <= 1e-9 * ceiling, spent <= 1e-9 * ceiling
    return {
        "macs_ratio": mean(ratio),
        "macs_ratio_p95": plain(np.quantile(ratio, 0.95), n),
        "macs_ratio_max": plain(ratio.max(), n),
        "recovered_up": mean(rise[~full] / saved[~full]),
        "recovered_up_pooled": plain(rise.sum() / saved.sum() if not full.all() else np.nan, n),
        "recovered_down": mean(-rise[~bare] / spent[~bare]),
        "recovered_down_pooled": plain(-rise.sum() / spent.sum() if not bare.all() else np.nan, n),
        "at_ceiling": plain(full.sum(), n),
        "at_floor": plain(bare.sum(), n),
    }


class GateMetrics:
    """Every measure of attacks on one model, gating and defence; what they share is computed once.

    Args:
        clean: scores of the clean images.
        labels: (N,).
        classes: how many there are.
        costs: of the network's units.
        layout: of its decisions.
        seed: of the permutations.
    """

    def __init__(self, clean: Scores, labels: Labels, classes: int, costs: Costs, layout: Layout, *, seed: int) -> None:
        self._clean, self._labels, self._costs, self._layout, self._seed = clean, labels, costs, layout, seed
        self._reader = Reader(clean, labels, classes)
        self._information = self._bits(clean.open, "clean")

    def of(self, attacked: Scores, crossed: Crossed | None) -> dict[str, Measure]:
        """By name; the mediation table only where there is one.

        Args:
            attacked: scores of the attacked images, under the same noise.
            crossed: verdicts with features and graphs crossed.
        """
        return {
            **distances(self._clean, attacked, self._costs, self._layout),
            **compute(self._clean, attacked, self._costs, self._layout),
            **self._reader.hits(attacked),
            "monitor_auc": self._reader.detection(attacked),
            **self._information,
            **self._bits(attacked.open, "adv"),
            **({} if crossed is None else mediation(self._clean, attacked, crossed)),
        }

    def _bits(self, opened: npt.NDArray[np.bool_], state: str) -> dict[str, Measure]:
        found = information(opened, self._labels, seed=self._seed)
        return {name.replace("information", f"information_{state}", 1): value for name, value in found.items()}
