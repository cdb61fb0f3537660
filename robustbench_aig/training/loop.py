"""The training loop: SGD on the joint loss of Eq. 11 of clean or perturbed images, resumable after every epoch,
selected on held-out training images."""

import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from robustbench_aig.contracts.forward import Draws, forward
from robustbench_aig.contracts.gating import Gating
from robustbench_aig.contracts.margin import right
from robustbench_aig.contracts.network import DynamicNetwork, Lesson, is_dynamic
from robustbench_aig.contracts.noise import Stage, logistic
from robustbench_aig.contracts.policy import Policy, Relaxed, Stochastic
from robustbench_aig.data.dataset import Dataset
from robustbench_aig.data.splits import limited
from robustbench_aig.errors import UserError
from robustbench_aig.files import write_atomically
from robustbench_aig.models import checkpoints
from robustbench_aig.models.checkpoints import Card
from robustbench_aig.models.resnet import StochasticDepth
from robustbench_aig.training.adversarial import divergence, inner_pass, n_fgsm, overfits, pgd, trades
from robustbench_aig.training.augmentation import augment
from robustbench_aig.training.averaging import Average
from robustbench_aig.training.recipe import Recipe

STATE, HISTORY = "last.pt", "history.json"
PROBED, PROBE_STEPS = 512, 10
"""Held-out images and steps of PGD by which adversarial training is watched after every epoch."""


@dataclass(frozen=True)
class Epoch:
    """One line of the training history.

    Attributes:
        epoch: counted from 1.
        lr: learning rate at its end.
        loss: mean joint loss.
        accuracy: on the augmented (and perturbed) training images, in training mode.
        validation: accuracy on held-out training images (deterministic gates).
        rates: mean execution rate of each gate while training; empty without gates.
        seconds: wall time.
        fgsm: accuracy under FGSM on ``PROBED`` held-out images (deterministic gates); None without an adversary.
        pgd: the same under PGD of ``PROBE_STEPS`` steps.
        overfitted: whether these two show catastrophic overfitting, so that the epoch cannot be kept.
    """

    epoch: int
    lr: float
    loss: float
    accuracy: float
    validation: float
    rates: list[float]
    seconds: float
    fgsm: float | None = None
    pgd: float | None = None
    overfitted: bool = False

    @property
    def merit(self) -> float:
        """What the epoch to keep is chosen by: accuracy on held-out images, perturbed if the training images are."""
        return self.validation if self.pgd is None else -1.0 if self.overfitted else self.pgd


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
        UserError: the folder holds another training run, the loss is not finite, or every epoch overfitted
            catastrophically.
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
        trainer.restore(state)
        history, best = [Epoch(**row) for row in state["history"]], state["best"]
    elif (folder / checkpoints.CARD).exists():
        raise UserError(f"{folder} holds a finished checkpoint; choose another folder, or remove it to train again.")
    feed = Feed(data, device)
    probe = limited(validation, PROBED, 0) if recipe.adversarial else None
    for number in range(len(history), recipe.epochs):
        started = time.monotonic()
        loss, accuracy, rates = trainer.epoch(feed, number)
        kept = trainer.kept
        held_out, fgsm, pgd = evaluate(kept, validation, device=device)[0], None, None
        if probe is not None:
            fgsm, pgd = trainer.probe(probe)
        caught = (
            pgd is not None
            and fgsm is not None
            and overfits(fgsm, pgd, [row.pgd or 0.0 for row in history], 1 / len(data.classes))
        )
        seconds = time.monotonic() - started
        row = Epoch(
            number + 1, recipe.rate(number + 1), loss, accuracy, held_out, rates, seconds, fgsm, pgd, overfitted=caught
        )
        history.append(row)
        card.epochs = number + 1
        if row.merit > best:
            best, card.best_epoch, card.accuracy["validation"] = row.merit, number + 1, held_out
            if pgd is not None:
                card.accuracy[f"validation_pgd{PROBE_STEPS}"] = pgd
            checkpoints.save(folder, kept, card)
        _save_state(state_path, job, trainer, history, best)
        report(row)
    if best < 0:
        raise UserError(f"every epoch in {folder} overfitted catastrophically; try a smaller --eps, or recipe pgd-at.")
    best_model, final = checkpoints.load(folder)
    model.load_state_dict(best_model.state_dict())
    final.epochs = len(history)
    with write_atomically(folder / HISTORY) as temporary:
        temporary.write_text(json.dumps([asdict(row) for row in history], indent=1) + "\n")
    return final


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
        **trainer.state(),
        "history": [asdict(row) for row in history],
        "best": best,
    }
    with write_atomically(path) as temporary:
        torch.save(state, temporary)


