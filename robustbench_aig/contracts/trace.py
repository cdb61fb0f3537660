"""The trace of a forward pass: what a network's decisions were, and what they cost."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Costs:
    """MACs of one image.

    Attributes:
        floor: stem, shortcuts and head, which always run.
        gates: all gating units together.
        blocks: (L,) float64, the residual branch of each block.
    """

    floor: float
    gates: float
    blocks: Tensor

    @property
    def ceiling(self) -> float:
        """Everything: what an image costs when every gate is open."""
        return self.floor + self.gates + float(self.blocks.sum())

    def of(self, graphs: Tensor) -> Tensor:
        """(…,) float64 MACs of graphs (…, L): what always runs plus the open branches."""
        return self.floor + self.gates + graphs.detach().double() @ self.blocks.to(graphs.device)


@dataclass(frozen=True)
class GateTrace:
    """What the gates did for a batch.

    Attributes:
        margin: (N, L) beta_1 - beta_0, with its autograd graph where gradients are on.
        open: (N, L) decisions, 0 or 1 (in [0, 1] under soft policies).
        costs: what the network's parts cost for these images.
    """

    margin: Tensor
    open: Tensor
    costs: Costs

    @property
    def prob(self) -> Tensor:
        """(N, L) sigmoid(margin), the chance of being open."""
        return torch.sigmoid(self.margin)

    @property
    def executed(self) -> Tensor:
        """(N, L) bool, whether the block ran: a soft decision scales it, and only 0 saves it."""
        return self.open != 0

    @property
    def macs(self) -> Tensor:
        """(N,) float64 multiply-adds that each image's graph costs, the part that always runs included."""
        return self.costs.of(self.executed)
