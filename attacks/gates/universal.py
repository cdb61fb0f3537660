"""``gates:universal``: one perturbation for a data set, or one for each class, learnt on other images."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product

import torch
from torch import Tensor

from attacks.common.norms import direction, limit
from attacks.gates.ascent import DRAW_STRIDE
from attacks.gates.base import GateAttack, require_gates
from attacks.gates.estimators import estimate, judge, resolve
from attacks.gates.joint import PURPOSES, Aim, aim_goal
from attacks.gates.objectives import Goal
from attacks.gates.optimiser import require_gate_gradient
from attacks.gates.reference import on_reference, reference_of
from robustbench_aig.contracts.attack import Purpose
from robustbench_aig.contracts.target import Reference, Target
from robustbench_aig.errors import UsageError
from robustbench_aig.registry import register

WINDOW = 8


@register("gates:universal", "one perturbation for all images, or for a class", paper="this project", aims_at="compute")
@dataclass(frozen=True, kw_only=True)
class Universal(GateAttack):
    """One perturbation that maximises the mean of a goal over the reference images, added to every attacked image.

    It starts at the best constant colour shift and at zero, so it is never worse on the reference images than either.

    Attributes:
        aim: what it is for.
        per_class: one perturbation for each true class.
    """

    restarts: int = 2
    aim: Aim = "open"
    per_class: bool = False

    @property
    def aims_at(self) -> Purpose:  # type: ignore[override]
        return PURPOSES[self.aim]

    @property
    def learns(self) -> bool:
        return True

    def goal(self, target: Target, images: Tensor, labels: Tensor) -> Goal:
        return aim_goal(self.aim, target, images, labels)

    def __call__(self, target: Target, images: Tensor, labels: Tensor, budgets: Sequence[float]) -> Tensor:
        require_gates(target, self.name)
        found = []
        for budget in budgets:
            if self.per_class:
                delta = torch.zeros_like(images)
                for number in labels.unique().tolist():
                    delta[labels == number] = self.learn(target, budget, number)
            else:
                delta = self.learn(target, budget, None)
            found.append((images + delta).clamp(0, 1))
        return torch.stack(found)

    def learn(self, target: Target, budget: float, label: int | None) -> Tensor:
        """The perturbation (1, C, H, W) for a class, or for all; learnt once per set of reference images.

        Raises:
            UsageError: there are no reference images, or none of the class.
            UserError: no gradient reaches the images through the gates.
        """
        reference = reference_of(target)
        key = (tuple(self.settings().items()), target.gating, target.seed, id(target.model), budget, label)
        if key not in reference.memory:
            chosen = reference
            if label is not None:
                chosen = _only(reference, label)
            reference.memory[key] = self._learn(on_reference(target, chosen), chosen, budget)
        delta: Tensor = reference.memory[key]
        return delta

    def _learn(self, target: Target, reference: Reference, budget: float) -> Tensor:
        images = reference.images
        goal = self.goal(target, images, reference.labels)
        if goal.gates_only:
            require_gate_gradient(target, images)
        estimator = resolve(self.estimator, target)

        def mean(delta: Tensor) -> float:
            return judge(target, (images + delta).clamp(0, 1), goal, estimator)[0].mean().item()

        none, radius = torch.zeros_like(images[:1]), images.new_full((1, 1, 1, 1), budget)
        signs = [
            images.new_tensor(s).view(1, -1, 1, 1).expand_as(none) for s in product((-1.0, 1.0), repeat=len(none[0]))
        ]
        shifts = [budget * direction(shift, self.norm) for shift in signs]
        colour = max(shifts, key=mean)
        best = max((none, colour), key=mean)
        top, penalty = mean(best), images.new_zeros(len(images))
        for restart in range(self.restarts):
            delta, step = (colour, none)[restart % 2], budget
            reviewed = mean(delta)
            for number in range(1, self.steps + 1):
                moved = (images + delta).clamp(0, 1)
                at = restart * DRAW_STRIDE + number
                found = estimate(target, moved, goal.variant(restart), penalty, at, estimator, self.draws)
                delta = limit(
                    delta + step * direction(found.gradient.mean(0, keepdim=True), self.norm), radius, self.norm
                )
                value = mean(delta)
                if value > top:
                    best, top = delta, value
                if number % WINDOW == 0:
                    if top <= reviewed:
                        step, delta = step / 2, best
                    reviewed = top
        return best


def _only(reference: Reference, label: int) -> Reference:
    rows = reference.labels == label
    if not rows.any():
        raise UsageError(f"no reference image has class {label}; leave more of the data set to learn from.")
    return replace(reference, images=reference.images[rows], labels=reference.labels[rows], ids=reference.ids[rows])
