"""The other libraries, on the same model, images, attack and steps: torchattacks, foolbox, and ART where installed."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn

from attacks.libraries import foolbox, torchattacks

REL_STEP = 0.1
"""Size of a PGD step as a share of the budget, for everybody."""

Crafting = Callable[[nn.Module, Tensor, Tensor, Sequence[float]], Sequence[Tensor]]
"""Model, images, labels and budgets to the perturbed images of each budget."""


@dataclass(frozen=True)
class Peer:
    """A library: FGSM, and PGD from the clean image by its number of steps, each as its users would run it."""

    fgsm: Crafting
    pgd: Callable[[int], Crafting]


def peers() -> dict[str, Peer]:
    """The libraries that are installed."""
    found = {"torchattacks": Peer(_torchattacks_fgsm, _torchattacks_pgd), "foolbox": Peer(_foolbox_fgsm, _foolbox_pgd)}
    if find_spec("art"):
        found["ART"] = Peer(_art_fgsm, _art_pgd)
    return found


def fooled(
    craft: Crafting, model: nn.Module, images: Tensor, labels: Tensor, budgets: Sequence[float]
) -> Callable[[], Tensor]:
    """A contender: attack, then classify what came back; (E, N) bool."""

    def answer() -> Tensor:
        crafted = craft(model, images, labels, budgets)
        with torch.no_grad():
            return torch.stack([model(batch).argmax(1) != labels for batch in crafted]).cpu()

    return answer


def _torchattacks_fgsm(model: nn.Module, images: Tensor, labels: Tensor, budgets: Sequence[float]) -> list[Tensor]:
    return [torchattacks.load().FGSM(model, eps=budget)(images, labels) for budget in budgets]


def _torchattacks_pgd(steps: int) -> Crafting:
    def craft(model: nn.Module, images: Tensor, labels: Tensor, budgets: Sequence[float]) -> list[Tensor]:
        library = torchattacks.load()
        made = [library.PGD(model, eps=b, alpha=REL_STEP * b, steps=steps, random_start=False) for b in budgets]
        return [attack(images, labels) for attack in made]

    return craft


def _foolbox(attack: Any, model: nn.Module, images: Tensor, labels: Tensor, budgets: Sequence[float]) -> list[Tensor]:
    wrapped = foolbox.load().PyTorchModel(model, bounds=(0, 1), device=images.device)
    _, clipped, _ = attack(wrapped, images, labels, epsilons=list(budgets))
    return list(clipped)


def _foolbox_fgsm(model: nn.Module, images: Tensor, labels: Tensor, budgets: Sequence[float]) -> list[Tensor]:
    return _foolbox(foolbox.load().attacks.LinfFastGradientAttack(), model, images, labels, budgets)


def _foolbox_pgd(steps: int) -> Crafting:
    def craft(model: nn.Module, images: Tensor, labels: Tensor, budgets: Sequence[float]) -> list[Tensor]:
        attack = foolbox.load().attacks.LinfPGD(rel_stepsize=REL_STEP, steps=steps, random_start=False)
        return _foolbox(attack, model, images, labels, budgets)

    return craft


def _art(model: nn.Module, images: Tensor) -> Any:
    with torch.no_grad():
        classes = model(images[:1]).shape[1]
    shape = tuple(images.shape[1:])
    kind = import_module("art.estimators.classification").PyTorchClassifier
    return kind(model, nn.CrossEntropyLoss(), shape, classes, clip_values=(0.0, 1.0), device_type=images.device.type)


def _art_run(attack: Any, images: Tensor, labels: Tensor) -> Tensor:
    found = attack.generate(images.cpu().numpy(), labels.cpu().numpy())
    return torch.from_numpy(found).to(images.device)


def _art_fgsm(model: nn.Module, images: Tensor, labels: Tensor, budgets: Sequence[float]) -> list[Tensor]:
    kind, estimator = import_module("art.attacks.evasion").FastGradientMethod, _art(model, images)
    return [_art_run(kind(estimator, eps=b, batch_size=len(images)), images, labels) for b in budgets]


def _art_pgd(steps: int) -> Crafting:
    def craft(model: nn.Module, images: Tensor, labels: Tensor, budgets: Sequence[float]) -> list[Tensor]:
        kind, estimator = import_module("art.attacks.evasion").ProjectedGradientDescent, _art(model, images)
        more = {"max_iter": steps, "batch_size": len(images), "verbose": False}
        made = [kind(estimator, eps=b, eps_step=REL_STEP * b, **more) for b in budgets]
        return [_art_run(attack, images, labels) for attack in made]

    return craft
