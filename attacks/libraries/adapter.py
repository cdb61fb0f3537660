"""Between a library and a target: the model that a library is handed, and the call that contains its habits.

Libraries drop, repeat and reorder images, reseed global generators, flip training modes, write into outputs, and
believe their own success flags. What they get here is a module of its own that computes a fixed function of each image,
and nothing they say counts: what they return is limited to the budget here and judged elsewhere.
"""

import random
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from attacks.common.norms import per_image
from attacks.libraries.capability import Capability, Request
from robustbench_aig.contracts.attack import Attack
from robustbench_aig.contracts.forward import Draws, forward
from robustbench_aig.contracts.margin import finite
from robustbench_aig.contracts.network import frozen
from robustbench_aig.contracts.noise import uniform
from robustbench_aig.contracts.norms import size, tolerance
from robustbench_aig.contracts.target import Target
from robustbench_aig.errors import UsageError

_SHARED = -1
"""The image id that names the noise which all images of a call share; no image has it."""

_SEEDS = 1_000_003
"""A draw number of random starts, for the seeds of the libraries' own generators; no attack uses as many draws."""


class Attackable(nn.Module):
    """Logits (n, classes) of images (n, C, H, W) in [0, 1], as a library sees the target.

    Logits that are NaN or infinite are no success: a library sees the label of the nearest clean image in their place.
    Entries of gradients that are NaN or infinite become 0.

    A random target becomes a deterministic function of the image: the same K draws of gate and defence noise for every
    image and every call (common random numbers), reduced to the logarithm of the mean class probability. So a library
    may drop, repeat or reorder images, and its line searches and its own checks see no noise.

    The network is no submodule, so ``train``, ``eval`` and ``zero_grad`` of a library do not reach it.

    Args:
        target: what is attacked.
        images: (N, C, H, W) clean images of the call.
        labels: (N,).
        capability: of the attack; rows of logits are shifted as it needs, which changes no softmax and no margin. Where
            it looks for the smallest perturbation, its loss is 0 for images that are done, whose zero gradients then
            mean nothing.
    """

    def __init__(self, target: Target, images: Tensor, labels: Tensor, capability: Capability) -> None:
        super().__init__()
        self.anchor = nn.Parameter(torch.zeros((), device=images.device), requires_grad=False)
        self.target, self._capability = target, capability
        self._clean, self._labels = images, labels
        self._draws = range(target.draws if target.stochastic else 1)
        self._shared = torch.tensor([_SHARED], device=images.device)
        self._forwards = self._backwards = self._gradients = self._stalled = self._nonfinite = self._unclear = 0

    def forward(self, images: Tensor) -> Tensor:
        """A fresh tensor of logits at every call."""
        images = images.to(self.anchor.dtype, copy=True).contiguous()
        differentiable = torch.is_grad_enabled() and images.requires_grad
        if differentiable:  # libraries view gradients, and a network in channels_last has them in its own layout
            images.register_hook(Tensor.contiguous)
        logits = self._logits(images, differentiable)
        self._forwards += len(images) * len(self._draws)
        unclear = ~finite(logits)
        self._unclear += int(unclear.sum())
        if bool(unclear.any()):
            logits = torch.where(unclear[:, None], self._as_labelled(images, logits), logits)
        if "logits above 0" in self._capability.needs:
            logits = logits - logits.detach().amin(1, keepdim=True)
        elif "log probabilities" in self._capability.needs:
            logits = logits.log_softmax(1)
        if differentiable:
            self._watch(images, logits)
        return logits.clone()

    def settle(self) -> None:
        """Add the passes to the target's counters, spread evenly, since libraries do not tell images apart.

        What was NaN or infinite goes to the share of the images that it is of all gradients, or passes.
        """
        rows, passes = self.target.rows, self.target.passes
        for counter, total in (
            (passes.forwards, self._forwards),
            (passes.backwards, self._backwards),
            (passes.gradients, self._gradients),
            (passes.stalled, self._stalled),
        ):
            _spread(counter, rows, total)
        for counter, some, total in (
            (passes.nonfinite, self._nonfinite, self._gradients),
            (passes.unclear, self._unclear * len(self._draws), self._forwards),
        ):
            if some:
                _spread(counter, rows[: -(-some * len(rows) // total)], some)

    def _as_labelled(self, images: Tensor, logits: Tensor) -> Tensor:
        """Logits (n, classes) that name the label of the clean image nearest to each of the images."""
        nearest = torch.cdist(images.detach().nan_to_num().flatten(1), self._clean.flatten(1)).argmin(1)
        return torch.zeros_like(logits).scatter(1, self._labels[nearest, None], 1.0)

    def _logits(self, images: Tensor, differentiable: bool) -> Tensor:
        target = self.target
        draws = Draws(target.seed, target.gradient_stage, self._shared, self._draws, shared=len(images))
        view = forward(
            target.model,
            target.gating,
            images,
            draws,
            defense=target.defense,
            surrogate=target.surrogate if differentiable else None,
            gradient=target.gate_gradient if differentiable else "none",
        )
        count, logits = len(self._draws), view.logits
        return logits[0] if count == 1 else logits.log_softmax(-1).logsumexp(0) - float(np.log(count))

    def _watch(self, images: Tensor, logits: Tensor) -> None:
        """Count what the backward passes through this forward pass ask and get."""
        asked: list[Tensor] = []
        switching = self._capability.budget == "minimal"

        def entering(gradient: Tensor) -> Tensor:
            asked[:] = [(gradient != 0).any(1) | (not switching)]
            return gradient.nan_to_num(0.0, 0.0, 0.0)  # of the library's loss, which is no fault of the model

        def leaving(gradient: Tensor) -> Tensor:
            usable = gradient.nan_to_num(0.0, 0.0, 0.0)
            self._backwards += len(gradient) * len(self._draws)
            self._gradients += int(asked[0].sum())
            self._stalled += int((asked[0] & (usable.flatten(1) == 0).all(1)).sum())
            self._nonfinite += int((asked[0] & (~gradient.isfinite()).flatten(1).any(1)).sum())
            return usable

        if logits.requires_grad:
            logits.register_hook(entering)
            images.register_hook(leaving)


@dataclass(frozen=True, kw_only=True)
class LibraryAttack(Attack):
    """An attack of another library.

    Where the library aims at a budget, it runs once per budget, and what lies outside the ball is projected onto it.
    Where it looks for the smallest perturbation, it runs once, and at each budget what was found counts only where it
    lies within; elsewhere the clean image stands. Images that are not finite, or black, are handed on for the caller to
    see.

    Attributes:
        request: what was asked for.
        version: of the library.
    """

    follows_noise: ClassVar[bool] = False

    request: Request
    version: str

    def __post_init__(self) -> None:
        capability = self.request.capability
        object.__setattr__(self, "norm", self.request.norm)
        object.__setattr__(self, "name", self.request.name)
        kept = capability.clean_on_failure or capability.budget == "minimal"
        object.__setattr__(self, "clean_on_failure", kept)
        object.__setattr__(self, "iterated", capability.iterated and capability.access != "none")
        object.__setattr__(self, "aims_at", "nothing" if capability.control else "class")
        for fact in ("norms", "access", "budget"):
            object.__setattr__(self, fact, getattr(capability, fact))

    @property
    def fewest_classes(self) -> int:
        """The fewest classes that it can tell apart."""
        return self.request.capability.classes

    def check_target(self, target: Target, images: Tensor, labels: Tensor) -> None:
        channels = self.request.capability.channels
        if channels not in (None, images.shape[1]):
            raise UsageError(f"attack '{self.name}' takes images of {channels} channels, not {images.shape[1]}.")
        classes = target.view(images).logits.shape[-1]
        if classes < self.fewest_classes:
            raise UsageError(
                f"attack '{self.name}' needs {self.fewest_classes} classes or more, not {classes}; choose another."
            )

    def __call__(self, target: Target, images: Tensor, labels: Tensor, budgets: Sequence[float]) -> Tensor:
        capability = self.request.capability
        if target.fixed_noise or target.known is not None:
            raise UsageError(f"'{self.name}' cannot follow each image's own noise; use one of the suite's own attacks.")
        if not len(images):
            return images.expand(len(budgets), *images.shape)
        seed = _seed(target)
        with contained(target.model, seed):
            clean, wanted = images.detach().clone(memory_format=torch.contiguous_format), labels.clone()
            model = Attackable(target, clean, wanted, capability)
            try:
                if capability.budget == "minimal":
                    found = self._run(model, clean.clone(), wanted, 0.0).detach()
                    return torch.stack([self._within(found, clean, budget) for budget in budgets])
                runs = []
                for budget in budgets:
                    reseed(seed)
                    runs.append(self._project(self._run(model, clean.clone(), wanted, budget).detach(), clean, budget))
                return torch.stack(runs)
            finally:
                model.settle()

    @property
    def label(self) -> str:
        given = [f"{name}={value}" for name, value in self.request.given]
        return f"{self.name}:{','.join(given)}" if given else self.name

    def settings(self) -> dict[str, Any]:
        parameters = {
            name: list(value) if isinstance(value, tuple) else value for name, value in self.request.parameters
        }
        return {"name": self.name, "norm": self.norm, "version": self.version, "parameters": parameters}

    @abstractmethod
    def _run(self, model: Attackable, images: Tensor, labels: Tensor, budget: float) -> Tensor:
        """What the library makes of contiguous images (N, C, H, W), free to write to; without ``budget`` if minimal."""

    def _steps(self, budget: float, defaults: Callable[[str], float]) -> dict[str, Any]:
        """The parameters, with steps that were not set following the budget."""
        capability, parameters = self.request.capability, dict(self.request.parameters)
        for name in capability.steps:
            if parameters[name] is None:
                parameters[name] = defaults(name) * budget / defaults(capability.epsilon)
        return parameters

    def _within(self, found: Tensor, clean: Tensor, budget: float) -> Tensor:
        found = found.clamp(0, 1)
        most = budget + tolerance(self.norm, clean[0].numel())
        beyond = size(found - clean, self.norm) > most  # false for NaN, which is handed on
        return torch.where(per_image(beyond), clean, found)

    def _project(self, found: Tensor, clean: Tensor, budget: float) -> Tensor:
        found = found.clamp(0, 1)
        offset = found - clean
        sizes = size(offset, self.norm)
        shrunk = offset.clamp(-budget, budget) if self.norm == "linf" else offset * per_image(budget / sizes)
        most = budget + tolerance(self.norm, clean[0].numel())
        return torch.where(per_image(sizes > most), clean + shrunk, found)


def likeliest_wrong(model: Attackable, images: Tensor, labels: Tensor) -> Tensor:
    """(N,) the class other than the label that the clean image is most taken for."""
    with torch.no_grad():
        logits: Tensor = model(images)
    return logits.scatter(1, labels[:, None], -torch.inf).argmax(1)


def _spread(counter: Tensor, rows: Tensor, total: int) -> None:
    """Add a total to the counters of rows, evenly."""
    share, rest = divmod(total, len(rows))
    counter.index_add_(0, rows, share + (torch.arange(len(rows), device=rows.device) < rest).long())


def reseed(seed: int) -> None:
    """Seed every generator that a library may draw from."""
    torch.manual_seed(seed)
    np.random.seed(seed)
    random.seed(seed)


@contextmanager
def contained(model: nn.Module, seed: int) -> Iterator[None]:
    """Gradients on, generators seeded, and the model frozen inside; everything is as before afterwards."""
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    numbers, python = np.random.get_state(), random.getstate()
    try:
        with torch.random.fork_rng(devices), torch.inference_mode(False), torch.enable_grad(), frozen(model):
            reseed(seed)
            yield
    finally:
        np.random.set_state(numbers)
        random.setstate(python)


def _seed(target: Target) -> int:
    """A seed for the library's generators, from the run's seed and the first image of the batch."""
    return int(uniform(target.seed, "start", target.ids[:1], 1, [_SEEDS])[0, 0, 0] * 2**31)
