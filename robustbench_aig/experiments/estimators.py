"""How near each estimator of the gradient comes to the exact one, and what it costs."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from attacks.gates.compute import Open
from attacks.gates.estimators import LEAST, Estimator, estimate
from attacks.gates.joint import Joint
from attacks.gates.objectives import Goal
from robustbench_aig.contracts.enumeration import require_enumerable
from robustbench_aig.contracts.gating import Gating
from robustbench_aig.contracts.network import frozen
from robustbench_aig.contracts.target import Passes, Target
from robustbench_aig.data.dataset import Dataset
from robustbench_aig.errors import UsageError
from robustbench_aig.files import write_atomically
from robustbench_aig.models.classifier import Classifier
from robustbench_aig.provenance import environment
from robustbench_aig.report.figures import estimators, style
from robustbench_aig.statistics.measure import mean

DRAWS: Mapping[Estimator, tuple[int, ...]] = {
    "straight-through": (1, 5, 20, 100),
    "score-function": (2, 5, 20, 100),
    "local-expectation": (1, 2, 5),
}
"""Numbers of draws to compare; a draw of ``local-expectation`` takes a pass for every gate beside its own."""

AT_ONCE = 800
"""Images times draws that go through the network together."""


@dataclass(frozen=True)
class Fidelity:
    """One row of the comparison.

    Attributes:
        estimator: its name.
        draws: n; 1 for estimators without draws.
        cosine: mean over images, each its mean over repeats, of the cosine to the exact gradient.
        cosine_lo: lower end of its 95 % interval over images; NaN where they do not differ.
        cosine_hi: upper end.
        signs: likewise the share of pixels whose sign agrees.
        forwards: forward passes per image and gradient.
        backwards: backward passes.
    """

    estimator: Estimator
    draws: int
    cosine: float
    cosine_lo: float
    cosine_hi: float
    signs: float
    forwards: float
    backwards: float


def compare(
    target: Target,
    images: Tensor,
    goal: Goal,
    draws: Mapping[Estimator, Sequence[int]] = DRAWS,
    repeats: int = 3,
) -> list[Fidelity]:
    """Every estimator against exact enumeration, on images (N, C, H, W) of a model with at most ten sampled gates.

    Args:
        target: with stochastic gating.
        images: in [0, 1].
        goal: whose expected pull is differentiated.
        draws: numbers of draws of the estimators that have any; the score function needs 2.
        repeats: independent gradients that are averaged over.

    Raises:
        UsageError: the model has no gates, or too many.
    """
    penalty = torch.zeros(len(images), device=images.device, dtype=images.dtype)
    passes = Passes.none(len(images), images.device)
    rows = torch.arange(len(images), device=images.device)
    counting = replace(target, passes=passes, rows=rows)
    truth: Tensor | None = None
    settings: list[tuple[Estimator, int]] = [("exact", 1), ("likely", 1), ("likeliest", 1), ("soft", 1)]
    settings += [(estimator, n) for estimator, numbers in draws.items() for n in numbers]
    found = []
    for estimator, n in settings:
        once = estimator == "soft" or estimator in LEAST
        spent = passes.forwards.clone(), passes.backwards.clone()
        parts = rows.split(max(1, AT_ONCE // n))
        gradients = torch.stack(
            [
                torch.cat(
                    [
                        estimate(
                            counting.take(part), images[part], goal.take(part), penalty[part], 1 + step, estimator, n
                        ).gradient.flatten(1)
                        for part in parts
                    ]
                )
                for step in range(1 if once else repeats)
            ]
        )
        truth = gradients if truth is None else truth
        cosine = cosine_similarity(gradients, truth.expand_as(gradients), dim=2).mean(0).clamp(-1, 1)
        value, lo, hi, _ = mean(cosine.double().cpu().numpy())
        forwards, backwards = (
            (now - before).double().mean().item() / len(gradients)
            for now, before in zip((passes.forwards, passes.backwards), spent, strict=True)
        )
        signs = (gradients.sign() == truth.sign()).float().mean().item()
        found.append(Fidelity(estimator, n, value, lo, hi, signs, forwards, backwards))
    return found


def study(model: Classifier, dataset: Dataset, device: torch.device, *, seed: int, repeats: int) -> pd.DataFrame:
    """Compare estimators of the gradients of expected multiply-adds and of expected cross-entropy.

    Returns:
        The fields of :class:`Fidelity`, with ``model``, ``objective``, ``images`` and ``repeats`` before them.

    Raises:
        UsageError: the model has no gates, or too many.
    """
    if model.layout is None:
        raise UsageError(f"'{model.name}' has no gates, so there is nothing to estimate; name a ConvNet-AIG by -m.")
    require_enumerable(model.layout)
    pixels = dataset.images(torch.arange(len(dataset))).to(device, memory_format=torch.channels_last)
    labels, ids = dataset.labels.to(device), dataset.ids.to(device)
    rows = torch.arange(len(ids), device=device)
    target = Target(model.network, Gating("stochastic"), ids, rows, Passes.none(len(ids), device), seed)
    head = {"model": model.name, "images": len(ids), "repeats": repeats}
    with frozen(model.network):
        return pd.DataFrame(
            {**head, "objective": objective, **asdict(row)}
            for objective, attack in (("multiply-adds", Open()), ("cross-entropy", Joint()))
            for row in compare(target, pixels, attack.goal(target, pixels, labels), repeats=repeats)
        )


def save(table: pd.DataFrame, out: Path, config: dict[str, Any], device: torch.device) -> Iterator[Path]:
    """Write the table (``estimators.csv``), its figure and, as JSON, what they were made with; yield the files."""
    files = [out / f"estimators.{kind}" for kind in ("csv", "json")]
    with write_atomically(files[0]) as temporary:
        table.to_csv(temporary, index=False, float_format="%.6g", lineterminator="\n")
    record = {"config": config, **environment(device)}
    with write_atomically(files[1]) as temporary:
        temporary.write_text(json.dumps(record, indent=1) + "\n")
    yield from files
    yield style.save(estimators.fidelity(table), out / "estimators.png")
