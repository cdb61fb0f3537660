"""Published attacks on adaptive networks, from their equations, in the family's ball and with its best-iterate
selection.

Each takes the aim that it is compared on; only the pull (or the lack of one) is its own, so the difference is the
method's.
On sampled gates they too begin on the mean-field twin, which none of the papers does: what is left between them and
the family is the pull. They have no other of the family's starts but the random ones.
"""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from attacks.common.losses import ce
from attacks.common.norms import direction, normal, per_image, project, uniform
from attacks.gates.ascent import Best, Start
from attacks.gates.base import GateAttack, require_gates
from attacks.gates.estimators import Estimator, judge, resolve
from attacks.gates.joint import PURPOSES, Aim, aim_goal
from attacks.gates.objectives import Goal, extreme_route, trace_of
from attacks.gates.optimiser import colour_shift
from robustbench_aig.contracts.attack import Purpose
from robustbench_aig.contracts.forward import View
from robustbench_aig.contracts.target import Target
from robustbench_aig.registry import register


@dataclass(frozen=True)
class Borrowed(Goal):
    """A pull of its own, judged by the score of another goal."""

    gates_only: ClassVar[bool] = False

    aim: Goal

    def score(self, view: View, weights: Tensor) -> Tensor:
        return self.aim.score(view, weights)

    @property
    def paired(self) -> bool:
        return self.aim.paired

    @property
    def enough(self) -> float | Tensor:
        return self.aim.enough

    def twin(self, mean: bool) -> "Borrowed | None":
        aim = self.aim.twin(mean)
        return None if aim is None else replace(self, aim=aim)


@dataclass(frozen=True)
class HingeGoal(Borrowed):
    """Probability hinge on the gates on the wrong side (ILFO), or keeping those on the right one (``keep``)."""

    wanted: Tensor
    project: bool
    keep: bool = False

    def values(self, view: View) -> Tensor:
        trace = trace_of(view)
        chance = torch.where(self.wanted > 0.5, trace.prob, 1 - trace.prob)
        right = trace.open.detach().round() == self.wanted
        return torch.where(right == self.keep, chance.clamp_max(0.5) if not self.keep else chance, 0.0).sum(-1)

    @property
    def guard(self) -> "HingeGoal | None":
        return replace(self, keep=True) if self.project and not self.keep else None


@dataclass(frozen=True)
class PowerGoal(Borrowed):
    """GradMDM: the alpha-norm of min(p, 1/2) up, that of 1 - max(p, 1/2) down; p is the chance of the wanted side."""

    wanted: Tensor
    alphas: tuple[float, float] = (50.0, 3.5)

    def values(self, view: View) -> Tensor:
        trace = trace_of(view)
        chance = torch.where(self.wanted > 0.5, trace.prob, 1 - trace.prob)
        low, high = chance.clamp(1e-6, 0.5), (1 - chance.clamp_min(0.5)).clamp_min(1e-6)
        return _norm(low, self.alphas[0]) - _norm(high, self.alphas[1])


def _norm(values: Tensor, alpha: float) -> Tensor:
    return ((alpha * values.log()).logsumexp(-1) / alpha).exp()


@dataclass(frozen=True)
class EvenGoal(Borrowed):
    """Every gate's softmax towards (1/2, 1/2), as DeepSloth does to exits."""

    def values(self, view: View) -> Tensor:
        margin = trace_of(view).margin
        return (logsigmoid(margin) + logsigmoid(-margin)).mean(-1) / 2


@dataclass(frozen=True)
class LossGoal(Borrowed):
    """Cross-entropy, on a soft-gated twin sigmoid(sharpness * margin) where ``ladder`` gives sharpnesses (LGM)."""

    labels: Tensor
    ladder: tuple[float, ...] = ()
    sharpness: float | None = None

    def values(self, view: View) -> Tensor:
        return ce(view.logits, self.labels)

    @property
    def soft(self) -> float | None:
        return self.sharpness

    def variant(self, restart: int) -> "LossGoal":
        return replace(self, sharpness=self.ladder[restart % len(self.ladder)]) if self.ladder else self


