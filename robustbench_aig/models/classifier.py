"""A model that is ready to be evaluated, and the checks that it keeps the contract: images in [0, 1] in, logits out."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from robustbench_aig.contracts.network import is_dynamic
from robustbench_aig.contracts.units import Layout
from robustbench_aig.errors import UserError
from robustbench_aig.models.checkpoints import Card, weights_hash


@dataclass(frozen=True, eq=False)
class Classifier:
    """A network and what a sweep needs to know of it.

    Attributes:
        name: for tables; unique within a sweep.
        network: in eval mode; float32 images (N, C, H, W) in [0, 1] to logits (N, classes).
        classes: number of classes, or None where only the network knows.
        weights_hash: names the weights in identities.
        architecture: for the record.
        layout: the decisions of a dynamic network; None for a plain one.
        card: of a checkpoint of this suite.
        image_shape: (C, H, W) of the images that it was trained on, where known.
    """

    name: str
    network: nn.Module
    classes: int | None
    weights_hash: str
    architecture: str
    layout: Layout | None = None
    card: Card | None = None
    image_shape: tuple[int, int, int] | None = None

    @property
    def units(self) -> tuple[str, ...]:
        """Names of the units that the network decides about; none of a plain one."""
        return () if self.layout is None else self.layout.names

    @classmethod
    def of(
        cls, name: str, network: nn.Module, architecture: str, *, classes: int | None = None, card: Card | None = None
    ) -> "Classifier":
        """Prepare a network for evaluation: hash its weights, fold its BatchNorm, freeze it."""
        identity = weights_hash(network)
        if card is not None:
            identity = f"{identity}+{card.options.get('norm')}"
        shape = None if card is None else card.image_shape
        network.eval()
        ready: nn.Module = network.fused() if hasattr(network, "fused") else network  # type: ignore[operator]
        ready.requires_grad_(False)
        ready = ready.to(memory_format=torch.channels_last)
        layout = ready.layout if is_dynamic(ready) else None
        return cls(name, ready, classes, identity, architecture, layout, card, shape)


@torch.no_grad()
def check(classifier: Classifier, images: Tensor, classes: int) -> None:
    """Refuse a model that breaks the contract on a few images of the data set it is to be evaluated on.

    Args:
        classifier: the model.
        images: (N, C, H, W) float32 in [0, 1], on the model's device.
        classes: how many classes the data set has.

    Raises:
        UserError: it fails on such images, returns another shape, NaN, or probabilities in place of logits.
    """
    name = classifier.name
    if (
        classifier.image_shape is not None and classifier.image_shape[0] != images.shape[1]
    ):  # broadcasting would hide it
        wanted, shape = ("x".join(str(size) for size in sizes) for sizes in (classifier.image_shape, images.shape[1:]))
        raise UserError(f"model '{name}' takes images of {wanted}, not of {shape}; choose a model for this data set.")
    try:
        output: Any = classifier.network(images)
    except (RuntimeError, ValueError, TypeError) as error:
        reason = str(error).splitlines()[0]
        shape = "x".join(str(size) for size in images.shape[1:])
        raise UserError(
            f"model '{name}' cannot take images of {shape} ({reason}); choose a model for this data set."
        ) from None
    if not isinstance(output, Tensor) or output.ndim != 2 or len(output) != len(images):
        got = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
        raise UserError(
            f"model '{name}' must return logits of shape ({len(images)}, classes), not {got}; return the logits alone."
        )
    if not output.isfinite().all():
        raise UserError(
            f"model '{name}' returns NaN or infinite logits on clean images; check its weights and normalisation."
        )
    if output.shape[1] != classes:
        raise UserError(
            f"model '{name}' has {output.shape[1]} classes, the data set {classes}; choose one that fits the other."
        )
    sums = output.sum(1)
    if (output >= 0).all() and torch.allclose(sums, torch.ones_like(sums), atol=1e-5):
        raise UserError(
            f"model '{name}' returns probabilities; return logits, because a softmax hides gradients from attacks."
        )
