"""Real skipping: closed blocks are not run, shared paths run once, and nothing else changes."""

import pytest
import torch
from torch import Tensor

from robustbench_aig.contracts.network import costs_of
from robustbench_aig.contracts.noise import logistic
from robustbench_aig.contracts.policy import Deterministic, Forced, Policy, Stochastic
from robustbench_aig.models import switching
from robustbench_aig.models.aig import ConvNetAIG
from robustbench_aig.models.gate_unit import FoldedGate
from tests.models.conftest import noise


@pytest.mark.parametrize("policy", ["deterministic", "stochastic"])
def test_skipping_gives_what_multiplying_gives(model: ConvNetAIG, images: Tensor, policy: str) -> None:
    chosen: Policy = Deterministic() if policy == "deterministic" else Stochastic(noise(model, images), "none")
    with torch.no_grad():
        skipped, trace = model.traced(images, chosen)
        assert 0.1 < trace.open.mean() < 0.95
        x = model.trunk.stem(images)
        for number, block in enumerate(model.trunk.blocks):
            x = switching.switched(block, x, trace.open[:, number])
        multiplied = model.trunk.head(x)
    assert torch.allclose(skipped, multiplied, atol=1e-5)


def test_a_closed_block_is_not_run(model: ConvNetAIG, images: Tensor) -> None:
    costs_of(model, tuple(images.shape[1:]))  # counted by a pass of its own, once per network
    seen = []
    hooks = [block.conv2.register_forward_hook(lambda m, i, o: seen.append(len(o))) for block in model.trunk.blocks]
    with torch.no_grad():
        _, trace = model.traced(images, Deterministic())
    for hook in hooks:
        hook.remove()
    counts = [int(count) for count in trace.open.sum(0)]
    assert seen == [count for count in counts if count]


def test_draws_that_share_their_paths_give_what_single_draws_give(model: ConvNetAIG, images: Tensor) -> None:
    draws = logistic(0, "score", torch.arange(len(images)), len(model.layout), range(12))
    costs_of(model, tuple(images.shape[1:]))
    seen: list[int] = []
    hooks = [block.conv2.register_forward_hook(lambda m, i, o: seen.append(len(o))) for block in model.trunk.blocks]
    logits, trace = model.sampled(images, draws)
    for hook in hooks:
        hook.remove()
    assert sum(seen) < 0.8 * trace.open.sum()
    for number, draw in enumerate(draws):
        with torch.no_grad():
            alone, single = model.traced(images, Stochastic(draw))
        assert torch.equal(trace.open[number], single.open)
        assert torch.allclose(logits[number], alone, atol=1e-5)
        assert torch.allclose(trace.macs[number], single.macs)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_the_gated_sum_has_the_gradients_of_its_formula(layout: torch.memory_format) -> None:
    generator = torch.Generator().manual_seed(0)
    shape = (3, 4, 5, 2)
    shortcut, residual = (torch.randn(shape, generator=generator).to(memory_format=layout) for _ in range(2))
    decision = torch.rand(3, generator=generator)
    inputs = [value.requires_grad_() for value in (shortcut, residual, decision)]
    ours = switching._GatedSum.apply(*inputs)
    formula = shortcut + residual * decision[:, None, None, None]
    assert torch.allclose(ours, formula, atol=1e-6)
    weight = torch.randn(shape, generator=generator)
    gradients = zip(
        torch.autograd.grad(ours, inputs, weight), torch.autograd.grad(formula, inputs, weight), strict=True
    )
    assert all(torch.allclose(got, expected, atol=1e-5) for got, expected in gradients)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("count", [1, 24])
def test_skipping_has_the_input_gradient_of_multiplying(
    model: ConvNetAIG, images: Tensor, layout: torch.memory_format, count: int
) -> None:
    gradients = []
    for gradient in ("none", "straight-through"):  # the second multiplies; its gates are cut off below
        inputs = images[:count].to(memory_format=layout).requires_grad_()
        trace = model.traced(inputs, Deterministic(gradient="none"))[1]
        policy = Forced(trace.open) if gradient == "none" else Cut(trace.open)
        gradients += torch.autograd.grad(model.traced(inputs, policy)[0].square().sum(), inputs)
    assert torch.allclose(*gradients, atol=1e-4)


class Cut(Forced):
    """Forced decisions that are no bool, so that branches are multiplied instead of skipped."""

    def _bits(self, bits: Tensor, like: Tensor) -> Tensor:
        return bits.to(like.dtype)


def test_folded_gates_and_networks_give_the_same_margins_and_logits(model: ConvNetAIG, images: Tensor) -> None:
    folded = model.fused()
    assert all(isinstance(gate, FoldedGate) for gate in folded.gates)
    with torch.no_grad():
        logits, trace = model.traced(images, Deterministic(0.4))
        for batch in (images, images.to(memory_format=torch.channels_last)):
            again, retrace = folded.traced(batch, Deterministic(0.4))
            assert torch.allclose(again, logits, atol=1e-4)
            assert torch.allclose(retrace.margin, trace.margin, atol=1e-4)
            assert torch.equal(retrace.open, trace.open)
    assert folded.fused().gates[0].weight.equal(folded.gates[0].weight)  # type: ignore[union-attr, index, operator]


def test_skipping_leaves_the_images_as_they_were(model: ConvNetAIG, images: Tensor) -> None:
    before = images.clone()
    with torch.no_grad():
        model.traced(images, Deterministic())
    assert torch.equal(images, before)