class Trainer:
    """A model with its optimiser and, where the recipe asks for it, its moving average: what one epoch needs.

    Args:
        model: on ``device``.
        recipe: all settings.
        seed: of batches, augmentation, perturbations and gate noise.
        device: where to train.

    Attributes:
        average: the moving average of the model, or None.
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
        self.average = Average(model, recipe.averaging) if recipe.averaging else None
        self.targets: Tensor | None = None
        if isinstance(model, DynamicNetwork) and model.layout.switches_only:
            self.targets = torch.tensor(recipe.targets(len(model.layout)), device=device)
        self.forward: Callable[..., Lesson] = self._forward
        if recipe.compile:
            self.forward = torch.compile(self._forward)

    @property
    def kept(self) -> nn.Module:
        """The network to validate and to keep: the averaged one, where weights are averaged."""
        return self.model if self.average is None else self.average.model

    def state(self) -> dict[str, Any]:
        """All that the next epoch depends on."""
        average = {} if self.average is None else {"average": self.average.model.state_dict()}
        return {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict(), **average}

    def restore(self, state: dict[str, Any]) -> None:
        """Go back to what :meth:`state` gave."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.average is not None:
            self.average.model.load_state_dict(state["average"])

    def _forward(self, images: Tensor, noise: Tensor | None) -> Lesson:
        if noise is None or not isinstance(self.model, DynamicNetwork):
            return Lesson(self.model(images)[None])
        soft = self.recipe.gates == "soft"
        policy: Policy = (Relaxed if soft else Stochastic)(noise, temperature=self.recipe.temperature)
        return self.model.taught(images, policy)

    def epoch(self, feed: Feed, number: int) -> tuple[float, float, list[float]]:
        """One pass over the training images: mean loss, accuracy and the execution rate of each gate."""
        data = feed.data
        self.model.train()
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + number)
        if isinstance(self.model, StochasticDepth):
            self.model.generator.manual_seed(self.seed * 1_000_003 + number)
        totals = torch.zeros(2 + self._gates, dtype=torch.float64, device=self.device)
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
            noise = self._noise("train", data.ids[rows], [number])
            perturbed = None
            if self.recipe.adversarial:
                perturbed = self._perturb(images, labels, self._inner_noise(noise, data.ids[rows], number), generator)
            totals += self._step(images, perturbed, labels, None if noise is None else noise[0])
            if self.average is not None:
                self.average.update(number * len(batches) + step)
        seen = sum(len(rows) for rows in batches)
        loss, accuracy, *rates = (totals / seen).tolist()
        if loss != loss:
            raise UserError("the training loss became NaN; lower the learning rate or the batch size and train again.")
        return loss, accuracy, rates

    @property
    def _gates(self) -> int:
        return 0 if self.targets is None else len(self.targets)

    def _noise(self, stage: Stage, ids: Tensor, draws: Sequence[int]) -> Tensor | None:
        """(len(draws), N, L) noise of the decisions of the images ``ids`` (N,); None for a plain network."""
        units = len(self.model.layout) if isinstance(self.model, DynamicNetwork) else 0
        return logistic(self.seed, stage, ids, units, draws).to(self.device) if units else None

    def _inner_noise(self, noise: Tensor | None, ids: Tensor, number: int) -> Tensor | None:
        """(steps, N, L) noise for the search for perturbations in epoch ``number``, ``noise`` (1, N, L) being that of
        the training step; None without gates."""
        steps = self.recipe.inner_steps
        if noise is None or self.recipe.inner_noise == "shared":
            return None if noise is None else noise.expand(steps, -1, -1)
        return self._noise("train-inner", ids, range(number * steps, (number + 1) * steps))

    def _logits(self, images: Tensor, noise: Tensor | None) -> Tensor:
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.recipe.bf16):
            return self.forward(images, noise).logits[-1]

    def _perturb(self, images: Tensor, labels: Tensor, noise: Tensor | None, generator: torch.Generator) -> Tensor:
        """The images as the adversary changes them, (N, C, H, W) in [0, 1].

        N-FGSM and PGD see the batch's BatchNorm statistics, as in their authors' code and as the step that follows
        does; TRADES sees the running ones, as in its authors' code.
        """
        recipe = self.recipe
        sizes = {"eps": recipe.radius, "step": recipe.inner_step}
        with inner_pass(self.model, training=recipe.adversary != "trades"):
            if recipe.adversary == "trades":
                return trades(self._logits, images, noise, generator, steps=recipe.inner_steps, **sizes)
            sizes["start"] = recipe.inner_start
            if recipe.adversary == "n-fgsm":
                return n_fgsm(self._logits, images, labels, noise, generator, **sizes)
            return pgd(self._logits, images, labels, noise, generator, steps=recipe.inner_steps, **sizes)

    def _step(self, images: Tensor, perturbed: Tensor | None, labels: Tensor, noise: Tensor | None) -> Tensor:
        """Descend the loss once; sums over the batch of loss, correct answers and open gates, (2 + L,) float64."""
        both = perturbed is not None and self.recipe.adversary == "trades"
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.recipe.bf16):
            every, opened, extra = self.forward(images if perturbed is None or both else perturbed, noise)
            if both:  # through the same graphs, so that the divergence is the perturbation's doing
                also, also_opened, _ = self.forward(perturbed, noise)
        every = every.float()
        logits, repeated = every[-1], labels.repeat(len(every))
        loss = nn.functional.cross_entropy(every.flatten(0, 1), repeated, label_smoothing=self.recipe.label_smoothing)
        if extra is not None:
            loss = loss + extra
        if both:
            attacked = also.float()
            loss = loss + self.recipe.beta * divergence(every.flatten(0, 1), attacked.flatten(0, 1)).mean()
            logits = attacked[-1]
            opened = None if opened is None or also_opened is None else (opened + also_opened) / 2
        if opened is not None and self.targets is not None:
            loss = loss + self.recipe.target_weight * target_loss(opened, self.targets)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        correct = right(logits.detach(), labels).sum()
        sums = torch.stack([loss.detach().double() * len(labels), correct.double()])
        return sums if opened is None else torch.cat([sums, opened.detach().double().sum(0)])

    def probe(self, data: Dataset) -> tuple[float, float]:
        """Accuracy of :attr:`kept` on ``data`` under FGSM and under PGD of ``PROBE_STEPS`` steps, same every time."""
        settings: dict[str, Any] = {"device": self.device, "half": self.recipe.bf16, "seed": self.seed}
        eps = self.recipe.radius
        fgsm = under_attack(self.kept, data, eps, 1, step=1.0, start=0.0, **settings)
        return fgsm, under_attack(self.kept, data, eps, PROBE_STEPS, **settings)


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
        stochastic_seed: sample the gates once per image with this seed; None takes the usual threshold.
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
        correct += int(right(view.logits[0].cpu(), data.labels[rows]).sum())
    return correct / len(data), (opened / len(data)).tolist()


