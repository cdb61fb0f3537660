"""Mixture of experts (Shazeer et al. 2017; Switch Transformer, Fedus et al. 2022) in residual blocks: a router sends
each image through k of E convolutional experts."""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from robustbench_aig.contracts.network import Lesson, Stepwise, added
from robustbench_aig.contracts.network import take as rows_of
from robustbench_aig.contracts.policy import Policy, Stochastic
from robustbench_aig.contracts.trace import Costs
from robustbench_aig.contracts.units import Router
from robustbench_aig.errors import UsageError
from robustbench_aig.models.architectures import Architecture
from robustbench_aig.models.folding import folded
from robustbench_aig.models.macs import trunk_macs
from robustbench_aig.models.resnet import BasicBlock, Normalization, Shortcut, Trunk, resnet
from robustbench_aig.models.switching import channels as entering
from robustbench_aig.registry import register

BALANCE = 0.01
"""Weight of the load-balancing loss (Switch Transformer, Eq. 4)."""


class ExpertNet(Stepwise):
    """``x_(l+1) = x_l + sum over the chosen e of w_e f_(l,e)(x_l)``: each residual branch is k of E experts.

    The router of a block is a linear layer on the pooled features. The weight w_e is the softmax over all scores where
    one expert is chosen, so that a gradient reaches the router (Switch Transformer, Eq. 2), and over the chosen scores
    where several are (Shazeer et al., Eq. 3 to 5).

    Args:
        trunk: a residual network of basic blocks; its own branches are the first experts.
        experts: E.
        chosen: k.
    """

    def __init__(self, trunk: Trunk, experts: int = 4, chosen: int = 1) -> None:
        routers = [Router(tuple(f"{name}.{e}" for e in range(experts)), chosen) for name in trunk.block_names]
        super().__init__(tuple(routers))
        self.trunk, self.chosen = trunk, chosen
        self.routers = nn.ModuleList(nn.Linear(entering(block), experts) for block in trunk.blocks)
        self.others = nn.ModuleList(nn.ModuleList(_like(block) for _ in range(experts - 1)) for block in trunk.blocks)

    def begin(self, images: Tensor) -> Tensor:
        return self.trunk.stem(images)

    def score(self, number: int, state: Any) -> Tensor:
        with torch.autocast(state.device.type, enabled=False):
            scores: Tensor = self.routers[number](state.float().mean((2, 3)))
        return scores

    def advance(self, number: int, state: Any, decision: Tensor) -> Tensor:
        block = self.trunk.blocks[number]
        scores = self.score(number, state)
        if self.chosen > 1:
            scores = scores.masked_fill(decision.detach() < 0.5, -torch.inf)
        weights = scores.softmax(1).to(state.dtype)
        total = block.shortcut(state)
        if total is state:
            total = total.clone()
        for expert, branch in enumerate([block, *self.others[number]]):  # type: ignore[misc]
            weight = weights[:, expert]
            if decision.dtype != torch.bool:
                share = (weight * decision[:, expert].to(weight.dtype)).view(-1, 1, 1, 1)
                total = total + share * branch.residual(state)
                continue
            rows = decision[:, expert].nonzero()[:, 0]
            if len(rows):
                part = branch.residual(rows_of(state, rows)) * weight[rows].view(-1, 1, 1, 1)
                total = added(total, rows, part.to(total.dtype))
        finished: Tensor = block.finish(total)
        return finished

    def answer(self, state: Any) -> Tensor:
        return self.trunk.head(state)

    def taught(self, images: Tensor, policy: Policy) -> Lesson:
        """The logits, and the load-balancing loss: E times the sum over experts of how often each is chosen times its
        mean chance, as a mean over blocks (Switch Transformer, Eq. 4 to 6). Experts that are not chosen do not run; the
        router learns through the weights of those that are."""
        if isinstance(policy, Stochastic):
            policy = replace(policy, gradient="none")
        logits, trace = self.traced(images, policy)
        often, chance = trace.open.detach().mean(0), trace.prob.mean(0)
        per_block = [len(often[span]) * (often[span] * chance[span]).sum() / k for span, k in self.layout.routers]
        return Lesson(logits[None], None, BALANCE * torch.stack(per_block).mean())

    def costs(self, image_shape: tuple[int, ...]) -> Costs:
        """Multiply-adds of images of shape (C, H, W): stem, shortcuts, routers and head always run."""
        floor, blocks, shapes = trunk_macs(self.trunk, image_shape)
        experts = len(self.layout.decisions[0].names)
        floor += sum(float(shape[0] * experts) for shape in shapes)
        return Costs(floor, torch.tensor(blocks, dtype=torch.float64).repeat_interleave(experts))

    def fused(self) -> "ExpertNet":
        """A copy without BatchNorm that computes the same in eval mode, up to float rounding."""
        return folded(self)


def _like(block: BasicBlock) -> BasicBlock:
    """A fresh block of the same sizes, of which only the branch is used."""
    first, second = block.conv1, block.conv2
    stride = first.stride if isinstance(first.stride, int) else first.stride[0]
    made = BasicBlock(first.in_channels, second.out_channels, stride)
    for module in made.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return made


@register(
    "moe",
    "residual network with k of E experts in each block (Shazeer et al. 2017)",
    dynamic=True,
    cifar=(20, 32, 38, 44, 56, 74, 110),
    imagenet=(18, 34),
)
def moe(
    arch: Architecture,
    *,
    classes: int,
    channels: int,
    experts: int = 4,
    chosen: int = 1,
    shortcut: Shortcut = "projection",
    norm: Normalization | None = None,
) -> ExpertNet:
    """A residual network with experts.

    Args:
        arch: which one.
        classes: number of classes.
        channels: image channels.
        experts: E, in each block.
        chosen: k, in each block.
        shortcut: as in :class:`~robustbench_aig.models.resnet.CifarResNet`.
        norm: of its images; by default CIFAR-10's or ImageNet's.

    Raises:
        UsageError: the network cannot have that shortcut or that many channels, or k is not below E.
    """
    if not 1 <= chosen < experts:
        raise UsageError(f"'{arch.name}' chooses 1 to {experts - 1} of {experts} experts, not {chosen}.")
    return ExpertNet(resnet(arch, classes=classes, channels=channels, shortcut=shortcut, norm=norm), experts, chosen)
