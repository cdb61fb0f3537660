"""A network asks and the policy answers: images that leave at exits, costs by counting, and what is asked wrongly."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from robustbench_aig import DynamicNetwork, Exit, Router, Switch
from robustbench_aig.contracts.network import Asked, costs_of, skip
from robustbench_aig.contracts.noise import logistic
from robustbench_aig.contracts.policy import Deterministic, Expected, Forced, Policy, Relaxed, Stochastic
from robustbench_aig.contracts.units import Layout
from tests.fixtures.user_networks import EarlyExits, Gated, Mixed, Routed, SteppedExits, images


@pytest.fixture(scope="module")
def network() -> EarlyExits:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return EarlyExits().eval()


def noise(units: int, count: int = 8) -> Tensor:
    return logistic(0, "score", torch.arange(count), units, [0])[0]


POLICIES: list[Policy] = [
    Deterministic(),
    Deterministic(0.5),
    Deterministic(0.0),
    Deterministic(1.0),
    Deterministic(0.6, "straight-through"),
    Stochastic(noise(2), "none"),
    Stochastic(noise(2)),
    Expected(),
    Relaxed(noise(2)),
    Forced(torch.tensor([[0.0, 0.0]])),
    Forced(torch.tensor([[1.0, 0.0]])),
    Forced(torch.tensor([[1.0, 1.0]])),
]


@pytest.mark.parametrize("policy", POLICIES, ids=str)
def test_exits_in_a_forward_pass_are_those_of_a_chain_of_steps(network: EarlyExits, policy: Policy) -> None:
    """Two implementations of leaving: ``ask.exit``, and the recurrence of stepwise networks."""
    batch = images().requires_grad_()
    found = []
    for one in (network, SteppedExits(network)):
        logits, trace = one.traced(batch, policy)
        (gradient,) = torch.autograd.grad(logits.square().sum(), batch)
        found.append((logits, trace.margin, trace.open, gradient))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other)


def test_images_leave_where_they_are_confident_and_nobody_else_pays(network: EarlyExits) -> None:
    sizes: list[int] = []
    hook = network.stages[2].register_forward_hook(lambda _, inputs, __: sizes.append(len(inputs[0])))
    with torch.no_grad():
        x, answers = images(), []
        for stage, classifier in zip(network.stages, network.heads, strict=True):
            x = stage(x)
            answers.append(classifier(x))
        sizes.clear()
        logits, trace = network.traced(images(), Deterministic(0.365))
    hook.remove()
    confidence = torch.stack([answer.softmax(1).amax(1) for answer in answers[:2]], 1)
    left = confidence >= 0.365
    first, second = left[:, 0], ~left[:, 0] & left[:, 1]
    assert first.any()
    assert second.any()
    assert sizes == [8 - int(first.sum()) - int(second.sum())]
    torch.testing.assert_close(
        logits, answers[2].where(~second[:, None], answers[1]).where(~first[:, None], answers[0])
    )
    torch.testing.assert_close(torch.sigmoid(-trace.margin)[trace.reached], confidence[trace.reached])
    assert torch.equal(trace.open == 0, left | ~trace.reached)


def test_nothing_runs_once_all_images_have_left(network: EarlyExits) -> None:
    ran: list[int] = []
    hook = network.stages[1].register_forward_hook(lambda *_: ran.append(1))
    _, trace = network.traced(images(), Forced(torch.zeros(1, 2)))
    hook.remove()
    assert not ran
    assert trace.open.tolist() == [[0, 0]] * 8
    assert trace.reached.tolist() == [[True, False]] * 8


def test_confidence_can_be_the_networks_own(network: EarlyExits) -> None:
    class Early(EarlyExits):
        def run(self, images: Tensor, ask: Asked) -> Tensor:
            x = ask.exit(self.heads[0](images_of(self, images)), images_of(self, images), images.mean((1, 2, 3)) - 0.3)
            x = ask.exit(self.heads[1](x), x, torch.full((len(x), 1), 5.0))
            return self.heads[2](x)  # type: ignore[no-any-return]

    def images_of(own: EarlyExits, batch: Tensor) -> Tensor:
        features: Tensor = own.stages[0](batch)
        return features

    trace = Early().eval().traced(images(), Deterministic(0.5))[1]
    assert torch.equal(trace.open[:, 0] == 0, images().mean((1, 2, 3)) >= 0.3)
    assert (trace.open[:, 1] == 0).all()


@pytest.mark.parametrize("make", [Gated, EarlyExits, Routed, lambda: Routed(2), Mixed])
def test_counted_costs_are_those_of_every_route(make: Callable[[], DynamicNetwork]) -> None:
    network = make().eval()
    costs = costs_of(network, (3, 8, 8))
    convolution, classifier, stem = 6 * 6 * 9 * 64, 6 * 64 * 4, 3 * 6 * 9 * 64
    known = {
        Gated: (stem + 2 * 6 + classifier, [convolution] * 2),
        EarlyExits: (stem + classifier, [convolution + classifier] * 2),
        Routed: (stem + 6 * 4 + classifier, [convolution] * 4),
        Mixed: (stem + 6 + classifier, [convolution, 6 * 4 + classifier, *[convolution] * 4, convolution + classifier]),
    }
    floor, units = known[type(network)]
    assert (costs.floor, costs.units.tolist()) == (floor, units)
    cheapest, dearest = (network.layout.most(costs.units, sign) for sign in (-1, 1))
    routes = network.layout.routes()
    every = costs.of(routes * network.layout.reached(routes))
    assert (costs.extreme(network.layout, -1), costs.extreme(network.layout, 1)) == (every.min(), every.max())
    assert (costs.of(cheapest), costs.of(dearest)) == (every.min(), every.max())


class Asks(DynamicNetwork):
    """A network that asks as it is told."""

    def __init__(self, decisions: list[Switch | Exit | Router], asks: Callable[[Tensor, Asked], object]) -> None:
        super().__init__(decisions)
        self.asks = asks

    def run(self, images: Tensor, ask: Asked) -> Tensor:
        logits = images.mean((2, 3))
        self.asks(logits, ask)
        return logits


@pytest.mark.parametrize(
    ("asks", "message"),
    [
        (lambda x, ask: None, "asks for 0 of its 2 decisions; 'a' is the next"),
        (lambda x, ask: ask.switch(x[:, 0]), "asks for 1 of its 2 decisions; 'b' is the next"),
        (lambda x, ask: [ask.switch(x[:, 0]), ask.switch(x[:, 0])], "'b' is declared as Exit, and asked for as Switch"),
        (lambda x, ask: ask.route(x), "'a' is declared as Switch, and asked for as Router"),
        (lambda x, ask: ask.switch(x), r"'a' is asked for with values \(n, 3\) for n images, not \(n\)"),
        (lambda x, ask: ask.switch(x.mean()), r"'a' is asked for with values \(\) for n images, not \(n\)"),
        (lambda x, ask: [ask.switch(x[:, 0]), ask.leave(x[:1, 0])], "'b' is asked for 1 images, and 8 reach it"),
        (lambda x, ask: [ask.switch(x[:, 0]), ask.leave(x[:, 0]), ask.leave(x[:, 0])], "more than its 2 decisions"),
    ],
)
def test_asking_otherwise_than_declared_is_refused(asks: Callable[[Tensor, Asked], object], message: str) -> None:
    network = Asks([Switch("a"), Exit("b")], asks)
    with pytest.raises(ValueError, match=message):
        network.traced(images(), Deterministic(1.0))


def test_a_router_needs_a_score_for_each_unit() -> None:
    network = Asks([Router(("a", "b", "c", "d"))], lambda x, ask: ask.route(x))
    with pytest.raises(ValueError, match=r"'a' is asked for with values \(n, 3\) for n images, not \(n, 4\)"):
        network.traced(images(), Deterministic())


def test_what_is_asked_behind_an_exit_is_about_those_that_went_on() -> None:
    def asks(x: Tensor, ask: Asked) -> None:
        rest = ask.exit(x, (x, x.square()), 10 * (x[:, 0] - 0.3))
        assert torch.equal(rest[0].square(), rest[1])
        assert torch.equal(rest[0], x[x[:, 0] < 0.3])
        ask.switch(x[:, 0])

    with pytest.raises(ValueError, match=r"'b' is asked for 8 images, and \d reach it"):
        Asks([Exit("a"), Switch("b")], asks).traced(images(), Deterministic(0.5))


@pytest.mark.parametrize(
    ("decisions", "message"),
    [
        ((Switch("a"), Exit("a")), "'a' is taken twice"),
        ((Switch("a"), Router(("b", "a"))), "'a' is taken twice"),
        (("a", "b"), "a decision is a Switch, an Exit or a Router, not 'a'"),
    ],
)
def test_layouts_that_name_no_decisions_or_one_twice(decisions: tuple[Switch, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Layout(decisions)


def test_a_skipped_unit_gets_an_empty_batch_at_most() -> None:
    sizes: list[int] = []

    def block(x: Tensor) -> Tensor:
        sizes.append(len(x))
        return 2 * x

    x = torch.arange(6.0).view(3, 2)
    for decision in ([True, False, True], [False] * 3, [True] * 3):
        chosen = torch.tensor(decision)
        torch.testing.assert_close(skip(block, x, chosen), 2 * x * chosen[:, None])
        torch.testing.assert_close(skip(block, x, chosen.float()), 2 * x * chosen[:, None])
    assert sizes == [2, 3, 0, 3, 3, 3]


def test_the_front_door_has_the_names_of_the_guide() -> None:
    import robustbench_aig

    for name in ("DynamicNetwork", "Exit", "Router", "Stepwise", "Switch", "skip"):
        assert name in robustbench_aig.__all__
        assert getattr(robustbench_aig, name).__name__ == name
    assert issubclass(robustbench_aig.DynamicNetwork, nn.Module)
