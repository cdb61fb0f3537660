"""Measures of whole graphs, on scores whose answers are known."""

import numpy as np
import pytest
import torch

from robustbench_aig.contracts.scores import Scores
from robustbench_aig.contracts.trace import Costs
from robustbench_aig.contracts.units import Layout, Switch
from robustbench_aig.gates.information import information
from robustbench_aig.gates.measures import Change, Clean, Found, measures
from robustbench_aig.gates.mediation import Crossed
from robustbench_aig.gates.prototypes import Prototypes, Reader

LAYOUT = Layout((Switch("a"), Switch("b"), Switch("c")))
COSTS = Costs(10.0, torch.tensor([6.0, 3.0, 1.0], dtype=torch.float64))


def scores(opened: np.ndarray, vote: np.ndarray | None = None) -> Scores:
    """Scores with the decisions (S, N, L)."""
    opened = opened.astype(bool)
    s, n, _ = opened.shape
    macs = 10 + (opened @ COSTS.units.numpy()).mean(0)
    vote = np.zeros(n, np.int16) if vote is None else vote.astype(np.int16)
    return Scores(np.ones((s, n), bool), vote, np.zeros(n, np.uint16), opened, opened.mean(0).astype(np.float32), macs)


def measured(clean: Scores, moved: Scores, crossed: Crossed | None = None, labels: np.ndarray | None = None) -> Found:
    """Every measure of what happened between two scores."""
    labels = np.zeros(len(clean.macs), np.int64) if labels is None else labels
    return measures(Change(Clean(clean, labels, 2, COSTS, LAYOUT), moved, crossed))


def test_distances_count_gates_and_their_macs() -> None:
    clean, moved = np.zeros((1, 2, 3)), np.zeros((1, 2, 3))
    moved[0, 0, 0] = 1
    found = measured(scores(clean), scores(moved))
    assert found["hamming"].value == pytest.approx(1 / 6)
    assert found["hamming_max"].value == pytest.approx(1 / 3)
    assert found["hamming_macs"].value == pytest.approx(0.3)
    assert found["graph_kept"].value == 0.5
    assert found["hamming_null"].value == 0


def test_distances_of_draws_stand_beside_both_nulls() -> None:
    clean = np.array([[[1, 1, 1]], [[0, 1, 1]]])  # two draws of one image
    moved = np.array([[[1, 1, 1]], [[0, 0, 1]]])
    found = measured(scores(clean), scores(moved))
    assert found["hamming"].value == pytest.approx(1 / 6)
    assert found["hamming_null"].value == pytest.approx(1 / 3)
    # draw 0 of the clean image against draw 1 of the attacked one: 2 of 3; draw 1 against draw 0: 1 of 3
    assert found["hamming_independent"].value == pytest.approx(1 / 2)
    assert found["graph_kept"].value == 0.5


def test_recovered_compute_is_read_against_floor_and_ceiling() -> None:
    clean = np.array([[[1, 0, 0], [1, 1, 1], [0, 0, 0]]])
    moved = np.array([[[1, 1, 0], [0, 1, 1], [0, 0, 0]]])
    found = measured(scores(clean), scores(moved))
    assert found["at_ceiling"].value == 1
    assert found["at_floor"].value == 1
    assert found["recovered_up"].value == pytest.approx((3 / 4 + 0) / 2)
    assert found["recovered_up"].n == 2
    assert found["recovered_down"].value == pytest.approx((-3 / 6 + 6 / 10) / 2)
    assert found["recovered_up_pooled"].value == pytest.approx((3 - 6) / (4 + 0 + 10))
    assert found["recovered_down_pooled"].value == pytest.approx((6 - 3) / (6 + 10 + 0))
    assert found["macs_ratio_max"].value == pytest.approx(19 / 16)
    everything = measured(scores(np.ones((1, 4, 3))), scores(np.ones((1, 4, 3))))
    assert everything["recovered_up"].n == 0
    assert np.isnan(everything["recovered_up"].value)
    assert everything["recovered_down"].value == 0


def test_ratio_stays_between_floor_and_ceiling() -> None:
    generator = np.random.default_rng(0)
    clean, moved = (scores(generator.random((5, 60, 3)) < 0.5) for _ in range(2))
    ratio = moved.macs / clean.macs
    assert (ratio >= 10 / clean.macs).all()
    assert (ratio <= 20 / clean.macs).all()
    found = measured(clean, moved)
    assert found["macs_ratio"].value == pytest.approx(ratio.mean())
    assert ratio.min() <= found["macs_ratio_p95"].value <= found["macs_ratio_max"].value == ratio.max()


