"""The one forward pass: defend, decide, run, and lay the draws out as (K, N, …).

Everything that looks at a model goes through here: the attacker's gradients, scoring, passes along other routes,
library attacks, the audit and the measurement after training.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor, nn

from robustbench_aig.contracts.defense import NO_DEFENSE, Defense
from robustbench_aig.contracts.gating import Gating
from robustbench_aig.contracts.network import is_dynamic, run, sampled
from robustbench_aig.contracts.noise import Stage, logistic, uniform
from robustbench_aig.contracts.policy import Gradient, Policy
from robustbench_aig.contracts.trace import Trace


class View(NamedTuple):
    """What a model says of N images in K draws.

    Attributes:
        logits: (K, N, classes).
        trace: margins, decisions (K, N, L); None for a plain model.
    """

    logits: Tensor
    trace: Trace | None

    def among(self, count: int, rows: Tensor) -> "View":
        """These images at ``rows`` (N,) of ``count``, the others being zeros."""
        return self._map(lambda part: part.new_zeros((len(part), count, *part.shape[2:])).index_copy(1, rows, part))

    def detach(self) -> "View":
        """The same without its autograd graph."""
        return self._map(Tensor.detach)

    def _map(self, change: Callable[[Tensor], Tensor]) -> "View":
        return View(change(self.logits), None if self.trace is None else self.trace.map(change))

    @staticmethod
    def join(views: Sequence["View"], along: int = 1) -> "View":
        """Views of the parts of a batch (1), or of several draws (0), as one."""
        if len(views) == 1:
            return views[0]

        def join(parts: list[Tensor]) -> Tensor:
            return torch.cat(parts, along)

        traces = [view.trace for view in views if view.trace is not None]
        return View(join([view.logits for view in views]), Trace.join(traces, join) if traces else None)


@dataclass(frozen=True)
class Draws:
    """Names the random numbers of K draws for N images; see :mod:`robustbench_aig.contracts.noise`.

    Attributes:
        seed: of the run.
        stage: what the draws are for.
        ids: (N,) image ids.
        numbers: (K,) of the draws.
        shared: for one id, how many images share its numbers.
    """

    seed: int
    stage: Stage
    ids: Tensor
    numbers: Sequence[int]
    shared: int = 1

    def one(self, number: int) -> "Draws":
        """One of the draws."""
        return replace(self, numbers=[number])

    def logistic(self, units: int) -> Tensor:
        """(K, N, L) logistic noise of L units, on the device of the ids."""
        noise = logistic(self.seed, self.stage, self.ids, units, self.numbers)
        return self._each(noise).to(self.ids.device)

    def of_defense(self, defense: Defense, images: Tensor) -> Tensor | None:
        """(K x N, slots) uniform numbers that a random defence consumes, draw-major; None for a deterministic one."""
        slots = defense.uniforms((images.shape[1], images.shape[2], images.shape[3]))
        if not slots:
            return None
        own: dict[Stage, Stage] = {"craft": "defend-craft", "select": "defend-select", "score": "defend-score"}
        numbers = uniform(self.seed, own.get(self.stage, "defend-craft"), self.ids, slots, self.numbers)
        return self._each(torch.from_numpy(numbers)).flatten(0, 1).to(images.device, torch.float32)

    def _each(self, noise: Tensor) -> Tensor:
        return noise if self.shared == 1 else noise.expand(-1, self.shared, -1)


def policy_of(model: nn.Module, gating: Gating, draws: Draws, gradient: Gradient = "none") -> Policy | None:
    """The policy of a gating for K stacked copies of the images (draw-major rows); None for a plain model."""
    if not is_dynamic(model) or gating.kind == "none":
        return None
    noise = draws.logistic(len(model.layout)).flatten(0, 1) if gating.stochastic else None
    return gating.policy(noise, gradient)


def shown(defense: Defense, images: Tensor, draws: Draws, surrogate: str | None = None) -> Tensor:
    """What reaches the model, (K x N, C, H, W), draw-major: through the defence, or a stand-in of it."""
    count = len(draws.numbers)
    copies = images.expand(count, *images.shape).flatten(0, 1) if count > 1 else images
    numbers = draws.of_defense(defense, copies)
    return defense(copies, numbers) if surrogate is None else defense.surrogate(surrogate, copies, numbers)


def forward(
    model: nn.Module,
    gating: Gating,
    images: Tensor,
    draws: Draws,
    *,
    defense: Defense = NO_DEFENSE,
    surrogate: str | None = None,
    policy: Policy | None = None,
    gradient: Gradient = "none",
) -> View:
    """All draws in one pass, differentiable where gradients are on.

    Args:
        model: in eval mode.
        gating: how it decides.
        images: (N, C, H, W) in [0, 1].
        draws: names the noise of gates and defence.
        defense: what stands before the model.
        surrogate: the stand-in of the defence to run in its place; None for the real one.
        policy: decides in place of the gating, for the draw-major stack of the draws.
        gradient: how hard decisions pass gradients.
    """
    seen = shown(defense, images, draws, surrogate)
    return stacked(model, seen, policy or policy_of(model, gating, draws, gradient), len(draws.numbers))


def stacked(model: nn.Module, seen: Tensor, policy: Policy | None, count: int) -> View:
    """The view (K, N, …) of what the model sees, (K x N, C, H, W), for K draws."""
    logits, trace = run(model, seen, policy)
    shape = (count, len(seen) // count, -1)
    return View(logits.view(shape), None if trace is None else trace.map(lambda part: part.view(shape)))


@torch.no_grad()
def forward_apart(
    model: nn.Module, gating: Gating, images: Tensor, draws: Draws, *, defense: Defense = NO_DEFENSE
) -> View:
    """Every draw on its own, at the lowest cost: draws of decisions alone share what is common to them.

    Arguments as in :func:`forward`; no gradients.
    """
    if not defense.deterministic:
        parts = [forward(model, gating, images, draws.one(number), defense=defense) for number in draws.numbers]
        return View.join(parts, along=0)
    seen = defense(images)
    if gating.stochastic and is_dynamic(model):
        return View(*sampled(model, seen, draws.logistic(len(model.layout))))
    return View.join([forward(model, gating, seen, draws.one(number)) for number in draws.numbers], along=0)
