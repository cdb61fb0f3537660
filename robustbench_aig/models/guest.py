"""Networks of other people: given images that they may do anything with, and asked for nothing that they do not do."""

import torch
from torch import Tensor, nn

from robustbench_aig.models.resnet import Trunk


def memory_format(network: nn.Module) -> torch.memory_format:
    """How a network wants its images laid out in memory.

    The residual networks of this suite, and those built around one, are faster in ``channels_last``. Any other network
    may ``view`` its images or features, which only works in the plain order, and its weights stay as they are.
    """
    own = isinstance(getattr(network, "trunk", network), Trunk)
    return torch.channels_last if own else torch.contiguous_format


def adopt(network: nn.Module) -> nn.Module:
    """A network as the engine runs it: in its memory format, and as a :class:`Guest` unless it is of this suite.

    Args:
        network: images (N, C, H, W) in [0, 1] to logits; a network with ``traced`` keeps the contract of dynamic
            networks itself.
    """
    if memory_format(network) == torch.channels_last:
        return network.to(memory_format=torch.channels_last)
    return network if hasattr(network, "traced") else Guest(network)


class Guest(nn.Module):
    """Calls a network with images of its own: contiguous, and a copy, which it may write to.

    A network that cannot take one image alone, because it squeezes its features, gets it twice.

    Args:
        network: images (N, C, H, W) in [0, 1] to logits (N, classes).
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self._takes_one: bool | None = None

    def forward(self, images: Tensor) -> Tensor:
        own = images.clone(memory_format=torch.contiguous_format)
        if len(own) != 1 or self._alone(images):
            logits: Tensor = self.network(own)
            return logits
        return self.network(own.repeat(2, 1, 1, 1))[:1]  # type: ignore[no-any-return]

    def _alone(self, images: Tensor) -> bool:
        """Whether the network takes one image, tried once."""
        if self._takes_one is None:
            devices = [images.device] if images.is_cuda else []
            try:
                with torch.no_grad(), torch.random.fork_rng(devices):
                    logits = self.network(images.clone(memory_format=torch.contiguous_format))
                self._takes_one = isinstance(logits, Tensor) and logits.ndim == 2 and len(logits) == 1
            except (KeyboardInterrupt, torch.OutOfMemoryError):
                raise
            except (
                BaseException
            ):  # whatever the network raises; if it is not for being alone, two images raise it again
                self._takes_one = False
        return self._takes_one
