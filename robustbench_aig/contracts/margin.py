"""What logits say of an image: whether it is right, and how far the best wrong class is ahead of the true one.

Logits that are NaN or infinite name no class. Such an image is wrong where it is scored, and no success where an attack
searches.
"""

import torch
from torch import Tensor


def finite(logits: Tensor) -> Tensor:
    """(…, N) bool: every logit of (…, N, classes) is finite, so that the image has a class."""
    answered: Tensor = logits.isfinite().all(-1)
    return answered


def right(logits: Tensor, labels: Tensor) -> Tensor:
    """(…, N) bool: logits (…, N, classes) are finite and their largest is that of the label (N,)."""
    return (logits.argmax(-1) == labels) & finite(logits)


def wrong(logits: Tensor, labels: Tensor) -> Tensor:
    """(…, N) bool: logits (…, N, classes) are finite and their largest is that of another class than the label (N,)."""
    return (logits.argmax(-1) != labels) & finite(logits)


def margin(logits: Tensor, labels: Tensor, aims: Tensor | None = None) -> Tensor:
    """Best other logit minus the label's; aimed: the aim's logit minus the best other. Above 0 is a success.

    Args:
        logits: (…, N, classes).
        labels: (N,) true classes.
        aims: (N,) classes to reach, or None where any wrong class will do.

    Returns:
        (…, N); -inf where logits are NaN or infinite.
    """
    wanted = labels if aims is None else aims
    index = wanted.expand(logits.shape[:-1])[..., None]
    chosen = logits.gather(-1, index)[..., 0]
    others = logits.scatter(-1, index, -torch.inf).amax(-1)
    lead = others - chosen if aims is None else chosen - others
    return torch.where(finite(logits), lead, -torch.inf)
