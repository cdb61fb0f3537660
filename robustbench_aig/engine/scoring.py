"""Scoring: what the defended model makes of given images, over fresh draws. No attack's own success flag is
believed."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from robustbench_aig.contracts.defense import Defense
from robustbench_aig.contracts.gating import Gating
from robustbench_aig.contracts.noise import Stage, logistic
from robustbench_aig.contracts.scores import Scores
from robustbench_aig.contracts.target import defense_noise, run
from robustbench_aig.contracts.trace import GateTrace
from robustbench_aig.models.aig import ConvNetAIG

if TYPE_CHECKING:
    from robustbench_aig.engine.plan import Cell


@torch.no_grad()
def score(
    model: nn.Module,
    gating: Gating,
    gates: int,
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
        gating: how its gates decide.
        gates: how many it has.
        defense: what stands before it.
        images: (N, C, H, W) float32 in [0, 1].
        labels: (N,).
        ids: (N,) image ids, which name the noise.
        seed: of the noise.
        draws: S; pass 1 where nothing is random.
        stage: the stream of draws; reported numbers use ``score``.
        first: number of the first draw.
    """
    numbers = range(first, first + draws)
    logits, trace = _view(model, gating, gates, defense, images, ids, seed, numbers, stage)
    vote = logits.float().softmax(2).mean(0).argmax(1)
    n = len(images)
    return Scores(
        (logits.argmax(2) == labels).cpu().numpy(),
        vote.cpu().numpy().astype(np.int16),
        np.zeros((draws, n, 0), bool) if trace is None else trace.executed.cpu().numpy(),
        np.zeros((n, 0), np.float32) if trace is None else trace.prob.mean(0).float().cpu().numpy(),
        np.full(n, np.nan) if trace is None else trace.macs.mean(0).cpu().numpy(),
    )


def score_cell(
    cell: "Cell", images: Tensor, labels: Tensor, ids: Tensor, stage: Stage = "score", draw: int | None = None
) -> Scores:
    """Score images as a cell says: its model, gating, defence, seed and all its draws, or the one with a number."""
    model = cell.model
    return score(
        model.network,
        cell.gating,
        model.gates,
        cell.defense,
        images,
        labels,
        ids,
        seed=cell.seed,
        draws=cell.scoring_draws if draw is None else 1,
        stage=stage,
        first=draw or 0,
    )


def _view(
    model: nn.Module,
    gating: Gating,
    gates: int,
    defense: Defense,
    images: Tensor,
    ids: Tensor,
    seed: int,
    draws: Sequence[int],
    stage: Stage,
) -> tuple[Tensor, GateTrace | None]:
    """Logits (S, N, classes) and the trace (S, N, L) of all draws; draws of gates alone share what is common."""
    seen = defense(images) if defense.deterministic else images
    if defense.deterministic and gating.stochastic and isinstance(model, ConvNetAIG):
        return model.sampled(seen, logistic(seed, stage, ids, gates, draws).to(images.device))
    parts = []
    for draw in draws:
        if not defense.deterministic:
            seen = defense(images, defense_noise(defense, seed, stage, ids, [draw], images))
        parts.append(run(model, seen, gating.policy(gates, seed, stage, ids, [draw])))
    traces = [trace for _, trace in parts if trace is not None]
    joined = None
    if traces:
        margins, opened = (torch.stack([getattr(trace, name) for trace in traces]) for name in ("margin", "open"))
        joined = GateTrace(margins, opened, traces[0].costs)
    return torch.stack([logits for logits, _ in parts]), joined