def world(seed: int, informative: bool, n: int = 400, draws: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """Decisions whose first gate follows the class (or nothing), and the classes."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, 2, n)
    chance = np.full((n, 3), 0.5)
    if informative:
        chance[:, 0] = np.where(labels == 1, 0.95, 0.05)
    return generator.random((draws, n, 3)) < chance, labels


def test_information_is_that_of_a_binary_channel_and_none_without_one() -> None:
    opened, labels = world(0, informative=True)
    exact = 1 + 0.95 * np.log2(0.95) + 0.05 * np.log2(0.05)
    found = information(opened, labels, seed=0)
    assert found["information"].value == pytest.approx(exact, abs=0.06)
    assert found["information_p"].value < 0.02
    none = information(*world(1, informative=False), seed=0)
    assert abs(none["information"].value) < 0.02
    assert none["information_p"].value > 0.05


def test_information_of_decisions_is_that_of_the_table_of_counts() -> None:
    """One draw, one gate: 3 of 4 open in one class, 1 of 4 in the other, minus Miller and Madow's 1 / (2 N ln 2)."""
    opened = np.array([1, 1, 1, 0, 1, 0, 0, 0], bool)[None, :, None]
    labels = np.array([7] * 4 + [2] * 4)
    plug_in = 1 + 0.75 * np.log2(0.75) + 0.25 * np.log2(0.25)
    found = information(opened, labels, seed=0, permutations=2)
    assert found["information"].value == pytest.approx(plug_in - 1 / (16 * np.log(2)))


@pytest.mark.parametrize("draws", [1, 10])
def test_information_of_gates_that_ignore_the_class_is_calibrated(draws: int) -> None:
    """Its p-value is uniform, and its mean is that of the permutations, however many draws there are."""
    generator = np.random.default_rng(draws)
    p_values, gaps = [], []
    for seed in range(300):
        opened = generator.random((draws, 60, 3)) < generator.random((60, 3))
        found = information(opened, generator.integers(0, 4, 60), seed=seed, permutations=39)
        p_values.append(found["information_p"].value)
        gaps.append(found["information"].value - found["information_null"].value)
    # 95 % of binomials (300, level) lie within these
    for level, low, high in ((0.05, 8, 23), (0.25, 60, 90), (0.5, 133, 167)):
        assert low <= (np.array(p_values) <= level + 1e-9).sum() <= high
    assert abs(np.mean(gaps)) < 3 * np.std(gaps) / np.sqrt(300)


def test_prototypes_read_the_class_from_the_graph() -> None:
    opened, labels = world(2, informative=True)
    flipped = opened.copy()
    flipped[:, :, 0] = ~flipped[:, :, 0]
    clean, moved = scores(opened, labels), scores(flipped, 1 - labels)
    found = measured(clean, moved, labels=labels)
    assert found["prototype_true_clean"].value == pytest.approx(0.95, abs=0.03)
    assert found["prototype_true_adv"].value == pytest.approx(0.05, abs=0.03)
    assert found["prototype_predicted_clean"] == found["prototype_true_clean"]
    assert found["prototype_predicted_adv"].value == pytest.approx(0.95, abs=0.03)
    assert found["prototype_moved"].value > 0.99
    assert Reader(clean, labels, 2).hits_of(moved, 1).value == pytest.approx(0.95, abs=0.03)


def test_prototypes_are_smoothed_shares() -> None:
    opened = np.array([[[1, 1], [1, 0], [0, 0], [1, 0]]], bool)
    found = Prototypes.of(opened, np.array([0, 0, 0, 2]), 3)
    added = 0.5 * 2 / 4
    plain = np.array([[2 / 3, 1 / 3], [3 / 4, 1 / 4], [1, 0]])  # class 1 has no image, so it gets the rates of all
    assert found.rates == pytest.approx((plain + added) / (1 + 2 * added))


def test_the_monitor_tells_odd_graphs_and_nothing_else() -> None:
    opened, labels = world(3, informative=True)
    flipped = opened.copy()
    flipped[:, :, 0] = ~flipped[:, :, 0]
    clean = scores(opened, labels)
    reader = Reader(clean, labels, 2)
    assert reader.detection(scores(flipped, labels)).value > 0.95
    same = reader.detection(clean)
    assert same.value == pytest.approx(0.5)
    assert same.lo < 0.5 < same.hi


def test_the_monitors_interval_covers() -> None:
    """Of 200 repeats with a known area (two normal scores one deviation apart), about 95 % hold it."""
    generator = np.random.default_rng(5)
    covered = 0
    for _ in range(200):
        opened, labels = world(int(generator.integers(1 << 30)), informative=True, n=300)
        reader = Reader(scores(opened, labels), labels, 2)
        before = generator.standard_normal(300)
        after = 0.5 * before + np.sqrt(0.75) * generator.standard_normal(300) + 1
        suspicion = iter((before, after))
        reader._surprise = lambda scores, values=suspicion: next(values)  # type: ignore[method-assign,misc]
        found = reader.detection(scores(opened))
        covered += found.lo <= 0.7602499 <= found.hi  # Phi(1 / sqrt 2)
    assert 182 <= covered <= 198


def test_mediation_splits_the_effect() -> None:
    """Four images, one draw: lost by features, by gates, only by both together, and by nothing."""
    before = scores(np.zeros((1, 4, 3)))
    after = scores(np.zeros((1, 4, 3)))
    after.correct[0] = [False, False, False, True]
    crossed = Crossed(np.array([[False, True, True, True]]), np.array([[True, False, True, True]]), np.full(4, 2))
    found = {name: measure.value for name, measure in measured(before, after, crossed).items()}
    assert found["mediation_neither"] == 1
    assert found["mediation_both"] == 0.25
    assert found["mediation_direct"] == 0.25
    assert found["mediation_indirect"] == 0.25
    assert found["mediation_interaction"] == pytest.approx(0.25)
    assert found["mediation_forwards"] == 2
    assert found["mediation_draws"] == 1
