"""ConvNet-AIG: equations of the paper, policies and what they cost."""

import pytest
import torch
from scipy.stats import binomtest
from torch import Tensor, nn

from robustbench_aig.contracts.enumeration import enumerate_routes
from robustbench_aig.contracts.network import gating
from robustbench_aig.contracts.noise import logistic
from robustbench_aig.contracts.policy import Deterministic, Expected, Forced, Relaxed, Stochastic
from robustbench_aig.contracts.units import Layout, Switch
from robustbench_aig.data import load_dataset
from robustbench_aig.models.aig import ConvNetAIG
from robustbench_aig.models.architectures import ARCHITECTURES, build
from robustbench_aig.models.gate_unit import GateUnit
from robustbench_aig.models.macs import full_macs, trunk_macs
from robustbench_aig.models.resnet import CifarResNet, ImageNetResNet, StochasticDepth, Trunk
from robustbench_aig.models.resolve import load_model
from tests.models.conftest import noise, spread


@pytest.mark.parametrize(("name", "parameters"), [("aig110", 1_766_630), ("aig50", 25_768_264), ("aig101", 45_040_314)])
def test_parameter_counts(name: str, parameters: int) -> None:
    with torch.device("meta"):
        arch = ARCHITECTURES[name]
        model = build(name, classes=arch.classes)
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters


def test_fresh_gates_open_for_85_to_87_percent(images: Tensor) -> None:
    torch.manual_seed(0)
    model = ConvNetAIG(CifarResNet(20)).eval()
    with torch.no_grad():
        _, trace = model.traced(images, Deterministic())
    assert 0.85 <= trace.prob.mean().item() <= 0.88


def test_forcing_the_graph_of_an_image_changes_nothing(model: ConvNetAIG, images: Tensor) -> None:
    with torch.no_grad():
        plain, trace = model.traced(images, Stochastic(noise(model, images)))
        forced, again = model.traced(images, Forced(trace.open))
    assert torch.equal(plain, forced)
    assert torch.equal(trace.open, again.open)


def test_threshold_is_equation_12(model: ConvNetAIG, images: Tensor) -> None:
    executed = []
    for threshold in (0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0):
        with torch.no_grad():
            _, trace = model.traced(images, Deterministic(threshold))
        assert torch.equal(trace.open.bool(), trace.prob.double() > threshold) or threshold in (0.0, 1.0)
        executed.append(trace.open[:, 0].mean().item())
    assert executed == sorted(executed, reverse=True)
    assert executed[0] == 1
    assert executed[-1] == 0


def test_a_threshold_outside_the_unit_interval_is_refused() -> None:
    with pytest.raises(ValueError, match="threshold"):
        Deterministic(1.5)


def test_sampled_gates_open_with_their_probability(model: ConvNetAIG, images: Tensor) -> None:
    image = images[:1].expand(4000, -1, -1, -1)
    draws = logistic(0, "score", torch.arange(4000), len(model.layout), [0])[0]
    with torch.no_grad():
        _, trace = model.traced(image, Stochastic(draws))
    first = trace.open[:, 0]
    test = binomtest(int(first.sum()), 4000, float(trace.prob[0, 0]))
    assert test.pvalue > 0.001


def test_straight_through_gradient_is_that_of_the_relaxed_sample() -> None:
    margin = torch.linspace(-3, 3, 7).requires_grad_()
    draw = torch.linspace(1, -1, 7)[:, None]
    hard = Stochastic(draw, temperature=0.7).switch(0, margin)
    assert set(hard.tolist()) <= {0.0, 1.0}
    (gradient,) = torch.autograd.grad(hard.sum(), margin)
    soft = Relaxed(draw, temperature=0.7).switch(0, margin)
    (expected,) = torch.autograd.grad(soft.sum(), margin)
    assert torch.equal(gradient, expected)
    assert not Stochastic(draw, "none").switch(0, margin).requires_grad


