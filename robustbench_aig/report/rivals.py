"""Attacks side by side: what one did to each image against what the others did, on one model and with one budget."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from robustbench_aig.errors import UsageError, UserError, unknown
from robustbench_aig.report import text
from robustbench_aig.report.run import Curve, Run
from robustbench_aig.statistics.comparisons import compare
from robustbench_aig.gates.mediation import CROSSED_DRAWS

Values = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Measure:
    """A number that every attacked image has.

    Attributes:
        columns: of ``samples.parquet`` that it is made of.
        of: from those columns and the number of scoring draws to (N,) values of at least 0.
        shown: how one value is printed.
    """

    columns: tuple[str, ...]
    of: Callable[[pd.DataFrame, int], Values]
    shown: Callable[[float], str]


def _lists(column: pd.Series) -> Values:
    return np.asarray(np.stack(column.to_list()).mean(1), np.float64)


def _crossed(part: str, seen: pd.DataFrame, draws: int) -> Values:
    return np.asarray(seen[f"correct_{part}"].to_numpy() / min(CROSSED_DRAWS, draws), np.float64)


MEASURES = {
    "accuracy": Measure(("correct",), lambda seen, draws: seen["correct"].to_numpy() / draws, text.percent),
    "macs": Measure(("macs_adv",), lambda seen, draws: seen["macs_adv"].to_numpy(), lambda n: f"{n / 1e6:.2f} M"),
    "executed": Measure(("open_adv",), lambda seen, draws: _lists(seen["open_adv"]) / draws, text.percent),
    "flips": Measure(("flips",), lambda seen, draws: _lists(seen["flips"]) / draws, text.percent),
    "kept": Measure(("graph_kept",), lambda seen, draws: seen["graph_kept"].to_numpy() / draws, text.percent),
    "features": Measure(("correct_features",), partial(_crossed, "features"), text.percent),
    "gates": Measure(("correct_gates",), partial(_crossed, "gates"), text.percent),
}
"""``accuracy``; multiply-adds (``macs``); the share of gates that are open (``executed``), that decide otherwise than
on the clean image (``flips``); how often a whole graph is as it was (``kept``); accuracy where the attacked image lends
only its ``features``, or only its ``gates``."""


@dataclass(frozen=True)
class Duel:
    """Two attacks on one model at one epsilon.

    Attributes:
        conditions: model, gating, defence, attacker, norm, seed and ``eps_label``.
        a: label of the first attack.
        b: of the second.
        images: how many images both attacked.
        first: mean of the measure under the first.
        second: under the second.
        difference: first - second, over images.
        lo: lower end of its 95 % interval.
        hi: upper end.
        p_value: two-sided, of no difference.
        passes_a: forward and backward passes per image of the first, all epsilons together.
        passes_b: of the second.
    """

    conditions: dict[str, Any]
    a: str
    b: str
    images: int
    first: float
    second: float
    difference: float
    lo: float
    hi: float
    p_value: float
    passes_a: float
    passes_b: float

    def as_json(self) -> dict[str, Any]:
        """All of it, flat."""
        own = vars(self)
        return {**self.conditions, **{name: own[name] for name in own if name != "conditions"}}


def duels(run: Run, measure: str, attacks: Sequence[str] = ()) -> list[Duel]:
    """The first attack against every other one, wherever both met the same model, images and epsilon.

    Args:
        run: a finished run.
        measure: a key of :data:`MEASURES`.
        attacks: as the run labels them, or parts of such labels. The first, which must fit one attack only, is held
            against all that the others fit; alone, against every other attack. None: the run's first attack.

    Raises:
        UsageError: the run has no such measure or attack.
        UserError: no two of the attacks can be compared, or the model has no gates to measure.
    """
    if measure not in MEASURES:
        raise unknown("measure", measure, MEASURES)
    labels = list(dict.fromkeys(curve.attack for curve in run.curves))
    if len(labels) < 2:
        raise UserError(f"'{run.name}' has fewer than two attacks to compare; sweep several with -a.")
    first = _one(attacks[0], labels) if attacks else labels[0]
    rivals = [label for name in attacks[1:] for label in _all(name, labels)] or labels
    rivals = [label for label in dict.fromkeys(rivals) if label != first]
    groups: dict[tuple[Any, ...], dict[str, Curve]] = {}
    for curve in run.curves:
        key = (curve.model, curve.gating, curve.defense, curve.attacker, curve.norm, curve.seed)
        groups.setdefault(key, {})[curve.attack] = curve
    found: list[Duel] = []
    for key, curves in groups.items():
        conditions = dict(zip(("model", "gating", "defense", "attacker", "norm", "seed"), key, strict=True))
        for other in (rival for rival in rivals if first in curves and rival in curves):
            found += _fight(run, MEASURES[measure], conditions, curves[first], curves[other])
    if not found:
        raise UserError(f"no model of '{run.name}' met both '{first}' and another of the attacks; name others.")
    return found


def tables(found: Sequence[Duel], measure: str) -> Iterator[RenderableType]:
    """A table per model, gating, defence and attacker."""
    shown = MEASURES[measure].shown
    groups: dict[tuple[Any, ...], list[Duel]] = {}
    for duel in found:
        key = tuple(value for name, value in duel.conditions.items() if name != "eps_label")
        groups.setdefault(key, []).append(duel)
    for members in groups.values():
        c = members[0].conditions
        yield Text.assemble(
            (f"{measure} under {members[0].a}", "bold"),
            f"\n{c['model']} · {c['gating']} · {text.defense(c['defense'])} · {c['attacker']} · {text.norm(c['norm'])}"
            f" · seed {c['seed']} · {members[0].images:,} images · {members[0].passes_a:,.0f} passes per image",
        )
        table = Table(box=None, header_style="dim", pad_edge=False, padding=(0, 2, 0, 0))
        for column in ("against", "passes", "eps", measure, "of the other", "difference [95 %]", "p"):
            table.add_column(column, justify="left" if column in ("against", "eps") else "right")
        for duel in members:
            interval = f"{shown(duel.difference)} [{shown(duel.lo)}, {shown(duel.hi)}]"
            table.add_row(
                duel.b,
                f"{duel.passes_b:,.0f}",
                duel.conditions["eps_label"],
                shown(duel.first),
                shown(duel.second),
                interval,
                text.p_value(duel.p_value),
            )
        yield table
        yield Text()


def _all(name: str, labels: Sequence[str]) -> list[str]:
    """The label of that name, or all that contain it."""
    fitting = [label for label in labels if name in label]
    if not fitting:
        raise unknown("attack of the run", name, labels)
    return [name] if name in labels else fitting


def _one(name: str, labels: Sequence[str]) -> str:
    fitting = _all(name, labels)
    if len(fitting) > 1:
        raise UsageError(f"'{name}' fits {len(fitting)} attacks of the run ({', '.join(fitting)}); write one in full.")
    return fitting[0]


def _fight(run: Run, measure: Measure, conditions: dict[str, Any], a: Curve, b: Curve) -> Iterator[Duel]:
    first, second = _values(run, measure, a), _values(run, measure, b)
    for label in [label for label in first if label in second]:
        ids = first[label].index.intersection(second[label].index)
        x, y = first[label][ids].to_numpy(), second[label][ids].to_numpy()
        scale = max(1.0, float(x.max()), float(y.max()))
        found = compare(x / scale, y / scale, seed=0)
        difference = found.difference
        yield Duel(
            conditions | {"eps_label": label},
            a.attack,
            b.attack,
            len(ids),
            float(x.mean()),
            float(y.mean()),
            scale * difference.value,
            scale * difference.lo,
            scale * difference.hi,
            found.p_value,
            _passes(a),
            _passes(b),
        )


def _values(run: Run, measure: Measure, curve: Curve) -> dict[str, pd.Series]:
    """The measure of every image, by the label of its epsilon."""
    attacked = curve.rows[curve.rows["eps"] > 0]
    cell = str(attacked["cell"].iloc[0])
    samples = run.samples(cell)
    missing = [name for name in measure.columns if name not in samples]
    if missing:
        raise UserError(f"'{run.name}' holds nothing of gates for {curve.contestant}; measure accuracy there.")
    draws = attacked.set_index("eps_label")["draws"]
    found = {}
    for label in attacked["eps_label"]:
        part = samples[samples["eps_label"] == label]
        found[label] = pd.Series(measure.of(part, int(draws[label])), index=part["id"].to_numpy())
    return found


def _passes(curve: Curve) -> float:
    attacked = curve.rows[curve.rows["eps"] > 0]
    return float((attacked["forwards_per_image"] + attacked["backwards_per_image"]).max())
