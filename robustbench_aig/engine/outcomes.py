"""What attacks did to the images of a cell, and what that took."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import reduce
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from robustbench_aig.contracts.crafting import Crafted
from robustbench_aig.contracts.records import Bools, Record
from robustbench_aig.contracts.scores import Scores
from robustbench_aig.contracts.target import Passes
from robustbench_aig.gates.mediation import Crossed

Counts = npt.NDArray[np.uint16]


@dataclass(frozen=True)
class Outcome(Record):
    """What one path of an attacker did to N images at E epsilons.

    Attributes:
        scores: after the attack, (S, E, N, …).
        selection: (E, N) correct draws in the stream that chooses between paths.
        linf: (E, N) perturbation size.
        l2: (E, N) likewise.
        invalid: (E, N) bool, images that failed the checks of :mod:`robustbench_aig.contracts.crafting`.
        crossed: verdicts with features and graphs of clean and attacked image crossed; None where no graph is run, or
            each draw has an image of its own.
    """

    scores: Scores
    selection: Counts
    linf: npt.NDArray[np.float32]
    l2: npt.NDArray[np.float32]
    invalid: Bools
    crossed: Crossed | None = None

    @classmethod
    def of(cls, crafted: Crafted, at: Any, scores: Scores, selection: Counts, crossed: Crossed | None = None) -> Self:
        """The outcome of crafted images, or of those ``at`` an index of epsilons and images."""
        linf, l2, invalid = (part[at].cpu().numpy() for part in (crafted.linf, crafted.l2, crafted.invalid))
        return cls(scores, selection, linf, l2, invalid, crossed)

    @classmethod
    def untouched(cls, clean: Scores) -> Self:
        """What no attack does."""
        zero = np.zeros(len(clean.macs), np.float32)
        return cls(clean, clean.count, zero, zero, zero > 0)


@dataclass(frozen=True)
class Spent(Record):
    """Passes per image, (N,) each; see :class:`robustbench_aig.contracts.target.Passes`."""

    forwards: npt.NDArray[np.int64]
    backwards: npt.NDArray[np.int64]
    gradients: npt.NDArray[np.int64]
    stalled: npt.NDArray[np.int64]
    nonfinite: npt.NDArray[np.int64]
    unclear: npt.NDArray[np.int64]

    @classmethod
    def of(cls, passes: Passes) -> Self:
        """The counters of a batch."""
        return cls(**{own.name: getattr(passes, own.name).cpu().numpy() for own in fields(cls)})


def worst(paths: Mapping[str, Outcome]) -> Outcome:
    """The per-image minimum over paths: for each image and epsilon the one that selection draws find correct least
    often, the first of several."""
    return reduce(lambda best, other: best.where(other.selection < best.selection, other), paths.values())
