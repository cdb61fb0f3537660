"""The per-image worst case over several attacks."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from attacks.common.search import Search, Searching
from robustbench_aig.contracts.attack import Attack
from robustbench_aig.contracts.target import Target
from robustbench_aig.registry import register


def combine(members: Sequence[Attack], searches: Sequence[Search], budgets: Sequence[float]) -> None:
    """Let each member improve the searches in turn; one that cannot share them attacks what is left at any budget."""
    for member in members:
        if isinstance(member, Searching):
            member.improve(searches, budgets)
            continue
        for number, (search, budget) in enumerate(zip(searches, budgets, strict=True)):
            if number:
                search.inherit(searches[number - 1])
            part = search.left()
            if len(part.rows):
                (found,) = member(part.target, part.clean, part.criterion.labels, [budget])
                search.measure(part.rows, found)


@register(
    "worst", "worst case over attacks: attacks=fgsm+pgd", paper="Carlini et al. 2019", norms=("linf", "l2", "l1", "l0")
)
@dataclass(frozen=True, kw_only=True)
class Worst(Searching):
    """Runs attacks one after the other, each on what the ones before have left; keeps the best image of each.

    Attributes:
        attacks: names joined by ``+``, each with its default parameters.
    """

    attacks: str = "fgsm+pgd+square"

    def __post_init__(self) -> None:
        self._members()

    def check_target(self, target: Target, images: Tensor, labels: Tensor) -> None:
        for member in self._members():
            member.check_target(target, images, labels)

    def improve(self, searches: Sequence[Search], budgets: Sequence[float]) -> None:
        combine(self._members(), searches, budgets)

    def _members(self) -> list[Attack]:
        from attacks import make

        return [make(name.strip(), norm=self.norm, goal=self.goal) for name in self.attacks.split("+")]
