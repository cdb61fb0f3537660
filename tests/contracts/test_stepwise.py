"""Stepwise networks with decisions of every kind: one pass, many draws, enumeration and the fallbacks for networks that
are no chain of steps all do what following each image by itself does."""

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from robustbench_aig.contracts import network as contract
from robustbench_aig.contracts.enumeration import enumerate_routes, route_number
from robustbench_aig.contracts.network import costs_of, counted, sampled
from robustbench_aig.contracts.noise import logistic
from robustbench_aig.contracts.policy import Deterministic, Expected, Forced, Gradient, Policy, Relaxed, Stochastic
from robustbench_aig.contracts.routing import choices
from robustbench_aig.contracts.trace import Trace
from robustbench_aig.contracts.units import Exit, Router
from tests.fixtures.toys import CLASSES, LAYOUTS, WIDTH, Toy, Twin, images, path

DRAWS = 8


@pytest.fixture(params=LAYOUTS.values(), ids=LAYOUTS)
def toy(request: pytest.FixtureRequest) -> Toy:
    return Toy(request.param)


def noise(toy: Toy, draws: int = DRAWS, count: int = 12) -> Tensor:
    return logistic(0, "score", torch.arange(count), len(toy.layout), range(draws)).double()


def followed(toy: Toy, draws: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Logits (S, N, classes), margins and decisions (S, N, L) of following each image by itself."""
    pictures = images(draws.shape[1])
    paths = [[path(toy, image, own.tolist()) for image, own in zip(pictures, draw, strict=True)] for draw in draws]
    logits = torch.stack([torch.stack([one.logits for one in row]) for row in paths])
    margin, opened = (
        torch.tensor([[getattr(one, name) for one in row] for row in paths], dtype=torch.float64)
        for name in ("margin", "open")
    )
    return logits, margin, opened


def test_traced_sampled_and_enumerated_are_what_each_image_does_by_itself(toy: Toy) -> None:
    draws = noise(toy)
    logits, margin, opened = followed(toy, draws)
    for unit in toy.layout.exits:  # images leave at every exit, and others go on past it
        reached = toy.layout.reached(opened)[..., unit]
        assert 0 < opened[..., unit][reached].mean() < 1
    pictures = images()
    together, trace = toy.sampled(pictures, draws)
    torch.testing.assert_close(together, logits)
    torch.testing.assert_close(trace.margin, margin)
    assert torch.equal(trace.open, opened)
    for number, draw in enumerate(draws):
        single, alone = toy.traced(pictures, Stochastic(draw, "none"))
        torch.testing.assert_close(single, logits[number])
        torch.testing.assert_close(alone.margin, margin[number])
        assert torch.equal(alone.open, opened[number])
    every = enumerate_routes(toy, pictures)
    at = route_number(toy.layout, opened)
    image = torch.arange(len(pictures)).expand_as(at)
    torch.testing.assert_close(every.logits[at, image], logits)
    torch.testing.assert_close(every.trace.margin[at, image], margin)
    assert torch.equal(every.trace.open, toy.layout.routes().double()[:, None].expand_as(every.trace.open))


def test_a_network_without_steps_goes_through_the_fallbacks_with_the_same_numbers(toy: Toy) -> None:
    twin, draws, pictures = Twin(toy).eval(), noise(toy), images()
    for one, other in (
        (sampled(twin, pictures, draws), sampled(toy, pictures, draws)),
        (twin.traced(pictures, Expected()), toy.traced(pictures, Expected())),
        (twin.traced(pictures, Relaxed(draws[0])), toy.traced(pictures, Relaxed(draws[0]))),
        (twin.traced(pictures, Deterministic(0.6)), toy.traced(pictures, Deterministic(0.6))),
    ):
        torch.testing.assert_close(one[0], other[0])
        torch.testing.assert_close(one[1].margin, other[1].margin)
        torch.testing.assert_close(one[1].open, other[1].open)
    forced, every = enumerate_routes(twin, pictures), enumerate_routes(toy, pictures)
    torch.testing.assert_close(forced.logits, every.logits)
    torch.testing.assert_close(forced.trace.margin, every.trace.margin)
    torch.testing.assert_close(forced.log_prob, every.log_prob)
    assert torch.equal(forced.trace.open, every.trace.open)


def test_probabilities_of_routes_sum_to_one_and_are_those_of_the_trace(toy: Toy) -> None:
    every = enumerate_routes(toy, images())
    torch.testing.assert_close(every.mass, torch.ones(12, dtype=torch.float64))
    torch.testing.assert_close(every.trace.log_prob, every.log_prob)


def test_leaving_unlikely_beginnings_out_keeps_the_others(toy: Toy) -> None:
    pictures = images()
    every, likely = enumerate_routes(toy, pictures), enumerate_routes(toy, pictures, 0.1)
    assert (likely.mass < 1 - 1e-6).any()
    assert (likely.work <= every.work).all()
    for image in range(len(pictures)):
        kept = likely.log_prob[:, image].isfinite()
        at = route_number(toy.layout, likely.trace.open[kept, image])
        assert len(set(at.tolist())) == int(kept.sum()) > 0
        torch.testing.assert_close(likely.log_prob[kept, image], every.log_prob[at, image])
        torch.testing.assert_close(likely.logits[kept, image], every.logits[at, image])
        torch.testing.assert_close(likely.trace.margin[kept, image], every.trace.margin[at, image])
        dropped = set(range(toy.layout.count)) - set(at.tolist())
        assert all(every.log_prob[number, image].exp() <= 0.1 for number in dropped)


def test_chances_of_running_have_the_mean_of_the_decisions(toy: Toy) -> None:
    """Rao-Blackwell: over the law of the routes, exactly."""
    every = enumerate_routes(toy, images())
    weights = every.log_prob.exp()[..., None]
    torch.testing.assert_close((weights * every.trace.running).sum(0), (weights * every.trace.open).sum(0))


def test_the_mean_divergence_along_routes_is_that_of_their_laws(toy: Toy) -> None:
    one, other = (enumerate_routes(toy, pictures) for pictures in (images(), images().flip(0)))
    along = (one.log_prob.exp() * one.trace.divergence(other.trace)).sum(0)
    torch.testing.assert_close(along, (one.log_prob.exp() * (one.log_prob - other.log_prob)).sum(0))
    assert (along > 0).all()


def test_saturated_switches_keep_their_log_odds_beside_routers() -> None:
    toy = Toy(LAYOUTS["mixed"])
    trace = toy.traced(images(), Deterministic())[1]
    far = Trace(trace.margin.clone().index_fill(-1, torch.tensor([0]), 60.0), trace.open, trace.costs, trace.layout)
    torch.testing.assert_close(far.log_skip[:, 0], torch.full((12,), -60.0, dtype=torch.float64))


@pytest.mark.parametrize("threshold", [0.3, 0.6])
def test_images_that_leave_run_nothing_behind_the_exit(toy: Toy, threshold: float) -> None:
    pictures = images(40)
    costs_of(toy, tuple(pictures.shape[1:]))  # counted by passes of its own, once per network
    toy.ran.clear()
    _, trace = toy.traced(pictures, Deterministic(threshold))
    runs = {name: int(count) for name, count in zip(toy.layout.names, trace.open.sum(0), strict=True)}
    assert {name: toy.ran[name] for name in runs} == runs
    if toy.layout.exits:
        assert 0 < trace.open[:, toy.layout.exits[0]].sum() < 40


def test_draws_share_the_work_of_their_common_beginnings(toy: Toy) -> None:
    draws = noise(toy, 20)
    costs_of(toy, tuple(images().shape[1:]))
    toy.ran.clear()
    _, trace = toy.sampled(images(), draws)
    opened = trace.open.long()
    for number, (decision, span) in enumerate(zip(toy.layout.decisions, toy.layout.spans, strict=True)):
        for unit in range(span.start, span.stop):
            began = {
                (image, tuple(opened[draw, image, : span.stop].tolist()))
                for draw in range(20)
                for image in range(12)
                if opened[draw, image, unit]
            }
            assert toy.ran[toy.layout.names[unit]] == len(began), (number, decision)


def test_parts_of_a_batch_give_what_the_whole_gives(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    draws = noise(toy)
    whole = toy.sampled(images(), draws)
    monkeypatch.setitem(contract.PATHS_AT_ONCE, "cpu", 5 * DRAWS)
    parts = toy.sampled(images(), draws)
    torch.testing.assert_close(parts[0], whole[0])
    torch.testing.assert_close(parts[1].margin, whole[1].margin)
    assert torch.equal(parts[1].open, whole[1].open)


def gradient(toy: Toy, policy: Policy) -> tuple[Tensor, Tensor, Trace]:
    pictures = images().requires_grad_()
    logits, trace = toy.traced(pictures, policy)
    (found,) = torch.autograd.grad(logits.square().sum(), pictures)
    return found, logits.detach(), trace


@pytest.mark.parametrize("hard", [Deterministic, Stochastic])
def test_a_gradient_through_decisions_changes_no_value(toy: Toy, hard: type[Policy]) -> None:
    """Straight-through passes run on what has left, and must still say what the images did."""
    draw = noise(toy)[0]

    def policy(kind: Gradient) -> Policy:
        return Deterministic(0.6, kind) if hard is Deterministic else Stochastic(draw, kind)

    (through, logits, trace), (bare, plain, own) = (
        gradient(toy, policy(kind)) for kind in ("straight-through", "none")
    )
    torch.testing.assert_close(logits, plain)
    torch.testing.assert_close(trace.margin, own.margin)
    assert torch.equal(trace.open.detach(), own.open)
    assert torch.equal(trace.macs, own.macs)
    assert through.isfinite().all()
    assert not torch.allclose(through, bare)


@dataclass(frozen=True)
class Around(Policy):
    """The hard decisions of the first pass, moved by as much as the relaxed ones have moved since."""

    noise: Tensor
    known: dict[int, tuple[Tensor, Tensor]]

    def switch(self, unit: int, margin: Tensor, rows: Tensor | None = None) -> Tensor:
        noisy = margin + self.noise[:, unit]
        return self._moved(unit, (noisy > 0).double(), 1 / (1 + (-noisy).exp()))

    def route(self, unit: int, scores: Tensor, chosen: int, rows: Tensor | None = None) -> Tensor:
        noisy = scores - (1 + (-self.noise[:, unit : unit + scores.shape[1]]).exp()).log().log()
        best = noisy.topk(chosen).indices
        hard = torch.zeros_like(scores).scatter(1, best, 1.0)
        bits, log_prob = choices(noisy, chosen)
        return self._moved(unit, hard, log_prob.exp() @ bits)

    def _moved(self, unit: int, hard: Tensor, soft: Tensor) -> Tensor:
        taken, at = self.known.setdefault(unit, (hard, soft))
        return taken + soft - at


def test_the_straight_through_gradient_is_the_slope_of_relaxed_decisions_at_the_hard_ones(toy: Toy) -> None:
    draw, pictures = noise(toy)[0], images()
    found, _, _ = gradient(toy, Stochastic(draw))
    policy = Around(draw, {})

    def value(points: Tensor) -> Tensor:
        return toy.traced(points, policy)[0].square().sum((1,))

    value(pictures)
    generator = torch.Generator().manual_seed(1)
    for _ in range(3):
        step = 1e-6 * torch.randn(pictures.shape, generator=generator, dtype=torch.float64)
        slope = (value(pictures + step) - value(pictures - step)) / 2
        torch.testing.assert_close((found * step).sum((1, 2, 3)), slope, rtol=1e-5, atol=1e-11)


@pytest.mark.parametrize("policy", [Expected(), Relaxed(torch.zeros(1, 8, dtype=torch.float64), 0.5)], ids=str)
def test_soft_passes_are_differentiable(toy: Toy, policy: Policy) -> None:
    def logits(pictures: Tensor) -> Tensor:
        return toy.traced(pictures, policy)[0]

    assert torch.autograd.gradcheck(logits, images(2).requires_grad_(), fast_mode=True)


def test_soft_exits_weigh_the_answers_by_the_chance_of_leaving() -> None:
    """Between exits alone nothing else is soft, so AIG*'s pass is the exact mean over the routes."""
    toy = Toy(LAYOUTS["exits"])
    every = enumerate_routes(toy, images())
    mean = (every.log_prob.exp()[..., None] * every.logits).sum(0)
    torch.testing.assert_close(toy.traced(images(), Expected())[0], mean)


def test_the_expectation_over_routes_is_differentiable(toy: Toy) -> None:
    def mean(pictures: Tensor) -> Tensor:
        found = enumerate_routes(toy, pictures)
        return (found.log_prob.exp()[..., None] * found.logits.tanh()).sum(0)

    def by_trace(pictures: Tensor) -> Tensor:
        found = enumerate_routes(Twin(toy), pictures)
        return (found.log_prob.exp()[..., None] * found.logits.tanh()).sum(0)

    assert torch.autograd.gradcheck(mean, images(2).requires_grad_(), fast_mode=True)
    assert torch.autograd.gradcheck(by_trace, images(2).requires_grad_(), fast_mode=True)


def test_forcing_the_route_of_an_image_changes_nothing(toy: Toy) -> None:
    draw = noise(toy)[0]
    logits, trace = toy.traced(images(), Stochastic(draw, "none"))
    again, forced = toy.traced(images(), Forced(trace.open))
    torch.testing.assert_close(again, logits)
    assert torch.equal(forced.open, trace.open)


def test_counted_costs_are_the_multiply_adds_of_units(toy: Toy) -> None:
    costs = counted(toy, (3, 2, 2))
    unit, head = WIDTH * WIDTH, WIDTH * CLASSES
    floor, units, last = 3 * WIDTH + head, [], None
    for decision in toy.layout.decisions:
        asked = WIDTH * len(decision.names)
        if last is not None:  # what is asked and answered behind an exit belongs to its unit
            units[last] += asked
        else:
            floor += asked
        units += [unit] * len(decision.names)
        if isinstance(decision, Exit):
            last = len(units) - 1
            units[last] += head
    assert costs.floor == floor
    assert costs.units.tolist() == units


def test_every_route_costs_what_is_counted_along_it(toy: Toy) -> None:
    costs, image = costs_of(toy, (3, 2, 2)), images(1)
    for route in toy.layout.routes().double():

        def along(picture: Tensor, route: Tensor = route) -> Tensor:
            return toy.traced(picture, Forced(route[None]))[0]

        assert contract.multiply_adds(along, image)[1] == float(costs.of(route))


def test_all_images_may_leave_or_stay(toy: Toy) -> None:
    for bits in (0.0, 1.0):
        route = torch.full((1, len(toy.layout)), bits, dtype=torch.float64)
        for span, chosen in toy.layout.routers:
            route[0, span] = (torch.arange(span.stop - span.start) < chosen).double()
        logits, trace = toy.traced(images(), Forced(route))
        assert logits.shape == (12, CLASSES)
        assert torch.equal(trace.open, toy.layout.settled(route).expand(12, -1))


def test_routers_are_named_by_their_scores() -> None:
    toy = Toy((Router(("a", "b", "c"), 2),))
    _, trace = toy.traced(images(), Deterministic())
    best = toy.score(0, toy.begin(images())).topk(2).indices
    assert torch.equal(trace.open, torch.zeros_like(trace.open).scatter(1, best, 1.0))