def wanted_graph(aim: Goal, target: Target, images: Tensor) -> Tensor:
    """(N, L) the decisions that an aim wants; of an aim that wants none in particular, all that cost most."""
    for name in ("rates", "route"):
        wanted = getattr(aim, name, None)
        if isinstance(wanted, Tensor):
            return wanted
    inner = getattr(aim, "gates", None)
    return wanted_graph(inner, target, images) if isinstance(inner, Goal) else extreme_route(target, images, 1)


@dataclass(frozen=True, kw_only=True)
class Baseline(GateAttack):
    """A published method, judged by an aim.

    Attributes:
        aim: the metric that the best iterate is chosen by.
    """

    starts: ClassVar[tuple[Start, ...]] = ("best", "random")
    sampled_starts: ClassVar[tuple[Start, ...]] = ("mean", "best", "random")

    aim: Aim = "open"

    @property
    def aims_at(self) -> Purpose:  # type: ignore[override]
        return PURPOSES[self.aim]

    def aimed(self, target: Target, images: Tensor, labels: Tensor) -> Goal:
        """The goal that judges."""
        return aim_goal(self.aim, target, images, labels)


@register("gates:gradauto", "baseline: hinge without conflicts", paper="Pan et al. 2022", aims_at="compute")
@dataclass(frozen=True, kw_only=True)
class GradAuto(Baseline):
    """GradAuto (Pan et al. 2022): the probability hinge, its gradient made not to oppose that of the gates already
    right.

    Attributes:
        conflict: False leaves the projection out, which is ILFO's loss (Haque et al. 2020) in a ball.
    """

    conflict: bool = True

    def goal(self, target: Target, images: Tensor, labels: Tensor) -> HingeGoal:
        aim = self.aimed(target, images, labels)
        return HingeGoal(aim, wanted_graph(aim, target, images), self.conflict)


@register("gates:ilfo", "baseline: probability hinge", paper="Haque et al. 2020", aims_at="compute")
@dataclass(frozen=True, kw_only=True)
class ILFO(GradAuto):
    """ILFO's hinge (Haque et al. 2020), in a ball in place of its distance penalty."""

    conflict: bool = False


@register("gates:gradmdm", "baseline: power loss", paper="Pan et al. 2023", aims_at="compute")
@dataclass(frozen=True, kw_only=True)
class GradMDM(Baseline):
    """The power loss of GradMDM (Pan et al. 2023)."""

    def goal(self, target: Target, images: Tensor, labels: Tensor) -> PowerGoal:
        aim = self.aimed(target, images, labels)
        return PowerGoal(aim, wanted_graph(aim, target, images))


@register("gates:soft-twin", "baseline: cross-entropy on a soft twin", paper="Tao et al. 2024", aims_at="compute")
@dataclass(frozen=True, kw_only=True)
class SoftTwin(Baseline):
    """Cross-entropy on a soft-gated twin (LGM, Tao et al. 2024), its restarts at sharpness 0.1, 0.5, 1, 5 and 10."""

    def goal(self, target: Target, images: Tensor, labels: Tensor) -> LossGoal:
        return LossGoal(self.aimed(target, images, labels), labels, (1.0, 0.1, 0.5, 5.0, 10.0), 1.0)


@register("gates:uniform", "baseline: gates towards one half", paper="Hong et al. 2021", aims_at="compute")
@dataclass(frozen=True, kw_only=True)
class Uniform(Baseline):
    """Gate probabilities towards one half (after DeepSloth, Hong et al. 2021)."""

    def goal(self, target: Target, images: Tensor, labels: Tensor) -> EvenGoal:
        return EvenGoal(self.aimed(target, images, labels))


