"""Named, lazily imported building blocks: attacks and defences as ``name:value,key=value``.

A registry entry is data (name, where its class lives, a one-line summary), so listing one imports nothing heavy.
The class is a frozen dataclass whose fields are the parameters that a specification may set.
"""

import dataclasses
import importlib
from collections.abc import Callable, Iterator, Mapping
from fractions import Fraction
from importlib.metadata import entry_points
from typing import Any, Generic, TypeVar, get_args, get_origin, get_type_hints

from robustbench_aig.errors import UsageError, unknown

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Entry:
    """One registered name: ``target`` is ``module:Class``; ``facts`` are what ``list`` prints beside the summary."""

    name: str
    target: str
    summary: str
    facts: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def load(self) -> Any:
        """Import the class that this entry names."""
        module, _, attribute = self.target.partition(":")
        return getattr(importlib.import_module(module), attribute)


class Registry(Generic[T]):
    """A table of names with did-you-mean, fed by this project, by families and by third-party entry points.

    Args:
        kind: the word used in messages: ``attack``, ``defense``.
        group: entry-point group through which installed packages add names.
    """

    def __init__(self, kind: str, group: str) -> None:
        self.kind = kind
        self.group = group
        self._entries: dict[str, Entry] = {}
        self._families: dict[str, str] = {}

    def add(self, name: str, target: str, summary: str, **facts: Any) -> None:
        """Register ``name``; a name can be taken once.

        Raises:
            ValueError: the name is taken.
        """
        if name in self._entries:
            raise ValueError(f"{self.kind} '{name}' is registered twice")
        self._entries[name] = Entry(name, target, summary, facts)

    def add_family(self, prefix: str, target: str) -> None:
        """Register ``prefix:NAME`` for a function ``target(name, **parameters)`` that knows its own names.

        ``target`` is ``module:function``; its module also has ``names() -> Mapping[str, str]`` (name to summary).
        """
        self._families[prefix] = target

    def entries(self) -> Iterator[Entry]:
        """Every single entry, the project's own first and then those that installed packages bring."""
        yield from self._entries.values()
        for point in entry_points(group=self.group):
            if point.name not in self._entries:
                yield Entry(point.name, point.value, f"from {point.dist.name if point.dist else 'another package'}")

    def family_names(self, prefix: str) -> Mapping[str, str]:
        """The names behind ``prefix:`` with their summaries; this may import the library behind them."""
        module = self._families[prefix].partition(":")[0]
        names: Mapping[str, str] = importlib.import_module(module).names()
        return names

    @property
    def families(self) -> tuple[str, ...]:
        """The prefixes that take a further name."""
        return tuple(self._families)

    def find(self, specification: str) -> tuple[Entry, str]:
        """The entry that a specification names, and the text of its parameters; of a family, the entry of its function.

        Imports nothing, so that an unknown name is answered at once.

        Raises:
            UsageError: unknown name.
        """
        prefix, _, rest = specification.partition(":")
        second, _, arguments = rest.partition(":")
        if prefix in self._families:
            return Entry(f"{prefix}:{second}", self._families[prefix], ""), arguments
        table = {entry.name: entry for entry in self.entries()}
        if prefix in table:
            return table[prefix], rest
        if f"{prefix}:{second}" in table:  # names such as gates:open hold a colon themselves
            return table[f"{prefix}:{second}"], arguments
        raise unknown(
            self.kind, prefix if not rest else specification, [*table, *(f"{f}:NAME" for f in self._families)]
        )

    def make(self, specification: str, **defaults: Any) -> T:
        """Build the object that a specification such as ``pgd:steps=40,restarts=5`` or ``jpeg:75`` describes.

        Args:
            specification: ``name``, ``name:value`` (the first parameter) or ``name:key=value,key=value``.
            defaults: parameters set unless the specification sets them; those that the class lacks are left out.

        Raises:
            UsageError: unknown name or parameter, or a value of the wrong type or range.
        """
        entry, arguments = self.find(specification)
        family, _, name = entry.name.partition(":")
        if family in self._families:
            build: Callable[..., T] = entry.load()
            return build(name, **(defaults | _keywords(specification, arguments)))
        return self._build(entry.name, entry.load(), specification, arguments, defaults)

    def _build(self, name: str, cls: Any, specification: str, arguments: str, defaults: Mapping[str, Any]) -> T:
        hints = get_type_hints(cls)
        fields = {f.name: hints[f.name] for f in dataclasses.fields(cls) if f.init}
        parameters = {key: value for key, value in defaults.items() if key in fields}
        for position, (key, text) in enumerate(_pairs(arguments)):
            if key is None:
                if position >= len(fields):
                    raise UsageError(f"{self.kind} '{specification}' has more values than '{name}' has parameters.")
                key = list(fields)[position]
            if key not in fields:
                valid = ", ".join(fields) or "none"
                raise UsageError(f"{self.kind} '{name}' has no parameter '{key}'; it takes: {valid}.")
            parameters[key] = _convert(text, fields[key], f"{self.kind} '{name}', parameter '{key}'")
        try:
            made: T = cls(**parameters)
        except (ValueError, TypeError) as error:
            valid = ", ".join(fields) or "none"
            raise UsageError(f"{self.kind} '{specification}': {error} (parameters: {valid}).") from None
        return made


def _pairs(arguments: str) -> Iterator[tuple[str | None, str]]:
    for part in filter(None, arguments.split(",")):
        key, equals, value = part.partition("=")
        yield (key.strip(), value.strip()) if equals else (None, key.strip())


def _keywords(specification: str, arguments: str) -> dict[str, Any]:
    keywords: dict[str, Any] = {}
    for key, text in _pairs(arguments):
        if key is None:
            raise UsageError(f"'{specification}' needs its parameters as key=value.")
        keywords[key] = guess(text)
    return keywords


def guess(text: str) -> Any:
    """A value of unknown type: boolean, integer, fraction (``8/255``), decimal, else the text itself."""
    lowered = text.lower()
    if lowered in ("true", "false", "none"):
        return {"true": True, "false": False, "none": None}[lowered]
    for convert in (int, lambda t: float(Fraction(t)), float):
        try:
            return convert(text)
        except (ValueError, ZeroDivisionError):
            continue
    return text


def _convert(text: str, hint: Any, where: str) -> Any:
    options = get_args(hint) if get_origin(hint) is not None or get_args(hint) else (hint,)
    if str in options or any(isinstance(option, str) for option in options):
        literals = [option for option in options if isinstance(option, str)]
        if literals and text not in literals:
            raise UsageError(f"{where} must be one of {', '.join(literals)}, not '{text}'.")
        return text
    value = guess(text)
    if value is None and type(None) in options:
        return None
    if float in options and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if bool in options and isinstance(value, bool):
        return value
    if int in options and isinstance(value, int) and not isinstance(value, bool):
        return value
    names = " or ".join(getattr(option, "__name__", str(option)) for option in options if option is not type(None))
    raise UsageError(f"{where} must be {names}, not '{text}'.")
