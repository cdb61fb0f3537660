"""How near each estimator of the gradient comes to the exact one, and what it costs."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from attacks.gates.estimators import LEAST, Estimator, estimate
from attacks.gates.objectives import Goal
from robustbench_aig.evaluation.target import Passes, Target


@dataclass(frozen=True)
class Fidelity:
    """One row of the comparison.

    Attributes:
        estimator: its name.
        draws: n.
        cosine: mean over images and repeats of the cosine to the exact gradient.
        signs: likewise the share of pixels whose sign agrees.
        forwards: forward passes per image and gradient.
        backwards: backward passes.
    """

    estimator: Estimator
    draws: int
    cosine: float
    signs: float
    forwards: float
    backwards: float


def compare(
    target: Target, images: Tensor, goal: Goal, draws: Sequence[int] = (1, 2, 5, 20, 100), repeats: int = 3
) -> list[Fidelity]:
    """Every estimator against exact enumeration, on images (N, C, H, W) of a model with at most ten sampled gates.

    Args:
        target: with stochastic gating.
        images: in [0, 1].
        goal: whose expected pull is differentiated.
        draws: numbers of draws; the score function needs 2.
        repeats: independent gradients that are averaged over.

    Raises:
        UsageError: the model has no gates, or too many.
    """
    penalty = torch.zeros(len(images), device=images.device, dtype=images.dtype)

    def measure(estimator: Estimator, n: int) -> tuple[Tensor, Passes]:
        passes = Passes.none(len(images), images.device)
        rows = torch.arange(len(images), device=images.device)
        counting = replace(target, passes=passes, rows=rows)
        once = estimator == "soft" or estimator in LEAST
        found = [
            estimate(counting, images, goal, penalty, 1 + step, estimator, n).gradient
            for step in range(1 if once else repeats)
        ]
        passes.forwards //= len(found)
        passes.backwards //= len(found)
        return torch.stack(found).flatten(2), passes

    truth, spent = measure("exact", 1)

    def row(estimator: Estimator, n: int, gradients: Tensor, passes: Passes) -> Fidelity:
        cosine = cosine_similarity(gradients, truth.expand_as(gradients), dim=2).mean().item()
        signs = (gradients.sign() == truth.sign()).float().mean().item()
        return Fidelity(
            estimator, n, cosine, signs, passes.forwards.float().mean().item(), passes.backwards.float().mean().item()
        )

    sampled: tuple[Estimator, ...] = ("straight-through", "score-function", "local-expectation")
    rows = [row("exact", 1, truth, spent), row("likely", 1, *measure("likely", 1))]
    rows.append(row("soft", 1, *measure("soft", 1)))
    for estimator in sampled:
        rows += [row(estimator, n, *measure(estimator, n)) for n in draws if n > 1 or estimator != "score-function"]
    return rows
