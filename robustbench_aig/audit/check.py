"""What a check is and what it returns."""

import importlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from robustbench_aig.audit.context import Context

Verdict = Literal["PASS", "WARN", "FAIL", "INFO", "n.a."]
"""INFO states a fact about the models that is no fault of the evaluation."""

Tier = Literal["core", "full"]


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


@dataclass(frozen=True)
class Check:
    """One check.

    Attributes:
        id: such as ``G2``: T threat model and protocol, G gradients, S strength of attacks, R randomness, D defences.
        title: a few words.
        tier: ``core`` runs in every sweep.
        cost: in words; F and B are forward and backward passes of the audited images.
        threshold: in words.
        sound: what a PASS says.
        target: ``module:function`` in this package; the function maps a context to results.
    """

    id: str
    title: str
    tier: Tier
    cost: str
    threshold: str
    sound: str
    target: str

    def load(self) -> "Callable[[Context], Iterable[Result]]":
        """The function."""
        module, _, name = self.target.partition(":")
        function: Callable[[Context], Iterable[Result]] = getattr(
            importlib.import_module(f"{__package__}.{module}"), name
        )
        return function

    def finding(self, result: Result) -> Finding:
        """A result of this check."""
        return Finding(self.id, self.title, result.verdict, result.text, result.cell, result.value, result.threshold)
