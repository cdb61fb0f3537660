"""The training loop: SGD on the joint loss of Eq. 11, resumable after every epoch, selected on held-out training
images."""

import json
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from robustbench_aig.contracts.forward import Draws, forward
from robustbench_aig.contracts.gating import Gating
from robustbench_aig.contracts.network import is_dynamic
from robustbench_aig.contracts.noise import logistic
from robustbench_aig.contracts.policy import Policy, Relaxed, Stochastic
from robustbench_aig.data.dataset import Dataset
from robustbench_aig.errors import UserError
from robustbench_aig.files import write_atomically
from robustbench_aig.models import checkpoints
from robustbench_aig.models.checkpoints import Card
from robustbench_aig.models.resnet import StochasticDepth
from robustbench_aig.training.augmentation import augment
from robustbench_aig.training.recipe import Recipe

STATE, HISTORY = "last.pt", "history.json"


@dataclass(frozen=True)
class Epoch:
    """One line of the training history.

    Attributes:
        epoch: counted from 1.
        lr: learning rate at its end.
        loss: mean joint loss.
        accuracy: on the augmented training images, in training mode.
        validation: accuracy on held-out training images (deterministic gates).
        rates: mean execution rate of each gate while training; empty without gates.
        seconds: wall time.
    """

    epoch: int
    lr: float
    loss: float
    accuracy: float
    validation: float
    rates: list[float]
    seconds: float


def target_loss(opened: Tensor, targets: Tensor) -> Tensor:
    """Eq. 10: the mean over gates of (mean over the batch of g_l - t_l) squared, for decisions (N, L) and targets
    (L,)."""
    return ((opened.mean(0) - targets) ** 2).mean()


def train(
    model: nn.Module,
    card: Card,
    data: Dataset,
    validation: Dataset,
    recipe: Recipe,
    folder: Path,
    *,
    device: torch.device,
    report: Callable[[Epoch], None] = lambda epoch: None,
) -> Card:
    """Train ``model`` into ``folder``; a run that was stopped goes on after its last whole epoch.

    Args:
        model: a freshly built network; it ends with the best epoch's weights.
        card: describes the network; architecture, data and seed must be set.
        data: training images.
        validation: held-out training images that choose the epoch to keep.
        recipe: all settings.
        folder: receives the checkpoint, ``history.json`` and, until the end, the resumable state.
        device: where to train.
        report: called after every epoch.

    Returns:
        The card as saved, with the history's best epoch.

    Raises:
        UserError: the folder holds another training run, or the loss is not finite.
    """
    card.recipe = asdict(recipe)
    job = json.loads(json.dumps({"card": asdict(card), "data": data.index_hash}))
    trainer = Trainer(model.to(device).to(memory_format=torch.channels_last), recipe, card.seed, device)
    history: list[Epoch] = []
    best = -1.0
    state_path = folder / STATE
    if state_path.exists():
        state = torch.load(state_path, map_location=device, weights_only=True)
        if state["job"] != job:
            raise UserError(
                f"{folder} holds another training run (model, data, recipe or seed differ); choose another folder."
            )
        trainer.restore(state["model"], state["optimizer"])
        history, best = [Epoch(**row) for row in state["history"]], state["best"]
    elif (folder / checkpoints.CARD).exists():
        raise UserError(f"{folder} holds a finished checkpoint; choose another folder, or remove it to train again.")
    feed = Feed(data, device)
    for number in range(len(history), recipe.epochs):
        started = time.monotonic()
        loss, accuracy, rates = trainer.epoch(feed, number)
        held_out = evaluate(model, validation, device=device)[0]
        row = Epoch(number + 1, recipe.rate(number + 1), loss, accuracy, held_out, rates, time.monotonic() - started)
        history.append(row)
        card.epochs = number + 1
        if held_out > best:
            best, card.best_epoch, card.accuracy["validation"] = held_out, number + 1, held_out
            checkpoints.save(folder, model, card)
        _save_state(state_path, job, trainer, history, best)
        report(row)
    best_model, kept = checkpoints.load(folder)
    model.load_state_dict(best_model.state_dict())
    kept.epochs = len(history)
    with write_atomically(folder / HISTORY) as temporary:
        temporary.write_text(json.dumps([asdict(row) for row in history], indent=1) + "\n")
    return kept


RESIDENT_BYTES = 4 << 30
"""Training images up to this size are kept on the GPU as a whole: CIFAR-10 takes 0.14 GB, Imagenette at 128 px 0.5."""


