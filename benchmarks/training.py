"""Training steps: a gated network with straight-through gates and target loss, beside the plain one."""

from collections.abc import Callable

import torch
from torch import nn

from benchmarks.measure import Row, compare
from benchmarks.subject import Subject
from robustbench_aig.models.architectures import build
from robustbench_aig.registry import register
from robustbench_aig.training.loop import Feed, Trainer
from robustbench_aig.training.recipe import recipe

PLAIN, GATED = "resnet20", "aig20"
STEPS = 4


@register("training", "training steps of a gated network, beside the plain one")
def run(subject: Subject) -> list[Row]:
    """Steps on batches of 128 fresh images, augmentation and optimiser included; ratios are to the plain network."""
    settings = recipe("quick")
    rows = torch.arange(min(STEPS * settings.batch_size, len(subject.dataset)))
    feed = Feed(subject.dataset.take(rows), subject.device)
    classes = len(subject.dataset.classes)

    def epochs(architecture: str) -> Callable[[], None]:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            model: nn.Module = build(architecture, classes=classes, shortcut="projection")
        model = model.to(subject.device).to(memory_format=torch.channels_last)
        trainer = Trainer(model, settings, 0, subject.device)

        def epoch() -> None:
            trainer.epoch(feed, 0)

        return epoch

    contenders = {PLAIN: epochs(PLAIN), GATED: epochs(GATED)}
    case = f"{len(feed.data) // settings.batch_size} steps of {settings.batch_size} images"
    return compare("training", case, contenders, reference=PLAIN, repeats=subject.repeats, limits={GATED: 1.2})
