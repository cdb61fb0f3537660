"""What is tried on a few images before a sweep writes anything."""

import torch

from robustbench_aig.contracts.forward import Draws, shown
from robustbench_aig.contracts.network import frozen
from robustbench_aig.contracts.target import Passes
from robustbench_aig.data.dataset import check_images
from robustbench_aig.engine.attackers import paths
from robustbench_aig.engine.plan import Settings, plan
from robustbench_aig.engine.sweep import reference_of
from robustbench_aig.errors import UsageError, UserError, described, first_line
from robustbench_aig.models.classifier import check

IMAGES = 8

BATCHES = (IMAGES, 3, 1)
"""Images per pass that every model is tried on: attacks whose decided images leave end with one."""


def preflight(settings: Settings) -> None:
    """Give a few images to every model and defence, what a defence returns to the models, and every attack the models
    that it would meet.

    Raises:
        UsageError: the grid makes no sense, a defence cannot take such images, or an attack does not suit a model.
        UserError: the images, a defence or a model's output break the contract.
    """
    if len(settings.dataset.classes) < 2:
        raise UsageError(
            f"data set '{settings.dataset.name}' has one class, so there is no wrong one; give a folder with more."
        )
    plan(settings)
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
        except (ValueError, UserError) as error:
            reason = first_line(error).rstrip(".")
            raise UsageError(f"defense '{defense.label}' cannot take the images of '{data.name}': {reason}.") from None
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # whatever somebody else's defence raises
            raise UserError(
                f"defense '{defense.label}' fails on images of '{data.name}' ({described(error)}); "
                "mend it or leave it out."
            ) from error
        if defended.shape != images.shape:
            seen.append(defended)
    for model in settings.models:
        for part in seen:
            for count in sorted({min(count, len(part)) for count in BATCHES}, reverse=True):
                check(model, part[:count], len(data.classes))


def _check_attacks(settings: Settings) -> None:
    data, device = settings.dataset, settings.device
    rows = torch.arange(min(IMAGES, len(data)))
    images, labels, ids = (part.to(device) for part in (data.images(rows), data.labels[rows], data.ids[rows]))
    seen = set()
    for cell in plan(settings):
        key = cell.model.name, cell.gating, id(cell.attack)
        if cell.attack is None or key in seen:
            continue
        seen.add(key)
        layout = cell.model.memory_format
        reference = None if cell.reference is None else reference_of(cell.reference, device, layout)
        _, target = next(paths(cell, ids, Passes.none(len(ids), device), reference))
        try:
            with frozen(cell.model.network):
                cell.attack.check_target(target, images.contiguous(memory_format=layout), labels)
        except (UserError, KeyboardInterrupt):
            raise
        except BaseException as error:  # whatever somebody else's attack raises
            raise UserError(
                f"attack '{cell.attack.name}' cannot say whether it suits '{cell.model.name}' ({described(error)}); "
                "mend its check_target."
            ) from error
