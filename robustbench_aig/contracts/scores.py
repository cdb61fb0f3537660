"""Scores: what S draws of a model said of N images."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

NO_CLASS = -1
"""The vote of an image whose logits are NaN or infinite in every draw."""


@dataclass(frozen=True)
class Scores:
    """The outcome of S draws for N images, on the CPU.

    Attributes:
        correct: (S, N) bool; logits that are NaN or infinite are not correct.
        vote: (N,) int16, the class of the largest mean softmax over the draws with finite logits; NO_CLASS without any.
        nonfinite: (N,) uint16, in how many draws logits were NaN or infinite.
        open: (S, N, L) bool, whether a block ran (under AIG* all do); L = 0 without gates.
        prob: (N, L) float32 mean chance of running, 0 in draws that do not reach the unit.
        macs: (N,) float64 mean multiply-adds; NaN without gates.
    """

    correct: npt.NDArray[np.bool_]
    vote: npt.NDArray[np.int16]
    nonfinite: npt.NDArray[np.uint16]
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
            np.concatenate([part.nonfinite for part in parts]),
            np.concatenate([part.open for part in parts], 1),
            np.concatenate([part.prob for part in parts]),
            np.concatenate([part.macs for part in parts]),
        )

    def take(self, rows: slice) -> "Scores":
        """The record of some images."""
        return Scores(
            self.correct[:, rows],
            self.vote[rows],
            self.nonfinite[rows],
            self.open[:, rows],
            self.prob[rows],
            self.macs[rows],
        )

    def choose(self, other: "Scores", where: npt.NDArray[np.bool_]) -> "Scores":
        """This record with the images ``where`` (N,) replaced by those of ``other``."""
        return Scores(
            np.where(where, other.correct, self.correct),
            np.where(where, other.vote, self.vote),
            np.where(where, other.nonfinite, self.nonfinite),
            np.where(where[:, None], other.open, self.open),
            np.where(where[:, None], other.prob, self.prob),
            np.where(where, other.macs, self.macs),
        )