def test_expected_policy_is_the_mean_of_all_graphs_on_a_linear_network() -> None:
    """AIG*: on a network that is linear in its gates (one block) scaling by P(open) is the exact mean over graphs."""
    torch.manual_seed(0)
    trunk = CifarResNet(8, preactivation=True)
    model = spread(ConvNetAIG(trunk))
    trunk.layer2, trunk.layer3 = nn.Sequential(), nn.Sequential()
    trunk.bn1, trunk.fc = nn.BatchNorm2d(16).eval(), nn.Linear(16, 10)
    trunk.head = lambda x: trunk.fc(x.mean((2, 3)))  # type: ignore[method-assign]
    model.gates = model.gates[:1]
    model.layout = Layout(model.layout.decisions[:1])
    images = torch.rand((5, 3, 8, 8), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        starred, trace = model.traced(images, Expected())
        opened, _ = model.traced(images, Forced(torch.ones(1, 1)))
        closed, _ = model.traced(images, Forced(torch.zeros(1, 1)))
    p = trace.prob
    assert torch.allclose(starred, p * opened + (1 - p) * closed, atol=1e-5)


class Linear(nn.Module):
    """A residual layer that is linear: ``x + s A x``, with nothing after the sum."""

    def __init__(self, matrix: Tensor) -> None:
        super().__init__()
        self.conv = nn.Conv2d(*matrix.shape, 1, bias=False).double()
        self.conv.weight.data.copy_(matrix[:, :, None, None])

    def shortcut(self, x: Tensor) -> Tensor:
        return x

    def residual(self, x: Tensor) -> Tensor:
        return self.conv(x)  # type: ignore[no-any-return]

    def finish(self, total: Tensor) -> Tensor:
        return total


def linear_toy(scale: float) -> ConvNetAIG:
    """Four channels, five linear layers of size ``scale``, and gates that look at what earlier layers have added."""
    torch.manual_seed(0)
    trunk = CifarResNet(8).double().eval()
    model = ConvNetAIG(trunk).double()
    matrices = torch.randn(5, 16, 16, dtype=torch.float64) * 0.2
    trunk.layer1 = nn.Sequential(*(Linear(scale * matrix) for matrix in matrices))
    trunk.layer2, trunk.layer3 = nn.Sequential(), nn.Sequential()
    trunk.fc = nn.Linear(16, 10).double()
    model.gates = nn.ModuleList(GateUnit(16).double() for _ in range(5))
    model.layout = Layout(tuple(Switch(f"layer {number}") for number in range(5)))
    for gate in model.gates:
        gate.forward = lambda x, unit=gate: 3 * unit.fc1(x.mean((2, 3))).sum(1) / 4  # type: ignore[assignment]
    return model.eval()


def test_aig_star_is_the_mean_over_all_graphs_to_first_order() -> None:
    """On a linear network they differ only from the third order on: halving the layers leaves an eighth of the gap.

    Gates add to that what they notice of earlier layers, which is of first order and weighs a layer of first order; its
    mean over draws cancels once more.
    """
    images = torch.rand((4, 3, 8, 8), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    gaps, effects = [], []
    for scale in (0.2, 0.1, 0.05):
        model = linear_toy(scale)
        with torch.no_grad():
            starred, trace = model.traced(images, Expected())
            found = enumerate_routes(model, images)
            mean = (found.log_prob.exp()[..., None] * found.logits).sum(0)
            bare, _ = model.traced(images, Forced(torch.zeros(1, 5)))
        assert 0.05 < trace.prob.std() < 0.45
        gaps.append((starred - mean).norm().item())
        effects.append((mean - bare).norm().item())
    assert gaps[0] / gaps[1] == pytest.approx(8, rel=0.1)
    assert gaps[1] / gaps[2] == pytest.approx(8, rel=0.1)
    assert effects[0] / effects[1] == pytest.approx(2, rel=0.2)


def test_aig_star_costs_as_much_as_the_full_network(model: ConvNetAIG, images: Tensor) -> None:
    with torch.no_grad():
        _, starred = model.traced(images, Expected())
        _, full = model.traced(images, Forced(torch.ones(1, len(model.layout))))
        _, sampled = model.traced(images, Stochastic(noise(model, images)))
    assert torch.equal(starred.macs, full.macs)
    assert starred.macs.unique().tolist() == [starred.costs.extreme(model.layout, 1)]
    assert starred.executed.all()
    assert sampled.macs.mean() < starred.costs.extreme(model.layout, 1)


def test_lower_thresholds_execute_more_layers_of_a_trained_network() -> None:
    """Eq. 12 at T = 0.1 … 0.9: on the network that comes with the suite, and on 20 bundled images."""
    network = load_model("aig20-cifar10").network
    assert isinstance(network, ConvNetAIG)
    pictures = load_dataset("foolbox:cifar10").images(torch.arange(20))
    executed = []
    for tenth in range(1, 10):
        with torch.no_grad():
            _, trace = network.traced(pictures, Deterministic(tenth / 10))
        assert torch.equal(trace.open.bool(), trace.prob.double() > tenth / 10)
        executed.append(trace.open.mean().item())
    assert executed == sorted(executed, reverse=True)
    assert executed[0] - executed[-1] > 0.1


def test_stochastic_depth_scales_by_survival_at_test_time() -> None:
    """p_l falls linearly to 0.5 at the last block; dropping blocks in training averages to the scaled network."""
    torch.manual_seed(0)
    network = StochasticDepth(CifarResNet(20)).eval()
    assert network.survival == pytest.approx([1 - number / 18 for number in range(1, 10)])
    images = torch.rand((2, 3, 16, 16), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        x = network.trunk.stem(images)
        for block, survival in zip(network.trunk.blocks, network.survival, strict=True):
            x = torch.relu(block.shortcut(x) + survival * block.residual(x))
        assert torch.allclose(network(images), network.trunk.head(x), atol=1e-6)


def test_stochastic_depth_keeps_blocks_as_often_as_it_says() -> None:
    network = StochasticDepth(CifarResNet(20))
    kept = [0] * 9
    for number, block in enumerate(network.trunk.blocks):
        block.register_forward_hook(lambda *_, number=number: kept.__setitem__(number, kept[number] + 1))
    network.generator.manual_seed(0)
    images = torch.rand((2, 3, 8, 8), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        for _ in range(200):
            network(images)
    for count, survival in zip(kept, network.survival, strict=True):
        assert binomtest(count, 200, survival).pvalue > 0.001


def test_gating_context_restores_the_policy_even_after_an_error(model: ConvNetAIG, images: Tensor) -> None:
    before = model.policy
    with gating(model, Forced(torch.ones(1, 9))) as recorder, torch.no_grad():
        logits = model(images)
    assert recorder.trace is not None
    assert recorder.trace.open.min() == 1
    with torch.no_grad():
        assert torch.allclose(logits, model.trunk(images), atol=1e-5)
    with pytest.raises(RuntimeError, match="stop"), gating(model, Expected()):
        raise RuntimeError("stop")
    assert model.policy is before


def test_decisions_do_not_follow_training_mode(model: ConvNetAIG, images: Tensor) -> None:
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.eval()
    model.training = True
    try:
        with torch.no_grad():
            _, trace = model.traced(images, Deterministic())
    finally:
        model.eval()
    assert torch.equal(trace.open, (trace.margin > 0).float())


@pytest.mark.parametrize("name", ["resnet20", "resnet110", "resnet18", "resnet50"])
def test_macs_agree_with_the_flop_counter_over_the_whole_network(name: str) -> None:
    from torch.utils.flop_counter import FlopCounterMode

    arch = ARCHITECTURES[name]
    model = build(name, classes=arch.classes).eval()
    shape = (3, 32, 32)
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        model(torch.zeros(1, *shape))
    assert full_macs(model, shape) == counter.get_total_flops() / 2
    assert isinstance(model, Trunk)
    floor, blocks, _ = trunk_macs(model, shape)
    assert floor + sum(blocks) == counter.get_total_flops() / 2


def test_trace_macs_are_floor_plus_open_branches(model: ConvNetAIG, images: Tensor) -> None:
    with torch.no_grad():
        _, trace = model.traced(images, Deterministic())
    floor, blocks, _ = trunk_macs(model.trunk, (3, 16, 16))
    gates = sum(16 * channels + 32 for channels in (16,) * 4 + (32,) * 3 + (64,) * 2)
    branches = torch.tensor(blocks, dtype=torch.float64)
    assert torch.equal(trace.macs, floor + gates + trace.open.double() @ branches)
    assert trace.macs.max() <= floor + gates + branches.sum()


def test_imagenet_trunk_computes_what_torchvision_computes() -> None:
    from torchvision.models import resnet18

    torch.manual_seed(0)
    reference = resnet18(num_classes=7).eval()
    own = ImageNetResNet(18, 7).eval()
    own.load_state_dict(reference.state_dict())
    images = torch.rand((2, 3, 64, 64), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(own(images), reference(own.normalize(images)))


def test_official_gate_is_reproduced() -> None:
    """Eq. 5 and 6 by hand."""
    torch.manual_seed(0)
    gate = GateUnit(4).eval()
    gate.fc2.weight.data.normal_()
    x = torch.rand(3, 4, 5, 5)
    z = x.sum((2, 3)) / 25
    hidden = torch.relu((z @ gate.fc1.weight.T + gate.fc1.bias) / (1 + gate.bn.eps) ** 0.5)
    beta = hidden @ gate.fc2.weight.T + gate.fc2.bias
    assert torch.allclose(gate(x), beta[:, 1] - beta[:, 0], atol=1e-5)
