"""Enumeration of graphs: the exact law of sampled gates."""

import pytest
import torch
from scipy.stats import chisquare
from torch import Tensor

from robustbench_aig.contracts.enumeration import enumerate_routes, require_enumerable, route_number
from robustbench_aig.contracts.noise import logistic
from robustbench_aig.contracts.policy import Forced, Stochastic
from robustbench_aig.errors import UsageError
from robustbench_aig.models.aig import ConvNetAIG
from robustbench_aig.models.resnet import CifarResNet
from tests.attacks.gates.conftest import opinionated
from tests.fixtures.analytic import three_gates


@pytest.fixture(scope="module")
def model() -> ConvNetAIG:
    return opinionated(8)


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.rand((3, 3, 8, 8), generator=torch.Generator().manual_seed(0))


def test_every_graph_gives_what_forcing_it_gives(model: ConvNetAIG, images: Tensor) -> None:
    with torch.no_grad():
        found = enumerate_routes(model, images)
        for number, graph in enumerate(model.layout.routes()):
            logits, trace = model.traced(images, Forced(graph[None]))
            assert torch.allclose(found.logits[number], logits, atol=1e-5)
            assert torch.allclose(found.trace.margin[number], trace.margin, atol=1e-5)
            assert torch.equal(found.trace.open[number], graph.expand(3, 3))


def test_probabilities_sum_to_one_and_are_those_of_sampling(model: ConvNetAIG, images: Tensor) -> None:
    with torch.no_grad():
        chance = enumerate_routes(model, images).log_prob.exp()
        noise = logistic(0, "score", torch.arange(4000), 3, [0])[0]
        drawn = model.traced(images[:1].expand(4000, -1, -1, -1), Stochastic(noise))[1].open
    assert torch.allclose(chance.sum(0), torch.ones(3), atol=1e-6)
    counts = route_number(model.layout, drawn).bincount(minlength=8).double()
    expected = chance[:, 0].double() / chance[:, 0].double().sum() * 4000
    assert chisquare(counts, expected).pvalue > 0.001


def test_its_gradient_is_that_of_the_expectation() -> None:
    network, generator = three_gates(), torch.Generator().manual_seed(0)

    def expected(points: Tensor) -> Tensor:
        found = enumerate_routes(network, points)
        return (found.log_prob.exp() * found.logits[..., 1]).sum()

    points = torch.rand((2, 2, 4, 4), generator=generator, dtype=torch.float64).requires_grad_()
    (gradient,) = torch.autograd.grad(expected(points), points)
    step = 1e-5 * gradient / gradient.norm()
    with torch.no_grad():
        slope = (expected(points + step) - expected(points - step)) / 2e-5
    assert slope.item() == pytest.approx(gradient.norm().item(), rel=1e-6)


def test_leaving_out_unlikely_graphs_leaves_out_little(model: ConvNetAIG, images: Tensor) -> None:
    with torch.no_grad():
        every, likely = enumerate_routes(model, images), enumerate_routes(model, images, 0.05)
    assert (likely.mass < 1).any()
    assert (likely.mass >= 1 - 8 * 0.05).all()
    assert (likely.work <= every.work).all()
    assert every.work.tolist() == [7] * 3
    for image in range(3):
        kept = likely.log_prob[:, image].isfinite()
        numbers = route_number(model.layout, likely.trace.open[kept, image])
        assert len(set(numbers.tolist())) == int(kept.sum())
        assert torch.allclose(likely.log_prob[kept, image], every.log_prob[numbers, image], atol=1e-5)
        assert torch.allclose(likely.logits[kept, image], every.logits[numbers, image], atol=1e-5)


def test_what_cannot_be_enumerated_is_refused(images: Tensor) -> None:
    torch.manual_seed(0)
    with pytest.raises(UsageError, match="up to 1024 routes, this model has 4,096"):
        enumerate_routes(ConvNetAIG(CifarResNet(26)), images)
    with pytest.raises(UsageError, match="only a network that decides"):
        require_enumerable(None)
