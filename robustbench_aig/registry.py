"""The one way to add an attack, a defence, a data set, a network family, a benchmark or an experiment.

A class or function is registered where it stands::

    @register("pgd", "projected gradient steps with restarts", paper="Madry et al. 2018")
    @dataclass(frozen=True, kw_only=True)
    class PGD(Attack): ...

A :class:`Registry` lists a package by reading these lines in its files, so that a list imports none of them and a new
file needs no entry anywhere else. Hence the decorator stands at the start of a line, and its arguments are literals.

An attack or defence is built from ``name:value,key=value``: the fields of its frozen dataclass are its parameters.
"""

import ast
import dataclasses
import difflib
import importlib
import importlib.util
import inspect
import json
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from fractions import Fraction
from functools import cached_property
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Generic, TypeVar, get_args, get_origin, get_type_hints

from robustbench_aig.errors import UsageError, UserError, described, unknown
from robustbench_aig.user_code import need_file, run_file

T = TypeVar("T")
C = TypeVar("C", bound=Callable[..., Any])

_REGISTERED = re.compile(r"^(@register\(.*?)^(?:async def|def|class) (\w+)", re.MULTILINE | re.DOTALL)
_FAMILY = re.compile(r"(?P<prefix>[^:]+):(?P<placeholder>[A-Z]+)")
_FILE = re.compile(r"(?P<path>.+?\.py)(?::(?P<attribute>\w*))?(?::(?P<arguments>.*))?")

HABITS: Mapping[str, tuple[str, ...]] = {
    "step": ("steps",),
    "iters": ("steps",),
    "iterations": ("steps",),
    "max_iter": ("steps",),
    "n_iter": ("steps",),
    "nb_iter": ("steps",),
    "num_steps": ("steps",),
    "alpha": ("step",),
    "eps_iter": ("step",),
    "step_size": ("step",),
    "stepsize": ("step",),
    "abs_stepsize": ("step",),
    "rel_stepsize": ("rel_step",),
    "n_restarts": ("restarts",),
    "num_restarts": ("restarts",),
    "n_queries": ("queries",),
    "max_queries": ("queries",),
    "n_target_classes": ("classes",),
    "rand_init": ("random_start",),
    "random_init": ("random_start",),
    "decay": ("momentum",),
    "targeted": ("goal",),
    "p_init": ("share",),
    "ord": ("norm",),
    "p": ("norm",),
}
"""What other libraries call a parameter, and what it is called here."""

GIVEN_ELSEWHERE: Mapping[str, str] = {
    "eps": "--eps",
    "epsilon": "--eps",
    "epsilons": "--eps",
    "seed": "--seed",
    "eot": "--eot",
    "eot_iter": "--eot",
}
"""Parameters in other libraries that are options of the sweep here."""


def register(name: str, summary: str, **facts: Any) -> Callable[[C], C]:
    """Register the class or function below under a name.

    A class gets ``name`` and the facts as class attributes. One that it has as a property stays: there the fact is only
    what lists show, the value at default parameters.

    Args:
        name: what users write; ``PREFIX:NAME`` registers a family, a function that is given the rest of it.
        summary: one line for lists.
        facts: what lists show beside it; the registry of the package says which there are.
    """

    def mark(registered: C) -> C:
        if isinstance(registered, type):
            for key, value in {"name": name, **facts}.items():
                if not isinstance(inspect.getattr_static(registered, key, None), property):
                    setattr(registered, key, value)
        return registered

    return mark


@dataclasses.dataclass(frozen=True)
class Entry:
    """One registered name.

    Attributes:
        name: what users write; of a family with a placeholder, as ``torchattacks:NAME``.
        summary: one line.
        target: ``module:attribute`` of the class or function.
        facts: what lists show beside the summary.
        origin: the package or file of somebody else that it comes from; empty for this project's own.
    """

    name: str
    summary: str
    target: str
    facts: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    origin: str = ""

    @property
    def family(self) -> str:
        """The prefix of a family's names; empty for a single name."""
        found = _FAMILY.fullmatch(self.name)
        return found["prefix"] if found else ""

    def load(self) -> Any:
        """Import the class or function.

        Raises:
            UserError: it comes from somebody else, and cannot be imported.
        """
        module, _, attribute = self.target.partition(":")
        if not self.origin:
            return getattr(importlib.import_module(module), attribute)
        try:
            return getattr(importlib.import_module(module), attribute)
        except (Exception, SystemExit) as error:
            raise UserError(
                f"'{self.name}' of {self.origin} cannot be loaded ({described(error)}); mend or remove that package."
            ) from error


