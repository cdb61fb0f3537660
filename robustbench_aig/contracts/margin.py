"""The margin of a classification: how far the best wrong class is ahead of the true one."""

import torch
from torch import Tensor


def margin(logits: Tensor, labels: Tensor, aims: Tensor | None = None) -> Tensor:
    """Best other logit minus the label's; aimed: the aim's logit minus the best other. Above 0 is a success.

    Args:
        logits: (…, N, classes).
        labels: (N,) true classes.
        aims: (N,) classes to reach, or None where any wrong class will do.

    Returns:
        (…, N).
    """
    wanted = labels if aims is None else aims
    index = wanted.expand(logits.shape[:-1])[..., None]
    chosen = logits.gather(-1, index)[..., 0]
    others = logits.scatter(-1, index, -torch.inf).amax(-1)
    return others - chosen if aims is None else chosen - others
