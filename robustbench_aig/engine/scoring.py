"""Scoring: what the defended model makes of given images, over fresh draws. No attack's own success flag is
believed."""

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from robustbench_aig.contracts.defense import Defense
from robustbench_aig.contracts.forward import Draws, forward_apart
from robustbench_aig.contracts.gating import Gating
from robustbench_aig.contracts.margin import finite, right
from robustbench_aig.contracts.noise import Stage
from robustbench_aig.contracts.scores import NO_CLASS, Scores

if TYPE_CHECKING:
    from robustbench_aig.engine.plan import Cell


@torch.no_grad()
def score(
    model: nn.Module,
    gating: Gating,
    defense: Defense,
    images: Tensor,
    labels: Tensor,
    ids: Tensor,
    *,
    seed: int,
    draws: int,
    stage: Stage = "score",
    first: int = 0,
) -> Scores:
    """Classify images ``draws`` times through the real defence.

    Args:
        model: in eval mode, on the images' device.
        gating: how it decides.
        defense: what stands before it.
        images: (N, C, H, W) float32 in [0, 1].
        labels: (N,).
        ids: (N,) image ids, which name the noise.
        seed: of the noise.
        draws: S; pass 1 where nothing is random.
        stage: the stream of draws; reported numbers use ``score``.
        first: number of the first draw.
    """
    numbers = Draws(seed, stage, ids, range(first, first + draws))
    logits, trace = forward_apart(model, gating, images, numbers, defense=defense)
    answered = finite(logits)
    chances = logits.float().softmax(2).where(answered[..., None], 0.0).mean(0)
    n = len(images)
    return Scores(
        right(logits, labels).cpu().numpy(),
        chances.argmax(1).where(answered.any(0), NO_CLASS).cpu().numpy().astype(np.int16),
        (~answered).sum(0).cpu().numpy().astype(np.uint16),
        np.zeros((draws, n, 0), bool) if trace is None else trace.executed.cpu().numpy(),
        np.zeros((n, 0), np.float32) if trace is None else trace.running.mean(0).float().cpu().numpy(),
        np.full(n, np.nan) if trace is None else trace.macs.mean(0).cpu().numpy(),
    )


def score_cell(
    cell: "Cell", images: Tensor, labels: Tensor, ids: Tensor, stage: Stage = "score", draw: int | None = None
) -> Scores:
    """Score images as a cell says: its model, gating, defence, seed and all its draws, or the one with a number."""
    return score(
        cell.model.network,
        cell.gating,
        cell.defense,
        images,
        labels,
        ids,
        seed=cell.seed,
        draws=cell.scoring_draws if draw is None else 1,
        stage=stage,
        first=draw or 0,
    )
