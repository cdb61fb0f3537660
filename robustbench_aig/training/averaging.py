"""An exponential moving average of a network's weights."""

import copy

import torch
from torch import Tensor, nn


class Average:
    """A copy of a network that follows it: after step t, ``average += (1 - d_t) (network - average)``.

    ``d_t = min(decay, (1 + t) / (10 + t))`` for t from 0, so that the first weights are soon forgotten. BatchNorm's
    running statistics are averaged as the weights are; counters are copied.

    Args:
        model: the network, on its device, whose tensors are only ever changed in place.
        decay: in (0, 1); 1 / (1 - decay) steps are what the average remembers.

    Attributes:
        model: the averaged network, in eval mode.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.model = copy.deepcopy(model).requires_grad_(False).eval()
        pairs = list(zip(self.model.state_dict().values(), model.state_dict().values(), strict=True))
        self._floats: tuple[list[Tensor], list[Tensor]] = ([], [])
        self._counts: list[tuple[Tensor, Tensor]] = []
        for own, other in pairs:
            if own.is_floating_point():
                self._floats[0].append(own)
                self._floats[1].append(other)
            else:
                self._counts.append((own, other))

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the network's weights after step number ``step``, counted from 0 over the whole training."""
        torch._foreach_lerp_(*self._floats, 1 - min(self.decay, (1 + step) / (10 + step)))
        for own, other in self._counts:
            own.copy_(other)
