"""Train a network by name into a checkpoint with a complete card."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from robustbench_aig.contracts.network import is_dynamic
from robustbench_aig.data.dataset import Dataset
from robustbench_aig.data.splits import limited
from robustbench_aig.errors import UsageError
from robustbench_aig.files import ensure_folder
from robustbench_aig.models import checkpoints
from robustbench_aig.models.architectures import architecture as find_architecture
from robustbench_aig.models.checkpoints import Card
from robustbench_aig.models.resnet import CIFAR10_NORM, IMAGENET_NORM
from robustbench_aig.provenance import environment
from robustbench_aig.training.loop import STATE, Epoch, evaluate, train, under_attack
from robustbench_aig.training.recipe import Recipe

TESTED, TEST_STEPS = 1000, 20
"""Test images and steps of PGD by which the card of an adversarially trained network says how robust it is."""

NORMS = {"cifar10": CIFAR10_NORM, "digits": ((0.3053,), (0.3769,))}


def train_model(
    architecture: str,
    splits: Callable[[str], Dataset],
    recipe: Recipe,
    out: Path,
    *,
    seed: int = 0,
    device: torch.device,
    shortcut: str | None = None,
    init: Path | None = None,
    report: Callable[[Epoch], None] = lambda epoch: None,
) -> Card:
    """Train, keep the best epoch on held-out training images, measure it once on the test images, complete its card.

    Args:
        architecture: as in ``list models``.
        splits: loads a split of the data set: ``train``, ``validation`` and ``test`` are asked for.
        recipe: all settings.
        out: the checkpoint's folder; the same call resumes a run that was stopped and leaves a finished one alone.
        seed: of everything random.
        device: where to train.
        shortcut: of CIFAR networks: ``projection`` or ``A``.
        init: a checkpoint of the same architecture to start from in place of fresh weights.
        report: called after every epoch.

    Raises:
        UsageError: unknown architecture, or a recipe that does not fit it.
        UserError: the folder holds another run.
    """
    find_architecture(architecture)
    data, validation = splits("train"), splits("validation")
    if data.index_hash == splits("test").index_hash:
        raise UsageError(f"data set '{data.name}' has no training images of its own; train on another.")
    norm = NORMS.get(data.name, IMAGENET_NORM)
    options: dict[str, Any] = {"norm": [list(part) for part in norm]}
    if shortcut is not None:
        options["shortcut"] = shortcut
    card = Card(architecture, list(data.classes), data.image_shape, options, dataset=data.name, seed=seed)
    finished = _finished(out, card, recipe)
    if finished is not None:
        return finished
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = card.build()
    if init is not None:
        start, origin = checkpoints.load(init)
        checkpoints.fill(model, start.state_dict(), str(init))
        card.init = {
            "weights_sha256": origin.weights_sha256,
            "epochs": origin.epochs,
            "recipe": origin.recipe,
            "init": origin.init,
        }
    if is_dynamic(model):
        recipe.targets(len(model.layout))
    ensure_folder(out)
    card = train(model, card, data, validation, recipe, out, device=device, report=report)
    return complete(model, card, splits("test"), out, device)


def epoch_line(epoch: Epoch, recipe: Recipe) -> str:
    """One epoch in a line: what was learnt, and how often each gate executed its block."""
    parts = [
        f"epoch {epoch.epoch:{len(str(recipe.epochs))}}/{recipe.epochs}",
        f"lr {epoch.lr:.4f}",
        f"loss {epoch.loss:.3f}",
        f"train {epoch.accuracy:.1%}",
        f"validation {epoch.validation:.1%}",
    ]
    if epoch.fgsm is not None and epoch.pgd is not None:
        parts.append(f"fgsm {epoch.fgsm:.1%}  pgd {epoch.pgd:.1%}")
    if epoch.rates:
        mean = sum(epoch.rates) / len(epoch.rates)
        parts.append(f"gates {mean:.2f} ({' '.join(f'{rate:.2f}' for rate in epoch.rates)})")
    return "  ".join([*parts, f"{epoch.seconds:.1f} s"])


def overfitting_line(epoch: Epoch) -> str:
    """A warning for an epoch that overfitted catastrophically to its own attack."""
    return (
        f"warning: catastrophic overfitting in epoch {epoch.epoch} (accuracy under FGSM {epoch.fgsm:.1%}, under PGD "
        f"{epoch.pgd:.1%}); it will not be kept."
    )


def _finished(out: Path, card: Card, recipe: Recipe) -> Card | None:
    """The card of the checkpoint in ``out`` if it is the finished result of just this training."""
    if not (out / checkpoints.CARD).exists() or (out / STATE).exists():
        return None
    kept = checkpoints.load(out)[1]
    later = {field.name: field.default for field in dataclasses.fields(Recipe)[1:]}  # settings that an older card lacks
    kept.recipe = {**later, **kept.recipe}
    wanted = json.loads(json.dumps({**dataclasses.asdict(card), "recipe": dataclasses.asdict(recipe)}))
    there = json.loads(json.dumps(dataclasses.asdict(kept)))
    settled = ("architecture", "options", "classes", "image_shape", "dataset", "recipe", "seed")
    return kept if all(there[key] == wanted[key] for key in settled) else None


def complete(model: torch.nn.Module, card: Card, test: Dataset, out: Path, device: torch.device) -> Card:
    """Measure a trained network on the test images, write its final card and drop the resumable state.

    After adversarial training ``card.accuracy["test_pgd20"]`` is the accuracy on ``TESTED`` test images under PGD with
    the recipe's epsilon.
    """
    gated = find_architecture(card.architecture).dynamic
    for name, seed in (("deterministic", None), ("stochastic", card.seed)) if gated else (("plain", None),):
        accuracy, rates = evaluate(model, test, device=device, stochastic_seed=seed)
        card.accuracy["test_stochastic" if name == "stochastic" else "test"] = accuracy
        if gated:
            card.rates[name] = rates
            card.execution_rate[name] = sum(rates) / len(rates)
    if card.recipe.get("adversary", "none") != "none":
        some, eps = limited(test, TESTED, 0), Recipe(**card.recipe).radius
        robust = under_attack(model, some, eps, TEST_STEPS, device=device, seed=card.seed)
        card.accuracy[f"test_pgd{TEST_STEPS}"] = robust
    card.provenance = environment(device)
    checkpoints.save(out, model, card)
    (out / STATE).unlink(missing_ok=True)
    return dataclasses.replace(card)
