"""The attacker who knows the numbers of every scoring draw: a bound on what randomness alone can hide.

He attacks each draw for itself, as the fixed function that it then is, through the defence's stand-ins, with and
without the gates' own gradient. So every draw of an image gets a perturbation of its own, chosen on the very draw that
is reported. No threat model grants that much: the result is a row of its own, and no part of a worst case.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from torch import Tensor

from robustbench_aig.contracts.crafting import craft
from robustbench_aig.contracts.scores import NO_CLASS, Scores
from robustbench_aig.contracts.target import Passes
from robustbench_aig.engine.attackers import known_paths
from robustbench_aig.engine.outcomes import worst
from robustbench_aig.engine.plan import Cell
from robustbench_aig.engine.rows import Outcome
from robustbench_aig.engine.scoring import score_cell


def attack(cell: Cell, images: Tensor, labels: Tensor, ids: Tensor, passes: Passes) -> list[Outcome]:
    """Attack every scoring draw of a batch.

    Args:
        cell: of the ``known-noise`` attacker.
        images: (N, C, H, W) clean.
        labels: (N,).
        ids: (N,).
        passes: counters of the batch.

    Returns:
        One outcome per epsilon. Perturbation sizes are the largest over draws, and ``vote`` is the most frequent class.
    """
    by_draw = [_one(cell, images, labels, ids, passes, draw) for draw in range(cell.scoring_draws)]
    return [_stack([outcomes[number] for outcomes in by_draw]) for number in range(len(cell.epsilons))]


def _one(cell: Cell, images: Tensor, labels: Tensor, ids: Tensor, passes: Passes, draw: int) -> list[Outcome]:
    assert cell.attack is not None
    budgets = [epsilon.value for epsilon in cell.epsilons]
    found: list[dict[str, Outcome]] = [{} for _ in budgets]
    for name, target in known_paths(cell, ids, passes, draw):
        crafted = craft(cell.attack, target, images, labels, budgets)
        for number, epsilon in enumerate(cell.epsilons):
            scores = score_cell(cell, crafted.images[number], labels, ids, draw=draw)
            linf, l2, invalid = (part[number].cpu().numpy() for part in (crafted.linf, crafted.l2, crafted.invalid))
            found[number][name] = Outcome(epsilon, scores, scores.count, linf, l2, invalid)
    return [worst(choices) for choices in found]


def _stack(draws: Sequence[Outcome]) -> Outcome:
    """The outcomes of single draws as one outcome of all of them."""
    scores = [outcome.scores for outcome in draws]
    joined = Scores(
        np.concatenate([part.correct for part in scores]),
        _most_frequent(np.stack([part.vote for part in scores])),
        np.sum([part.nonfinite for part in scores], 0, dtype=np.uint16),
        np.concatenate([part.open for part in scores]),
        np.mean([part.prob for part in scores], 0),
        np.mean([part.macs for part in scores], 0),
    )
    return Outcome(
        draws[0].epsilon,
        joined,
        joined.count,
        np.max([outcome.linf for outcome in draws], 0),
        np.max([outcome.l2 for outcome in draws], 0),
        np.any([outcome.invalid for outcome in draws], 0),
    )


def _most_frequent(classes: npt.NDArray[np.int16]) -> npt.NDArray[np.int16]:
    """(N,) the class that most of the S draws (S, N) give; the lowest of several, NO_CLASS where none gives any."""
    counts = np.stack([(classes == number).sum(0) for number in range(max(0, int(classes.max())) + 1)])
    return np.where(counts.any(0), counts.argmax(0), NO_CLASS).astype(np.int16)
