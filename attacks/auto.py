"""An AutoAttack (Croce and Hein, 2020) of our own: per image the worst of APGD-CE, targeted APGD, FMN and Square."""

from collections.abc import Sequence
from dataclasses import dataclass

from attacks.apgd import APGD
from attacks.apgd_t import APGDT
from attacks.common.losses import Average
from attacks.common.search import Search, Searching, at_least
from attacks.fmn import FMN
from attacks.square import Square
from attacks.worst import combine
from robustbench_aig.contracts.attack import Attack
from robustbench_aig.registry import register


@register("auto", "worst of APGD, targeted APGD, FMN and Square", paper="Croce and Hein 2020")
@dataclass(frozen=True, kw_only=True)
class Auto(Searching):
    """Each member attacks only what the ones before have left; FMN, once for all budgets, takes the place of FAB.

    For a random target an image counts as decided only when all of 32 fresh draws are successes, never by one draw, and
    candidates of all members are compared on the same ``select`` draws.

    Attributes:
        steps: of APGD, of each run of targeted APGD, and of FMN.
        restarts: of APGD. Near the boundary the random start decides: one start missed images that seven of eight hit.
        classes: that targeted APGD aims at.
        queries: of Square.
        pace: of Square, which gives up on images that this many times its pace would not break; 0 for never.
        average: over the draws of a random target.
    """

    steps: int = 100
    restarts: int = 2
    classes: int = 9
    queries: int = 5000
    pace: float = 2.0
    average: Average = "loss"

    def __post_init__(self) -> None:
        at_least(
            steps=(self.steps, 1),
            restarts=(self.restarts, 1),
            classes=(self.classes, 1),
            queries=(self.queries, 1),
            pace=(self.pace, 0),
        )

    def improve(self, searches: Sequence[Search], budgets: Sequence[float]) -> None:
        enough = searches[0].logits.shape[1] >= 4
        members: tuple[Attack, ...] = (
            APGD(norm=self.norm, steps=self.steps, restarts=self.restarts, average=self.average),
            APGDT(
                norm=self.norm,
                steps=self.steps,
                classes=self.classes,
                loss="dlr" if enough else "margin",
                average=self.average,
            ),
            FMN(norm=self.norm, steps=self.steps, average=self.average),
            Square(norm=self.norm, queries=self.queries, pace=self.pace),
        )
        combine(members, searches, budgets)