class Registry(Generic[T]):
    """The names of one kind of thing, with did-you-mean: a package's own, and those that others bring.

    Args:
        kind: the word used in messages: ``attack``.
        package: whose files are read for :func:`register`.
        group: entry-point group through which installed packages add names; empty for none.
        base: ``module:Class`` that classes of others must derive from; with it ``FILE.py:Class`` is a name too.
        facts: the facts that entries may have, with their defaults.
    """

    def __init__(self, kind: str, package: str, group: str = "", base: str = "", **facts: Any) -> None:
        self.kind, self.package, self.group, self.base, self.facts = kind, package, group, base, facts

    @cached_property
    def table(self) -> Mapping[str, Entry]:
        """Every entry by name, this project's first; nothing of it is imported."""
        table: dict[str, Entry] = {}
        for entry in sorted(_registered(self.package), key=lambda entry: entry.name):
            if entry.name in table:
                raise ValueError(f"{self.kind} '{entry.name}' is registered twice")
            if strange := entry.facts.keys() - self.facts.keys():
                raise ValueError(f"{self.kind} '{entry.name}' is registered with unknown facts: {', '.join(strange)}")
            table[entry.name] = dataclasses.replace(entry, facts={**self.facts, **entry.facts})
        for point in entry_points(group=self.group) if self.group else ():
            origin = f"package {point.dist.name}" if point.dist else "another package"
            table.setdefault(point.name, Entry(point.name, f"from {origin}", point.value, origin=origin))
        return table

    def entries(self) -> Iterator[Entry]:
        """Every entry, families included."""
        yield from self.table.values()

    def entry(self, name: str) -> Entry:
        """The entry of exactly this name.

        Raises:
            UsageError: there is none.
        """
        if name not in self.table:
            raise unknown(self.kind, name, self.table)
        return self.table[name]

    def find(self, specification: str) -> tuple[Entry, str]:
        """The entry that a specification names, and what follows the name. Imports nothing.

        Args:
            specification: ``name``, ``name:parameters``, ``prefix:rest`` of a family or ``FILE.py:Class:parameters``.

        Raises:
            UsageError: unknown or incomplete name.
            Prerequisite: there is no such file.
        """
        if self.base and (file := _FILE.fullmatch(specification)):
            return self._in_file(Path(file["path"]).expanduser(), file["attribute"]), file["arguments"] or ""
        prefix, _, rest = specification.partition(":")
        second, _, arguments = rest.partition(":")
        if f"{prefix}:{second}" in self.table and second and not self.table[f"{prefix}:{second}"].family:
            return self.table[f"{prefix}:{second}"], arguments  # names such as gates:open hold a colon themselves
        if prefix in self.table:
            return self.table[prefix], rest
        for entry in self.entries():
            if prefix and prefix == entry.family:
                if not rest or specification == entry.name:
                    raise UsageError(f"{self.kind} '{specification}' is incomplete; write what follows {prefix}: too.")
                return entry, rest
        names = [*self.table, *(["FILE.py:Class"] if self.base else [])]
        twofold = second and any(name.startswith(f"{prefix}:") for name in names)
        raise unknown(self.kind, f"{prefix}:{second}" if twofold else prefix, names)

    def family_names(self, family: str) -> Mapping[str, str]:
        """The names behind a family's prefix with their summaries, from ``names()`` of the family's module."""
        entry = next(entry for entry in self.entries() if entry.family == family)
        found: Mapping[str, str] = importlib.import_module(entry.target.partition(":")[0]).names()
        return found

    def make(self, specification: str, **defaults: Any) -> T:
        """Build the object that a specification such as ``pgd:steps=40,restarts=5`` or ``jpeg:75`` describes.

        Args:
            specification: ``name``, ``name:value`` (the first parameter) or ``name:key=value,key=value``; the name may
                be ``FILE.py:Class``.
            defaults: parameters set unless the specification sets them; those that the class lacks are left out.

        Raises:
            UsageError: unknown name or parameter, or a value of the wrong type or range.
            Prerequisite: there is no such file.
            UserError: somebody else's class cannot be loaded or used.
        """
        entry, rest = self.find(specification)
        if entry.family:
            name, _, arguments = rest.partition(":")
            build: Callable[..., T] = entry.load()
            return build(name, **(defaults | _keywords(specification, arguments)))
        cls = self._adopted(entry) if entry.origin else entry.load()
        return self._build(cls, entry, specification, rest, defaults)

    def _in_file(self, path: Path, attribute: str | None) -> Entry:
        need_file(path, "class")
        if not attribute:
            raise UsageError(f"'{path}' needs the name of a class behind a colon: {path}:Class.")
        name = f"{path.name}:{attribute}"
        return Entry(name, f"from {path}", f"{path}:{attribute}", origin=f"file {path}")

    def _adopted(self, entry: Entry) -> Any:
        """Somebody else's class under the entry's name, once it is known to be of the right shape. One from a file has
        the hash of its code in its settings."""
        of, (cls, code) = f"'{entry.name}' of {entry.origin}", _borrowed(entry)
        module, _, attribute = self.base.partition(":")
        base = getattr(importlib.import_module(module), attribute)
        if not isinstance(cls, type) or not issubclass(cls, base):
            raise UserError(f"{of} is no {self.kind}: it must be a class that derives from {module}.{attribute}.")
        if inspect.isabstract(cls):
            missing = ", ".join(sorted(cls.__abstractmethods__))  # type: ignore[attr-defined]
            raise UserError(f"{of} is incomplete: it must define {missing}.")
        if _fields(cls) != set(inspect.signature(cls).parameters):
            raise UserError(f"{of} must be a frozen dataclass, whose fields are its parameters; leave __init__ out.")
        cls.name = entry.name  # type: ignore[attr-defined]
        if code:
            _sign(cls, code)
        return cls

    def _build(self, cls: Any, entry: Entry, specification: str, arguments: str, defaults: Mapping[str, Any]) -> T:
        try:
            hints = get_type_hints(cls)
        except (NameError, TypeError) as error:
            raise UserError(f"'{entry.name}' of {entry.origin}: {error}; types of parameters must be real.") from None
        fields = {name: hints[name] for name in inspect.signature(cls).parameters}
        parameters = {key: value for key, value in defaults.items() if key in fields}
        for position, (key, text) in enumerate(_pairs(arguments)):
            if key is None:
                if position >= len(fields):
                    raise UsageError(
                        f"{self.kind} '{specification}' has more values than '{entry.name}' has parameters."
                    )
                key = list(fields)[position]
            if key not in fields:
                raise no_parameter(self.kind, entry.name, key, fields)
            parameters[key] = _convert(text, fields[key], f"{self.kind} '{entry.name}', parameter '{key}'")
        try:
            made: T = cls(**parameters)
        except (ValueError, TypeError) as error:
            valid = ", ".join(fields) or "none"
            raise UsageError(f"{self.kind} '{specification}': {error} (parameters: {valid}).") from None
        except Exception as error:
            if not entry.origin:
                raise
            raise UserError(f"'{entry.name}' of {entry.origin} raised {described(error)}; mend its class.") from error
        if entry.origin:
            try:
                json.dumps(made.settings())  # type: ignore[attr-defined]
            except (TypeError, ValueError) as error:
                raise UserError(
                    f"'{entry.name}' of {entry.origin}: its settings must be numbers, texts and lists ({error})."
                ) from None
        return made


