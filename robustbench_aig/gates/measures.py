"""The measures of ``gates.csv``, what an attack did to the routes of images: a new one is a function here, and no more.

Clean and attacked images are compared draw by draw, under the same noise, unless a measure says otherwise. Rates and
flips by layer are in :mod:`robustbench_aig.gates.execution`. Reports read headings here, so importing this imports no
torch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property, partial
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from robustbench_aig.contracts.columns import Columns
from robustbench_aig.gates import execution
from robustbench_aig.gates.information import information
from robustbench_aig.gates.prototypes import Reader
from robustbench_aig.statistics.measure import Measure, difference, mean, plain, share

if TYPE_CHECKING:
    from robustbench_aig.contracts.records import Bools
    from robustbench_aig.contracts.scores import Scores
    from robustbench_aig.contracts.trace import Costs
    from robustbench_aig.contracts.units import Layout
    from robustbench_aig.gates.mediation import Crossed

Array = npt.NDArray[np.float64]
Found = dict[str, Measure]


@dataclass(frozen=True)
class Clean:
    """The images before any attack; what all attacks on them share is computed once.

    Attributes:
        scores: of the clean images.
        labels: (N,).
        classes: how many there are.
        costs: of the network's units.
        layout: of its decisions.
        seed: of the permutations.
    """

    scores: Scores
    labels: npt.NDArray[np.int64]
    classes: int
    costs: Costs
    layout: Layout
    seed: int = 0

    @cached_property
    def reader(self) -> Reader:
        """What the graphs of these images say of their class."""
        return Reader(self.scores, self.labels, self.classes)

    @cached_property
    def information(self) -> Found:
        """Of class and routes."""
        return information(self.scores.open, self.labels, seed=self.seed)


@dataclass(frozen=True)
class Change:
    """What an attack did to N images in S draws.

    Attributes:
        clean: the images before it.
        scores: after it, under the same noise.
        crossed: verdicts with features and graphs crossed; None where no graph is run.
    """

    clean: Clean
    scores: Scores
    crossed: Crossed | None = None

    @cached_property
    def moved(self) -> Bools:
        """(S, N, L) units that run for one of the two alone."""
        return np.not_equal(self.clean.scores.open, self.scores.open)

    @cached_property
    def distance(self) -> Array:
        """(N,) share of decisions that differ, of those that both images reached."""
        changed, both = self.clean.layout.changes(self.clean.scores.open, self.scores.open)
        return np.asarray(changed.sum((0, 2)) / both.sum((0, 2)))

    @cached_property
    def nearest(self) -> npt.NDArray[np.int64]:
        """(S, N) nearest prototype of the attacked graphs."""
        return self.clean.reader.nearest(self.scores)

    def room(self, sign: int) -> tuple[Array, Bools]:
        """(N,) multiply-adds up to the ceiling (sign 1) or down to the floor (-1), and whether there are any."""
        clean = self.clean
        room = sign * (clean.costs.extreme(clean.layout, sign) - clean.scores.macs)
        return room, room > 1e-9 * clean.costs.extreme(clean.layout, 1)

    @cached_property
    def mediated(self) -> dict[str, Array]:
        """Accuracy of each image, (N,), by what of it is attacked, over the draws that were crossed."""
        assert self.crossed is not None
        draws = len(self.crossed.features)
        found = {
            "neither": self.clean.scores.correct[:draws],
            "features": self.crossed.features,
            "gates": self.crossed.gates,
            "both": self.scores.correct[:draws],
        }
        return {part: correct.mean(0) for part, correct in found.items()}

    def flips(self, before: Bools, after: Bools) -> Array:
        """(N,) share of decisions that differ between routes (S, N, L)."""
        return np.asarray(np.nanmean(execution.flips(self.clean.layout, before, after), 1))


def _crossed(change: Change) -> bool:
    return change.crossed is not None


MEASURES: Columns[Change] = Columns()
measure = MEASURES
graphs = partial(measure, section="graphs")
mediation = partial(measure, section="mediation", needs=_crossed)


def measures(change: Change) -> Found:
    """Every measure that there is of an attack, by name."""
    return {name: value for name, value in MEASURES.values(change).items() if value is not None}


@graphs("decisions moved", names="hamming, hamming_max")
def hamming(change: Change) -> Found:
    """Share of decisions that differ, of those that both images reached: the `flip_rate` of `summary.csv`; and that of
    the image that moved most."""
    return {"hamming": share(change.distance), "hamming_max": plain(change.distance.max(), len(change.distance))}


@graphs("without attack", names="hamming_null, hamming_independent")
def hamming_null(change: Change) -> Found:
    """Between two draws: clean against clean, clean against attacked."""
    opened = change.clean.scores.open
    other = execution.other_draw(opened)
    null = share(change.flips(opened, other)) if len(opened) > 1 else plain(0, opened.shape[1])
    return {"hamming_null": null, "hamming_independent": share(change.flips(other, change.scores.open))}


@measure()
def hamming_macs(change: Change) -> Measure:
    """Share of the skippable multiply-adds that is switched."""
    units = change.clean.costs.units
    return share(change.moved.mean(0) @ (units / units.sum().clamp_min(1)).numpy())


@graphs("graph kept")
def graph_kept(change: Change) -> Measure:
    """How often not one decision of the graph differs."""
    return share((~change.moved.any(2)).mean(0))


@graphs("MACs ratio", names="macs_ratio, macs_ratio_p95, macs_ratio_max", unit="ratio")
def macs_ratio(change: Change) -> Found:
    """An image's mean multiply-adds after over before: mean, 95 % quantile and maximum over images."""
    ratio = change.scores.macs / change.clean.scores.macs
    ends = {"macs_ratio_p95": np.quantile(ratio, 0.95), "macs_ratio_max": ratio.max()}
    return {"macs_ratio": mean(ratio), **{name: plain(value, len(ratio)) for name, value in ends.items()}}


