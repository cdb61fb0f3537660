"""What minimal-norm attacks share: one run, whose smallest successful perturbation answers every budget."""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from attacks.common.norms import TINY, project, size
from attacks.common.search import Part, Search, Searching
from robustbench_aig.contracts.margin import margin
from robustbench_aig.contracts.norms import Norm


class Smallest:
    """The smallest successful perturbation so far of each image of a run, or its best failure.

    Args:
        part: the images.
        norm: that perturbations are measured in.

    Attributes:
        offset: (n, C, H, W) perturbation.
        size: (n,) its size, infinite before the first success.
    """

    def __init__(self, part: Part, norm: Norm) -> None:
        self.norm = norm
        self.offset = torch.zeros_like(part.clean)
        self.size = part.clean.new_full((len(part.rows),), torch.inf)
        self._margin = torch.full_like(self.size, -torch.inf)

    def see(self, offset: Tensor, margins: Tensor) -> Tensor:
        """Consider perturbations with mean margins (n,); returns which are successes, (n,) bool."""
        sizes = size(offset, self.norm).flatten()
        success = margins > 0
        better = torch.where(success, sizes < self.size, self.size.isinf() & (margins > self._margin))
        self.offset = torch.where(better.view(-1, 1, 1, 1), offset, self.offset)
        self.size = torch.where(better & success, sizes, self.size)
        self._margin = torch.where(better, margins, self._margin)
        return success

    def take(self, index: Tensor) -> None:
        """Reduce to a subset."""
        self.offset, self.size, self._margin = self.offset[index], self.size[index], self._margin[index]


@dataclass(frozen=True, kw_only=True)
class Minimal(Searching):
    """An attack that looks for the smallest perturbation of what is left at any budget, once for all budgets."""

    def improve(self, searches: Sequence[Search], budgets: Sequence[float]) -> None:
        hardest = searches[0].left()  # what is decided at the smallest budget was never worth attacking
        for search in searches[1:]:
            rows = torch.unique(torch.cat([hardest.rows, search.left().rows]))
            hardest = Part(rows, search.target.take(rows), search.criterion.take(rows), search.clean[rows])
        if not len(hardest.rows):
            return
        found = self.minimise(hardest, budgets[0])
        for search, budget in zip(searches, budgets, strict=True):
            self._spread(search, hardest, found, budget)

    @abstractmethod
    def minimise(self, part: Part, enough: float) -> Tensor:
        """Smallest successful perturbations (n, C, H, W); an image may leave once its perturbation is no larger than
        ``enough``, if that decides it."""

    def _spread(self, search: Search, part: Part, found: Tensor, budget: float) -> None:
        """Offer what was found, shortened to the budget; where a larger one may be surer, also stretched to it."""
        search.measure(part.rows, project(part.clean + found, part.clean, budget, self.norm))
        if search.target.stochastic or search.target.transfer:
            stretch = (budget / size(found, self.norm).clamp_min(TINY)).clamp_min(1.0)
            search.measure(part.rows, project(part.clean + stretch * found, part.clean, budget, self.norm))


def mean_margin(part: Part, logits: Tensor) -> Tensor:
    """(n,) mean margin of logits (K, n, classes)."""
    return margin(logits, part.criterion.labels, part.criterion.classes).mean(0)
