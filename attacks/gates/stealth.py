"""``gates:stealth``: a wrong class while every gate decides as on the clean image, so that no graph monitor sees it."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from attacks.gates.base import GateAttack, require_decisions
from attacks.gates.goals import Stealth
from attacks.gates.objectives import SELECTION_DRAWS, select, trace_of
from robustbench_aig.contracts.target import Target
from robustbench_aig.registry import register


@register("gates:stealth", "a wrong class with every gate held", paper="this project")
@dataclass(frozen=True, kw_only=True)
class Hold(GateAttack):
    """Misclassifies with the graph held: exactly for hard gates, draw by draw under the same noise for sampled ones.

    An image counts only where it is wrong *and* its graph is unchanged; one without such a candidate stays clean.
    """

    clean_on_failure: ClassVar[bool] = True

    def goal(self, target: Target, images: Tensor, labels: Tensor) -> Stealth:
        require_decisions(target, self.name)
        along = trace_of(target.view(images, "craft", range(SELECTION_DRAWS)))
        held = trace_of(select(target, images)).open
        return Stealth(
            labels,
            along.open.transpose(0, 1),
            along.margin.transpose(0, 1),
            held.transpose(0, 1),
            target.gating.stochastic,
            target.gating.threshold,
        )
