"""How numbers are written: percentages with one decimal, intervals with a dash, epsilons by their labels."""

import math
from collections.abc import Callable
from typing import Any

import pandas as pd

from robustbench_aig.contracts.columns import Unit

NONE = "\N{EN DASH}"
"""Stands for a value that does not exist."""

NORMS = {"linf": "L∞", "l2": "L2", "l1": "L1", "l0": "L0"}


def write(value: Any, unit: Unit) -> str:
    """A value of a table in its unit; a dash where there is none."""
    if pd.isna(value):
        return NONE if unit != "text" else ""
    return str(_WRITERS[unit](value))


def percent(fraction: float) -> str:
    """``0.0314`` as ``3.1``; a dash where there is no value."""
    return NONE if math.isnan(fraction) else f"{100 * fraction:.1f}"


def interval(value: float, lo: float, hi: float) -> str:
    """``3.1 % [2.2, 4.4]``."""
    return f"{percent(value)} % [{percent(lo)}, {percent(hi)}]"


def defense(name: str) -> str:
    """A defence by its name, ``no defence`` for ``none``."""
    return "no defence" if name == "none" else name


def points(difference: float) -> str:
    """A difference of two fractions in percentage points, with its sign."""
    return f"{round(100 * difference, 1) + 0.0:+.1f}"  # + 0.0 turns -0.0 into 0.0


def p_value(p: float) -> str:
    """A p-value with two significant digits; ``<0.001`` below that, a dash where there is none."""
    return NONE if math.isnan(p) else "<0.001" if p < 0.001 else f"{p:.2g}"


def macs(count: float) -> str:
    """A number of multiply-adds as ``28.4 M``, with its sign below 0; a dash where there is none."""
    if math.isnan(count):
        return NONE
    if count == 0:
        return "0"
    scale, unit = (1e9, "G") if abs(count) >= 1e9 else (1e6, "M") if abs(count) >= 1e6 else (1e3, "k")
    return f"{count / scale:.3g} {unit}"


def norm(name: str) -> str:
    """A norm as it is usually written."""
    return NORMS.get(name.lower(), name)


def budget(row: pd.Series) -> str:
    """The norm and epsilon of a row, as in ``L∞ 8/255``."""
    return f"{norm(row['norm'])} {row['eps_label']}"


_WRITERS: dict[Unit, Callable[[Any], str]] = {
    "share": percent,
    "macs": macs,
    "number": "{:.4g}".format,
    "ratio": "{:.2f}".format,
    "text": str,
}
