"""Tables whose columns are functions: who adds a function adds a column, its documentation and its place in reports."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from inspect import getdoc
from typing import Any, Generic, Literal, TypeVar

C = TypeVar("C")
F = TypeVar("F", bound=Callable[..., Any])

Unit = Literal["share", "macs", "number", "ratio", "text"]
"""How a value is written: a fraction in per cent, multiply-adds, with four digits, with two decimals, or as it is."""


@dataclass(frozen=True)
class Column(Generic[C]):
    """One column, or several that one function gives.

    Attributes:
        names: in the table. ``lo`` and ``hi`` among them are an interval; one that ends in ``_clean`` is the value
            before the attack.
        of: from what a row is about to the value, or to a dictionary of several. Its docstring says what they mean.
        heading: in reports, which do not show a column without one.
        unit: how reports write the value.
        section: the short table of the report that shows it too.
        needs: whether there is a value; without it always.
        shows: the one of the names that reports show; by default the first that does not end in ``_clean``.
    """

    names: tuple[str, ...]
    of: Callable[[C], Any]
    heading: str = ""
    unit: Unit = "share"
    section: str = ""
    needs: Callable[[C], bool] | None = None
    shows: str = ""

    @property
    def name(self) -> str:
        """The one of the names that reports show."""
        return self.shows or next(name for name in self.names if not name.endswith("_clean"))

    @property
    def before(self) -> str | None:
        """The one with its value before the attack."""
        return next((name for name in self.names if name.endswith("_clean")), None)

    def values(self, about: C) -> dict[str, Any]:
        """The values by name; None where there is none."""
        found: Any = self.of(about) if self.needs is None or self.needs(about) else None
        return {name: found[name] if isinstance(found, dict) else found for name in self.names}


class Columns(Generic[C]):
    """The columns of a table, in the order of their definition. An instance is the decorator that adds them::

    @column("accuracy", names="accuracy, lo, hi")
    def accuracy(row: Row) -> dict[str, float]:
        \"\"\"Expected accuracy of one draw, with a 95 % interval.\"\"\"
    """

    def __init__(self) -> None:
        self._columns: list[Column[C]] = []

    def __call__(self, heading: str = "", names: str = "", **facts: Any) -> Callable[[F], F]:
        """Add the column that the function below gives, under its own name, or several, by comma-separated names;
        facts as of :class:`Column`."""

        def add(function: F) -> F:
            own = tuple((names or function.__name__).split(", "))
            self._columns.append(Column(own, function, heading, **facts))
            return function

        return add

    def __iter__(self) -> Iterator[Column[C]]:
        return iter(self._columns)

    def values(self, about: C) -> dict[str, Any]:
        """A row."""
        return {name: value for column in self for name, value in column.values(about).items()}

    def shown(self, section: str = "") -> list[Column[C]]:
        """The columns with a heading: of a section, or all."""
        return [column for column in self if column.heading and section in ("", column.section)]

    def markdown(self, kind: str = "column") -> str:
        """The table of the documentation."""
        meanings = ((", ".join(column.names), " ".join((getdoc(column.of) or "").split())) for column in self)
        rows = "".join(f"| `{names}` | {meaning} |\n" for names, meaning in meanings)
        return f"| {kind} | meaning |\n|---|---|\n{rows}"
