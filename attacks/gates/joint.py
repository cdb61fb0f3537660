"""``gates:joint``: the ordinary adversary armed with gate gradients."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor

from attacks.gates.base import GateAttack
from attacks.gates.compute import Close, Open
from attacks.gates.goals import Misclassify
from attacks.gates.objectives import Goal
from attacks.gates.route import RouteTo
from attacks.gates.stealth import Hold
from attacks.gates.through import Through
from robustbench_aig.contracts.attack import Purpose
from robustbench_aig.contracts.target import Target
from robustbench_aig.registry import register

Aim = Literal["open", "close", "flip", "misclassify", "stealth", "through"]
"""Compute up or down, every gate the other way, a wrong class: by any means, with the gates held, through the gates."""

PURPOSES: Mapping[Aim, Purpose] = {
    "open": "compute",
    "close": "compute",
    "flip": "gates",
    "through": "gates",
    "misclassify": "class",
    "stealth": "class",
}


def aim_goal(aim: Aim, target: Target, images: Tensor, labels: Tensor) -> Goal:
    """The goal of an aim, with the label free."""
    if aim == "open":
        return Open().goal(target, images, labels)
    if aim == "close":
        return Close().goal(target, images, labels)
    if aim == "stealth":
        return Hold().goal(target, images, labels)
    if aim == "through":
        return Through().goal(target, images, labels)
    route = RouteTo(to="flip").goal(target, images, labels)
    return route if aim == "flip" else Misclassify(labels, route, target.gating.stochastic)


@register("gates:joint", "a wrong class, with a pull on the gates beside", paper="this project")
@dataclass(frozen=True, kw_only=True)
class Joint(GateAttack):
    """Cross-entropy plus lambda times a pull on the gates; restarts take lambda = 0, 1, 0, 4 in turn.

    The best iterate by the share of wrong draws is kept, so a lambda that does not help costs restarts but no success.

    Attributes:
        gates: where the gates are pulled.
    """

    LADDER: ClassVar[tuple[float, ...]] = (0.0, 1.0, 0.0, 4.0)

    gates: Literal["open", "close", "flip"] = "flip"

    def goal(self, target: Target, images: Tensor, labels: Tensor) -> Misclassify:
        gates = aim_goal(self.gates, target, images, labels)
        return Misclassify(labels, gates, target.gating.stochastic, ladder=self.LADDER)
