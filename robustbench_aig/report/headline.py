"""The headline of a run: the lowest accuracy that any of its attacks reached, and what may be said with it."""

from collections.abc import Iterator
from dataclasses import dataclass

import pandas as pd

from robustbench_aig.report import text
from robustbench_aig.report.run import Curve, Run, contestant
from robustbench_aig.statistics.intervals import Interval, accuracy

COMMON = {"linf": 8 / 255, "l2": 0.5}
"""The budget that the field compares, by norm."""

_DIGITS = 9
"""Decimals that tables keep of an epsilon, and more than any two budgets of a sweep need to be told apart."""


@dataclass(frozen=True)
class Headline:
    """The worst that a run found for one model, gating and defence at one epsilon.

    Attributes:
        row: of ``summary.csv``, the lowest of its attacks.
        attacks: how many curves it is the lowest of.
        found: accuracy and interval. Where one draw tells all, an image counts only if it withstands every attack at
            every budget up to this one, so it can lie below each row.
        clean: accuracy and interval of the same model, gating and defence without an attack.
        robust: whether an attack that suits the model was among them, so that the number may be called a bound of
            robust accuracy: iterated, and adaptive where there are random gates or a defence to adapt to.
    """

    row: pd.Series
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
        """The number in words, as in ``robust accuracy ≤ 3.1 % [2.2, 4.4]``."""
        number = text.interval(self.found.value, self.found.lo, self.found.hi)
        return f"robust accuracy ≤ {number}" if self.robust else f"accuracy {number}"

    @property
    def circumstances(self) -> str:
        """What the number holds for, as in ``L∞ 8/255, jpeg:75, worst of 3 attacks``."""
        alone = f"{self.row['attack']}, {self.row['attacker']} attacker"
        attack = f"worst of {self.attacks} attacks" if self.attacks > 1 else alone
        return f"{text.budget(self.row)}, {text.defense(self.row['defense'])}, {attack}"


def headlines(run: Run) -> list[Headline]:
    """The worst case of each model, gating, defence and norm at the epsilon that the field compares, or the largest.

    That is 8/255 in L∞, 0.5 in L2. A sweep often goes on to where nothing survives, which tells models apart no more.
    """
    chosen: dict[tuple[str, ...], Headline] = {}
    for entry in worst_cases(run):
        key = tuple(entry.row[["model", "gating", "defense", "norm"]])
        if key not in chosen or not _is_common(chosen[key]):
            chosen[key] = entry
    return list(chosen.values())


def worst_cases(run: Run) -> Iterator[Headline]:
    """The worst case at every epsilon above 0, by ascending epsilon within each model, gating, defence and norm."""
    groups: dict[tuple[str, ...], list[Curve]] = {}
    for curve in run.curves:
        if curve.attacker == "known-noise":  # knows more than a threat model allows
            continue
        groups.setdefault((curve.model, curve.gating, curve.defense, curve.norm), []).append(curve)
    for curves in groups.values():
        counts = [run.counts(curve) for curve in curves]
        clean = _interval(curves[0].rows.iloc[0])
        attacked = pd.concat([curve.rows for curve in curves])
        attacked = attacked[attacked["eps"] > 0]
        for _, rows in attacked.groupby(attacked["eps"].round(_DIGITS)):  # by value: equal budgets may have two labels
            lowest = rows.loc[rows["accuracy"] == rows["accuracy"].min()].iloc[0]
            found = _interval(lowest)
            robust = any(_suits(row, run.iterated) for _, row in rows.iterrows())
            if robust and lowest["draws"] == 1:
                labels = set(rows["eps_label"])
                reached = [table.loc[:label] for table in counts for label in labels.intersection(table.index)]
                found = accuracy(pd.concat(reached).min().to_numpy(), 1)
            yield Headline(lowest, len(rows), found, clean, robust)


def _interval(row: pd.Series) -> Interval:
    return Interval(float(row["accuracy"]), float(row["lo"]), float(row["hi"]), "")


def _is_common(entry: Headline) -> bool:
    return bool(round(entry.row["eps"] - COMMON.get(entry.row["norm"].lower(), 0.0), _DIGITS) == 0)


def _suits(row: pd.Series, iterated: frozenset[str]) -> bool:
    """Whether a row may carry a robustness headline: iterated, and by an attacker who knows what there is to know."""
    knows = row["attacker"] == "adaptive" or (row["gating"] != "stochastic" and row["defense"] == "none")
    return row["cell"] in iterated and knows
