"""The search that iterated attacks share: the best image found so far, who is still worth attacking, and who leaves.

An image is better the more often it meets the criterion, and then the larger its margin. Both are measured where the
attack is judged: on the step's own forward pass where that is already the verdict, otherwise on ``select`` draws, never
on those of the gradient.
"""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from attacks.common.losses import ClassGoal, Criterion, check_loss
from robustbench_aig.contracts.attack import Attack
from robustbench_aig.contracts.forward import View
from robustbench_aig.contracts.target import Target

SELECT_DRAWS = 8
"""Draws that candidates for a random target are compared on, at least; one draw would choose by luck."""

SETTLE_DRAWS = 32
"""Further draws that must all be successes before an image of a random target counts as decided."""


@dataclass(frozen=True)
class Part:
    """The images of a batch that a run works on: rows of the batch, target, criterion of the loss and clean images."""

    rows: Tensor
    target: Target
    criterion: Criterion
    clean: Tensor

    @property
    def full(self) -> "Part":
        """The same with gradients in float32, whose own forward pass is a verdict."""
        return Part(self.rows, self.target.full, self.criterion, self.clean)

    def take(self, index: Tensor) -> "Part":
        """A subset."""
        return Part(self.rows[index], self.target.take(index), self.criterion.take(index), self.clean[index])


class Search:
    """The best candidate so far for each image of a batch at one budget; the clean image is the first.

    Attributes:
        target: what is attacked.
        criterion: what counts as success.
        clean: (N, C, H, W).
        logits: (N, classes) mean log-probabilities of the clean images.
        images: (N, C, H, W) best candidates.
        success: (N,) share of draws in which they meet the criterion.
        margin: (N,) their mean margin.
    """

    def __init__(self, target: Target, criterion: Criterion, clean: Tensor) -> None:
        self.target, self.criterion, self.clean = target, criterion, clean
        view = selection(target, clean)
        self.logits = view.logits.log_softmax(-1).mean(0)
        self.images = clean.clone()
        self.success, self.margin = criterion.success(view), criterion.margin(view)
        self._settled = torch.zeros_like(self.success, dtype=torch.bool)
        self._unsure = torch.ones_like(self._settled)

    def fork(self) -> "Search":
        """An independent copy that shares the verdict on the clean images."""
        copy = object.__new__(Search)
        copy.__dict__.update(self.__dict__)
        for name in ("images", "success", "margin", "_settled", "_unsure"):
            setattr(copy, name, getattr(self, name).clone())
        return copy

    def offer(self, rows: Tensor, points: Tensor, success: Tensor, margin: Tensor) -> None:
        """Keep ``points`` (n, C, H, W) of the images ``rows`` (n,) where they are better."""
        old, own = self.success[rows], self.margin[rows]
        better = (success > old) | ((success == old) & (margin > own))
        self.images[rows] = torch.where(better.view(-1, 1, 1, 1), points, self.images[rows])
        self.success[rows] = torch.where(better, success, old)
        self.margin[rows] = torch.where(better, margin, own)
        self._settled[rows] &= ~better
        self._unsure[rows] |= better

    def measure(self, rows: Tensor, points: Tensor) -> None:
        """Offer points after judging them, which costs one forward pass per image, or one per ``select`` draw."""
        if len(rows):
            criterion, view = self.criterion.take(rows), selection(self.target.take(rows), points)
            self.offer(rows, points, criterion.success(view), criterion.margin(view))

    def inherit(self, other: "Search") -> None:
        """Offer the candidates of a smaller budget; their verdict is known, so this is free."""
        better = (other.success > self.success) | ((other.success == self.success) & (other.margin > self.margin))
        self.offer(torch.arange(len(better), device=better.device), other.images, other.success, other.margin)
        self._settled |= better & other._settled
        self._unsure &= ~(better & ~other._unsure)

    def left(self, classes: Tensor | None = None) -> Part:
        """The images that are not decided; the loss aims at ``classes`` (N,) where given, success is what it was.

        Where a success decides nothing (``target.transfer``), nobody is. Where the target is random, an image is
        decided once all of ``SETTLE_DRAWS`` fresh draws were successes too.
        """
        if self.target.transfer:
            decided = torch.zeros_like(self._settled)
        elif not self.target.stochastic:
            decided = self.success > 0
        else:
            self._settle()
            decided = self._settled
        rows = (~decided).nonzero()[:, 0]
        criterion = self.criterion if classes is None else Criterion(self.criterion.labels, classes)
        return Part(rows, self.target.take(rows), criterion.take(rows), self.clean[rows])

    def _settle(self) -> None:
        rows = (self._unsure & (self.success == 1)).nonzero()[:, 0]
        if len(rows):
            first = _select_draws(self.target)
            view = self.target.take(rows).view(self.images[rows], draws=range(first, first + SETTLE_DRAWS))
            self._settled[rows] = self.criterion.take(rows).success(view) == 1
        self._unsure[:] = False


