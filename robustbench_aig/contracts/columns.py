"""Tables whose columns are functions: who adds a function adds a column, its documentation and its place in reports."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
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
        doc: what they mean, for the documentation.
        of: from what a row is about to the value, or to a dictionary of several.
        heading: in reports, which do not show a column without one.
        unit: how reports write the value.
        section: the short table of the report that shows it too.
        needs: whether there is a value; without it always.
        shows: the one of the names that reports show; by default the first that does not end in ``_clean``.
    """

    names: tuple[str, ...]
    doc: str
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

    @property
    def has_interval(self) -> bool:
        """Whether ``lo`` and ``hi`` are its interval."""
        return "lo" in self.names

    def values(self, about: C) -> dict[str, Any]:
        """The values by name; None where there is none."""
        found: Any = self.of(about) if self.needs is None or self.needs(about) else None
        return {name: found[name] if isinstance(found, dict) else found for name in self.names}


class Columns(Generic[C]):
    """The columns of a table, in the order of their definition. An instance is the decorator that adds them::

    @column("accuracy, lo, hi", "expected accuracy of one draw, with its interval", heading="accuracy")
    def accuracy(row: Row) -> dict[str, float]: ...
    """

    def __init__(self) -> None:
        self._columns: list[Column[C]] = []

    def __call__(self, names: str, doc: str, **facts: Any) -> Callable[[F], F]:
        """Add the column that the function below gives, or several, comma-separated; facts as of :class:`Column`."""

        def add(function: F) -> F:
            self._columns.append(Column(tuple(names.split(", ")), doc, function, **facts))
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
        rows = "".join(f"| `{', '.join(column.names)}` | {column.doc} |\n" for column in self)
        return f"| {kind} | meaning |\n|---|---|\n{rows}"
