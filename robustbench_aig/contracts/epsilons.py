"""Epsilons: exact sizes of the perturbation, read from ``8/255``, decimals and ranges."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction

from robustbench_aig.errors import UsageError

_NUMBER = re.compile(r"(\d{1,30}(\.\d{0,30})?|\.\d{1,30})(e[-+]?\d{1,2})?(/\d{1,30})?", re.IGNORECASE)
_MOST = 1000


@dataclass(frozen=True, order=True)
class Epsilon:
    """A budget: its value as a float, and the exact label that names it in identities, tables and figures."""

    value: float
    label: str


def parse_epsilons(texts: Iterable[str]) -> tuple[Epsilon, ...]:
    """Read epsilons, ascending and without repeats.

    Args:
        texts: each a comma-separated list of numbers (``0.03``), fractions (``8/255``) and ranges ``start:stop:count``
            (both ends included, evenly spaced).

    Raises:
        UsageError: nothing is given, or a part is no number of at least 0.
    """
    found: dict[Fraction, Epsilon] = {}
    for text in texts:
        for part in text.split(","):
            for value, label in _part(part.strip()):
                found.setdefault(value, Epsilon(float(value), label))
    if not found:
        raise UsageError("no epsilon is given; write for example --eps 0,2/255,8/255.")
    return tuple(found[value] for value in sorted(found))


def _part(text: str) -> list[tuple[Fraction, str]]:
    if ":" not in text:
        value = _number(text)
        return [(value, text if "/" in text and value else _label(value, None))]
    bounds = text.split(":")
    if len(bounds) != 3 or not bounds[2].isdecimal() or not 2 <= int(bounds[2]) <= _MOST:
        raise UsageError(
            f"epsilon range '{text}' is not understood; write start:stop:count, as in 0:16/255:9, "
            f"with a count from 2 to {_MOST}."
        )
    start, stop, count = _number(bounds[0]), _number(bounds[1]), int(bounds[2])
    denominators = [bound.partition("/")[2] for bound in bounds[:2] if "/" in bound]
    values = [start + (stop - start) * step / (count - 1) for step in range(count)]
    return [(value, _label(value, int(denominators[0]) if denominators else None)) for value in values]


def _label(value: Fraction, denominator: int | None) -> str:
    if value == 0:
        return "0"
    if denominator and (value * denominator).denominator == 1:
        return f"{value * denominator}/{denominator}"
    decimal = f"{float(value):.6g}"
    return decimal if Fraction(decimal) == value else str(value)


def _number(text: str) -> Fraction:
    if not _NUMBER.fullmatch(text):
        raise UsageError(f"epsilon '{text}' is not a number of at least 0; write 8/255, 0.03 or 0:16/255:9.")
    try:
        return Fraction(text) if "/" not in text else Fraction(text.split("/")[0]) / Fraction(text.split("/")[1])
    except ZeroDivisionError:
        raise UsageError(f"epsilon '{text}' divides by zero; write for example 8/255.") from None
