"""What is tried on a few images before a sweep writes anything."""

import torch

from robustbench_aig.data.dataset import check_images
from robustbench_aig.errors import UsageError
from robustbench_aig.evaluation.plan import Settings
from robustbench_aig.evaluation.target import defense_noise
from robustbench_aig.models.classifier import check

IMAGES = 8


@torch.no_grad()
def preflight(settings: Settings) -> None:
    """Give a few images to every model and to every defence, and what a defence returns to the models.

    Raises:
        UsageError: a defence cannot take such images.
        UserError: the images, or a model's output, break the contract.
    """
    data = settings.dataset
    rows = torch.arange(min(IMAGES, len(data)))
    images, ids = data.images(rows), data.ids[rows]
    check_images(images)
    images = images.to(settings.device)
    seen = [images]
    for defense in settings.defenses:
        if defense is None:
            continue
        try:
            defended = defense(images, defense_noise(defense, 0, "select", ids, [0], images))
        except ValueError as error:
            raise UsageError(f"defense '{defense.name}' cannot take the images of '{data.name}': {error}.") from None
        if defended.shape != images.shape:
            seen.append(defended)
    for model in settings.models:
        for shown in seen:
            check(model, shown, len(data.classes))
