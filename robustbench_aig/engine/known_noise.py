"""The attacker who knows the numbers of every scoring draw: a bound on what randomness alone can hide.

He attacks each draw for itself, as the fixed function that it then is, through the defence's stand-ins, with and
without the gates' own gradient. So every draw of an image gets a perturbation of its own, chosen on the very draw that
is reported. No threat model grants that much: the result is a row of its own, and no part of a worst case.
"""

import numpy as np
import numpy.typing as npt

from robustbench_aig.contracts.crafting import craft
from robustbench_aig.contracts.scores import NO_CLASS, Scores
from robustbench_aig.contracts.target import Passes
from robustbench_aig.engine.attackers import known_paths
from robustbench_aig.engine.batches import Batch
from robustbench_aig.engine.outcomes import Outcome, worst
from robustbench_aig.engine.plan import Cell
from robustbench_aig.engine.scoring import score_cell


def attack(cell: Cell, batch: Batch, passes: Passes) -> Outcome:
    """Attack every scoring draw of a batch.

    Args:
        cell: of the ``known-noise`` attacker.
        batch: the clean images.
        passes: their counters.

    Returns:
        The outcome of all draws: perturbation sizes are the largest over draws, ``vote`` is the most frequent class.
    """
    draws = [_one(cell, batch, passes, draw) for draw in range(cell.scoring_draws)]
    scores = [outcome.scores for outcome in draws]
    joined = Scores(
        np.concatenate([part.correct for part in scores]),
        _most_frequent(np.stack([part.vote for part in scores])),
        np.sum([part.nonfinite for part in scores], 0, dtype=np.uint16),
        np.concatenate([part.open for part in scores]),
        np.mean([part.prob for part in scores], 0),
        np.mean([part.macs for part in scores], 0),
    )
    linf, l2, invalid = (np.max([getattr(outcome, name) for outcome in draws], 0) for name in ("linf", "l2", "invalid"))
    return Outcome(joined, joined.count, linf, l2, invalid)


def _one(cell: Cell, batch: Batch, passes: Passes, draw: int) -> Outcome:
    assert cell.attack is not None
    budgets = [epsilon.value for epsilon in cell.epsilons]
    found: dict[str, Outcome] = {}
    for name, target in known_paths(cell, batch.ids, passes, draw):
        crafted = craft(cell.attack, target, batch.images, batch.labels, budgets)
        scores = Scores.stack(
            [score_cell(cell, images, batch.labels, batch.ids, draw=draw) for images in crafted.images]
        )
        found[name] = Outcome.of(crafted, ..., scores, scores.count)
    return worst(found)


def _most_frequent(classes: npt.NDArray[np.int16]) -> npt.NDArray[np.int16]:
    """(E, N) the class that most of the S draws (S, E, N) give; of several the lowest, NO_CLASS without any."""
    counts = np.stack([(classes == number).sum(0) for number in range(max(0, int(classes.max())) + 1)])
    return np.where(counts.any(0), counts.argmax(0), NO_CLASS).astype(np.int16)
