"""Scoring: what the defended model makes of given images, over fresh draws. No attack's own success flag is
believed."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from robustbench_aig.evaluation.gating import Gating
from robustbench_aig.evaluation.target import DefenseLike, defense_noise, run
from robustbench_aig.models.aig import ConvNetAIG
from robustbench_aig.models.gates import GateTrace
from robustbench_aig.models.noise import Stage, logistic

if TYPE_CHECKING:
    from robustbench_aig.evaluation.plan import Cell


@dataclass(frozen=True)
class Scores:
    """The outcome of S draws for N images, on the CPU.

    Attributes:
        correct: (S, N) bool.
        vote: (N,) int16, the class of the largest mean softmax over the draws.
        open: (S, N, L) bool, whether a block ran (under AIG* all do); L = 0 without gates.
        prob: (N, L) float32 mean chance of being open.
        macs: (N,) float64 mean multiply-adds; NaN without gates.
    """

    correct: npt.NDArray[np.bool_]
    vote: npt.NDArray[np.int16]
    open: npt.NDArray[np.bool_]
    prob: npt.NDArray[np.float32]
    macs: npt.NDArray[np.float64]

    @property
    def count(self) -> npt.NDArray[np.uint16]:
        """(N,) in how many draws the image was classified correctly."""
        return np.asarray(self.correct.sum(0), np.uint16)

    @classmethod
    def join(cls, parts: "list[Scores]") -> "Scores":
        """One record of consecutive batches."""
        return cls(
            np.concatenate([part.correct for part in parts], 1),
            np.concatenate([part.vote for part in parts]),
            np.concatenate([part.open for part in parts], 1),
            np.concatenate([part.prob for part in parts]),
            np.concatenate([part.macs for part in parts]),
        )

    def take(self, rows: slice) -> "Scores":
        """The record of some images."""
        return Scores(self.correct[:, rows], self.vote[rows], self.open[:, rows], self.prob[rows], self.macs[rows])

    def choose(self, other: "Scores", where: npt.NDArray[np.bool_]) -> "Scores":
        """This record with the images ``where`` (N,) replaced by those of ``other``."""
        return Scores(
            np.where(where, other.correct, self.correct),
            np.where(where, other.vote, self.vote),
            np.where(where[:, None], other.open, self.open),
            np.where(where[:, None], other.prob, self.prob),
            np.where(where, other.macs, self.macs),
        )


@torch.no_grad()
def score(
    model: nn.Module,
    gating: Gating,
    gates: int,
    defense: DefenseLike | None,
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
    defense: DefenseLike | None,
    images: Tensor,
    ids: Tensor,
    seed: int,
    draws: Sequence[int],
    stage: Stage,
) -> tuple[Tensor, GateTrace | None]:
    """Logits (S, N, classes) and the trace (S, N, L) of all draws; draws of gates alone share what is common."""
    fixed = defense is None or defense.deterministic
    seen = defense(images) if fixed and defense is not None else images
    if fixed and gating.stochastic and isinstance(model, ConvNetAIG):
        return model.sampled(seen, logistic(seed, stage, ids, gates, draws).to(images.device))
    parts = []
    for draw in draws:
        if defense is not None and not fixed:
            seen = defense(images, defense_noise(defense, seed, stage, ids, [draw], images))
        parts.append(run(model, seen, gating.policy(gates, seed, stage, ids, [draw])))
    traces = [trace for _, trace in parts if trace is not None]
    joined = None
    if traces:
        margins, opened = (torch.stack([getattr(trace, name) for trace in traces]) for name in ("margin", "open"))
        joined = GateTrace(margins, opened, traces[0].costs)
    return torch.stack([logits for logits, _ in parts]), joined
