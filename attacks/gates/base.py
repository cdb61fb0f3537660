"""What the attacks on gates share: their parameters, and the search over budgets."""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from attacks.gates.ascent import Best, Search, Start
from attacks.gates.estimators import Estimator, resolve
from attacks.gates.objectives import Goal
from attacks.gates.optimiser import maximise
from robustbench_aig.contracts.attack import Attack
from robustbench_aig.contracts.target import Target
from robustbench_aig.errors import UsageError


def require_gates(target: Target, name: str) -> None:
    """Refuse a model that decides nothing.

    Raises:
        UsageError: it makes no decisions.
    """
    if target.layout is None or target.gating.kind == "none":
        raise UsageError(f"attack '{name}' aims at decisions, and this model makes none; attack a dynamic network.")


def require_decisions(target: Target, name: str) -> None:
    """Refuse gates that scale blocks in place of deciding.

    Raises:
        UsageError: the gating is ``expected``.
    """
    if target.gating.kind == "expected":
        raise UsageError(f"attack '{name}' needs gates that decide; choose the stochastic or the deterministic gating.")


@dataclass(frozen=True, kw_only=True)
class GateAttack(Attack):
    """An attack that maximises a goal about gates.

    Candidates of a smaller budget count at a larger one, so that the metric cannot fall with the budget.

    Attributes:
        steps: per start.
        restarts: how many starts.
        estimator: of the gradient through sampled gates.
        draws: that it averages over; 0 doubles them for each image until its gradient is steady.
    """

    needs_gates: ClassVar[bool] = True
    starts: ClassVar[tuple[Start, ...]] = ("best", "best", "colour", "smooth", "random")
    sampled_starts: ClassVar[tuple[Start, ...]] = ("mean", "colour", "twin", "smooth", "random")

    steps: int = 40
    restarts: int = 5
    estimator: Estimator = "auto"
    draws: int = 0

    def __post_init__(self) -> None:
        if self.steps < 1 or self.restarts < 1 or self.draws < 0:
            raise ValueError("steps and restarts must be 1 or more, draws 0 or more")

    @property
    def aims_at_class(self) -> bool:
        return False

    def search(self, target: Target) -> Search:
        """How hard to search."""
        starts = self.sampled_starts if target.gating.stochastic else self.starts
        return Search(self.norm, self.steps, self.restarts, self.estimator, self.draws, starts)

    @abstractmethod
    def goal(self, target: Target, images: Tensor, labels: Tensor) -> Goal:
        """What is wanted of clean images (N, C, H, W)."""

    def check_target(self, target: Target, images: Tensor, labels: Tensor) -> None:
        require_gates(target, self.name)
        resolve(self.estimator, target)
        self.goal(target, images, labels)

    def __call__(self, target: Target, images: Tensor, labels: Tensor, budgets: Sequence[float]) -> Tensor:
        require_gates(target, self.name)
        goal = self.goal(target, images, labels)
        best: Best | None = None
        found = []
        for budget in budgets:
            best = maximise(target, images, goal, budget, self.search(target), best)
            found.append(best.images)
        return torch.stack(found)
