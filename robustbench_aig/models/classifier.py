"""A model that is ready to be evaluated, and the checks that it keeps the contract: images in [0, 1] in, logits out."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from robustbench_aig.errors import UserError, described
from robustbench_aig.models.aig import ConvNetAIG
from robustbench_aig.models.checkpoints import Card, weights_hash
from robustbench_aig.models.fused import fuse
from robustbench_aig.models.guest import adopt, memory_format


@dataclass(frozen=True, eq=False)
class Classifier:
    """A network and what a sweep needs to know of it.

    Attributes:
        name: for tables; unique within a sweep.
        network: in eval mode; float32 images (N, C, H, W) in [0, 1] to logits (N, classes).
        classes: number of classes, or None where only the network knows.
        weights_hash: names the weights in identities.
        architecture: for the record.
        gates: how many gates it has; 0 without.
        block_names: name of each gated block.
        card: of a checkpoint of this suite.
        image_shape: (C, H, W) of the images that it was trained on, where known.
    """

    name: str
    network: nn.Module
    classes: int | None
    weights_hash: str
    architecture: str
    gates: int = 0
    block_names: tuple[str, ...] = ()
    card: Card | None = None
    image_shape: tuple[int, int, int] | None = None

    @classmethod
    def of(
        cls, name: str, network: nn.Module, architecture: str, *, classes: int | None = None, card: Card | None = None
    ) -> "Classifier":
        """Prepare a network for evaluation: hash its weights, fold its BatchNorm, freeze it."""
        identity = weights_hash(network)
        if card is not None:
            identity = f"{identity}+{card.options.get('norm')}"
        blocks = tuple(network.trunk.block_names) if isinstance(network, ConvNetAIG) else ()
        shape = None if card is None else card.image_shape
        network.eval()  # no chains on modules of other people, whose methods may return nothing
        ready = adopt(fuse(network))
        ready.requires_grad_(False)
        return cls(name, ready, classes, identity, architecture, len(blocks), blocks, card, shape)

    @property
    def memory_format(self) -> torch.memory_format:
        """How its images are best laid out in memory."""
        return memory_format(self.network)


@torch.no_grad()
def check(classifier: Classifier, images: Tensor, classes: int) -> None:
    """Refuse a model that breaks the contract on a few images of the data set it is to be evaluated on.

    Args:
        classifier: the model.
        images: (N, C, H, W) float32 in [0, 1], on the model's device; N is a batch size that the sweep uses.
        classes: how many classes the data set has.

    Raises:
        UserError: it fails on such images, writes to them, returns another shape, NaN, or probabilities in place of
            logits.
    """
    name = classifier.name
    if (
        classifier.image_shape is not None and classifier.image_shape[0] != images.shape[1]
    ):  # broadcasting would hide it
        wanted, shape = ("x".join(str(size) for size in sizes) for sizes in (classifier.image_shape, images.shape[1:]))
        raise UserError(f"model '{name}' takes images of {wanted}, not of {shape}; choose a model for this data set.")
    images = images.contiguous(memory_format=classifier.memory_format)
    before = images.clone()
    try:
        output: Any = classifier.network(images)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # whatever somebody else's network raises
        many, shape = len(images), "x".join(str(size) for size in images.shape[1:])
        raise UserError(
            f"model '{name}' cannot take {many} images of {shape} ({described(error)}); "
            "mend it, or choose a model for this data set."
        ) from None
    if not torch.equal(images, before):
        raise UserError(f"model '{name}' changes the images that it is given; let it work on a copy of them.")
    if not isinstance(output, Tensor) or output.ndim != 2 or len(output) != len(images):
        got = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
        raise UserError(
            f"model '{name}' must return logits of shape ({len(images)}, classes), not {got}; return the logits alone."
        )
    if not output.is_floating_point():
        kind = str(output.dtype).removeprefix("torch.")
        raise UserError(f"model '{name}' returns {kind} in place of logits; return the logits, in floating point.")
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
