"""A whole sweep, from the plan to the audit's findings on disk, beside the attack and scoring passes that it is for."""

import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from attacks.benchmarks.measure import OURS, Row, compare
from attacks.benchmarks.subject import EPSILONS, Subject
from attacks.fgsm import FGSM
from attacks.pgd import PGD
from robustbench_aig.evaluation.epsilons import Epsilon
from robustbench_aig.evaluation.gating import Gating
from robustbench_aig.evaluation.plan import Settings
from robustbench_aig.evaluation.scoring import score
from robustbench_aig.evaluation.sweep import DEFAULT_BATCH, sweep
from robustbench_aig.evaluation.target import Passes, Target, frozen

DRAWS = 10


def run(subject: Subject) -> list[Row]:
    """FGSM and PGD-10 on the plain network, FGSM on the stochastic gated one, nine epsilons, ten scoring draws."""
    epsilons = [Epsilon(value, f"{round(value * 255)}/255") for value in EPSILONS]
    base = Settings([subject.model], subject.dataset, [FGSM()], epsilons, device=subject.device, draws=DRAWS)
    gated = replace(base, models=[subject.gated], gatings=(Gating("stochastic"),))
    cases = {
        "FGSM, plain": base,
        "FGSM, stochastic gates": gated,
        "PGD-10, plain": replace(base, attacks=[PGD(steps=10)]),
    }
    table = []
    for name, settings in cases.items():
        contenders = {"passes": _passes(settings), OURS: _sweep(settings)}
        case = f"{name}, {len(subject.dataset)} images"
        repeats = min(3, subject.repeats)
        table += compare("overhead", case, contenders, reference="passes", repeats=repeats, limits={OURS: 1.05})
    return table


def _sweep(settings: Settings) -> Callable[[], None]:
    def answer() -> None:
        with tempfile.TemporaryDirectory() as folder:
            sweep(settings, Path(folder) / "run")

    return answer


def _passes(settings: Settings) -> Callable[[], None]:
    """The clean scores, the attack and its scores, batch by batch, kept nowhere."""
    (model,), (attack,), data, device = settings.models, settings.attacks, settings.dataset, settings.device
    gating = settings.gatings[0] if model.gates else Gating("none")
    draws = settings.draws if gating.stochastic else 1
    budgets = [epsilon.value for epsilon in settings.epsilons]

    def answer() -> None:
        with frozen(model.network):
            for index in torch.arange(len(data)).split(DEFAULT_BATCH[device.type]):
                images = data.images(index).to(device, memory_format=torch.channels_last)
                labels, ids = data.labels[index].to(device), data.ids[index].to(device)
                passes = Passes.none(len(ids), device)
                rows = torch.arange(len(ids), device=device)
                target = Target(model.network, gating, model.gates, ids, rows, passes, 0, transfer=gating.stochastic)
                crafted = attack(target, images, labels, budgets)
                for batch in (images, *crafted):
                    score(model.network, gating, model.gates, None, batch, labels, ids, seed=0, draws=draws)

    return answer
