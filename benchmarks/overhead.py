"""A whole sweep, from the plan to the tables on disk, beside the passes that it is for: clean scores, attack, scores of
the attacked images, and where there are gates those with features and graphs crossed.

The audit makes passes of its own. The sweep leaves it out; a row of its own, the resuming of a finished sweep, tells
what it adds.
"""

import tempfile
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

from attacks.fgsm import FGSM
from attacks.pgd import PGD
from benchmarks.measure import OURS, Row, compare
from benchmarks.subject import EPSILONS, Subject
from robustbench_aig.contracts.epsilons import Epsilon
from robustbench_aig.contracts.gating import Gating
from robustbench_aig.contracts.network import frozen
from robustbench_aig.contracts.parts import even
from robustbench_aig.contracts.target import Passes
from robustbench_aig.engine.attackers import paths
from robustbench_aig.engine.batches import Batch
from robustbench_aig.engine.crossing import cross
from robustbench_aig.engine.plan import Settings, plan
from robustbench_aig.engine.scoring import score_cell
from robustbench_aig.engine.sweep import DEFAULT_BATCH, sweep
from robustbench_aig.registry import register

DRAWS = 10
PASSES, AUDIT = "passes", "audit"


@register("overhead", "a whole sweep, beside its attack and scoring passes")
def run(subject: Subject) -> list[Row]:
    """FGSM and PGD-10 on the plain network, FGSM on the stochastic gated one, nine epsilons, ten scoring draws."""
    epsilons = [Epsilon(Fraction(round(value * 255), 255)) for value in EPSILONS]
    base = Settings(
        [subject.model],
        subject.dataset,
        [FGSM()],
        epsilons,
        attackers=("static",),
        device=subject.device,
        draws=DRAWS,
    )
    gated = replace(base, models=[subject.gated], gatings=(Gating("stochastic"),))
    cases = {
        "FGSM, plain": base,
        "FGSM, stochastic gates": gated,
        "PGD-10, plain": replace(base, attacks=[PGD(steps=10)]),
    }
    table = []
    for name, settings in cases.items():
        with tempfile.TemporaryDirectory() as finished:
            contenders = {PASSES: _passes(settings), OURS: _sweep(settings), AUDIT: _resumed(settings, Path(finished))}
            table += compare(
                "overhead",
                f"{name}, {len(subject.dataset)} images",
                contenders,
                reference=PASSES,
                repeats=min(3, subject.repeats),
                limits={OURS: 1.05},
                notes={OURS: "without its audit", AUDIT: "of the same sweep"},
            )
    return table


def _sweep(settings: Settings) -> Callable[[], None]:
    unaudited = settings

    def answer() -> None:
        with tempfile.TemporaryDirectory() as folder:
            sweep(unaudited, Path(folder) / "run")

    return answer


def _resumed(settings: Settings, folder: Path) -> Callable[[], None]:
    """All that a sweep does when its cells are there already."""
    sweep(settings, folder / "run")

    def answer() -> None:
        sweep(settings, folder / "run")

    return answer


def _passes(settings: Settings) -> Callable[[], None]:
    """Clean scores, attack, scores and crossed scores, batch by batch, kept nowhere."""
    clean, attacked = plan(settings)
    attack, data, device = settings.attacks[0], settings.dataset, settings.device
    budgets = [epsilon.value for epsilon in settings.epsilons]

    def answer() -> None:
        with frozen(clean.model.network):
            for rows in even(len(data), DEFAULT_BATCH[device.type]):
                batch = Batch.of(data, rows, device, clean.model.memory_format)
                before = score_cell(clean, batch.images, batch.labels, batch.ids)
                _, target = next(paths(attacked, batch.ids, Passes.none(len(batch), device)))
                for images in attack(target, batch.images, batch.labels, budgets):
                    after = score_cell(attacked, images, batch.labels, batch.ids)
                    cross(attacked, batch, images, before, after)

    return answer
