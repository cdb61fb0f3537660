"""What a check is, what it returns, and the table of all checks.

A check is a function with :func:`check` above it, in a file of ``checks/``. The table is read from the text of these
files, so listing the checks imports none of them, and no torch.
"""

import ast
import importlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from robustbench_aig.audit.context import Context

Verdict = Literal["PASS", "WARN", "FAIL", "INFO", "n.a."]
"""INFO states a fact about the models that is no fault of the evaluation."""

Tier = Literal["core", "full"]

FAMILIES = "TGSURD"
"""First letters of ids, in the order of the table: threat model and protocol, gradients, strength of attacks,
unperturbed images, randomness, defences."""


@dataclass(frozen=True)
class Result:
    """What a check says about one cell, or about the run.

    Attributes:
        verdict: PASS needs no text.
        text: symptom and remedy, in one or two sentences.
        cell: id of the cell; None for the run.
        value: what was measured.
        threshold: what it was held against.
    """

    verdict: Verdict
    text: str = ""
    cell: str | None = None
    value: float | None = None
    threshold: float | None = None


@dataclass(frozen=True)
class Finding:
    """A result with the check that it comes from; the fields are those of an entry of ``audit`` in ``run.json``."""

    id: str
    title: str
    verdict: Verdict
    text: str
    cell: str | None
    value: float | None
    threshold: float | None


Function = Callable[["Context"], Iterable[Result]]


@dataclass(frozen=True)
class Check:
    """One check.

    Attributes:
        id: such as ``G2``; its letter is one of :data:`FAMILIES`.
        title: a few words.
        tier: ``core`` runs in every sweep.
        cost: in words; F and B are forward and backward passes of the audited images.
        threshold: in words.
        sound: what a PASS says.
        module: of the function.
        function: its name.
    """

    id: str
    title: str
    tier: Tier
    cost: str
    threshold: str
    sound: str
    module: str
    function: str

    def load(self) -> Function:
        """The function, which maps a context to results."""
        function: Function = getattr(importlib.import_module(self.module), self.function)
        return function

    def finding(self, result: Result) -> Finding:
        """A result of this check."""
        return Finding(self.id, self.title, result.verdict, result.text, result.cell, result.value, result.threshold)


def check(*, id: str, title: str, tier: Tier, cost: str, threshold: str, sound: str) -> Callable[[Function], Function]:
    """Make the function below a check.

    The arguments, those of :class:`Check`, must be literals: :func:`table` reads them from the text of the file.
    """
    return lambda function: function


def table(folder: Path, package: str) -> tuple[Check, ...]:
    """The checks in the files of a folder, ordered by family and number.

    Args:
        folder: holds the modules.
        package: the name of the package that the folder is.

    Raises:
        ValueError: two checks have the same id.
    """
    found = [entry for file in sorted(folder.glob("*.py")) for entry in _in_file(file, f"{package}.{file.stem}")]
    if len({entry.id for entry in found}) < len(found):
        raise ValueError("two checks have the same id")
    return tuple(sorted(found, key=lambda entry: (FAMILIES.index(entry.id[0]), int(entry.id[1:] or 0))))


def _in_file(file: Path, module: str) -> Iterator[Check]:
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if not isinstance(node, ast.FunctionDef):
            continue
        for mark in node.decorator_list:
            if isinstance(mark, ast.Call) and isinstance(mark.func, ast.Name) and mark.func.id == check.__name__:
                given = {keyword.arg or "": ast.literal_eval(keyword.value) for keyword in mark.keywords}
                yield Check(**given, module=module, function=node.name)
