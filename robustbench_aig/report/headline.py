"""The headline of a run: the lowest accuracy that its attacks reached, and what attacks with another aim did."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pandas as pd

from robustbench_aig.report import text
from robustbench_aig.report.run import Curve, Run, contestant
from robustbench_aig.statistics.intervals import Interval, accuracy

COMMON = {"linf": 8 / 255, "l2": 0.5}
"""The budgets that the field compares, by norm. A sweep often goes on to where nothing survives, which tells models
apart no more."""

_DIGITS = 9
"""Decimals that tables keep of an epsilon, and more than any two budgets of a sweep need to be told apart."""


@dataclass(frozen=True)
class Headline:
    """The worst that a run found for one model, gating and defence at one epsilon.

    Attributes:
        row: of ``summary.csv``, the worst of its attacks.
        aim: what those attacks want to change: ``class``, ``gates`` or ``compute``.
        attacks: how many attacks it is the worst of; attackers and seeds are not counted.
        found: accuracy and interval. Where one draw tells all, an image counts only if it withstands every attack at
            every budget up to this one, so it can lie below each row.
        clean: accuracy and interval of the same model, gating and defence without an attack.
        robust: whether an attack that suits the model was among them, so that the number may be called a bound of
            robust accuracy: iterated, and adaptive where there are random gates or a defence to adapt to.
    """

    row: pd.Series
    aim: str
    attacks: int
    found: Interval
    clean: Interval
    robust: bool

    @property
    def contestant(self) -> str:
        """The model with its gating."""
        return contestant(self.row["model"], self.row["gating"])

    @property
    def claim(self) -> str:
        """What was found in words, as in ``robust accuracy ≤ 3.1 % [2.2, 4.4]``; of attacks with another aim what they
        aim at, as in ``multiply-adds 28.4 M → 31.2 M``."""
        row, number = self.row, text.interval(self.found.value, self.found.lo, self.found.hi)
        if self.aim == "compute":
            return f"multiply-adds {text.macs(row['macs_clean'])} → {text.macs(row['macs_adv'])}"
        if self.aim == "gates":
            flips, null = text.percent(row["flip_rate"]), text.percent(row["flip_rate_null"])
            return f"decisions flipped {flips} % (between two draws without attack {null} %)"
        return f"robust accuracy ≤ {number}" if self.robust else f"accuracy {number}"

    @property
    def circumstances(self) -> str:
        """What it holds for, as in ``L∞ 8/255, jpeg:75, worst of 3 attacks``."""
        alone = f"{self.row['attack']}, {self.row['attacker']} attacker"
        attack = f"worst of {self.attacks} attacks" if self.attacks > 1 else alone
        return f"{text.budget(self.row)}, {text.defense(self.row['defense'])}, {attack}"

    def as_json(self) -> dict[str, Any]:
        """The same as a flat dictionary."""
        names = ("model", "gating", "defense", "norm", "eps_label")
        numbers = {"clean": self.clean.value, "accuracy": self.found.value, "lo": self.found.lo, "hi": self.found.hi}
        return (
            {name: self.row[name] for name in names}
            | numbers
            | {
                "aim": self.aim,
                "attacks": self.attacks,
                "robust": self.robust,
                "claim": self.claim,
            }
        )


def headlines(run: Run) -> list[Headline]:
    """The worst case of each model, gating, defence and norm at the epsilon of :data:`COMMON`, or the largest; then
    what attacks with another aim did there."""
    chosen: dict[tuple[str, ...], Headline] = {}
    for aim in ("class", "compute", "gates"):
        for entry in worst_cases(run, aim):
            key = (aim, *entry.row[["model", "gating", "defense", "norm"]])
            if key not in chosen or not _is_common(chosen[key]):
                chosen[key] = entry
    return list(chosen.values())


def worst_cases(run: Run, aim: str = "class") -> Iterator[Headline]:
    """The worst case at every epsilon above 0, by ascending epsilon within each model, gating, defence and norm.

    Args:
        run: the run.
        aim: of the attacks that count.
    """
    groups: dict[tuple[str, ...], list[Curve]] = {}
    for curve in run.curves:
        if curve.attacker != "known-noise" and run.aim(curve) == aim:  # knows more than a threat model allows
            groups.setdefault((curve.model, curve.gating, curve.defense, curve.norm), []).append(curve)
    for curves in groups.values():
        clean = _interval(curves[0].rows.iloc[0])
        counts = [run.counts(curve) for curve in curves] if aim == "class" else []
        attacked = pd.concat([curve.attacked for curve in curves])
        for _, rows in attacked.groupby(attacked["eps"].round(_DIGITS)):  # by value: equal budgets may have two labels
            worst = rows.loc[_harm(rows, aim) == _harm(rows, aim).max()].iloc[0]
            found = _interval(worst)
            robust = aim == "class" and any(_suits(run, row) for _, row in rows.iterrows())
            if robust and worst["draws"] == 1:
                labels = set(rows["eps_label"])
                reached = [table.loc[:label] for table in counts for label in labels.intersection(table.index)]
                found = accuracy(pd.concat(reached).min().to_numpy(), 1)
            yield Headline(worst, aim, rows["attack"].nunique(), found, clean, robust)


def _harm(rows: pd.DataFrame, aim: str) -> pd.Series:
    """How much each row did of what attacks with such an aim want."""
    if aim == "compute":
        return (rows["macs_adv"] - rows["macs_clean"]).abs()
    return rows["flip_rate"] if aim == "gates" else -rows["accuracy"]


def _interval(row: pd.Series) -> Interval:
    return Interval(float(row["accuracy"]), float(row["lo"]), float(row["hi"]), "")


def _is_common(entry: Headline) -> bool:
    return bool(round(entry.row["eps"] - COMMON.get(entry.row["norm"].lower(), 0.0), _DIGITS) == 0)


def _suits(run: Run, row: pd.Series) -> bool:
    """Whether a row may carry a robustness headline: iterated, and by an attacker who knows what there is to know."""
    knows = row["attacker"] == "adaptive" or (row["gating"] != "stochastic" and row["defense"] == "none")
    return bool(run.planned[row["cell"]]["iterated"]) and knows