class Run:
    """One run of an iterated attack over what is left: offers iterates, and tells which images go on.

    Args:
        search: receives the candidates.
        part: the images of the run; decided ones leave it.
    """

    def __init__(self, search: Search, part: Part) -> None:
        self.search, self.part = search, part
        self._decides = part.target.exact and not part.target.transfer
        self._top: tuple[Tensor, Tensor] | None = None

    def see(self, points: Tensor, values: Tensor, view: View) -> Tensor | None:
        """Consider the iterate that a gradient was taken at.

        Where its forward pass is the verdict it is offered at once. Otherwise the iterate with the largest loss is kept
        for :meth:`end`, because judging each one would cost as much as attacking.

        Args:
            points: (n, C, H, W) iterates of ``part``.
            values: (n,) loss.
            view: what the gradient saw.

        Returns:
            Index of the images that go on, which ``part`` has been reduced to, or None for all.
        """
        if not self.part.target.exact:
            if self._top is None:
                self._top = points.clone(), values.clone()
            else:
                larger = values > self._top[1]
                self._top = torch.where(larger.view(-1, 1, 1, 1), points, self._top[0]), values.maximum(self._top[1])
            return None
        criterion = self.search.criterion.take(self.part.rows)
        if self.part.target.half:
            view = self._checked(points, criterion, view)
        success = criterion.success(view)
        self.search.offer(self.part.rows, points, success, criterion.margin(view))
        if not self._decides:
            return None
        index = (success == 0).nonzero()[:, 0]
        if len(index) == len(success):
            return None
        self.part = self.part.take(index)
        return index

    def _checked(self, points: Tensor, criterion: Criterion, view: View) -> View:
        """The view with successes seen in bfloat16 judged again in float32."""
        index = (criterion.success(view) > 0).nonzero()[:, 0]
        if not len(index):
            return view
        real = selection(self.part.target.take(index), points[index])
        return View(view.logits.index_copy(1, index, real.logits), view.trace)

    def end(self, points: Tensor) -> None:
        """Judge the last iterate, and the one with the largest loss if it has not been."""
        self.search.measure(self.part.rows, points)
        if self._top is not None:
            self.search.measure(self.part.rows, self._top[0])


@dataclass(frozen=True, kw_only=True)
class Searching(Attack):
    """An attack that improves searches, one per budget, so that several can work on the same ones.

    Attributes:
        goal: any wrong class, or one to reach.
    """

    refills: ClassVar[bool] = True

    goal: ClassGoal = "untargeted"

    def check_target(self, target: Target, images: Tensor, labels: Tensor) -> None:
        check_loss(getattr(self, "loss", "auto"), target, images, aimed=self.goal != "untargeted")

    def __call__(self, target: Target, images: Tensor, labels: Tensor, budgets: Sequence[float]) -> Tensor:
        if not len(images):
            return images.expand(len(budgets), *images.shape)
        first = Search(target, Criterion.of(self.goal, target, images, labels), images)
        searches = [first.fork() for _ in budgets]
        self.improve(searches, budgets)
        return torch.stack([search.images for search in searches])

    @abstractmethod
    def improve(self, searches: Sequence[Search], budgets: Sequence[float]) -> None:
        """Find better images for the searches, which belong to the ``budgets``, ascending."""


@dataclass(frozen=True, kw_only=True)
class Stepwise(Searching):
    """A searching attack that works on one budget at a time.

    Attributes:
        carry: images found at a smaller budget are candidates at the larger ones, so that accuracy falls with the
            budget as the worst case does; False attacks each budget as if it were the only one.
    """

    carry: bool = True

    def improve(self, searches: Sequence[Search], budgets: Sequence[float]) -> None:
        for number, (search, budget) in enumerate(zip(searches, budgets, strict=True)):
            if self.carry and number:
                search.inherit(searches[number - 1])
            self.attack(search, budget)

    @abstractmethod
    def attack(self, search: Search, budget: float) -> None:
        """Improve one search."""


def selection(target: Target, points: Tensor) -> View:
    """What the attack is judged on: the real pass, over the ``select`` draws of a random target."""
    return target.view(points, draws=range(_select_draws(target)))


def _select_draws(target: Target) -> int:
    return max(SELECT_DRAWS, target.draws) if target.stochastic else 1


def at_least(**limits: tuple[float, float]) -> None:
    """Check parameters.

    Args:
        limits: name to (value, smallest value allowed).

    Raises:
        ValueError: a value is smaller.
    """
    for name, (value, smallest) in limits.items():
        if not value >= smallest:
            raise ValueError(f"{name} must be {smallest:g} or more, not {value:g}")
