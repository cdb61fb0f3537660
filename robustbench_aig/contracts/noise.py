"""Counter-based noise: every random number is a pure function of what it is for.

A number is named by (seed, stage, image id, slot, draw), so results do not depend on batch size, order, sharding or
resume, nor on a library that reseeds the global generator. A slot is a gate, a pixel or a number that a random defence
consumes. The hash is the SplitMix64 finaliser (Steele, Lea and Flood, 2014) applied once per coordinate.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Stage = Literal[
    "train", "craft", "select", "score", "start", "defend-craft", "defend-select", "defend-score", "train-inner"
]
"""What a draw is for. Stages never share numbers, so crafting and scoring draws are disjoint by construction."""

_STAGES: dict[str, int] = {name: number for number, name in enumerate(Stage.__args__)}  # type: ignore[attr-defined]
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def _mix(value: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))


def _absorb(state: npt.NDArray[np.uint64], coordinate: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    return _mix(state + (coordinate + np.uint64(1)) * _GOLDEN)


def uniform(seed: int, stage: Stage, ids: Tensor, slots: int, draws: Sequence[int]) -> npt.NDArray[np.float64]:
    """Uniform numbers in the open interval (0, 1).

    Args:
        seed: the run's seed.
        stage: what the draws are for.
        ids: (N,) int64 image ids.
        slots: how many numbers each image needs per draw.
        draws: the draw numbers.

    Returns:
        (len(draws), N, slots) float64.
    """
    with np.errstate(over="ignore"):
        state = np.array([seed % 2**64], dtype=np.uint64)
        state = _absorb(_mix(state), np.array([_STAGES[stage]], dtype=np.uint64))
        state = _absorb(state, np.asarray(draws, dtype=np.int64).astype(np.uint64))[:, None]
        state = _absorb(state, ids.cpu().numpy().astype(np.int64).view(np.uint64)[None, :])[:, :, None]
        state = _absorb(state, np.arange(slots, dtype=np.uint64)[None, None, :])
    return ((state >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53


def logistic(seed: int, stage: Stage, ids: Tensor, gates: int, draws: Sequence[int]) -> Tensor:
    """Standard logistic noise, the difference of two Gumbel variables, one number per gate.

    ``1[margin + noise > 0]`` is then exactly the Gumbel-max decision of Eq. 8: open with probability sigmoid(margin).

    Returns:
        (len(draws), N, gates) float32 on the CPU.
    """
    u = uniform(seed, stage, ids, gates, draws)
    return torch.from_numpy((np.log(u) - np.log1p(-u)).astype(np.float32))
