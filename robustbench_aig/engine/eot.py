"""How many draws one adaptive gradient averages over: found by doubling on a few images (``--eot auto``).

A number is enough when two independent gradients over that many draws point the same way, and twice as many do not make
the attack stronger. The images are scored on ``select`` draws, never on those that are reported.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from robustbench_aig.contracts.crafting import craft
from robustbench_aig.contracts.parts import even
from robustbench_aig.contracts.target import Passes, Target, mean_margin
from robustbench_aig.engine.attackers import paths
from robustbench_aig.engine.plan import FEWEST_DRAWS, Cell
from robustbench_aig.engine.scoring import score_cell
from robustbench_aig.statistics.comparisons import strongest_difference
from robustbench_aig.statistics.intervals import Floats

MOST_DRAWS = 64
"""Where doubling stops."""

COSINE = 0.9
"""Mean cosine of two independent gradients that counts as agreement."""

DROP = 0.005
"""Fall in accuracy that counts as stronger, if its 95 % interval excludes 0."""

IMAGES = 32
"""Images that numbers of draws are tried on, evenly spread over the data set."""


@dataclass(frozen=True)
class Trial:
    """One number of draws.

    Attributes:
        draws: the number.
        cosine: mean cosine of two independent gradients over so many draws, at the clean images.
        accuracy: under the attack, per epsilon; None where it was not run.
    """

    draws: int
    cosine: float
    accuracy: list[float] | None


@dataclass(frozen=True)
class Settled:
    """What doubling came to.

    Attributes:
        draws: the number to use.
        converged: False if the largest number was not shown to be enough.
        trials: by number of draws.
        forwards: passes spent on each tried image.
        backwards: likewise.
    """

    draws: int
    converged: bool
    trials: list[Trial]
    forwards: float
    backwards: float

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def settle(cell: Cell, device: torch.device, batch_size: int) -> Settled:
    """Double the draws until a cell's gradients agree and its attack gets no stronger.

    Args:
        cell: of the adaptive attacker on something random.
        device: where to compute.
        batch_size: images per pass, all draws counted.
    """
    pilot = _Pilot(cell, device, batch_size)
    cosines: dict[int, float] = {}
    correct: dict[int, Floats] = {}
    draws, converged = FEWEST_DRAWS, False
    while True:
        cosines[draws] = float(pilot.each(draws, agreement).mean())
        if draws == MOST_DRAWS:
            break
        if cosines[draws] >= COSINE:
            for number in (draws, 2 * draws):
                if number not in correct:
                    correct[number] = pilot.attacked(number)
            drop = strongest_difference(correct[draws], correct[2 * draws])[0]
            if drop.value <= DROP or drop.lo <= 0:
                converged = True
                break
        draws *= 2
    trials = [
        Trial(number, cosine, correct[number].mean(1).tolist() if number in correct else None)
        for number, cosine in cosines.items()
    ]
    spent = pilot.passes
    return Settled(
        draws, converged, trials, spent.forwards.double().mean().item(), spent.backwards.double().mean().item()
    )


def agreement(target: Target, images: Tensor, labels: Tensor) -> Tensor:
    """(N,) cosine of the margin's gradients over two disjoint sets of the target's draws."""
    one, other = (
        target.gradient(images, lambda view: mean_margin(view, labels), step)[1].flatten(1) for step in (0, 1)
    )
    return torch.nn.functional.cosine_similarity(one, other)


class _Pilot:
    """The tried images, as the cell's strongest path sees them."""

    def __init__(self, cell: Cell, device: torch.device, batch_size: int) -> None:
        self.cell, self.batch_size = cell, batch_size
        data = cell.dataset
        rows = torch.linspace(0, len(data) - 1, min(len(data), IMAGES)).round().long()
        self.images = data.images(rows).to(device, memory_format=cell.model.memory_format)
        self.labels, self.ids = data.labels[rows].to(device), data.ids[rows].to(device)
        self.passes = Passes.none(len(rows), device)

    def each(self, draws: int, work: Callable[[Target, Tensor, Tensor], Tensor]) -> Tensor:
        """``work`` on all images, with gradients over some number of draws; joined along the images' axis 0."""
        target = replace(knowing_path(self.cell, self.ids, self.passes)[1], draws=draws)
        every = torch.arange(len(self.ids), device=self.ids.device)
        parts = even(len(every), max(1, self.batch_size // draws))
        return torch.cat([work(target.take(every[part]), self.images[part], self.labels[part]) for part in parts])

    def attacked(self, draws: int) -> Floats:
        """(E, N) shares of right ``select`` draws under the cell's attack."""
        attack, budgets = self.cell.attack, [epsilon.value for epsilon in self.cell.epsilons]
        assert attack is not None

        def work(target: Target, images: Tensor, labels: Tensor) -> Tensor:
            return craft(attack, target, images, labels, budgets).images.transpose(0, 1)

        crafted = self.each(draws, work).transpose(0, 1)
        counts = [score_cell(self.cell, images, self.labels, self.ids, "select").count for images in crafted]
        return np.stack(counts) / self.cell.scoring_draws


def knowing_path(cell: Cell, ids: Tensor, passes: Passes) -> tuple[str, Target]:
    """The path of the adaptive attacker that knows most: through the defence's best stand-in, over random gates."""
    known = [
        (name, target)
        for name, target in paths(cell, ids, passes)
        if name not in ("static", "no-gate-gradient", "deterministic-twin")
    ]
    return known[-1]
