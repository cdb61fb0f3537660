"""ConvNet-AIG (Veit and Belongie): a residual network whose blocks are switched per image by gates."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from robustbench_aig.contracts.policy import Deterministic, Policy, Recorder
from robustbench_aig.contracts.trace import GateTrace
from robustbench_aig.models.architectures import Architecture
from robustbench_aig.models.gate_unit import GateUnit
from robustbench_aig.models.macs import costs
from robustbench_aig.models.resnet import Normalization, Shortcut, Trunk, resnet
from robustbench_aig.registry import register

PATHS_AT_ONCE = {"cpu": 640}
"""Images times draws that are sampled together: more only leave the caches (250 images of ten draws took 6 to 50 %
longer in one go, by what else the machine did); on other devices there is no limit but the batch."""


class ConvNetAIG(nn.Module):
    """``x_l = x_(l-1) + g_l(x_(l-1)) f_l(x_(l-1))`` (Eq. 3) over the blocks of a residual network.

    A plain call follows :attr:`policy`; :meth:`traced` takes the policy as an argument and also returns the trace.
    Where decisions are hard and carry no gradient, a block runs only for the images whose gate is open (Eq. 4).

    Args:
        trunk: the residual network to gate; each of its blocks gets one gate.
        hidden: d of Eq. 6.
    """

    def __init__(self, trunk: Trunk, hidden: int = 16) -> None:
        super().__init__()
        self.trunk = trunk
        self.gates = nn.ModuleList(GateUnit(_channels(block), hidden) for block in trunk.blocks)
        self.policy: Policy = Deterministic()
        self.recorder: Recorder | None = None

    def forward(self, images: Tensor) -> Tensor:
        logits, trace = self.traced(images, self.policy)
        if self.recorder is not None:
            self.recorder.trace = trace
        return logits

    def traced(self, images: Tensor, policy: Policy) -> tuple[Tensor, GateTrace]:
        """Logits (N, classes) and the trace of images (N, C, H, W) in [0, 1] under ``policy``."""
        logits, margins, opened = self.gated(images, policy)
        return logits, GateTrace(margins, opened, costs(self.trunk, tuple(images.shape[1:])))

    def gated(self, images: Tensor, policy: Policy) -> tuple[Tensor, Tensor, Tensor]:
        """Logits, margins (N, L) and decisions (N, L): the bare computation, in a form that compilers take."""
        x, blocks, gates = self.trunk.stem(images), self.trunk.blocks, list(self.gates)
        if x.shape[0] == 1 and policy.hard and not self.training and not torch.is_grad_enabled():
            return _alone(self.trunk, gates, x, policy)
        read, decided = [], []
        number = 0
        while number < len(blocks):
            margins = gates[number](x)
            decisions = policy.decide(margins, number)
            if policy.hard and not decisions.requires_grad and not self.training:
                x, settled = _skip(blocks[number : number + margins.shape[1]], x, decisions)
            else:
                x, settled = _scale(blocks[number], x, decisions[:, 0]), 1
            read.append(margins.narrow(1, 0, settled))
            decided.append(decisions.narrow(1, 0, settled))
            number += settled
        margins = torch.cat(read, 1)
        return self.trunk.head(x), margins, torch.cat(decided, 1).to(margins.dtype)

    @torch.no_grad()
    def sampled(self, images: Tensor, noise: Tensor) -> tuple[Tensor, GateTrace]:
        """Many draws of the stochastic gates (Eq. 8) at the cost of the distinct paths among them.

        Draws of an image that have decided alike so far share one hidden state, so each block runs once per image and
        distinct prefix of decisions.

        Args:
            images: (N, C, H, W) in [0, 1].
            noise: (S, N, L) logistic noise.

        Returns:
            Logits (S, N, classes) and a trace with margins and decisions of shape (S, N, L): what
            :meth:`traced` gives draw by draw, up to the order of float sums.
        """
        size = max(1, PATHS_AT_ONCE.get(images.device.type, len(images)) // len(noise))
        parts = [self._sampled(part, own) for part, own in zip(images.split(size), noise.split(size, 1), strict=True)]
        logits, margins, opened = (torch.cat(tensors, 1) for tensors in zip(*parts, strict=True))
        return logits, GateTrace(margins, opened, costs(self.trunk, tuple(images.shape[1:])))

    def _sampled(self, images: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x = self.trunk.stem(images)
        state = torch.arange(len(images), device=images.device).expand(noise.shape[:2])
        margins, decisions = [], []
        for number, (block, gate) in enumerate(zip(self.trunk.blocks, self.gates, strict=True)):
            margin = gate(x)[:, 0][state]
            opened = margin + noise[:, :, number] > 0
            pairs, state = torch.unique(2 * state + opened, return_inverse=True)
            x = _branch(block, x, pairs // 2, pairs % 2)
            margins.append(margin)
            decisions.append(opened.to(margin.dtype))
        return self.trunk.head(x)[state], torch.stack(margins, 2), torch.stack(decisions, 2)


def _branch(block: nn.Module, x: Tensor, source: Tensor, decision: Tensor) -> Tensor:
    """The hidden states that follow ``x[source]`` (M,) under the decisions (M,)."""
    total = _take(block.shortcut(x), source)  # type: ignore[operator]
    opened = decision.nonzero()[:, 0]
    if len(opened):
        total = _add(total, opened, block.residual(_take(x, source[opened])))  # type: ignore[operator]
    return block.finish(total)  # type: ignore[operator, no-any-return]


def _channels(block: nn.Module) -> int:
    return next(module.in_channels for module in block.modules() if isinstance(module, nn.Conv2d))


def _scale(block: nn.Module, x: Tensor, decision: Tensor) -> Tensor:
    residual = block.residual(x)  # type: ignore[operator]
    total = _GatedSum.apply(block.shortcut(x), residual, decision.to(residual.dtype))  # type: ignore[operator]
    return block.finish(total)  # type: ignore[operator, no-any-return]


class _GatedSum(torch.autograd.Function):
    """shortcut + decision * residual in one pass over memory; autograd's own way is a third slower on a CPU."""

    @staticmethod
    def forward(ctx: Any, shortcut: Tensor, residual: Tensor, decision: Tensor) -> Tensor:
        ctx.save_for_backward(residual, decision)
        return torch.addcmul(shortcut, residual, decision.view(-1, 1, 1, 1))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        residual, decision = ctx.saved_tensors
        pull = None
        if ctx.needs_input_grad[2]:
            order = (0, 2, 3, 1)  # as channels-last images lie in memory
            rows, columns = (t.permute(order).flatten(1) for t in (gradient, residual))
            pull = torch.bmm(rows[:, None], columns[:, :, None]).view(-1)
        return gradient, gradient * decision.view(-1, 1, 1, 1), pull


