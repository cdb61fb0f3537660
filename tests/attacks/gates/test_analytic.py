"""Gate attacks against optima that are known in closed form."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import Tensor

from attacks.gates.ascent import Search
from attacks.gates.base import GateAttack
from attacks.gates.compute import Close, Open
from attacks.gates.estimators import estimate
from attacks.gates.objectives import Goal, trace_of
from attacks.gates.optimiser import maximise
from attacks.gates.route import RouteTo
from attacks.gates.through import Through
from robustbench_aig.contracts.enumeration import enumerate_routes
from robustbench_aig.contracts.forward import View
from tests.fixtures.analytic import AnalyticAIG, grey, target_of, three_gates, two_gates

LABEL = torch.zeros(1, dtype=torch.int64)


@dataclass(frozen=True)
class OneMargin(Goal):
    """The margin of one gate."""

    gate: int

    def values(self, view: View) -> Tensor:
        return trace_of(view).margin[..., self.gate]

    def score(self, view: View, weights: Tensor) -> Tensor:
        return (self.values(view) * weights).sum(0)


def attacked(model: AnalyticAIG, gating: str, attack: GateAttack, budget: float) -> Tensor:
    return attack(target_of(model, gating), grey(), LABEL, [budget])[0]


def graph_of(model: AnalyticAIG, image: Tensor) -> tuple[int, ...]:
    with torch.no_grad():
        _, trace = model.traced(image, model.policy)
    return tuple(int(gate) for gate in trace.open[0])


def expected(model: AnalyticAIG, image: Tensor, values: np.ndarray) -> float:
    z = image.mean((2, 3)).numpy() - 0.5
    return float(model.expectation(z, values)[0])


@pytest.mark.parametrize("gate", [0, 1])
@pytest.mark.parametrize("budget", [0.01, 0.05, 0.2])
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_the_largest_margin_is_that_of_the_dual_norm(gate: int, budget: float, norm: str) -> None:
    model = two_gates()
    row, bias = model.rows[gate], model.biases[gate]
    best = bias + budget * (np.abs(row).sum() if norm == "linf" else np.linalg.norm(row) / 4)
    search = Search(norm, steps=40, restarts=1)  # type: ignore[arg-type]
    found = maximise(target_of(model, "deterministic"), grey(), OneMargin(gate), budget, search)
    assert found.metric.item() == pytest.approx(best, abs=1e-6)


@pytest.mark.parametrize(("gate", "linf", "l2"), [(0, 1 / 24, 0.223607), (1, 0.6 / 28, 0.098639)])
def test_a_gate_flips_at_its_budget_and_not_before(gate: int, linf: float, l2: float) -> None:
    model = two_gates()
    wanted = "10" if gate == 0 else "01"
    for norm, budget in (("linf", linf), ("l2", l2)):
        attack = RouteTo(norm=norm, to=wanted)  # type: ignore[arg-type]
        assert graph_of(model, attacked(model, "deterministic", attack, budget * 1.001))[gate] == 1
        assert graph_of(model, attacked(model, "deterministic", attack, budget * 0.999))[gate] == 0


def test_conflicting_gates_open_together_from_the_known_threshold_on() -> None:
    model = two_gates()
    assert model.radius((1, 1)) == pytest.approx(0.13125, abs=1e-9)
    for attack in (RouteTo(to="11", steps=100, restarts=3), Open(steps=100, restarts=3)):
        for budget, reached in ((0.1, False), (0.1303, False), (0.1322, True), (0.15, True)):
            graph = graph_of(model, attacked(model, "deterministic", attack, budget))
            assert (graph == (1, 1)) is reached, (attack.name, budget)


def test_clean_expectations_are_the_known_ones() -> None:
    model = two_gates()
    assert expected(model, grey(), model.shares) == pytest.approx(0.29029, abs=5e-6)
    assert expected(model, grey(), model.errors) == pytest.approx(0.25905, abs=5e-6)
    assert model.best(0.05, model.shares) == pytest.approx(0.45437, abs=5e-6)
    assert model.best(0.05, model.errors) == pytest.approx(0.55595, abs=5e-6)


@pytest.mark.parametrize("model", [two_gates(), three_gates()], ids=["two", "three"])
def test_enumeration_is_the_law_of_the_gates(model: AnalyticAIG) -> None:
    found = enumerate_routes(model, grey())
    order = [sum(gate << layer for layer, gate in enumerate(graph)) for graph in model.graphs()]
    assert found.log_prob.exp().sum().item() == pytest.approx(1, abs=1e-12)
    wrong = (found.logits.argmax(-1) != 0).double()[order, 0].numpy()
    assert np.array_equal(wrong, model.errors)
    share = (found.log_prob.exp() * found.trace.macs).sum() / model.macs.sum()
    assert share.item() == pytest.approx(expected(model, grey(), model.shares), abs=1e-12)


@pytest.mark.parametrize("model", [two_gates(), three_gates()], ids=["two", "three"])
@pytest.mark.parametrize("budget", [0.02, 0.05, 0.12])
@pytest.mark.parametrize("attack", [Open, Close])
def test_the_exact_attack_finds_the_optimal_compute(
    model: AnalyticAIG, budget: float, attack: type[GateAttack]
) -> None:
    sign = 1 if attack is Open else -1
    image = attacked(model, "stochastic", attack(estimator="exact", steps=100, restarts=2), budget)
    best = model.best(budget, sign * model.shares)
    assert sign * expected(model, image, model.shares) == pytest.approx(best, abs=1e-6)


@pytest.mark.parametrize("model", [two_gates(), three_gates()], ids=["two", "three"])
@pytest.mark.parametrize("estimator", ["straight-through", "score-function", "local-expectation"])
def test_the_sampled_attacks_come_near_the_optimal_compute(model: AnalyticAIG, estimator: str) -> None:
    attack = Open(estimator=estimator, draws=16, restarts=3)  # type: ignore[arg-type]
    image = attacked(model, "stochastic", attack, 0.05)
    assert expected(model, image, model.shares) == pytest.approx(model.best(0.05, model.shares), abs=0.005)


def test_the_exact_attack_through_the_gates_finds_the_optimal_chance_of_an_error() -> None:
    for model in (two_gates(), three_gates()):
        image = attacked(model, "stochastic", Through(estimator="exact", steps=100, restarts=2), 0.05)
        assert expected(model, image, model.errors) == pytest.approx(model.best(0.05, model.errors), abs=1e-6)


@pytest.mark.parametrize("estimator", ["straight-through", "score-function", "local-expectation"])
def test_the_sampled_attacks_through_the_gates_come_near_it(estimator: str) -> None:
    model = two_gates()
    attack = Through(estimator=estimator, draws=16, restarts=3)  # type: ignore[arg-type]
    many = target_of(model, "stochastic", draws=256)  # candidates are compared on as many draws, so that luck is small
    image = attack(many, grey(), LABEL, [0.05])[0]
    assert expected(model, image, model.errors) == pytest.approx(0.55595, abs=0.005)


def test_a_gradient_estimator_has_the_exact_gradient_as_its_mean() -> None:
    target, goal = (
        target_of(two_gates(), "stochastic"),
        Open().goal(target_of(two_gates(), "stochastic"), grey(), LABEL),
    )
    for estimator in ("score-function", "local-expectation"):
        found, exact = (
            estimate(target, grey(), goal, torch.zeros(1), 0, name, draws).gradient.sum((2, 3))
            for name, draws in ((estimator, 20_000), ("exact", 1))  # type: ignore[arg-type]
        )
        assert torch.allclose(found, exact, rtol=0.05, atol=0.03), estimator


@pytest.mark.parametrize("graph", three_gates().graphs())
def test_every_graph_of_the_sequence_is_reached_where_a_linear_programme_says(graph: tuple[int, ...]) -> None:
    model, text = three_gates(), "".join(map(str, graph))
    radius = model.radius(graph)

    def reached(budget: float) -> bool:
        return (
            graph_of(model, attacked(model, "deterministic", RouteTo(to=text, steps=120, restarts=3), budget)) == graph
        )

    if radius > 0.5:  # no image at all takes this route
        assert not reached(0.5)
        return
    assert reached(1.01 * radius + 1e-9)
    assert radius == 0 or not reached(0.99 * radius)