def no_parameter(kind: str, name: str, key: str, valid: Collection[str]) -> UsageError:
    """The error for a parameter that is not there, with the one that was meant where that can be guessed.

    Args:
        kind: such as ``attack``.
        name: whose parameter it should be.
        key: what the user wrote.
        valid: every parameter that there is.
    """
    hint = ""
    if key in GIVEN_ELSEWHERE:
        hint = f" ({key} is given for all attacks, by {GIVEN_ELSEWHERE[key]})" if kind == "attack" else ""
    else:
        same = [own for own in HABITS.get(key, ()) if own in valid]
        meant = same or difflib.get_close_matches(key, valid, n=1, cutoff=0.6)
        hint = f" (did you mean {meant[0]}?)" if meant else ""
    return UsageError(f"{kind} '{name}' has no parameter '{key}'; it takes: {', '.join(valid) or 'none'}{hint}.")


def _fields(cls: Any) -> set[str] | None:
    """The parameters of a dataclass; None for another class."""
    return {field.name for field in dataclasses.fields(cls) if field.init} if dataclasses.is_dataclass(cls) else None


def _borrowed(entry: Entry) -> tuple[Any, str]:
    """What an entry of somebody else names, and the hash of its code where it is in a file."""
    path, _, attribute = entry.target.rpartition(":")
    if not path.endswith(".py"):
        return entry.load(), ""
    module, code = run_file(Path(path))
    if not hasattr(module, attribute):
        raise UserError(f"{path} has no class '{attribute}'; name one that it has.")
    return getattr(module, attribute), code


def _sign(cls: Any, code: str) -> None:
    """Add the hash of a class's code to the settings that it gives."""
    own = cls.settings

    def settings(self: Any) -> dict[str, Any]:
        """The class's own settings, and the SHA-256 of its file."""
        return {**own(self), "code": code}

    cls.settings = settings


def _registered(package: str) -> Iterator[Entry]:
    """The entries in the files of a package, by reading them."""
    spec = importlib.util.find_spec(package)
    for root in map(Path, spec.submodule_search_locations or () if spec else ()):
        for path in sorted(root.rglob("*.py")):
            text = path.read_text(encoding="utf-8")
            for found in _REGISTERED.finditer(text):
                parts = path.relative_to(root).with_suffix("").parts
                module = ".".join((package, *(part for part in parts if part != "__init__")))
                yield from _calls(found[1], f"{module}:{found[2]}")


def _calls(decorators: str, target: str) -> Iterator[Entry]:
    """The entry of each ``@register`` among the lines above a class or function."""
    (function,) = ast.parse(f"{decorators}def _(): ...").body
    assert isinstance(function, ast.FunctionDef)
    for call in function.decorator_list:
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "register":
            try:
                name, summary = map(ast.literal_eval, call.args)
                facts = {str(keyword.arg): ast.literal_eval(keyword.value) for keyword in call.keywords}
            except ValueError as error:
                raise ValueError(f"{target}: @register takes a name, a summary and facts, all literals") from error
            yield Entry(name, summary, target, facts)


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
