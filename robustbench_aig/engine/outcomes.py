"""Outcomes put together: of batches into all images, and of paths into the per-image worst case."""

import numpy as np

from robustbench_aig.contracts.scores import Scores
from robustbench_aig.engine.rows import Outcome
from robustbench_aig.gates.mediation import Crossed


def join(parts: list[Outcome]) -> Outcome:
    """One outcome of consecutive batches."""
    return Outcome(
        parts[0].epsilon,
        Scores.join([part.scores for part in parts]),
        np.concatenate([part.selection for part in parts]),
        np.concatenate([part.linf for part in parts]),
        np.concatenate([part.l2 for part in parts]),
        np.concatenate([part.invalid for part in parts]),
        None if parts[0].crossed is None else Crossed.join([part.crossed for part in parts if part.crossed]),
    )


def worst(choices: dict[str, Outcome]) -> Outcome:
    """The per-image minimum over paths: for each image the path that selection draws find correct least often."""
    first, *others = choices.values()
    best = first
    for other in others:
        where = other.selection < best.selection
        best = Outcome(
            best.epsilon,
            best.scores.choose(other.scores, where),
            np.where(where, other.selection, best.selection),
            np.where(where, other.linf, best.linf),
            np.where(where, other.l2, best.l2),
            np.where(where, other.invalid, best.invalid),
            best.crossed and other.crossed and best.crossed.choose(other.crossed, where),
        )
    return best
