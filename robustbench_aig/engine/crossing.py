"""Passes with features and graph crossed: one image along the graph of another."""

import numpy as np
import torch
from torch import Tensor

from robustbench_aig.contracts.forward import Draws, forward
from robustbench_aig.contracts.margin import right
from robustbench_aig.contracts.policy import Forced
from robustbench_aig.contracts.scores import Scores
from robustbench_aig.engine.batches import Batch
from robustbench_aig.engine.plan import Cell
from robustbench_aig.gates.mediation import CROSSED_DRAWS, Crossed


@torch.no_grad()
def cross(cell: Cell, batch: Batch, attacked: Tensor, before: Scores, after: Scores) -> Crossed | None:
    """Classify with features and graphs crossed, under the gate and defence noise of the scoring draws.

    Args:
        cell: says model, gating, defence and seed.
        batch: the clean images.
        attacked: (N, C, H, W) the attacked ones, at one epsilon.
        before: scores of the clean images.
        after: of the attacked ones.

    Returns:
        None where no graph is executed: without gates, and where every block runs scaled by its probability.
    """
    if cell.gating.kind not in ("deterministic", "stochastic"):
        return None
    draws = min(CROSSED_DRAWS, cell.scoring_draws)
    features, gates = after.correct[:draws].copy(), before.correct[:draws].copy()
    moved = (before.open[:draws] != after.open[:draws]).any(2)
    for draw in range(draws):
        rows = np.flatnonzero(moved[draw])
        if not len(rows):
            continue
        index = torch.from_numpy(rows).to(attacked.device)
        for verdicts, pixels, graphs in ((features, attacked, before.open), (gates, batch.images, after.open)):
            forced = Forced(torch.from_numpy(graphs[draw, rows]).to(attacked.device).float())
            noise = Draws(cell.seed, "score", batch.ids[index], [draw])
            view = forward(cell.model.network, cell.gating, pixels[index], noise, defense=cell.defense, policy=forced)
            verdicts[draw, rows] = right(view.logits[0], batch.labels[index]).cpu().numpy()
    return Crossed(features, gates, 2 * moved.sum(0))
