"""``gates:open`` and ``gates:close``: make a network spend as much, or as little, as its gates allow."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor

from attacks.gates.base import GateAttack
from attacks.gates.goals import Compute
from attacks.gates.objectives import Label, extreme_route
from robustbench_aig.contracts.target import Target
from robustbench_aig.registry import register


@dataclass(frozen=True, kw_only=True)
class _Compute(GateAttack):
    """Moves the executed multiply-adds, each gate weighted by what its block costs.

    Attributes:
        prediction: ``held`` keeps the predicted class, so that only the bill changes.
    """

    sign: ClassVar[Literal[1, -1]]

    prediction: Literal["free", "held"] = "free"

    def goal(self, target: Target, images: Tensor, labels: Tensor) -> Compute:
        wish = Label.of(self.prediction, target, images, labels)
        return Compute(
            sign=self.sign,
            label=wish,
            route=extreme_route(target, images, self.sign),
            random=target.gating.stochastic,
            threshold=target.gating.threshold,
        )


@register("gates:open", "opens gates: most multiply-adds", paper="this project", aims_at="compute")
@dataclass(frozen=True, kw_only=True)
class Open(_Compute):
    """Opens gates: as much computation as possible."""

    sign: ClassVar[Literal[1, -1]] = 1


@register("gates:close", "closes gates: fewest multiply-adds", paper="this project", aims_at="compute")
@dataclass(frozen=True, kw_only=True)
class Close(_Compute):
    """Closes gates: as little computation as possible."""

    sign: ClassVar[Literal[1, -1]] = -1
