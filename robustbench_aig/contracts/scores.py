"""Scores: what S draws of a model said of N images."""

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from robustbench_aig.contracts.records import PER_UNIT, Bools, Record

NO_CLASS = -1
"""The vote of an image whose logits are NaN or infinite in every draw."""


@dataclass(frozen=True)
class Scores(Record):
    """The outcome of S draws for N images, on the CPU; after an attack at E epsilons with an axis for them.

    Attributes:
        correct: (S, …, N) bool; logits that are NaN or infinite are not correct.
        vote: (…, N) int16, the class of the largest mean softmax over the draws with finite logits; NO_CLASS without
            any.
        nonfinite: (…, N) uint16, in how many draws logits were NaN or infinite.
        open: (S, …, N, L) bool, whether a unit ran (under AIG* all do); L = 0 for a plain model.
        prob: (…, N, L) float32 mean chance of running, 0 in draws that do not reach the unit.
        macs: (…, N) float64 mean multiply-adds; NaN for a plain model.
    """

    correct: Bools
    vote: npt.NDArray[np.int16]
    nonfinite: npt.NDArray[np.uint16]
    open: Bools = field(metadata=PER_UNIT)
    prob: npt.NDArray[np.float32] = field(metadata=PER_UNIT)
    macs: npt.NDArray[np.float64]

    @property
    def count(self) -> npt.NDArray[np.uint16]:
        """(…, N) in how many draws the image was classified correctly."""
        return np.asarray(self.correct.sum(0), np.uint16)
