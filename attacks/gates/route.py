"""``gates:route``: send an image through a graph of the attacker's choice."""

from dataclasses import dataclass

from torch import Tensor

from attacks.gates.base import GateAttack
from attacks.gates.goals import Route
from attacks.gates.objectives import Label, LabelMode, layout_of, select, trace_of
from attacks.gates.reference import class_rates, find_class, graph_of
from robustbench_aig.contracts.target import Target
from robustbench_aig.errors import UsageError
from robustbench_aig.registry import register


@register(
    "gates:route", "to a graph, an image's graph, a class's habits, or flips all", paper="this project", aims_at="gates"
)
@dataclass(frozen=True, kw_only=True)
class RouteTo(GateAttack):
    """Moves the gates towards a graph, or towards how often they open for a class.

    Attributes:
        to: ``flip`` (every gate the other way), a graph such as ``101110010`` (first gate first), ``image/ID`` (the
            graph of a reference image) or ``class/NAME`` (how often gates open for that class in the reference images).
        prediction: the predicted class is of no interest (``free``), stays (``held``), or changes (``moved``: to the
            class of ``class/NAME``, else to any other than the true one).
    """

    to: str = "flip"
    prediction: LabelMode = "free"

    def __post_init__(self) -> None:
        super().__post_init__()
        kind, _, value = self.to.partition("/")
        if self.to != "flip" and set(self.to) - {"0", "1"} and not (kind in ("image", "class") and value):
            raise ValueError(f"to must be flip, a graph of 0 and 1, image/ID or class/NAME, not '{self.to}'")

    @property
    def learns(self) -> bool:
        return self.to.startswith(("image/", "class/"))

    def goal(self, target: Target, images: Tensor, labels: Tensor) -> Route:
        rates, aim = self._rates(target, images)
        wish = Label.of(self.prediction, target, images, labels, aim)
        return Route(
            rates=rates.to(images), label=wish, random=target.gating.stochastic, threshold=target.gating.threshold
        )

    def _rates(self, target: Target, images: Tensor) -> tuple[Tensor, int | None]:
        """(N, L) wanted rates, and the class that they belong to."""
        kind, _, value = self.to.partition("/")
        if kind == "flip":
            trace = trace_of(select(target, images))
            return layout_of(target).opposite(trace.open.mean(0), trace.margin.mean(0)), None
        if kind == "image":
            return graph_of(target, value).expand(len(images), -1), None
        if kind == "class":
            reference, number = find_class(target, value)
            rates = class_rates(target, reference)[number]
            return rates.expand(len(images), -1), number
        route, layout = [int(digit) for digit in self.to], layout_of(target)
        wrong = layout.refusal(route)
        if wrong is not None:
            raise UsageError(f"the target graph '{self.to}' is not possible: {wrong}; give one digit per unit.")
        wanted = images.new_tensor([float(digit) for digit in route])
        return (wanted * layout.reached(wanted)).expand(len(images), -1), None
