"""The law of routers: Gumbel top-k by enumeration, by sampling, and from margins alone."""

from itertools import combinations, permutations

import numpy as np
import pytest
import torch
from scipy.stats import chisquare, kstest
from torch import Tensor

from robustbench_aig.contracts import routing
from robustbench_aig.contracts.noise import logistic
from robustbench_aig.contracts.policy import Deterministic, Expected, Forced, Relaxed, Stochastic, gumbel
from robustbench_aig.contracts.routing import (
    chances,
    choices,
    log_choice,
    route_divergence,
    route_margin,
    route_scores,
)

SIZES = [(2, 1), (4, 1), (4, 2), (5, 3), (6, 5)]
"""(E, k)."""


def scores(experts: int, count: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(experts)
    return 1.5 * torch.randn((count, experts), generator=generator, dtype=torch.float64)


def plackett_luce(own: list[float], subset: tuple[int, ...]) -> float:
    """Probability that the first units drawn without replacement are a subset, summed over its orders."""
    total = 0.0
    for order in permutations(subset):
        weights, chance = np.exp(own), 1.0
        for unit in order:
            chance *= weights[unit] / weights.sum()
            weights[unit] = 0
        total += chance
    return total


@pytest.mark.parametrize(("experts", "chosen"), SIZES)
def test_choices_have_the_probabilities_of_drawing_without_replacement(experts: int, chosen: int) -> None:
    own = scores(experts)
    bits, log_prob = choices(own, chosen)
    sets = list(combinations(range(experts), chosen))
    assert [tuple(row.nonzero()[:, 0].tolist()) for row in bits] == sets
    expected = torch.tensor([[plackett_luce(row, subset) for subset in sets] for row in own.tolist()])
    torch.testing.assert_close(log_prob.exp(), expected.double())
    torch.testing.assert_close(log_prob.logsumexp(-1), torch.zeros(3, dtype=torch.float64))
    torch.testing.assert_close(chances(own, chosen), expected.double() @ bits)
    for number, row in enumerate(bits):
        torch.testing.assert_close(log_choice(own, row.expand_as(own), chosen), log_prob[:, number])


@pytest.mark.parametrize(("experts", "chosen"), SIZES)
def test_sampled_choices_follow_that_law(experts: int, chosen: int) -> None:
    draws = 20_000
    own = scores(experts, 1)
    noise = logistic(0, "score", torch.arange(draws), experts, [0])[0].double()
    taken = Stochastic(noise, "none").route(0, own.expand(draws, -1), chosen)
    assert taken.dtype == torch.bool
    assert (taken.sum(1) == chosen).all()
    bits, log_prob = choices(own, chosen)
    which = (taken[:, None] == bits.bool()).all(-1)
    expected = log_prob[0].exp() * draws
    assert chisquare(which.sum(0), expected / expected.sum() * draws).pvalue > 0.001


def test_logistic_noise_becomes_gumbel_noise() -> None:
    noise = logistic(3, "score", torch.arange(4000), 5, [0]).double()
    assert kstest(gumbel(noise).flatten().numpy(), "gumbel_r").pvalue > 0.01


@pytest.mark.parametrize(("experts", "chosen"), SIZES)
def test_margins_hold_all_that_the_law_needs(experts: int, chosen: int) -> None:
    own, others = scores(experts), scores(experts).flip(0)
    margin = route_margin(own, chosen)
    best = Deterministic().route(0, own, chosen)
    assert torch.equal(margin > 0, best)
    ranked = own.sort(-1, descending=True).values
    for unit in range(experts):
        rival = torch.where(best[:, unit], ranked[:, chosen], ranked[:, chosen - 1])
        torch.testing.assert_close(margin[:, unit], own[:, unit] - rival)
    again = route_scores(margin, chosen)
    torch.testing.assert_close(again - again[:, :1], own - own[:, :1])
    torch.testing.assert_close(choices(again, chosen)[1], choices(own, chosen)[1])
    p, q = (choices(x, chosen)[1] for x in (own, others))
    torch.testing.assert_close(route_divergence(own, others, chosen), (p.exp() * (p - q)).sum(-1))
    torch.testing.assert_close(route_divergence(own, own, chosen), torch.zeros(3, dtype=torch.float64))


def test_ties_have_no_margin_and_keep_their_scores() -> None:
    own = torch.tensor([[1.0, 1.0, 1.0, 0.0]])
    margin = route_margin(own, 2)
    assert margin.tolist() == [[0, 0, 0, -1]]
    assert route_scores(margin, 2).tolist() == [[0, 0, 0, -1]]


def test_the_law_is_differentiable() -> None:
    own = scores(4, 2).requires_grad_()
    for function in (
        lambda x: choices(x, 2)[1],
        lambda x: chances(x, 3),
        lambda x: chances(route_scores(route_margin(x, 2), 2), 2),
        lambda x: route_divergence(x, x.flip(0), 2),
    ):
        assert torch.autograd.gradcheck(function, own)


@pytest.mark.parametrize("chosen", [1, 2])
def test_what_is_too_much_to_sum_up_is_approximated_by_drawing_with_replacement(
    chosen: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    own, others = scores(4), scores(4).flip(0)
    bits = choices(own, chosen)[0]
    monkeypatch.setattr(routing, "MANY", 3)
    assert routing.exact(4, chosen) is (chosen == 1)
    share = own.softmax(-1)
    torch.testing.assert_close(chances(own, chosen), (chosen * share).clamp_max(1))
    torch.testing.assert_close(log_choice(own, bits[:1].expand_as(own), chosen), share.log()[:, :chosen].sum(1))
    apart = chosen * (share * (share / others.softmax(-1)).log()).sum(1)
    torch.testing.assert_close(route_divergence(own, others, chosen), apart)


def test_soft_routes_are_the_chances_and_forced_ones_are_forced() -> None:
    own = scores(4)
    noise = logistic(0, "score", torch.arange(3), 6, [0])[0].double()
    torch.testing.assert_close(Expected().route(2, own, 2), chances(own, 2))
    soft = Relaxed(noise, temperature=0.5).route(2, own, 2)
    torch.testing.assert_close(soft, chances((own + gumbel(noise[:, 2:])) / 0.5, 2))
    graph = torch.tensor([[0.0, 0, 1, 0, 1, 0]])
    assert Forced(graph).route(2, own, 2).tolist() == [[True, False, True, False]] * 3
    rows = torch.tensor([2, 0])
    some = Stochastic(noise, "none").route(2, own[rows], 2, rows)
    assert torch.equal(some, Stochastic(noise, "none").route(2, own, 2)[rows])


def test_the_straight_through_gradient_of_a_route_is_that_of_the_relaxed_sample() -> None:
    noise = logistic(0, "score", torch.arange(3), 4, [0])[0].double()
    weight = torch.arange(4.0, dtype=torch.float64)
    gradients = []
    for policy in (Stochastic(noise, temperature=0.7), Relaxed(noise, temperature=0.7)):
        own = scores(4).requires_grad_()
        taken = policy.route(0, own, 2)
        gradients += torch.autograd.grad((taken * weight).sum(), own)
        if isinstance(policy, Stochastic):
            assert torch.equal(taken.detach(), Stochastic(noise, "none").route(0, own, 2).double())
    torch.testing.assert_close(*gradients)
