"""S and U: do stronger attacks do more, weaker ones less, and does anything break what the best attack leaves?

Where something beats the gradient attacks, either their gradients are masked or the attacks are weak. To tell them
apart, the check climbs the gradient itself on those images: what breaks them then is no fault of the model.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import groupby
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from robustbench_aig.audit.cells import Contestant, knows, telling, uses_gradient
from robustbench_aig.audit.check import Result, Verdict
from robustbench_aig.audit.context import Context
from robustbench_aig.audit.probes import ascend, random_steps
from robustbench_aig.audit.text import points
from robustbench_aig.contracts.target import Passes, Target
from robustbench_aig.engine.eot import knowing_path
from robustbench_aig.engine.plan import Cell
from robustbench_aig.registry import register
from robustbench_aig.statistics.comparisons import compare
from robustbench_aig.statistics.intervals import Floats, accuracy

LEVEL = 0.05
"""Significance that a difference needs, where it has to be more than chance."""

FAR = 0.1
"""A lead of single steps that too few steps alone do not explain."""

NOISES = 20
"""Random directions tried by the noise check."""

IDLE = 0.05
"""Share of images that a gradient attack which keeps the best candidate may well find best as they are."""

CLIMBED, CLIMB_STEPS = 16, 40
"""Images and steps by which a check finds out whether an attack was weak."""

Rows = npt.NDArray[np.bool_]


@register(
    "S1",
    "monotone in epsilon",
    threshold="1 pt and p < 0.05",
    sound="accuracy does not rise with the budget.",
)
def monotone(context: Context) -> Iterator[Result]:
    """Accuracy does not rise with the budget."""
    for cell, correct in context.at_class:
        means = correct.mean(1)
        rise = 0.0
        for number in range(1, len(means)):
            lowest = int(means[:number].argmin())
            step = float(means[number] - means[lowest])
            if step > max(rise, 0.01) and _greater(correct[number], correct[lowest]):
                rise = step
        text = (
            f"accuracy rises by {points(rise)} at a larger budget, where every smaller perturbation is allowed too; "
            "the attack overshoots or its gradient is masked: use an iterated attack that keeps what it found."
        )
        yield Result(("FAIL" if _entitled([cell]) else "WARN") if rise else "PASS", text, cell.id, rise, 0.01)


def _greater(first: Floats, second: Floats) -> bool:
    return compare(first, second, seed=0, alternative="greater", resamples=2000).p_value < LEVEL


def _entitled(cells: Sequence[Cell]) -> bool:
    """Whether one of the attacks should have done it: iterated, and aware of what it attacks."""
    return any(
        cell.attack is not None and cell.attack.iterated and uses_gradient(cell) and knows(cell) for cell in cells
    )


def _masked(context: Context, contestant: Contestant, cells: Sequence[Cell], number: int, left: Rows) -> bool:
    """Whether the model hides its gradient from attacks that left images which something else broke.

    Args:
        context: the run.
        contestant: whom they attacked.
        cells: the attacks.
        number: of the epsilon.
        left: (N,) the images, of the whole data set.

    Returns:
        False where none of the attacks is iterated and aware; where the norm is L0, whose attacks are searches rather
        than climbs; and where plain ascent on the margin breaks half of the images or more, so that the attacks are to
        blame.
    """
    first = cells[0]
    if not _entitled(cells) or first.attack is None or _norm(first) == "l0":
        return False
    rows = torch.from_numpy(np.flatnonzero(left))
    sample = context.pick(rows[torch.linspace(0, len(rows) - 1, min(len(rows), CLIMBED)).round().long()])
    size, norm, cell = first.epsilons[number].value, first.attack.norm, context.knowing(contestant)
    path = knowing_path(cell, sample.ids[:1], Passes.none(1, sample.ids.device))[0]

    def climb(target: Target, images: Tensor, labels: Tensor) -> Tensor:
        return ascend(target, images, labels, size, CLIMB_STEPS, norm)

    try:
        found = context.each(cell, path, climb, sample=sample)
    except (RuntimeError, ValueError):  # no gradient reaches the images, of which G1 tells
        return True
    return bool((context.score(cell, found, sample=sample) < 1).mean() < 0.5)


@register(
    "S2",
    "iterated beats single step",
    threshold="1 % of images or p < 0.05 warns; and 10 pt and a masked gradient fails",
    sound="iterated attacks break what single steps break.",
)
def iterated(context: Context) -> Iterator[Result]:
    """Iterated attacks break what single steps break."""
    for contestant in context.steady:
        for _, group in groupby(sorted(contestant.by_gradient, key=_protocol), key=_protocol):
            members = list(group)
            single = [cell for cell in members if cell.attack is not None and not cell.attack.iterated]
            many = [cell for cell in members if cell not in single]
            if not many:
                text = "only single steps were tried, so accuracy is an upper bound far above the truth; add -a pgd."
                yield Result("WARN", text, members[0].id)
            elif single and knows(members[0]):
                yield _one_step_wins(context, contestant, single, many)


def _protocol(cell: Cell) -> tuple[str, str]:
    return cell.attacker, "" if cell.attack is None else cell.attack.norm


def _one_step_wins(context: Context, contestant: Contestant, single: list[Cell], many: list[Cell]) -> Result:
    one, more = (np.stack([context.correct(cell) for cell in cells]) for cells in (single, many))
    only = 0.0
    for number in range(one.shape[1]):
        first, second = (stack[stack[:, number].mean(1).argmin(), number] for stack in (one, more))
        lead = float(second.mean() - first.mean())
        if lead > 0 and _greater(second, first):
            masked = lead > FAR and _masked(context, contestant, many, number, second > first)
            text = f"a single step reaches {first.mean():.1%} where iterated attacks stop at {second.mean():.1%}: " + (
                "gradients are masked; check them (G4, G7)." if masked else "raise their steps or step size."
            )
            return Result("FAIL" if masked else "WARN", text, many[0].id, lead, 0.0)
        if not many[0].stochastic:
            missed = (one[:, number].min(0) == 0) & (more[:, number].min(0) == 1)
            only = max(only, float(missed.mean()) if missed.sum() > 1 else 0.0)
    text = f"{only:.1%} of the images fall to a single step but to no iterated attack; use more steps or restarts."
    return Result("WARN" if only > 0.01 else "PASS", text, many[0].id, only, 0.01)


@register(
    "S3",
    "more steps",
    tier="full",
    cost="3 x the attack",
    threshold="0.5 pt",
    sound="twice the steps change nothing.",
)
def steps(context: Context) -> Iterator[Result]:
    """Twice the steps do not lower accuracy."""
    yield from _doubled(context, "steps", "raise steps until accuracy settles")


@register(
    "S4",
    "more restarts",
    tier="full",
    cost="3 x the attack",
    threshold="0.5 pt",
    sound="twice the restarts change nothing.",
)
def restarts(context: Context) -> Iterator[Result]:
    """Twice the restarts do not lower accuracy."""
    yield from _doubled(context, "restarts", "raise restarts until accuracy settles")


def _doubled(context: Context, parameter: str, remedy: str) -> Iterator[Result]:
    for cell, correct in context.at_class:
        attack: Any = cell.attack
        value = attack.settings().get(parameter)
        if (
            not uses_gradient(cell)
            or not isinstance(value, int)
            or (parameter == "restarts" and not _restartable(attack))
        ):
            continue
        one = replace(cell, epsilons=(cell.epsilons[telling(cell, correct)],))
        more = replace(one, attack=replace(attack, **{parameter: 2 * value}))
        drop = float(context.rerun(one).correct.mean() - context.rerun(more).correct.mean())
        label = one.epsilons[0].label
        text = f"{parameter}={2 * value} in place of {value} lowers accuracy by {points(drop)} at {label}; {remedy}."
        yield Result("WARN" if drop > max(0.005, context.grain) else "PASS", text, cell.id, drop, 0.005)


def _restartable(attack: Any) -> bool:
    return bool(attack.settings().get("random_start", True))


@register(
    "S5",
    "unbounded attack",
    tier="full",
    cost="21 (F + B) per path",
    threshold="chance, by the interval",
    sound="an unbounded attack leaves no more than chance.",
)
def unbounded(context: Context) -> Iterator[Result]:
    """With half the pixel range to spend, where a grey image is within reach, no better than chance is left."""
    chance = 1 / len(context.settings.dataset.classes)
    for contestant in context.steady:
        if not contestant.by_gradient:
            continue
        cell = context.knowing(contestant)
        best: Floats | None = None
        for path in context.paths(cell):
            if not isinstance(context.slope(cell, path), str):
                found = context.each(cell, path, lambda target, images, labels: ascend(target, images, labels, 0.5, 20))
                correct = context.score(cell, found)
                best = correct if best is None else np.minimum(best, correct)
        if best is None:
            continue
        interval = accuracy(np.round(best * cell.scoring_draws), cell.scoring_draws)
        text = (
            f"gradients leave {interval.value:.1%} right within 0.5 of the pixel range, where the same grey image is "
            "in reach of all; no number of this model is meaningful until an attack gets to chance."
        )
        yield Result("FAIL" if interval.lo > chance else "PASS", text, contestant.clean.id, interval.value, chance)


@register(
    "S6",
    "gradient-free attacks",
    threshold="0.2 pt and p < 0.05, or 1 % of images, warns; and a masked gradient fails",
    sound="no attack without gradients is ahead.",
)
def black_box(context: Context) -> Iterator[Result]:
    """Attacks without gradients break no more than those with them."""
    for contestant in context.steady:
        for cell in contestant.at_class:
            rivals = [other for other in contestant.by_gradient if _comparable(cell, other)]
            if uses_gradient(cell) or not rivals:
                continue
            yield _ahead(context, contestant, cell, rivals)


def _ahead(context: Context, contestant: Contestant, cell: Cell, rivals: list[Cell]) -> Result:
    assert cell.attack is not None
    white = np.minimum.reduce([context.correct(rival) for rival in rivals])
    black = context.correct(cell)
    leads = white.mean(1) - black.mean(1)
    missed = (black < 1) & (white == 1)
    only = missed.mean(1) if not cell.stochastic else np.zeros(len(black))
    clear = [
        number
        for number in range(len(black))
        if (leads[number] > 0.002 and _greater(white[number], black[number]))
        or (only[number] > 0.01 and only[number] * black.shape[1] >= 2)
    ]
    worst = float(max(leads.max(), 0.0))
    if not clear:
        return Result("PASS", "", cell.id, worst, 0.002)
    number = max(clear, key=lambda number: (leads[number], only[number]))
    masked = _masked(context, contestant, rivals, number, black[number] < white[number])
    text = (
        f"{cell.attack.name} without gradients is ahead of every gradient attack by {points(worst)}, and breaks "
        f"{only.max():.1%} of the images alone: "
        + (
            "gradients are masked; find what hides them before trusting a gradient attack."
            if masked
            else "those attacks are weak; add stronger ones."
        )
    )
    return Result("FAIL" if masked else "WARN", text, cell.id, worst, 0.002)


def _comparable(cell: Cell, other: Cell) -> bool:
    assert cell.attack is not None
    assert other.attack is not None
    return cell.attack.norm == other.attack.norm and cell.epsilons == other.epsilons


@register(
    "S8",
    "random noise",
    cost="21 F",
    threshold="0.2 % of images warns; and a masked gradient fails",
    sound="random noise breaks nothing that the attacks leave.",
)
def noise(context: Context) -> Iterator[Result]:
    """Random perturbations break no image that the gradient attacks leave right in every draw.

    They are tried at the largest budget at which the attacks leave two of the tried images.
    """
    rows = context.rows.numpy()
    for contestant in context.steady:
        for norm, group in groupby(sorted(contestant.by_gradient, key=_norm), key=_norm):
            same = list(group)
            left = np.minimum.reduce([context.correct(cell) for cell in same]) == 1
            enough = np.flatnonzero(left[:, rows].sum(1) > 1)
            if not len(enough):
                yield Result("PASS", "", same[0].id, 0.0, 0.002)
                continue
            number = int(enough[-1])
            broken = _noise_breaks(context, contestant, same[0].epsilons[number].value, norm)
            only = np.zeros(left.shape[1], bool)
            only[rows] = broken & left[number, rows]
            share, found = float(only.sum() / len(rows)), int(only.sum()) > 1
            masked = found and not contestant.random and _masked(context, contestant, same, number, only)
            text = (
                f"{NOISES} random perturbations break {share:.1%} of the images although gradient attacks leave them "
                f"right at {same[0].epsilons[number].label}: "
                + (
                    "their gradients are masked; check them (G4, G7)."
                    if masked
                    else "those attacks are weak; add stronger ones."
                )
            )
            yield Result("FAIL" if masked else "WARN" if found else "PASS", text, same[0].id, share, 0.002)


def _norm(cell: Cell) -> str:
    return "" if cell.attack is None else cell.attack.norm


def _noise_breaks(context: Context, contestant: Contestant, size: float, norm: str) -> Rows:
    """(N,) tried images that are right in the first scoring draw, and wrong in the same draw after some random step."""
    cell = replace(contestant.clean, draws=1)
    right = context.score(cell, context.tried.images) == 1
    unaware = replace(contestant.clean, attacker="static")
    broken = np.zeros_like(right)
    for draw in range(NOISES):

        def work(target: Target, images: Tensor, labels: Tensor, draw: int = draw) -> Tensor:
            return random_steps(target, images, size, norm, draw)

        broken |= context.score(cell, context.each(unaware, "static", work)) < 1
    return np.asarray(right & broken)


@register(
    "U",
    "unperturbed images",
    threshold="5 % warns, all fails",
    sound="images that stay right were perturbed, or could not be broken by an attack that returns those as they are.",
)
def unperturbed(context: Context) -> Iterator[Result]:
    """Images that are still right were at least perturbed (G2, G6 and T1 tell of the others)."""
    for cell, correct in context.at_class:
        assert cell.attack is not None
        spent = context.result(cell.id)["rows"][0]["forwards_per_image"] > 0
        if cell.attack.clean_on_failure and (spent or not uses_gradient(cell)):
            yield Result("PASS", "", cell.id, None, IDLE)
            continue
        still = correct == 1
        same = context.samples(cell)["linf"].to_numpy().reshape(correct.shape) == 0
        known = [measure["invalid"] + measure["zero_gradient"] for measure in context.result(cell.id)["measures"]]
        shares = np.maximum((still & same).mean(1) - np.array(known), 0.0)
        idle = bool(same.all()) and float(shares.max()) > 0
        text = (
            f"the attack returned {shares.max():.1%} of the images unchanged and still right"
            + (", and changed none at any budget" if idle else "")
            + ": they were not attacked; fix the attack, or choose one that spends its budget."
        )
        verdict: Verdict = "FAIL" if idle else "WARN" if shares.max() > IDLE and uses_gradient(cell) else "PASS"
        yield Result(verdict, text, cell.id, float(shares.max()), IDLE)