def under_attack(
    model: nn.Module,
    data: Dataset,
    eps: float,
    steps: int,
    *,
    device: torch.device,
    seed: int,
    step: float = 0.25,
    start: float = 1.0,
    half: bool = False,
    batch_size: int = 250,
) -> float:
    """Accuracy on ``data`` after one run of :func:`robustbench_aig.training.adversarial.pgd`, in eval mode with
    deterministic gates.

    A check during training and a figure for the card, not a claim: a sweep attacks harder.

    Args:
        model: the network; gated ones follow their policy, which is deterministic unless it was changed.
        data: the images.
        eps: radius of the L-infinity ball in units of the pixel range.
        steps: of the attack.
        device: where the network is.
        seed: of the random start.
        step: size of a step as a share of ``eps``.
        start: half the width of the random start as a share of ``eps``.
        half: take gradients in bfloat16; the verdict is in float32 always.
        batch_size: images per pass.
    """
    model.eval()
    generator = torch.Generator().manual_seed(seed)

    def forward(images: Tensor, noise: Tensor | None) -> Tensor:
        with torch.autocast(device.type, torch.bfloat16, enabled=half):
            logits: Tensor = model(images)
        return logits

    correct = 0
    for rows in batches(len(data), batch_size):
        images = data.images(rows).to(device, memory_format=torch.channels_last)
        labels = data.labels[rows].to(device)
        points = pgd(forward, images, labels, None, generator, eps=eps, steps=steps, step=step, start=start)
        with torch.no_grad():
            correct += int(right(model(points), labels).sum())
    return correct / len(data)
