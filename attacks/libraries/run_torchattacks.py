"""Running an attack of torchattacks on a target."""

import inspect
import warnings
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from attacks.libraries import torchattacks as table
from attacks.libraries.adapter import Attackable, LibraryAttack, likeliest_wrong
from robustbench_aig.errors import UsageError

_NORMS = {"linf": "Linf", "l2": "L2", "l1": "L1"}

_CLASSES = 10
"""Targeted attacks try the likeliest 9 wrong classes, as the original AutoAttack does."""


@dataclass(frozen=True, kw_only=True)
class TorchattacksAttack(LibraryAttack):
    """``torchattacks:NAME``."""

    def check(self) -> None:
        """Find the parts of a MultiAttack.

        Raises:
            UsageError: there are fewer than two, or one cannot be used.
        """
        if self.request.entry != "MultiAttack":
            return
        parts = self._parts()
        if len(parts) < 2:
            raise UsageError(f"'{self.name}' needs two attacks or more, joined by +.")
        for part in parts:
            if part.request.capability.budget != "fixed" or part.request.entry == "MultiAttack":
                raise UsageError(f"'{self.name}' cannot hold '{part.request.entry}', which takes no budget.")

    @property
    def fewest_classes(self) -> int:
        entry, given = self.request.entry, dict(self.request.parameters)
        if entry == "MultiAttack":
            return max(part.fewest_classes for part in self._parts())
        return 3 if entry == "APGD" and given["loss"] == "dlr" else super().fewest_classes

    def _run(self, model: Attackable, images: Tensor, labels: Tensor, budget: float) -> Tensor:
        with warnings.catch_warnings():
            table.quiet()
            attack = self._build(model, images, budget)
            if "goal" in self.request.capability.needs:
                attack.set_mode_targeted_by_label(quiet=True)
                labels = likeliest_wrong(model, images, labels)
            found: Tensor = attack(images, labels)
        return found

    def _build(self, model: Attackable, images: Tensor, budget: float) -> Any:
        """The library's object."""
        library, entry, capability = table.load(), self.request.entry, self.request.capability
        cls = getattr(library, entry)
        if entry == "MultiAttack":
            return cls([part._build(model, images, budget) for part in self._parts()])
        signature = _defaults(cls)
        parameters = self._steps(budget, lambda name: signature[name])
        own = {name: value for name, value in parameters.items() if name in signature}
        if capability.epsilon in signature:
            own[capability.epsilon] = budget / images[0].numel() ** 0.5 if entry == "GN" else budget
        if "norm" in signature:
            own["norm"] = _NORMS[self.norm]
        if "seed" in signature:
            own["seed"] = torch.initial_seed()
        if "classes" in capability.needs:
            own["n_classes"] = min(_classes(model, images), _CLASSES)
        attack = cls(model, **own)
        if entry == "AutoAttack":
            for part in attack._autoattack.attacks:
                if hasattr(part, "steps"):
                    part.steps = parameters["steps"]
        return attack

    def _parts(self) -> "list[TorchattacksAttack]":
        listed = dict(self.request.parameters)["attacks"].split("+")
        made = [table.build(name.strip(), norm=self.norm) for name in listed]
        return [part for part in made if isinstance(part, TorchattacksAttack)]


def _classes(model: Attackable, images: Tensor) -> int:
    with torch.no_grad():
        return int(model(images[:1]).shape[1])


def _defaults(cls: Any) -> dict[str, Any]:
    return {name: parameter.default for name, parameter in inspect.signature(cls).parameters.items()}