def _skip(blocks: Sequence[Any], x: Tensor, decision: Tensor) -> tuple[Tensor, int]:
    """Eq. 4: the residual branch of the images whose gate is open, nothing for the others.

    Runs the blocks up to the first that changes the features, as one does not that is closed for every image and has no
    projection. Without gradients ``x`` may be overwritten, so that closed images are not even copied.

    Args:
        blocks: k of them, in order.
        x: what enters the first, (N, C, H, W).
        decision: (N, k) of 0 and 1.

    Returns:
        The features, and how many blocks are behind them.
    """
    for number, block in enumerate(blocks):
        rows = decision[:, number].nonzero()[:, 0]
        if rows.shape[0] == x.shape[0]:
            return block(x), number + 1
        total: Tensor = block.shortcut(x)
        if rows.shape[0]:
            total = _add(total, rows, block.residual(_take(x, rows)))
        elif total is x:
            continue  # what leaves a block is finished already
        return block.finish(total), number + 1
    return x, len(blocks)


def _alone(trunk: Trunk, gates: Sequence[nn.Module], x: Tensor, policy: Policy) -> tuple[Tensor, Tensor, Tensor]:
    """:meth:`ConvNetAIG.gated` from the stem's output on, for one image and hard gates without gradients.

    There are no rows to choose, and next to a single image's convolutions every small operation shows: what the gates
    say goes to the host at once, where it is kept as numbers.
    """
    read: list[float] = []
    decided: list[float] = []
    blocks = trunk.blocks
    while len(read) < len(blocks):
        margins = gates[len(read)](x)
        decisions = policy.decide(margins, len(read))
        for margin, decision in zip(margins.tolist()[0], decisions.tolist()[0], strict=True):
            block = blocks[len(read)]
            read.append(margin)
            decided.append(decision)
            if decision:
                x = block(x)
                break
            closed = block.shortcut(x)
            if closed is not x:
                x = block.finish(closed)
                break
    return trunk.head(x), margins.new_tensor([read]), margins.new_tensor([decided])


def _take(x: Tensor, rows: Tensor) -> Tensor:
    """``x[rows]`` in the memory format of ``x``."""
    if not x.is_contiguous(memory_format=torch.channels_last):
        return x.index_select(0, rows)
    return x.permute(0, 2, 3, 1).index_select(0, rows).permute(0, 3, 1, 2)


def _add(x: Tensor, rows: Tensor, branch: Tensor) -> Tensor:
    """``x`` with ``branch`` added to its ``rows``; in place where no gradient is wanted.

    Indexing is slow unless an image is one run of memory (20 times for index_add on a CPU), hence the views.
    """
    order, back = (0, 2, 3, 1), (0, 3, 1, 2)
    if not x.is_contiguous(memory_format=torch.channels_last):
        order = back = (0, 1, 2, 3)
    view, addend = x.permute(order), branch.permute(order)
    if x.requires_grad or branch.requires_grad:
        return view.index_add(0, rows, addend).permute(back)
    view.index_add_(0, rows, addend)
    return x


@register(
    "aig",
    "ConvNet-AIG: each residual block has a gate (Veit and Belongie 2018)",
    dynamic=True,
    cifar=(20, 32, 38, 44, 56, 74, 110),
    imagenet=(18, 34, 50, 101),
)
def aig(
    arch: Architecture,
    *,
    classes: int,
    channels: int,
    hidden: int = 16,
    shortcut: Shortcut = "projection",
    norm: Normalization | None = None,
) -> ConvNetAIG:
    """A gated residual network.

    Args:
        arch: which one.
        classes: number of classes.
        channels: image channels.
        hidden: d of Eq. 6.
        shortcut: as in :class:`~robustbench_aig.models.resnet.CifarResNet`.
        norm: of its images; by default CIFAR-10's or ImageNet's.

    Raises:
        UsageError: the network cannot have that shortcut or that many channels.
    """
    return ConvNetAIG(resnet(arch, classes=classes, channels=channels, shortcut=shortcut, norm=norm), hidden)
