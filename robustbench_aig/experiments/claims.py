"""What the paper says of gates, each statement measured with a 95 % interval and marked held, not held or undecided.

Intervals are over images and hold one by one. They say nothing of other seeds: where two networks are compared, the
statement is about these two networks.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from robustbench_aig.contracts.gating import Gating
from robustbench_aig.experiments.study import Findings, Seen, Study, look, short
from robustbench_aig.registry import register
from robustbench_aig.report.run import Run, read_run
from robustbench_aig.statistics.comparisons import compare, resampled_means
from robustbench_aig.statistics.intervals import Interval, cluster_mean, mean_interval

Verdict = Literal["held", "not held", "undecided"]
Shares = npt.NDArray[np.float64]

GAP = 0.1
"""Rates are in two groups if the largest gap between them is at least this wide."""

ALWAYS = 0.99
"""A layer that runs for this share of the images counts as one that always runs."""

RESAMPLES = 2000


@dataclass(frozen=True)
class Claim:
    """One statement about one model, pair of models or attack.

    Attributes:
        claim: the statement.
        subject: what it is tested on.
        measure: what the numbers are.
        value: the estimate, with ``lo`` and ``hi`` its 95 % interval.
        bound: what the interval is held against.
        n: images.
        verdict: ``held`` if the interval lies above the bound, ``not held`` if below, else ``undecided``.
    """

    claim: str
    subject: str
    measure: str
    value: float
    lo: float
    hi: float
    bound: float
    n: int
    verdict: Verdict

    @classmethod
    def of(cls, claim: str, subject: str, measure: str, interval: Interval, n: int, bound: float = 0.0) -> "Claim":
        """A claim that the measured quantity is larger than ``bound``."""
        verdict: Verdict = "held" if interval.lo > bound else "not held" if interval.hi < bound else "undecided"
        return cls(claim, subject, measure, interval.value, interval.lo, interval.hi, bound, n, verdict)


@register("claims", "the paper's statements about gates, each held, not held or undecided")
def analyze(study: Study) -> Findings:
    """Every statement that the models, and the runs of ``study.runs``, have data for.

    Raises:
        UsageError: a model without gates.
        Prerequisite: a run folder is missing.
    """
    models = study.gated()
    runs = [read_run(run) for run in study.runs]
    seen = list(look(study, models, (Gating("deterministic"), Gating("stochastic"))))
    claims = [*_accuracy(seen, study), *_soft(seen, study)]
    for one in seen:
        claims += [separation(one), specific(one, study), *always(one)]
    for run in runs:
        claims += attacked(run, study.seed)
    order = list(dict.fromkeys(claim.claim for claim in claims))
    table = pd.DataFrame([asdict(claim) for claim in sorted(claims, key=lambda claim: order.index(claim.claim))])
    return Findings(short(table.drop(columns=["measure"])), {"claims": table}, {})


def _accuracy(seen: Sequence[Seen], study: Study) -> Iterator[Claim]:
    for first, second in zip(seen[::2], seen[1::2], strict=True):
        found = compare(first.accuracy, second.accuracy, seed=study.seed)
        yield Claim.of(
            "deterministic gates are more accurate than stochastic ones",
            first.model.name,
            "difference in accuracy",
            found.difference,
            len(study.dataset),
        )


def _soft(seen: Sequence[Seen], study: Study) -> Iterator[Claim]:
    """Pairs of networks that differ in the form of the Gumbel-softmax alone."""
    for first, second in product(seen, seen):
        recipes = [dict(one.model.card.recipe) if one.model.card else {} for one in (first, second)]
        forms = [recipe.pop("gates", None) for recipe in recipes]
        same = first.gating == second.gating and first.model.architecture == second.model.architecture
        if forms != ["straight-through", "soft"] or not same or recipes[0] != recipes[1]:
            continue
        found = compare(first.accuracy, second.accuracy, seed=study.seed)
        yield Claim.of(
            "straight-through training is more accurate than soft gates",
            f"{first.model.name} against {second.model.name}, {first.gating.name}",
            "difference in accuracy",
            found.difference,
            len(study.dataset),
        )


def separation(seen: Seen) -> Claim:
    """Do execution rates part into key and less critical layers: the largest gap between neighbouring rates."""
    order = np.argsort(seen.rates.mean(0), kind="stable")
    gaps = np.diff(seen.rates.mean(0)[order])
    widest = int(gaps.argmax())
    below, above = order[widest], order[widest + 1]
    key = sorted(int(layer) + 1 for layer in order[widest + 1 :])
    interval = mean_interval(seen.rates[:, above] - seen.rates[:, below])
    return Claim.of(
        "rates separate into key and less critical layers",
        seen.name,
        f"largest gap between rates, above it layers {' '.join(map(str, key))}",
        interval,
        len(seen.rates),
        GAP,
    )


def specific(seen: Seen, study: Study) -> Claim:
    """Are the layers after the second downsampling more specific to classes than those up to it?

    A layer's measure is the standard deviation of its rate between classes, less what sampling images adds; the
    interval is a bootstrap over the images of each class.
    """
    classes = [seen.rates[study.labels == label] for label in np.unique(study.labels)]
    second = [layer for layer, halves in enumerate(seen.downsampling) if halves][1]
    later = np.arange(len(seen.model.units)) > second
    noise = np.stack([rates.var(0, ddof=min(1, len(rates) - 1)) / len(rates) for rates in classes]).mean(0)

    def contrast(means: Shares, variance: Shares) -> Shares:
        between = np.sqrt(np.maximum(means.var(0, ddof=1) - variance, 0))
        return np.asarray(between[..., later].mean(-1) - between[..., ~later].mean(-1))

    value = float(contrast(np.stack([rates.mean(0) for rates in classes]), noise))
    resampled = np.stack(
        [resampled_means(rates, RESAMPLES, study.seed + number) for number, rates in enumerate(classes)]
    )
    lo, hi = np.quantile(contrast(resampled, 2 * noise), [0.025, 0.975])
    return Claim.of(
        "later layers are more specific to classes",
        seen.name,
        f"sd of rates between classes, layers {second + 2} to {len(seen.model.units)} less the earlier ones",
        Interval(value, min(float(lo), value), max(float(hi), value), "bootstrap"),
        len(study.dataset),
    )


def always(seen: Seen) -> Iterator[Claim]:
    """Does every downsampling layer run for (nearly) all images?"""
    for layer, halves in enumerate(seen.downsampling):
        if halves:
            yield Claim.of(
                "downsampling layers always run",
                f"{seen.name}, layer {layer + 1}",
                "execution rate",
                cluster_mean(seen.rates[:, layer]),
                len(seen.rates),
                ALWAYS,
            )


def attacked(run: Run, seed: int) -> Iterator[Claim]:
    """Is a model more accurate with stochastic than with deterministic gates under FGSM with one gate draw?"""
    curves: dict[tuple[Any, ...], dict[str, Any]] = {}
    for curve in run.curves:
        if curve.attack.partition(":")[0] == "fgsm" and curve.attacker == "static":
            curves.setdefault((curve.model, curve.defense, curve.norm, curve.seed), {})[curve.gating] = curve
    for (model, defense, _, _), by_gating in curves.items():
        if not {"stochastic", "deterministic"} <= set(by_gating):
            continue
        first, second = (run.shares(by_gating[gating]) for gating in ("stochastic", "deterministic"))
        rows = by_gating["stochastic"].rows
        for epsilon in rows.loc[rows["eps"] > 0, "eps_label"]:
            difference = compare(first.loc[epsilon], second.loc[epsilon], seed=seed).difference
            yield Claim.of(
                "stochastic gates are more robust than deterministic ones under one-draw FGSM",
                f"{model}, {'no defence' if defense == 'none' else defense}, epsilon {epsilon}",
                "difference in accuracy",
                difference,
                first.shape[1],
            )
