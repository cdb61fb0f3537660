"""The gating unit of ConvNet-AIG: it scores a residual block from the features that enter it."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_linear_bn_eval


class GateUnit(nn.Module):
    """Relevance score of one block (Eq. 5 and 6): global average pool, d = 16 hidden units with BatchNorm and ReLU,
    two scores.

    Starts with a bias of (0.1, 2.0), so that a fresh gate opens for 87 % of the images (the paper says 85 %).
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
        """Margins beta_1 - beta_0, shape (N, 1), always in float32, of block inputs (N, C, H, W)."""
        with torch.autocast(features.device.type, enabled=False):
            pooled = _pixel_sums(features) / features.shape[2:].numel()
            scores = self.fc2(torch.relu(self.bn(self.fc1(pooled))))
            margin: Tensor = scores[:, 1:] - scores[:, :1]
        return margin


def _pixel_sums(features: Tensor) -> Tensor:
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

    It also knows the gates after it that read features of the same width. Where closed blocks leave the features as
    they are, those read the same, so that one pooling and two products decide until the next open block.

    Args:
        gates: in eval mode, this one first; the folded one gives their margins up to float rounding.
    """

    hidden_weight: Tensor
    hidden_bias: Tensor
    weight: Tensor
    bias: Tensor

    def __init__(self, gates: Sequence[GateUnit]) -> None:
        super().__init__()
        folded = [fuse_linear_bn_eval(gate.fc1, gate.bn) for gate in gates]
        parts = {
            "hidden_weight": torch.cat([layer.weight for layer in folded]).T.contiguous(),
            "hidden_bias": torch.cat([layer.bias for layer in folded]),
            "weight": torch.block_diag(*(gate.fc2.weight[1:] - gate.fc2.weight[:1] for gate in gates)).T.contiguous(),
            "bias": torch.cat([gate.fc2.bias[1:] - gate.fc2.bias[:1] for gate in gates]),
        }
        for name, values in parts.items():
            self.register_buffer(name, values.detach().clone())

    def forward(self, features: Tensor) -> Tensor:
        """Margins (N, k), always in float32, of block inputs (N, C, H, W): this gate's, and those of the gates after it
        were they to read the same."""
        if torch.is_autocast_enabled(features.device.type):  # asked, since leaving a context costs as much as a layer
            with torch.autocast(features.device.type, enabled=False):
                return self._margins(features)
        return self._margins(features)

    def _margins(self, features: Tensor) -> Tensor:
        # read at once, and with the mean as a sum and a factor: at batch 1 a gate's cost is what Python does around it
        hidden_weight, hidden_bias, weight, bias = self._buffers.values()
        share = 1 / features.shape[2:].numel()
        hidden = torch.addmm(hidden_bias, _pixel_sums(features), hidden_weight, alpha=share)  # type: ignore[arg-type]
        return torch.addmm(bias, hidden.relu_(), weight)  # type: ignore[arg-type]
