"""The measures of ``gates.csv``, what an attack did to the routes of images: a new one is a function here, and no more.

Clean and attacked images are compared draw by draw, under the same noise, unless a measure says otherwise. Rates and
flips by layer are in :mod:`robustbench_aig.gates.execution`. Reports read headings here, so importing this imports no
torch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

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

    @cached_property
    def ratio(self) -> Array:
        """(N,) multiply-adds after over before."""
        return self.scores.macs / self.clean.scores.macs

    def towards(self, sign: int) -> tuple[Array, Array, Bools]:
        """How far multiply-adds went towards the ceiling (sign 1) or the floor (-1), (N,), how far they could go, and
        whether that is any way at all."""
        clean, before = self.clean, self.clean.scores.macs
        room = sign * (clean.costs.extreme(clean.layout, sign) - before)
        return sign * (self.scores.macs - before), room, room > 1e-9 * clean.costs.extreme(clean.layout, 1)

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


MEASURES: Columns[Change] = Columns()
measure = MEASURES


def measures(change: Change) -> Found:
    """Every measure that there is of an attack, by name."""
    return {name: value for name, value in MEASURES.values(change).items() if value is not None}


@measure(
    "hamming, hamming_max",
    "share of decisions that differ, of those that both images reached: the `flip_rate` of `summary.csv`; of the image "
    "that moved most",
    heading="decisions moved",
    section="graphs",
)
def hamming(change: Change) -> Found:
    return {"hamming": share(change.distance), "hamming_max": plain(change.distance.max(), len(change.distance))}


@measure(
    "hamming_null, hamming_independent",
    "between two draws: clean against clean, clean against attacked",
    heading="without attack",
    section="graphs",
)
def hamming_null(change: Change) -> Found:
    opened = change.clean.scores.open
    other = execution.other_draw(opened)
    null = share(change.flips(opened, other)) if len(opened) > 1 else plain(0, opened.shape[1])
    return {"hamming_null": null, "hamming_independent": share(change.flips(other, change.scores.open))}


@measure("hamming_macs", "share of the skippable multiply-adds that is switched")
def hamming_macs(change: Change) -> Measure:
    units = change.clean.costs.units
    return share(change.moved.mean(0) @ (units / units.sum().clamp_min(1)).numpy())


@measure("graph_kept", "how often not one decision of the graph differs", heading="graph kept", section="graphs")
def graph_kept(change: Change) -> Measure:
    return share((~change.moved.any(2)).mean(0))


@measure(
    "macs_ratio, macs_ratio_p95, macs_ratio_max",
    "an image's mean multiply-adds after over before: mean, 95 % quantile and maximum over images",
    heading="MACs ratio",
    unit="ratio",
    section="graphs",
)
def macs_ratio(change: Change) -> Found:
    ratio, n = change.ratio, len(change.ratio)
    ends = {"macs_ratio_p95": plain(np.quantile(ratio, 0.95), n), "macs_ratio_max": plain(ratio.max(), n)}
    return {"macs_ratio": mean(ratio), **ends}


@measure(
    "recovered_up, recovered_up_pooled",
    "share of what skipping saved that is spent again, (C' - C) / (ceiling - C), mean over images; 1 is all run. "
    "`_pooled` is the ratio of the means of all images, which no image close to its limit can rule",
    shows="recovered_up_pooled",
    heading="MACs recovered up",
    section="graphs",
)
def recovered_up(change: Change) -> Found:
    return _recovered("recovered_up", *change.towards(1))


@measure(
    "recovered_down, recovered_down_pooled",
    "share of what is spent above the floor that is saved, (C - C') / (C - floor), likewise; 1 is everything skipped",
    shows="recovered_down_pooled",
    heading="down",
    section="graphs",
)
def recovered_down(change: Change) -> Found:
    return _recovered("recovered_down", *change.towards(-1))


def _recovered(name: str, went: Array, room: Array, some: Bools) -> Found:
    pooled = went.sum() / room.sum() if some.any() else math.nan
    return {name: mean(went[some] / room[some]), f"{name}_pooled": plain(pooled, len(room))}


@measure(
    "at_ceiling, at_floor", "images left out of `recovered_up` and `recovered_down`, which have nothing to recover"
)
def at_limit(change: Change) -> Found:
    left_out = {"at_ceiling": ~change.towards(1)[2], "at_floor": ~change.towards(-1)[2]}
    return {name: plain(images.sum(), len(images)) for name, images in left_out.items()}


@measure(
    "prototype_true_clean, prototype_true_adv",
    "how often the class whose images run units most like this (naive Bayes) is the true class",
    heading="graph names class",
    section="graphs",
)
def prototype_true(change: Change) -> Found:
    labels, before = change.clean.labels, change.clean.reader.before
    hits = {"clean": before == labels, "adv": change.nearest == labels}
    return {f"prototype_true_{state}": share(hit.mean(0)) for state, hit in hits.items()}


@measure("prototype_predicted_clean, prototype_predicted_adv", "how often it is the predicted class (the vote)")
def prototype_predicted(change: Change) -> Found:
    clean = change.clean
    hits = {"clean": clean.reader.before == clean.scores.vote, "adv": change.nearest == change.scores.vote}
    return {f"prototype_predicted_{state}": share(hit.mean(0)) for state, hit in hits.items()}


@measure("prototype_moved", "how often it is another class after the attack")
def prototype_moved(change: Change) -> Measure:
    return share((change.clean.reader.before != change.nearest).mean(0))


@measure(
    "monitor_auc",
    "area under the ROC curve of a monitor that calls an image attacked when its graphs are unlikely for its predicted "
    "class; 0.5 is blind",
    heading="monitor AUC",
    unit="ratio",
    section="graphs",
)
def monitor_auc(change: Change) -> Measure:
    return change.clean.reader.detection(change.scores)


_BITS = [f"information_{state}{end}" for state in ("clean", "adv") for end in ("", "_null", "_p")]


@measure(
    ", ".join(_BITS),
    "mutual information of class and decision in bits, summed over decisions, less its bias to first order; `_null` is "
    "its mean over 100 permutations of the classes, `_p` the share of them that gives as much",
    shows="information_adv",
    heading="class, bits",
    unit="ratio",
    section="graphs",
)
def bits(change: Change) -> Found:
    after = information(change.scores.open, change.clean.labels, seed=change.clean.seed)
    return dict(zip(_BITS, (*change.clean.information.values(), *after.values()), strict=True))


def _crossed(change: Change) -> bool:
    return change.crossed is not None


def _mediation(part: str, doc: str) -> None:
    """Add the accuracy with a part of the image attacked."""
    facts: dict[str, Any] = {"heading": part, "section": "mediation", "needs": _crossed}
    measure(f"mediation_{part}", doc, **facts)(lambda change: share(change.mediated[part]))


_mediation("neither", "accuracy with features and graph of the clean image")
_mediation("features", "with the attacked image's features along the clean image's graph")
_mediation("gates", "with the clean image's features along the attacked image's graph")
_mediation("both", "with features and graph of the attacked image")


@measure(
    "mediation_direct, mediation_indirect, mediation_interaction",
    "what features alone and gates alone take from accuracy, and what only both together take: the whole effect less "
    "the two",
    needs=_crossed,
)
def effects(change: Change) -> Found:
    neither, features, gates, both = change.mediated.values()
    return {
        "mediation_direct": difference(neither - features),
        "mediation_indirect": difference(neither - gates),
        "mediation_interaction": difference(features + gates - neither - both, reach=2),
    }


@measure(
    "mediation_draws, mediation_forwards",
    "scoring draws that these seven use (the first 2, or 1 where nothing is random), and the forward passes per image "
    "that this took beyond scoring. Only images whose graph moved need any. No pass of the attack's",
    needs=_crossed,
)
def crossings(change: Change) -> Found:
    assert change.crossed is not None
    draws, passes = len(change.crossed.features), change.crossed.passes
    return {"mediation_draws": plain(draws, len(passes)), "mediation_forwards": plain(passes.mean(), len(passes))}
