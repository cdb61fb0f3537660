"""What a check is, what it returns, and the table of all checks.

A check is a function in a file of ``checks/`` that maps a context to results, with ``@register`` above it: its id, its
title, and the other attributes of :class:`Check`.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from robustbench_aig.registry import Entry, Registry

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

registry: Registry[Result] = Registry(
    "check", "robustbench_aig.audit.checks", tier="core", cost="free", threshold="", sound=""
)


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
        entry: where the function is.
    """

    id: str
    title: str
    tier: Tier
    cost: str
    threshold: str
    sound: str
    entry: Entry

    def load(self) -> Function:
        """The function."""
        function: Function = self.entry.load()
        return function

    def finding(self, result: Result) -> Finding:
        """A result of this check."""
        return Finding(self.id, self.title, result.verdict, result.text, result.cell, result.value, result.threshold)


def table() -> tuple[Check, ...]:
    """Every check, ordered by family and number; this imports none of them."""
    found = [Check(entry.name, entry.summary, **entry.facts, entry=entry) for entry in registry.entries()]
    return tuple(sorted(found, key=lambda check: (FAMILIES.index(check.id[0]), int(check.id[1:] or 0))))
