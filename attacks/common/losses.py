"""What attacks maximise, how it is averaged over random draws, and when an image counts as broken."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from robustbench_aig.contracts.forward import View
from robustbench_aig.contracts.margin import finite, margin
from robustbench_aig.contracts.target import Objective, Target
from robustbench_aig.errors import UsageError

Loss = Literal["auto", "ce", "margin", "dlr"]
"""``auto`` is cross-entropy, and the margin for images whose cross-entropy is saturated."""

Average = Literal["loss", "logits", "probs"]
"""What is averaged over the draws of a random target: losses (so gradients), logits, or class probabilities."""

ClassGoal = Literal["untargeted", "least-likely", "random"]
"""Any wrong class, the class that the clean image is least taken for, or one drawn at random."""

SATURATED = 1e-6
"""Below this cross-entropy, softmax in float32 has lost the true class's gradient to rounding."""


def ce(logits: Tensor, labels: Tensor, aims: Tensor | None = None) -> Tensor:
    """Cross-entropy (…, N) of logits (…, N, classes) with the labels (N,), or minus that with the aimed-at classes."""
    wanted = labels if aims is None else aims
    flat = functional.cross_entropy(
        logits.flatten(0, -2), wanted.expand(logits.shape[:-1]).flatten(), reduction="none"
    ).view(logits.shape[:-1])
    return flat if aims is None else -flat


def dlr(logits: Tensor, labels: Tensor, aims: Tensor | None = None) -> Tensor:
    """Difference of logits ratio (…, N), invariant to shift and scale of the logits (Croce and Hein 2020, Eq. 6 and 7).

    Raises:
        UsageError: fewer than 3 classes, or 4 where a class is aimed at.
    """
    need = 3 if aims is None else 4
    if logits.shape[-1] < need:
        raise UsageError(f"the DLR loss needs {need} classes or more, not {logits.shape[-1]}; use loss=margin.")
    ordered = logits.topk(need, -1).values
    if aims is None:
        return margin(logits, labels) / (ordered[..., 0] - ordered[..., 2] + 1e-12)
    scale = ordered[..., 0] - 0.5 * (ordered[..., 2] + ordered[..., 3]) + 1e-12
    return (_at(logits, aims) - _at(logits, labels)) / scale


def check_loss(loss: Loss, target: Target, images: Tensor, *, aimed: bool) -> None:
    """Refuse a loss that needs more classes than a target has; costs a forward pass for ``dlr``.

    Args:
        loss: what is to be maximised.
        target: what would be attacked.
        images: (N, C, H, W) a few images for it.
        aimed: whether a class is aimed at.

    Raises:
        UsageError: there are too few classes.
    """
    if loss == "dlr":
        logits = target.view(images).logits
        labels = logits.new_zeros(logits.shape[1], dtype=torch.long)
        dlr(logits, labels, labels if aimed else None)


def auto(logits: Tensor, labels: Tensor, aims: Tensor | None = None) -> Tensor:
    """Cross-entropy, and the margin for images that it is saturated for.

    It is still a loss that grows with the margin: a saturated cross-entropy is about 0, and its margin below -13. Aimed
    cross-entropy does not saturate before success.
    """
    plain = ce(logits, labels, aims)
    return plain if aims is not None else torch.where(plain < SATURATED, margin(logits, labels), plain)


_LOSSES = {"auto": auto, "ce": ce, "margin": margin, "dlr": dlr}


def _at(logits: Tensor, classes: Tensor) -> Tensor:
    return logits.gather(-1, classes.expand(logits.shape[:-1])[..., None])[..., 0]


@dataclass(frozen=True)
class Criterion:
    """What the attacker wants of N images.

    Attributes:
        labels: (N,) true classes.
        classes: (N,) classes to reach, or None where any wrong class will do.
    """

    labels: Tensor
    classes: Tensor | None = None

    @classmethod
    def of(cls, goal: ClassGoal, target: Target, images: Tensor, labels: Tensor) -> "Criterion":
        """That of a goal; ``least-likely`` and ``random`` spend a forward pass per draw on the clean images."""
        if goal == "untargeted":
            return cls(labels)
        scores = target.view(images).logits.softmax(-1).mean(0)
        if goal == "random":
            scores = target.uniform(scores.shape[-1], 0)
        return cls(labels, scores.scatter(1, labels[:, None], torch.inf).argmin(1))

    def take(self, index: Tensor) -> "Criterion":
        """That of a subset."""
        return Criterion(self.labels[index], None if self.classes is None else self.classes[index])

    def objective(self, loss: Loss, average: Average = "loss") -> Objective:
        """The loss of a view (K, N, classes) as one value per image (N,); -inf where a draw's logits are not finite."""
        function = _LOSSES[loss]

        def objective(view: View) -> Tensor:
            logits = view.logits
            if len(logits) > 1 and average == "logits":
                logits = logits.mean(0, keepdim=True)
            elif len(logits) > 1 and average == "probs":
                logits = logits.log_softmax(-1).logsumexp(0, keepdim=True)  # log K too large, which no loss sees
            values = function(logits, self.labels, self.classes)
            return torch.where(finite(logits), values, -torch.inf).mean(0)

        return objective

    def success(self, view: View) -> Tensor:
        """(N,) share of the draws that meet it: with a wrong class, or the one to reach; NaN is neither."""
        predicted = view.logits.argmax(-1)
        reached = predicted != self.labels if self.classes is None else predicted == self.classes
        return (reached & finite(view.logits)).float().mean(0)

    def margin(self, view: View) -> Tensor:
        """(N,) mean margin over the draws; -inf where one of them is NaN or infinite."""
        return margin(view.logits, self.labels, self.classes).mean(0)
