"""The target: a classifier as an attacker sees it.

An attack gets one target per batch. The target knows the model, how its gates decide, which defence stands before it
and what the attacker differentiates in its place, and it counts the passes that the attack spends on every image.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from robustbench_aig.contracts.defense import NO_DEFENSE, Defense
from robustbench_aig.contracts.forward import Draws, View, forward, shown
from robustbench_aig.contracts.gating import Gating
from robustbench_aig.contracts.margin import finite, margin
from robustbench_aig.contracts.network import is_dynamic
from robustbench_aig.contracts.noise import Stage, uniform
from robustbench_aig.contracts.parts import even
from robustbench_aig.contracts.policy import Gradient, Policy
from robustbench_aig.contracts.units import Layout

Objective = Callable[[View], Tensor]
"""Maps a view to one value per image, (N,), that the attacker wants large."""


def mean_margin(view: View, labels: Tensor) -> Tensor:
    """(N,) mean margin of a view over its draws: a loss that, unlike cross-entropy, does not saturate."""
    return margin(view.logits, labels).mean(0)


@dataclass
class Passes:
    """What an attack spent on each image of the batch: (N,) int64 tensors.

    Attributes:
        forwards: forward passes.
        backwards: backward passes.
        gradients: gradients asked for (one averages over all draws).
        stalled: how many of them were zero in every pixel, so that they said nothing.
        nonfinite: how many of them had a NaN or infinite entry; attacks see 0 in its place.
        unclear: passes in some draw of which logits were NaN or infinite.
    """

    forwards: Tensor
    backwards: Tensor
    gradients: Tensor
    stalled: Tensor
    nonfinite: Tensor
    unclear: Tensor

    @classmethod
    def none(cls, images: int, device: torch.device | None = None) -> "Passes":
        """Counters at zero."""
        return cls(*(torch.zeros(images, dtype=torch.int64, device=device) for _ in range(6)))


@dataclass(frozen=True)
class Reference:
    """Images to learn from that are not attacked: for universal perturbations and class prototypes.

    Attributes:
        images: (M, C, H, W) in [0, 1].
        labels: (M,).
        ids: (M,).
        classes: their names; empty where unknown.
        memory: what was learnt from them, by the settings that it depends on, so that every batch finds it.
    """

    images: Tensor
    labels: Tensor
    ids: Tensor
    classes: tuple[str, ...] = ()
    memory: dict[Any, Any] = field(default_factory=dict, compare=False)


@dataclass(frozen=True)
class Target:
    """A classifier as the attacker sees it, for one batch of N images.

    Attributes:
        model: the network, in eval mode, on the images' device.
        gating: how it decides.
        ids: (N,) image ids on the images' device; they name the gate noise.
        rows: (N,) positions of these images in ``passes``.
        passes: counters of the whole batch, shared by every subset.
        seed: of all noise.
        draws: K, the gate (and defence) draws that one gradient averages over: 1 is the paper's attacker, more is EOT.
        gate_gradient: how hard gate decisions pass gradients.
        defense: what stands before the model, ``NO_DEFENSE`` where the attacker does not know of it.
        surrogate: which stand-in of the defence is differentiated; None if the defence itself can be.
        gradient_stage: the stream that gradients draw from.
        fixed_noise: draw numbers stay the same at every step (common random numbers).
        half: gradients are taken in bfloat16. Their own forward pass then says nothing for sure of an image.
        known: the scoring draw whose numbers the attacker knows: all passes use them, so nothing is random to him.
        transfer: the images will be scored on something else, so that fooling this target decides nothing.
        reference: images to learn from, for the attacks that need some.
        at_once: images times draws that go through the network together; None for all. So a batch may be larger than
            what fits, and its passes stay full while images leave it.
    """

    model: nn.Module
    gating: Gating
    ids: Tensor
    rows: Tensor
    passes: Passes
    seed: int
    draws: int = 1
    gate_gradient: Gradient = "straight-through"
    defense: Defense = NO_DEFENSE
    surrogate: str | None = None
    fixed_noise: bool = False
    gradient_stage: Stage = "craft"
    transfer: bool = False
    reference: Reference | None = None
    known: int | None = None
    half: bool = False
    at_once: int | None = None

    @property
    def layout(self) -> Layout | None:
        """The decisions of a dynamic network; None for a plain one."""
        return self.model.layout if is_dynamic(self.model) else None

    @property
    def stochastic(self) -> bool:
        """Whether two forward passes of an image can differ."""
        random = self.gating.stochastic or not self.defense.deterministic
        return random and self.known is None

    @property
    def exact(self) -> bool:
        """Whether the forward pass of a gradient is already the verdict: no randomness, and the real defence runs in
        it."""
        return not self.stochastic and self.surrogate != "end-to-end"

    @property
    def full(self) -> "Target":
        """The same with gradients in float32."""
        return replace(self, half=False) if self.half else self

    def take(self, index: Tensor) -> "Target":
        """The target for a subset of the batch; passes still count towards the whole."""
        return replace(self, ids=self.ids[index], rows=self.rows[index.to(self.rows.device)])

    def gradient(
        self, images: Tensor, objective: Objective, step: int = 0, policy: Policy | None = None
    ) -> tuple[Tensor, Tensor, View]:
        """Value and input gradient of an objective, averaged over this target's draws as the objective says.

        Args:
            images: (N, C, H, W) in [0, 1].
            objective: from the (K, N, …) view to (N,).
            step: the attack's step number; each step sees fresh noise unless ``fixed_noise``.
            policy: decides in place of the gating, for the draw-major stack of this step's draws.

        Returns:
            values (N,), gradient (N, C, H, W) and the detached view that they come from.

        Raises:
            RuntimeError: no gradient reaches the images (torch's own message).
        """
        draws = self.draw_numbers(step)
        found = [
            part._gradient(own, objective if rows is None else _own(objective, len(images), rows), draws, policy)
            for rows, part, own in self._parts(images, len(draws), policy)
        ]
        values, gradients, views = zip(*found, strict=True)
        return _joined(values), _joined(gradients), View.join(views)

    def _gradient(
        self, images: Tensor, objective: Objective, draws: list[int], policy: Policy | None
    ) -> tuple[Tensor, Tensor, View]:
        seen: list[View] = []

        def function(inputs: Tensor) -> Tensor:
            with torch.autocast(inputs.device.type, torch.bfloat16, enabled=self.half):
                view = forward(
                    self.model,
                    self.gating,
                    inputs,
                    self.named(self.gradient_stage, draws),
                    defense=self.defense,
                    surrogate=self.surrogate,
                    policy=policy,
                    gradient=self.gate_gradient,
                )
            seen.append(View(view.logits.float(), view.trace) if self.half else view)
            return objective(seen[0])

        values, gradient = self.differentiate(images, function)
        self.spend(len(draws), len(draws))
        return values, gradient, self._watched(seen[0].detach())

    def _parts(
        self, images: Tensor, draws: int, policy: Policy | None
    ) -> Iterator[tuple[Tensor | None, "Target", Tensor]]:
        """Rows, target and images of the parts, of nearly equal size, that a batch goes through the network in; no rows
        where that is all of them. A policy decides for the batch as it is."""
        size = len(images) if self.at_once is None or policy is not None else max(1, self.at_once // draws)
        if len(images) <= size:
            yield None, self, images
            return
        every = torch.arange(len(images), device=images.device)
        for part in even(len(images), size):
            yield every[part], self.take(every[part]), images[part]

    def differentiate(self, images: Tensor, function: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
        """Values (N,) and input gradient of any function of the images; counts a gradient, but no passes.

        Entries of the gradient that are NaN or infinite are counted and become 0, so that steps ignore them.

        Raises:
            RuntimeError: no gradient reaches the images (torch's own message).
        """
        with torch.enable_grad():
            inputs = images.detach().clone().requires_grad_()
            values = function(inputs)
            (gradient,) = torch.autograd.grad(values.sum(), inputs)
        self._count(self.passes.gradients, 1)
        self.passes.nonfinite.index_add_(0, self.rows, (~gradient.isfinite()).flatten(1).any(1).long())
        gradient = gradient.nan_to_num(0.0, 0.0, 0.0)
        self.passes.stalled.index_add_(0, self.rows, (gradient.flatten(1) == 0).all(1).long())
        return values.detach(), gradient

    def spend(self, forwards: int | Tensor, backwards: int | Tensor = 0) -> None:
        """Count passes: of every image, or (N,) of each."""
        self._count(self.passes.forwards, forwards)
        self._count(self.passes.backwards, backwards)

    def draw_numbers(self, step: int) -> list[int]:
        """The draws that the gradient of a step averages over."""
        count = self.draws if self.stochastic else 1
        step = 0 if self.fixed_noise else step
        return list(range(step * count, (step + 1) * count))

    def seen(self, images: Tensor, draws: list[int], stage: Stage, *, differentiable: bool) -> Tensor:
        """What reaches the model, (K x N, C, H, W), draw-major: through the defence or its differentiated stand-in."""
        return shown(self.defense, images, self.named(stage, draws), self.surrogate if differentiable else None)

    @torch.no_grad()
    def view(
        self,
        images: Tensor,
        stage: Stage = "select",
        draws: Sequence[int] | None = None,
        policy: Policy | None = None,
    ) -> View:
        """What the model says of images, without gradients and through the real defence if the attacker knows it.

        Args:
            images: (N, C, H, W).
            stage: which stream of noise.
            draws: draw numbers; by default as many as the gradient uses, or one where nothing is random.
            policy: decides in place of the gating, for the draw-major stack of the draws.
        """
        numbers = list(range(self.draws)) if draws is None else list(draws)
        if not self.stochastic:
            numbers = numbers[:1]
        found = [
            forward(part.model, self.gating, own, part.named(stage, numbers), defense=self.defense, policy=policy)
            for _, part, own in self._parts(images, len(numbers), policy)
        ]
        self.spend(len(numbers))
        return self._watched(View.join(found))

    def uniform(self, slots: int, draw: int) -> Tensor:
        """(N, slots) uniform numbers in (0, 1) for random starts and directions, by image id."""
        numbers = uniform(self.seed, "start", self.ids, slots, [draw])[0]
        return torch.from_numpy(numbers).to(self.ids.device, torch.float32)

    def named(self, stage: Stage, draws: Sequence[int]) -> Draws:
        """The random numbers of the draws; a known draw of scoring stands for all."""
        if self.known is not None:
            return Draws(self.seed, "score", self.ids, [self.known] * len(draws))
        return Draws(self.seed, stage, self.ids, draws)

    def _watched(self, view: View) -> View:
        """The view, once its logits that are NaN or infinite are counted."""
        self._count(self.passes.unclear, (~finite(view.logits)).any(0).long())
        return view

    def _count(self, counter: Tensor, passes: int | Tensor) -> None:
        counter.index_add_(0, self.rows, torch.zeros_like(self.rows) + passes)


def _joined(parts: Sequence[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(list(parts))


def _own(objective: Objective, count: int, rows: Tensor) -> Objective:
    """An objective of ``count`` images, for the images ``rows`` alone."""
    return lambda view: objective(view.among(count, rows))[rows]