class Feed:
    """Gives the training loop its batches, as uint8 on the device.

    On a GPU the images are copied there once if they fit into ``RESIDENT_BYTES``, so that a step moves row numbers
    only; on the CPU, or where they do not fit, they are read batch by batch.

    Args:
        data: the images.
        device: where batches are wanted.
        resident: keep all images on the device; by default on a GPU where they fit.
    """

    def __init__(self, data: Dataset, device: torch.device, resident: bool | None = None) -> None:
        self.data, self.device = data, device
        self.labels = data.labels.to(device)
        self.pixels: Tensor | None = None
        if resident is None:
            resident = device.type == "cuda" and len(data) * math.prod(data.image_shape) <= RESIDENT_BYTES
        if resident:
            chunks = [data.uint8(rows).to(device) for rows in torch.arange(len(data)).split(1000)]
            self.pixels = torch.cat(chunks)

    def take(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Images (n, C, H, W) and labels (n,) of the rows (n,), which are on the CPU."""
        there = rows.to(self.device, non_blocking=True)
        pixels = self.data.uint8(rows).to(self.device) if self.pixels is None else self.pixels[there]
        return pixels, self.labels[there]


def _save_state(path: Path, job: dict[str, Any], trainer: "Trainer", history: list[Epoch], best: float) -> None:
    state = {
        "job": job,
        "model": trainer.model.state_dict(),
        "optimizer": trainer.optimizer.state_dict(),
        "history": [asdict(row) for row in history],
        "best": best,
    }
    with write_atomically(path) as temporary:
        torch.save(state, temporary)


class Trainer:
    """A model with its optimiser: what one epoch needs.

    Args:
        model: on ``device``.
        recipe: all settings.
        seed: of batches, augmentation and gate noise.
        device: where to train.
    """

    def __init__(self, model: nn.Module, recipe: Recipe, seed: int, device: torch.device) -> None:
        self.model, self.recipe, self.seed, self.device = model, recipe, seed, device
        self.optimizer = torch.optim.SGD(
            model.parameters(),
            lr=recipe.lr,
            momentum=recipe.momentum,
            nesterov=recipe.nesterov,
            weight_decay=recipe.weight_decay,
        )
        self.targets: Tensor | None = None
        if is_dynamic(model):
            self.targets = torch.tensor(recipe.targets(len(model.layout)), device=device)
        self.forward: Callable[..., tuple[Tensor, Tensor | None]] = self._forward
        if recipe.compile:
            self.forward = torch.compile(self._forward)

    def restore(self, model: dict[str, Tensor], optimizer: dict[str, Any]) -> None:
        self.model.load_state_dict(model)
        self.optimizer.load_state_dict(optimizer)

    def _forward(self, images: Tensor, noise: Tensor | None) -> tuple[Tensor, Tensor | None]:
        if noise is None or not is_dynamic(self.model):
            return self.model(images), None
        soft = self.recipe.gates == "soft"
        policy: Policy = (Relaxed if soft else Stochastic)(noise, temperature=self.recipe.temperature)
        logits, trace = self.model.traced(images, policy)
        return logits, trace.open

    def epoch(self, feed: Feed, number: int) -> tuple[float, float, list[float]]:
        """One pass over the training images: mean loss, accuracy and the execution rate of each gate."""
        data = feed.data
        self.model.train()
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + number)
        if isinstance(self.model, StochasticDepth):
            self.model.generator.manual_seed(self.seed * 1_000_003 + number)
        gates = 0 if self.targets is None else len(self.targets)
        totals = torch.zeros(2 + gates, dtype=torch.float64, device=self.device)
        order = torch.randperm(len(data), generator=generator)
        batches = order.split(self.recipe.batch_size)
        if len(batches) > 1 and len(batches[-1]) < self.recipe.batch_size:
            batches = batches[:-1]  # a short batch would weigh its images and its BatchNorm statistics more
        for step, rows in enumerate(batches):
            rate = self.recipe.rate(number + (step + 1) / len(batches))
            for group in self.optimizer.param_groups:
                group["lr"] = rate
            pixels, labels = feed.take(rows)
            images = augment(pixels, self.recipe, generator).to(torch.float32, memory_format=torch.channels_last) / 255
            noise = logistic(self.seed, "train", data.ids[rows], gates, [number])[0].to(self.device) if gates else None
            totals += self._step(images, labels, noise)
        seen = sum(len(rows) for rows in batches)
        loss, accuracy, *rates = (totals / seen).tolist()
        if loss != loss:
            raise UserError("the training loss became NaN; lower the learning rate or the batch size and train again.")
        return loss, accuracy, rates

    def _step(self, images: Tensor, labels: Tensor, noise: Tensor | None) -> Tensor:
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.recipe.bf16):
            logits, opened = self.forward(images, noise)
        logits = logits.float()
        loss = nn.functional.cross_entropy(logits, labels, label_smoothing=self.recipe.label_smoothing)
        if opened is not None and self.targets is not None:
            loss = loss + self.recipe.target_weight * target_loss(opened, self.targets)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        correct = (logits.detach().argmax(1) == labels).sum()
        sums = torch.stack([loss.detach().double() * len(labels), correct.double()])
        return sums if opened is None else torch.cat([sums, opened.detach().double().sum(0)])


def batches(rows: int, size: int) -> Iterator[Tensor]:
    """Row numbers 0 … rows - 1 in order, in chunks of ``size``."""
    return iter(torch.arange(rows).split(size))


@torch.no_grad()
def evaluate(
    model: nn.Module, data: Dataset, *, device: torch.device, stochastic_seed: int | None = None, batch_size: int = 500
) -> tuple[float, list[float]]:
    """Accuracy and mean execution rate of each gate (empty without gates) on ``data``, in eval mode.

    Args:
        model: the network.
        data: the images.
        device: where the network is.
        stochastic_seed: sample the gates once per image with this seed; None thresholds them at 0.5.
        batch_size: images per pass; the result does not depend on it.
    """
    model.eval()
    correct = 0
    units = len(model.layout) if is_dynamic(model) else 0
    opened = torch.zeros(units, dtype=torch.float64)
    gating = Gating("none" if not units else "deterministic" if stochastic_seed is None else "stochastic")
    for rows in batches(len(data), batch_size):
        images = data.images(rows).to(device, memory_format=torch.channels_last)
        view = forward(model, gating, images, Draws(stochastic_seed or 0, "score", data.ids[rows].to(device), [0]))
        if view.trace is not None:
            opened += view.trace.open[0].double().sum(0).cpu()
        correct += int((view.logits[0].argmax(1).cpu() == data.labels[rows]).sum())
    return correct / len(data), (opened / len(data)).tolist()
