"""What is tried on a few images before a sweep writes anything."""

import torch

from robustbench_aig.contracts.forward import Draws, shown
from robustbench_aig.contracts.network import frozen
from robustbench_aig.contracts.target import Passes
from robustbench_aig.data.dataset import check_images
from robustbench_aig.engine.attackers import paths
from robustbench_aig.engine.plan import Settings, plan
from robustbench_aig.engine.sweep import reference_of
from robustbench_aig.errors import UsageError
from robustbench_aig.models.classifier import check

IMAGES = 8


def preflight(settings: Settings) -> None:
    """Give a few images to every model and defence, what a defence returns to the models, and every attack on gates
    the models that it would meet.

    Raises:
        UsageError: the grid makes no sense, a defence cannot take such images, or an attack does not suit a model.
        UserError: the images, or a model's output, break the contract.
    """
    _check_models(settings)
    _check_attacks(settings)


@torch.no_grad()
def _check_models(settings: Settings) -> None:
    data = settings.dataset
    rows = torch.arange(min(IMAGES, len(data)))
    images, ids = data.images(rows), data.ids[rows]
    check_images(images)
    images = images.to(settings.device)
    seen = [images]
    for defense in settings.defenses:
        try:
            defended = shown(defense, images, Draws(0, "select", ids, [0]))
        except ValueError as error:
            raise UsageError(f"defense '{defense.label}' cannot take the images of '{data.name}': {error}.") from None
        if defended.shape != images.shape:
            seen.append(defended)
    for model in settings.models:
        for seen_images in seen:
            check(model, seen_images, len(data.classes))


def _check_attacks(settings: Settings) -> None:
    data, device = settings.dataset, settings.device
    rows = torch.arange(min(IMAGES, len(data)))
    images, labels, ids = (part.to(device) for part in (data.images(rows), data.labels[rows], data.ids[rows]))
    seen = set()
    for cell in plan(settings):
        key = cell.model.name, cell.gating, None if cell.attack is None else cell.attack.label
        if cell.attack is None or not cell.attack.needs_gates or key in seen:
            continue
        seen.add(key)
        reference = None if cell.reference is None else reference_of(cell.reference, device)
        _, target = next(paths(cell, ids, Passes.none(len(ids), device), reference))
        with frozen(cell.model.network):
            cell.attack.check_target(target, images, labels)
