"""The gating unit of ConvNet-AIG: it scores a residual block from the features that enter it."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_linear_bn_eval


class GateUnit(nn.Module):
    """Relevance score of one block (Eq. 5 and 6): global average pool, d = 16 hidden units with BatchNorm and ReLU,
    two scores.

    Starts with a bias of (0.1, 2.0), so that a fresh gate opens for 87 % of the images (the paper says 85 %). Channel 1
    means *execute*.
    """

    def __init__(self, channels: int, hidden: int = 16) -> None:
        super().__init__()
        self.fc1 = nn.Linear(channels, hidden)
        self.bn = nn.BatchNorm1d(hidden)
        self.fc2 = nn.Linear(hidden, 2)
        nn.init.normal_(self.fc2.weight, std=0.001)
        with torch.no_grad():
            self.fc2.bias.copy_(torch.tensor([0.1, 2.0]))

    def forward(self, features: Tensor) -> Tensor:
        """Margins beta_1 - beta_0, shape (N,), always in float32, of block inputs (N, C, H, W)."""
        with torch.autocast(features.device.type, enabled=False):
            pooled = pixel_sums(features) / features.shape[2:].numel()
            scores = self.fc2(torch.relu(self.bn(self.fc1(pooled))))
            margin: Tensor = scores[:, 1] - scores[:, 0]
        return margin

    @property
    def macs(self) -> float:
        """Multiply-adds of one image: two linear layers."""
        return float(self.fc1.in_features * self.fc1.out_features + self.fc2.in_features * self.fc2.out_features)

    def folded(self) -> "FoldedGate":
        """The same for inference."""
        return FoldedGate(self)


def pixel_sums(features: Tensor) -> Tensor:
    """(N, C) float32 sums over the pixels of (N, C, H, W)."""
    if features.requires_grad and features.is_contiguous(memory_format=torch.channels_last):
        sums: Tensor = _ChannelsLastSums.apply(features)
        return sums
    return features.sum((2, 3), dtype=torch.float32)


class _ChannelsLastSums(torch.autograd.Function):
    """Pixel sums whose gradient lies in memory as the features do: autograd's is a broadcast view, which costs eight
    times as much to add to the block's other gradients on a CPU."""

    @staticmethod
    def forward(ctx: Any, features: Tensor) -> Tensor:
        ctx.shape, ctx.dtype = features.shape, features.dtype
        return features.sum((2, 3), dtype=torch.float32)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        n, channels, height, width = ctx.shape
        rows = torch.bmm(gradient.new_ones(n, height * width, 1), gradient[:, None])
        return rows.view(n, height, width, channels).permute(0, 3, 1, 2).to(ctx.dtype)


class FoldedGate(nn.Module):
    """A gate unit for inference: BatchNorm folded into the first layer, both scores into their difference.

    Args:
        gate: in eval mode; the folded one gives its margins up to float rounding.
    """

    hidden_weight: Tensor
    hidden_bias: Tensor
    weight: Tensor
    bias: Tensor

    def __init__(self, gate: GateUnit) -> None:
        super().__init__()
        layer = fuse_linear_bn_eval(gate.fc1, gate.bn)
        parts = {
            "hidden_weight": layer.weight.T.contiguous(),
            "hidden_bias": layer.bias,
            "weight": (gate.fc2.weight[1:] - gate.fc2.weight[:1]).T.contiguous(),
            "bias": gate.fc2.bias[1:] - gate.fc2.bias[:1],
        }
        for name, values in parts.items():
            self.register_buffer(name, values.detach().clone())
        self.macs = gate.macs

    def forward(self, features: Tensor) -> Tensor:
        """Margins (N,), always in float32, of block inputs (N, C, H, W)."""
        with torch.autocast(features.device.type, enabled=False):
            share = 1 / features.shape[2:].numel()
            hidden = torch.addmm(self.hidden_bias, pixel_sums(features), self.hidden_weight, alpha=share)
            return torch.addmm(self.bias, hidden.relu_(), self.weight)[:, 0]
