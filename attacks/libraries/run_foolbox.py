"""Running an attack of foolbox on a target."""

import inspect
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from attacks.libraries import foolbox as table
from attacks.libraries.adapter import Attackable, LibraryAttack, likeliest_wrong
from robustbench_aig.contracts.margin import wrong
from robustbench_aig.errors import UsageError

_NOISES = 8
"""Noise images that are tried as starts."""

_NEIGHBOURS = 8
"""Other images of the batch that are tried as starts."""

_STARTS = 2_000_003
"""A draw number of random starts, for noise images; no attack uses as many draws."""


@dataclass(frozen=True, kw_only=True)
class FoolboxAttack(LibraryAttack):
    """``foolbox:NAME``."""

    def check(self) -> None:
        """Build the library's object once.

        Raises:
            UsageError: the library refuses the parameters.
        """
        try:
            self._build()
        except (ValueError, TypeError, AssertionError) as error:
            raise UsageError(
                f"'{self.name}' does not accept these parameters: {error or 'assertion failed'}."
            ) from None

    def _build(self) -> Any:
        """The library's object."""
        library = table.load()
        cls = getattr(library.attacks, self.request.entry)
        parameters = dict(self.request.parameters)
        signature = inspect.signature(cls).parameters
        if "distance" in signature:
            parameters["distance"] = getattr(library.distances, self.norm)
        if "constraint" in signature:
            parameters["constraint"] = self.norm
        return cls(**parameters)

    def _run(self, model: Attackable, images: Tensor, labels: Tensor, budget: float) -> Tensor:
        library, attack, needs = table.load(), self._build(), self.request.capability.needs
        wrapped = library.PyTorchModel(model.eval(), bounds=(0, 1), device=images.device)
        more: dict[str, Any] = {} if self.request.capability.budget == "minimal" else {"epsilon": budget}
        if "feed" in needs:
            attack.feed(wrapped, images)
        criterion = library.Misclassification(labels)
        if "goal" in needs:
            criterion = library.TargetedMisclassification(likeliest_wrong(model, images, labels))
        with warnings.catch_warnings():
            table.quiet()
            if "start" in needs:
                return _from_starts(attack, wrapped, model, images, labels)
            found: Tensor = attack.run(wrapped, images, criterion, **more)
        return found


def _from_starts(attack: Any, wrapped: Any, model: Attackable, images: Tensor, labels: Tensor) -> Tensor:
    """Attack the images that are classified correctly and have a misclassified start; the others stay."""
    with torch.no_grad():
        starts = images.clone()
        found = wrong(model(images), labels)
        open_ = ~found
        for candidates in _candidates(model, images):
            if found.all():
                break
            fresh = ~found & wrong(model(candidates), labels)
            starts[fresh] = candidates[fresh]
            found |= fresh
        rows = (open_ & found).nonzero()[:, 0]
        if len(rows):  # a start that only just fools may not in a smaller batch, whose sums are rounded differently
            rows = rows[wrong(model(starts[rows]), labels[rows])]
    result = images.clone()
    if len(rows):
        result[rows] = attack.run(wrapped, images[rows], labels[rows], starting_points=starts[rows])
    return result


def _candidates(model: Attackable, images: Tensor) -> Iterator[Tensor]:
    """Images (N, C, H, W) that may be misclassified: noise of many or two values, flat ones, negatives, neighbours."""
    size = images[0].numel()
    for draw in range(_NOISES):
        noise = model.target.uniform(size, _STARTS + draw).view_as(images)
        yield noise if draw % 2 else noise.round()
    for value in (0.5, 0.0, 1.0):
        yield torch.full_like(images, value)
    yield 1 - images
    for shift in range(1, min(len(images), _NEIGHBOURS + 1)):
        yield images.roll(shift, 0)
