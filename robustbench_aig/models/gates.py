"""Gates of ConvNet-AIG: the unit that scores a block, the policies that decide, and the trace of what they decided.

A policy is always explicit and never follows ``module.training``, which attack libraries flip. Channel 1 of a gate's
score means *execute*, so with margin = beta_1 - beta_0 a gate opens with probability sigmoid(margin).
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_linear_bn_eval

from robustbench_aig.models.macs import Costs

Gradient = Literal["none", "straight-through"]
"""How a hard decision passes gradients: not at all, or as the relaxed decision would (Eq. 9 behind Eq. 8)."""


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


class Policy(Protocol):
    """Turns a gate's margins into decisions."""

    @property
    def hard(self) -> bool:
        """Whether every decision is 0 or 1, so that a closed block can be skipped."""

    def decide(self, margins: Tensor, first: int) -> Tensor:
        """Decisions in [0, 1], shape (N, k), of the gates from number ``first`` on for margins of shape (N, k); hard
        ones that carry no gradient may be bool."""


def _threshold(score: Tensor, gradient: Gradient, temperature: float = 1.0, level: float = 0.0) -> Tensor:
    hard = score > level
    if gradient == "none" or not score.requires_grad:
        return hard
    soft = torch.sigmoid((score - level) / temperature)
    return hard + (soft - soft.detach())


def _columns(of_gates: Tensor, margins: Tensor, first: int) -> Tensor:
    return of_gates[:, first : first + margins.shape[1]]


@dataclass(frozen=True)
class Deterministic:
    """Open where softmax(beta)_1 > threshold (Eq. 12)."""

    threshold: float = 0.5
    gradient: Gradient = "none"
    hard = True

    def __post_init__(self) -> None:
        if not 0 <= self.threshold <= 1:
            raise ValueError(f"a gate threshold must lie in [0, 1], not {self.threshold}")

    def decide(self, margins: Tensor, first: int) -> Tensor:
        return _threshold(margins, self.gradient, level=_logit(self.threshold))


@cache
def _logit(probability: float) -> float:
    return torch.logit(torch.tensor(probability, dtype=torch.float64)).item()


@dataclass(frozen=True)
class Stochastic:
    """Sample the gates (Eq. 8): open where margin + logistic noise > 0.

    Attributes:
        noise: (N, L) logistic noise, or (1, L) shared by all images.
        gradient: of the decision, by default that of the relaxed sample (straight-through Gumbel-softmax).
        temperature: tau of Eq. 9, used in the backward pass only.
    """

    noise: Tensor
    gradient: Gradient = "straight-through"
    temperature: float = 1.0
    hard = True

    def decide(self, margins: Tensor, first: int) -> Tensor:
        return _threshold(margins + _columns(self.noise, margins, first), self.gradient, self.temperature)


@dataclass(frozen=True)
class Expected:
    """Run every block and scale it by its expected execution rate given the image, P(open) (the paper's
    ConvNet-AIG*; also the mean-field twin). To first order in the blocks it is the mean over all graphs, and it costs
    as much as the full network."""

    hard = False

    def decide(self, margins: Tensor, first: int) -> Tensor:
        return torch.sigmoid(margins)


@dataclass(frozen=True)
class Relaxed:
    """Gumbel-softmax samples in forward and backward (Eq. 9): sigmoid((margin + noise) / temperature)."""

    noise: Tensor
    temperature: float = 1.0
    hard = False

    def decide(self, margins: Tensor, first: int) -> Tensor:
        return torch.sigmoid((margins + _columns(self.noise, margins, first)) / self.temperature)


@dataclass(frozen=True)
class Forced:
    """Run a given graph whatever the gates say: (N, L) or (1, L) of 0 and 1."""

    graph: Tensor
    hard = True

    def decide(self, margins: Tensor, first: int) -> Tensor:
        return _columns(self.graph, margins, first).to(margins.dtype).expand_as(margins)


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


@dataclass
class Recorder:
    """Holds the trace of the last forward pass made inside :func:`gating`."""

    trace: GateTrace | None = field(default=None)


class Gated(Protocol):
    """A network with gates, as :class:`robustbench_aig.models.aig.ConvNetAIG`."""

    policy: Policy
    recorder: Recorder | None

    def traced(self, images: Tensor, policy: Policy) -> tuple[Tensor, GateTrace]: ...


@contextmanager
def gating(model: Gated, policy: Policy) -> Iterator[Recorder]:
    """Use ``policy`` for every plain ``model(images)`` call inside the block; yields the recorder of the last trace."""
    before = model.policy, model.recorder
    model.policy, model.recorder = policy, Recorder()
    try:
        yield model.recorder
    finally:
        model.policy, model.recorder = before