@register("gates:ce", "baseline: PGD, or rand with draws=20", paper="Croce and Hein 2020", aims_at="compute")
@dataclass(frozen=True, kw_only=True)
class CrossEntropy(Baseline):
    """Cross-entropy with straight-through gates: plain PGD, and with ``draws=20`` AutoAttack's ``rand`` estimator."""

    estimator: Estimator = "straight-through"
    draws: int = 1

    def goal(self, target: Target, images: Tensor, labels: Tensor) -> LossGoal:
        return LossGoal(self.aimed(target, images, labels), labels)


@dataclass(frozen=True, kw_only=True)
class _Gradientless(Baseline):
    iterated: ClassVar[bool] = False

    def goal(self, target: Target, images: Tensor, labels: Tensor) -> Goal:
        return self.aimed(target, images, labels)

    def __call__(self, target: Target, images: Tensor, labels: Tensor, budgets: Sequence[float]) -> Tensor:
        require_gates(target, self.name)
        goal, estimator = self.goal(target, images, labels), resolve(self.estimator, target)
        clean = judge(target, images, goal, estimator)[0]
        found = []
        for budget in budgets:
            best = Best(images, clean)
            self.look(target, images, goal, budget, estimator, best)
            found.append(best.images)
        return torch.stack(found)

    @abstractmethod
    def look(self, target: Target, images: Tensor, goal: Goal, budget: float, estimator: Estimator, best: Best) -> None:
        """Offer candidates."""


@register("gates:dc-shift", "baseline: best constant colour", access="black-box", aims_at="compute")
@dataclass(frozen=True, kw_only=True)
class DCShift(_Gradientless):
    """The best constant colour shift of full size."""

    def look(self, target: Target, images: Tensor, goal: Goal, budget: float, estimator: Estimator, best: Best) -> None:
        colour_shift(target, images, goal, budget, replace(self.search(target), estimator=estimator), best)


@register("gates:sign-noise", "baseline: best random signs", access="black-box", aims_at="compute")
@dataclass(frozen=True, kw_only=True)
class SignNoise(_Gradientless):
    """The best of ``steps`` random sign (L2: Gaussian) perturbations of full size."""

    def look(self, target: Target, images: Tensor, goal: Goal, budget: float, estimator: Estimator, best: Best) -> None:
        for number in range(self.steps):
            if self.norm == "linf":
                unit = (uniform(target, images, number) - 0.5).sign()
            else:
                unit = direction(normal(target, images, number), "l2")
            moved = (images + budget * unit.to(images)).clamp(0, 1)
            best.offer(moved, judge(target, moved, goal, estimator)[0])


@register(
    "gates:square",
    "baseline: random squares",
    paper="Andriushchenko et al. 2020",
    access="black-box",
    aims_at="compute",
)
@dataclass(frozen=True, kw_only=True)
class Square(_Gradientless):
    """Random search on the metric with squares of one colour (after Andriushchenko et al. 2020); no gradient at all.

    Attributes:
        steps: queries.
    """

    iterated: ClassVar[bool] = True
    steps: int = 500

    def look(self, target: Target, images: Tensor, goal: Goal, budget: float, estimator: Estimator, best: Best) -> None:
        height, width = images.shape[2:]
        channels = images.shape[1]
        rows = torch.arange(height, device=images.device).view(1, 1, -1, 1)
        columns = torch.arange(width, device=images.device).view(1, 1, 1, -1)
        for number in range(self.steps):
            side = max(1, round((0.8 * (1 - number / self.steps) ** 2) ** 0.5 * min(height, width)))
            random = target.uniform(2 + channels, number).to(images)
            top, left = (
                per_image((random[:, axis] * (size - side + 1)).floor()) for axis, size in ((0, height), (1, width))
            )
            inside = (rows >= top) & (rows < top + side) & (columns >= left) & (columns < left + side)
            colour = (random[:, 2:] - 0.5).sign().view(-1, channels, 1, 1)
            size = budget if self.norm == "linf" else budget / (channels**0.5 * side)
            stamped = images + size * colour if self.norm == "linf" else best.images + size * colour
            moved = project(torch.where(inside, stamped, best.images), images, budget, self.norm)
            best.offer(moved, judge(target, moved, goal, estimator)[0])
