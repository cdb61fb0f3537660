"""The audit: checks that catch the known ways of reporting robustness that is not there.

Every sweep runs the ``core`` tier, which reads its results and tries a few images; ``full`` repeats attacks,
stronger. Where a check fails, the run makes no claim of robustness. Importing this imports no torch.
"""

from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from typing import TYPE_CHECKING

from robustbench_aig.audit.check import Check, Finding, Result, Tier, table

if TYPE_CHECKING:
    from robustbench_aig.engine.plan import Cell, Settings
    from robustbench_aig.engine.store import RunFolder

__all__ = ["CHECKS", "Check", "Finding", "Result", "Tier", "audit"]

CHECKS = table()
"""The checks, in the order in which they run and are reported."""


def audit(
    folder: "RunFolder", cells: "list[Cell]", settings: "Settings", tier: Tier, weights: Mapping[str, str], images: int
) -> list[Finding]:
    """Check the finished cells of a sweep.

    A check that finds nothing wrong gives one PASS; one that has nothing to look at gives ``n.a.``.

    Args:
        folder: the run, cells written.
        cells: as planned, finished or not.
        settings: of the sweep.
        tier: ``core``, or ``full`` for all checks.
        weights: hash of each model's weights before the sweep, by name.
        images: how many the full tier tries again.
    """
    from robustbench_aig.audit.context import Context
    from robustbench_aig.contracts.network import frozen

    context = Context(folder, cells, settings, tier, weights, images)
    findings: list[Finding] = []
    with ExitStack() as stack:
        for model in settings.models:
            stack.enter_context(frozen(model.network))
        for check in CHECKS:
            if tier == "full" or check.tier == "core":
                findings += _run(check, check.load()(context))
    return findings


def _run(check: Check, results: Iterable[Result]) -> list[Finding]:
    try:
        found = list(results)
    except Exception as error:  # a broken model must not take the results of the sweep with it
        return [
            check.finding(
                Result("WARN", f"the check could not run ({type(error).__name__}: {error}); repair what it names.")
            )
        ]
    worth_telling = [check.finding(result) for result in found if result.verdict not in ("PASS", "n.a.")]
    if worth_telling:
        return worth_telling
    passed = [result for result in found if result.verdict == "PASS"]
    if passed:
        only = passed[0] if len(passed) == 1 else Result("PASS")
        return [check.finding(Result("PASS", check.sound, only.cell, only.value, only.threshold))]
    return [check.finding(Result("n.a.", "this sweep has nothing to check here."))]