@graphs("MACs recovered up", names="recovered_up, recovered_up_pooled", shows="recovered_up_pooled")
def recovered_up(change: Change) -> Found:
    """Share of what skipping saved that is spent again, (C' - C) / (ceiling - C), mean over images; 1 is all run.
    `_pooled` is the ratio of the means of all images, which no image close to its limit can rule."""
    return _recovered(change, "recovered_up", 1)


@graphs("down", names="recovered_down, recovered_down_pooled", shows="recovered_down_pooled")
def recovered_down(change: Change) -> Found:
    """Share of what is spent above the floor that is saved, (C - C') / (C - floor), likewise; 1 is all skipped."""
    return _recovered(change, "recovered_down", -1)


@measure(names="at_ceiling, at_floor")
def at_limit(change: Change) -> Found:
    """Images left out of `recovered_up` and `recovered_down`, which have nothing to recover."""
    left_out = {"at_ceiling": ~change.room(1)[1], "at_floor": ~change.room(-1)[1]}
    return {name: plain(images.sum(), len(images)) for name, images in left_out.items()}


@graphs("graph names class", names="prototype_true_clean, prototype_true_adv")
def prototype_true(change: Change) -> Found:
    """How often the class whose images run units most like this (naive Bayes) is the true class."""
    labels, before = change.clean.labels, change.clean.reader.before
    return _before_after("prototype_true", before == labels, change.nearest == labels)


@measure(names="prototype_predicted_clean, prototype_predicted_adv")
def prototype_predicted(change: Change) -> Found:
    """How often it is the predicted class (the vote)."""
    before, after = change.clean.reader.before == change.clean.scores.vote, change.nearest == change.scores.vote
    return _before_after("prototype_predicted", before, after)


@measure()
def prototype_moved(change: Change) -> Measure:
    """How often it is another class after the attack."""
    return share((change.clean.reader.before != change.nearest).mean(0))


@graphs("monitor AUC", unit="ratio")
def monitor_auc(change: Change) -> Measure:
    """Area under the ROC curve of a monitor that calls an image attacked when its graphs are unlikely for its predicted
    class; 0.5 is blind."""
    return change.clean.reader.detection(change.scores)


_BITS = [f"information_{state}{end}" for state in ("clean", "adv") for end in ("", "_null", "_p")]


@graphs("class, bits", names=", ".join(_BITS), shows="information_adv", unit="ratio")
def bits(change: Change) -> Found:
    """Mutual information of class and decision in bits, summed over decisions, less its bias to first order; `_null` is
    its mean over 100 permutations of the classes, `_p` the share of them that gives as much."""
    after = information(change.scores.open, change.clean.labels, seed=change.clean.seed)
    return dict(zip(_BITS, (*change.clean.information.values(), *after.values()), strict=True))


@mediation("neither")
def mediation_neither(change: Change) -> Measure:
    """Accuracy with features and graph of the clean image."""
    return share(change.mediated["neither"])


@mediation("features")
def mediation_features(change: Change) -> Measure:
    """With the attacked image's features along the clean image's graph."""
    return share(change.mediated["features"])


@mediation("gates")
def mediation_gates(change: Change) -> Measure:
    """With the clean image's features along the attacked image's graph."""
    return share(change.mediated["gates"])


@mediation("both")
def mediation_both(change: Change) -> Measure:
    """With features and graph of the attacked image."""
    return share(change.mediated["both"])


@mediation(names="mediation_direct, mediation_indirect, mediation_interaction")
def effects(change: Change) -> Found:
    """What features alone and gates alone take from accuracy, and what only both together take: the whole effect less
    the two."""
    neither, features, gates, both = change.mediated.values()
    alone = {"mediation_direct": difference(neither - features), "mediation_indirect": difference(neither - gates)}
    return {**alone, "mediation_interaction": difference(features + gates - neither - both, reach=2)}


@mediation(names="mediation_draws, mediation_forwards")
def crossings(change: Change) -> Found:
    """Scoring draws that these seven use (the first 2, or 1 where nothing is random), and the forward passes per image
    that this took beyond scoring. Only images whose graph moved need any. No pass of the attack's."""
    assert change.crossed is not None
    draws, passes = len(change.crossed.features), change.crossed.passes
    return {"mediation_draws": plain(draws, len(passes)), "mediation_forwards": plain(passes.mean(), len(passes))}


def _recovered(change: Change, name: str, sign: int) -> Found:
    rise, (room, some) = change.scores.macs - change.clean.scores.macs, change.room(sign)
    pooled = sign * rise.sum() / room.sum() if some.any() else math.nan
    return {name: mean(sign * rise[some] / room[some]), f"{name}_pooled": plain(pooled, len(room))}


def _before_after(name: str, before: Bools, after: Bools) -> Found:
    return {f"{name}_clean": share(before.mean(0)), f"{name}_adv": share(after.mean(0))}
