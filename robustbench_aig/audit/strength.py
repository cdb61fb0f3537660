"""S: do stronger attacks do more, weaker ones less, and does anything break what the best attack leaves?"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import groupby
from typing import Any

import numpy as np
from torch import Tensor

from robustbench_aig.audit.cells import Contestant, is_control, knows, telling, uses_gradient
from robustbench_aig.audit.check import Result, Verdict
from robustbench_aig.audit.context import Context
from robustbench_aig.audit.steps import ascend, random_steps
from robustbench_aig.contracts.target import Target
from robustbench_aig.engine.plan import Cell
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


def monotone(context: Context) -> Iterator[Result]:
    """S1: accuracy does not rise with the budget."""
    for cell, correct in context.attacked:
        means = correct.mean(1)
        rise = 0.0
        for number in range(1, len(means)):
            lowest = int(means[:number].argmin())
            step = float(means[number] - means[lowest])
            if step > max(rise, 0.01) and _greater(correct[number], correct[lowest]):
                rise = step
        text = (
            f"accuracy rises by {rise:.1%} at a larger budget, where every smaller perturbation is allowed too; the "
            "attack overshoots "
            "or its gradient is masked: use an iterated attack that keeps what it found."
        )
        yield Result(_severity([cell]) if rise else "PASS", text, cell.id, rise, 0.01)


def _greater(first: Floats, second: Floats) -> bool:
    return compare(first, second, seed=0, alternative="greater", resamples=2000).p_value < LEVEL


def _severity(cells: Sequence[Cell]) -> Verdict:
    """FAIL where one of the attacks should have done it: iterated, and aware of what it attacks."""
    sound = any(
        cell.attack is not None and cell.attack.iterated and uses_gradient(cell) and knows(cell) for cell in cells
    )
    return "FAIL" if sound else "WARN"


def iterated(context: Context) -> Iterator[Result]:
    """S2: iterated attacks break what single steps break."""
    for contestant in context.steady:
        cells = sorted(filter(uses_gradient, contestant.attacked), key=_protocol)
        for _, group in groupby(cells, key=_protocol):
            members = list(group)
            single = [cell for cell in members if cell.attack is not None and not cell.attack.iterated]
            many = [cell for cell in members if cell not in single]
            if not many:
                text = "only single steps were tried, so accuracy is an upper bound far above the truth; add -a pgd."
                yield Result("WARN", text, members[0].id)
            elif single and knows(members[0]):
                yield _one_step_wins(context, single, many)


def _protocol(cell: Cell) -> tuple[str, str]:
    return cell.attacker, "" if cell.attack is None else cell.attack.norm


def _one_step_wins(context: Context, single: list[Cell], many: list[Cell]) -> Result:
    one, more = (np.stack([context.correct(cell) for cell in cells]) for cells in (single, many))
    only = 0.0
    for number in range(one.shape[1]):
        first, second = (stack[stack[:, number].mean(1).argmin(), number] for stack in (one, more))
        lead = float(second.mean() - first.mean())
        if lead > 0 and _greater(second, first):
            text = (
                f"a single step reaches {first.mean():.1%} where iterated attacks stop at {second.mean():.1%}: "
                "gradients are "
                "masked, or steps too few or too short; check the gradient (G4), then raise steps."
            )
            return Result(_severity(many) if lead > FAR else "WARN", text, many[0].id, lead, 0.0)
        if not many[0].stochastic:
            missed = (one[:, number].min(0) == 0) & (more[:, number].min(0) == 1)
            only = max(only, float(missed.mean()) if missed.sum() > 1 else 0.0)
    text = f"{only:.1%} of the images fall to a single step but to no iterated attack; use more steps or restarts."
    return Result("WARN" if only > 0.01 else "PASS", text, many[0].id, only, 0.01)


def steps(context: Context) -> Iterator[Result]:
    """S3: twice the steps do not lower accuracy."""
    yield from _doubled(context, "steps", "raise steps until accuracy settles")


def restarts(context: Context) -> Iterator[Result]:
    """S4: twice the restarts do not lower accuracy."""
    yield from _doubled(context, "restarts", "raise restarts until accuracy settles")


def _doubled(context: Context, parameter: str, remedy: str) -> Iterator[Result]:
    for cell, correct in context.attacked:
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
        text = f"{parameter}={2 * value} in place of {value} lowers accuracy by {drop:.1%} at {label}; {remedy}."
        yield Result("WARN" if drop > max(0.005, context.grain) else "PASS", text, cell.id, drop, 0.005)


def _restartable(attack: Any) -> bool:
    return bool(attack.settings().get("random_start", True))


def unbounded(context: Context) -> Iterator[Result]:
    """S5: with half the pixel range to spend, where a grey image is within reach, no better than chance is left."""
    chance = 1 / len(context.settings.dataset.classes)
    for contestant in context.steady:
        if not any(map(uses_gradient, contestant.attacked)):
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
            "in reach of all; "
            "no number of this model is meaningful until an attack gets to chance."
        )
        yield Result("FAIL" if interval.lo > chance else "PASS", text, contestant.clean.id, interval.value, chance)


def black_box(context: Context) -> Iterator[Result]:
    """S6: attacks without gradients break no more than those with them."""
    for contestant in context.steady:
        for cell in contestant.attacked:
            assert cell.attack is not None
            if uses_gradient(cell) or is_control(cell):
                continue
            rivals = [other for other in contestant.attacked if uses_gradient(other) and _comparable(cell, other)]
            if not rivals:
                continue
            white = np.minimum.reduce([context.correct(rival) for rival in rivals])
            black = context.correct(cell)
            excess = (white.mean(1) - black.mean(1)).max()
            only = ((black < 1) & (white == 1)).mean(1).max() if not cell.stochastic else 0.0
            worst = float(max(excess, 0.0))
            found = (excess > 0.002 and any(_greater(*pair) for pair in zip(white, black, strict=True))) or (
                only > 0.01 and only * black.shape[1] >= 2
            )
            text = (
                f"{cell.attack.name} without gradients is ahead of every gradient attack by {worst:.1%} (and breaks "
                f"{only:.1%} of the "
                "images alone): gradients are masked; find what hides them before trusting a gradient attack."
            )
            yield Result(_severity(rivals) if found else "PASS", text, cell.id, worst, 0.002)


def _comparable(cell: Cell, other: Cell) -> bool:
    assert cell.attack is not None
    assert other.attack is not None
    return cell.attack.norm == other.attack.norm and cell.epsilons == other.epsilons


def noise(context: Context) -> Iterator[Result]:
    """S8: random perturbations break no image that the gradient attacks leave right in every draw."""
    rows = context.rows.numpy()
    for contestant in context.steady:
        cells = [cell for cell in contestant.attacked if uses_gradient(cell)]
        for norm in ("linf", "l2"):
            same = [cell for cell in cells if cell.attack is not None and cell.attack.norm == norm]
            if not same:
                continue
            left = np.minimum.reduce([context.correct(cell) for cell in same])
            number = telling(same[0], left)
            broken = _noise_breaks(context, contestant, same[0].epsilons[number].value, norm)
            only = broken & (left[number][rows] == 1)
            share = float(only.mean())
            text = (
                f"{NOISES} random perturbations break {share:.1%} of the images that gradient attacks leave right at "
                f"{same[0].epsilons[number].label}: those attacks are weak or their gradients masked; add pgd, or "
                "check the gradient (G4)."
            )
            severity = "WARN" if contestant.random else _severity(same)
            yield Result(severity if share > 0.002 and only.sum() > 1 else "PASS", text, same[0].id, share, 0.002)


def _noise_breaks(context: Context, contestant: Contestant, size: float, norm: str) -> Any:
    """(N,) bool: images right in the first scoring draw, and wrong in the same draw after some random step."""
    cell = replace(contestant.clean, draws=1)
    right = context.score(cell, context.images) == 1
    unaware = replace(contestant.clean, attacker="static")
    broken = np.zeros_like(right)
    for draw in range(NOISES):

        def work(target: Target, images: Tensor, labels: Tensor, draw: int = draw) -> Tensor:
            return random_steps(target, images, size, norm, draw)

        broken |= context.score(cell, context.each(unaware, "static", work)) < 1
    return right & broken


def unperturbed(context: Context) -> Iterator[Result]:
    """U: images that are still right were at least perturbed (G2 and T1 tell of the others)."""
    for cell, correct in context.attacked:
        assert cell.attack is not None
        if is_control(cell):
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
