"""A model that is ready to be evaluated, and the checks that it keeps the contract: images in [0, 1] in, logits out."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from robustbench_aig.contracts.network import PARTS, is_dynamic
from robustbench_aig.contracts.units import Layout
from robustbench_aig.errors import UserError, described
from robustbench_aig.models.checkpoints import Card, weights_hash
from robustbench_aig.models.guest import adopt, memory_format

GUIDE = "docs/guides/dynamic-network.md"


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
        """Prepare a network for evaluation: hash its weights, fold its BatchNorm, freeze it.

        Raises:
            UserError: it decides what to run, but does not keep the contract of dynamic networks.
        """
        found = half_dynamic(network)
        if found is not None:
            raise UserError(f"model '{name}' {found.symptom}; {found.remedy} (see {GUIDE}).")
        identity = weights_hash(network)
        if card is not None:
            identity = f"{identity}+{card.options.get('norm')}"
        shape = None if card is None else card.image_shape
        network.eval()  # no chains on modules of other people, whose methods may return nothing
        fused: nn.Module = network.fused() if hasattr(network, "fused") else network  # type: ignore[operator]
        ready = adopt(fused)
        ready.eval()
        ready.requires_grad_(False)
        layout = ready.layout if is_dynamic(ready) else None
        return cls(name, ready, classes, identity, architecture, layout, card, shape)

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
        remedy = (
            "choose a model for this data set" if classifier.layout is None else "run 'robustbench-aig check' on it"
        )
        raise UserError(
            f"model '{name}' cannot take {many} images of {shape} ({described(error)}); mend it, or {remedy}."
        ) from None
    if not torch.equal(images, before):
        raise UserError(f"model '{name}' changes the images that it is given; let it work on a copy of them.")
    found = misfit(output, len(images), classes)
    if found is not None:
        raise UserError(f"model '{name}' {found.symptom}; {found.remedy}.")


class Misfit(NamedTuple):
    """What is wrong with what a network returns, as the rest of a sentence about it, and what to do."""

    symptom: str
    remedy: str


def misfit(output: object, images: int, classes: int | None) -> Misfit | None:
    """What is wrong with the output of a network; None if it is logits.

    Args:
        output: what it returned.
        images: for so many images.
        classes: how many it should have; None where any number will do.
    """
    if isinstance(output, list | tuple) and len(output) > 1 and all(_logits(part, images) for part in output):
        return Misfit(
            f"returns {len(output)} sets of logits, as a network with early exits does",
            f"make it a dynamic network (see {GUIDE}), or return the last of them alone",
        )
    if not isinstance(output, Tensor) or not _logits(output, images):
        got = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
        return Misfit(f"must return logits of shape ({images}, classes), not {got}", "return the logits alone")
    if not output.is_floating_point():
        kind = str(output.dtype).removeprefix("torch.")
        return Misfit(f"returns {kind} in place of logits", "return the logits, in floating point")
    if not output.isfinite().all():
        return Misfit("returns NaN or infinite logits on clean images", "check its weights and normalisation")
    if classes is not None and output.shape[1] != classes:
        return Misfit(f"has {output.shape[1]} classes, the data set {classes}", "choose one that fits the other")
    sums = output.sum(1)
    if (output >= 0).all() and torch.allclose(sums, torch.ones_like(sums), atol=1e-5):
        return Misfit("returns probabilities", "return logits, because a softmax hides gradients from attacks")
    return None


def _logits(output: object, images: int) -> bool:
    return isinstance(output, Tensor) and output.ndim == 2 and len(output) == images


def half_dynamic(network: nn.Module) -> Misfit | None:
    """What a network that decides what to run lacks of the contract; None if it lacks nothing, or is plain."""
    has = [part for part in (*PARTS, "run") if hasattr(network, part)]
    layout = getattr(network, "layout", None)
    derive = "derive it from robustbench_aig.DynamicNetwork"
    if not is_dynamic(network):
        if isinstance(layout, Layout) or "traced" in has or len(has) > 1:
            lacks = " and ".join(f"'{part}'" for part in PARTS if part not in has)
            return Misfit(f"looks dynamic, as it has {' and '.join(map(repr, has))}, but lacks {lacks}", derive)
        inner = next((name for name, module in network.named_modules() if name and is_dynamic(module)), None)
        if inner is not None:
            symptom = f"is a plain network around a dynamic one, '{inner}', and hides its decisions"
            return Misfit(symptom, "return the dynamic one, and move what surrounds it into its 'run'")
        return None
    if not isinstance(layout, Layout):
        return Misfit(f"looks dynamic, but its 'layout' is a {type(layout).__name__}", derive)
    if not len(layout):
        return Misfit("looks dynamic, but its 'layout' is empty", "list its decisions in 'super().__init__'")
    return None
