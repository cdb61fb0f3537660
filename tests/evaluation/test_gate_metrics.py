"""Measures of whole graphs, on scores whose answers are known."""

import numpy as np
import pytest
import torch

from robustbench_aig.evaluation import gate_metrics as metrics
from robustbench_aig.evaluation.gating import Gating
from robustbench_aig.evaluation.scoring import Scores, score
from robustbench_aig.models.macs import Costs, costs
from tests.attacks.gates.conftest import opinionated

COSTS = Costs(10.0, 0.0, torch.tensor([6.0, 3.0, 1.0], dtype=torch.float64))


def scores(opened: np.ndarray, vote: np.ndarray | None = None) -> Scores:
    """Scores with the decisions (S, N, L)."""
    opened = opened.astype(bool)
    s, n, _ = opened.shape
    macs = 10 + (opened @ COSTS.blocks.numpy()).mean(0)
    vote = np.zeros(n, np.int16) if vote is None else vote.astype(np.int16)
    return Scores(np.ones((s, n), bool), vote, opened, opened.mean(0).astype(np.float32), macs)


def test_distances_count_gates_and_their_macs() -> None:
    clean, moved = np.zeros((1, 2, 3)), np.zeros((1, 2, 3))
    moved[0, 0, 0] = 1
    found = metrics.distances(scores(clean), scores(moved), COSTS)
    assert found["hamming"] == pytest.approx(1 / 6)
    assert found["hamming_max"] == pytest.approx(1 / 3)
    assert found["hamming_macs"] == pytest.approx(0.3)
    assert found["graph_kept"] == 0.5
    assert found["hamming_null"] == 0


def test_recovered_compute_is_read_against_floor_and_ceiling() -> None:
    clean = np.array([[[1, 0, 0], [1, 1, 1], [0, 0, 0]]])
    moved = np.array([[[1, 1, 0], [0, 1, 1], [0, 0, 0]]])
    found = metrics.compute(scores(clean), scores(moved), COSTS)
    assert found["at_ceiling"] == 1
    assert found["at_floor"] == 1
    assert found["recovered_up"] == pytest.approx((3 / 4 + 0) / 2)
    assert found["recovered_down"] == pytest.approx((-3 / 6 + 6 / 10) / 2)
    assert found["macs_ratio_max"] == pytest.approx(19 / 16)


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
    found = metrics.information(opened, labels, seed=0)
    assert found["information"] == pytest.approx(exact, abs=0.06)
    assert found["information_p"] < 0.02
    none = metrics.information(*world(1, informative=False), seed=0)
    assert abs(none["information"]) < 0.02
    assert none["information_p"] > 0.05


def test_prototypes_read_the_class_from_the_graph() -> None:
    opened, labels = world(2, informative=True)
    flipped = opened.copy()
    flipped[:, :, 0] = ~flipped[:, :, 0]
    found = metrics.prototypes(scores(opened), scores(flipped), labels, 2)
    assert found["prototype_hit_clean"] == pytest.approx(0.95, abs=0.03)
    assert found["prototype_hit_adv"] == pytest.approx(0.05, abs=0.03)
    assert found["prototype_moved"] > 0.99
    assert metrics.prototype_target(scores(opened), scores(flipped), labels, 2, 1) == pytest.approx(0.95, abs=0.03)


def test_the_monitor_tells_odd_graphs_and_nothing_else() -> None:
    opened, labels = world(3, informative=True)
    flipped = opened.copy()
    flipped[:, :, 0] = ~flipped[:, :, 0]
    clean = scores(opened, labels)
    assert metrics.detection(clean, scores(flipped, labels), labels, 2) > 0.95
    assert metrics.detection(clean, clean, labels, 2) == pytest.approx(0.5)


def test_mediation_has_the_plain_accuracies_on_its_diagonal() -> None:
    model = opinionated()
    generator = torch.Generator().manual_seed(0)
    images = torch.rand((10, 3, 8, 8), generator=generator)
    moved = (images + 0.2 * torch.randn(images.shape, generator=generator)).clamp(0, 1)
    labels, ids = torch.arange(10) % 3, torch.arange(10)
    for gating, draws in (("deterministic", 1), ("stochastic", 5)):
        choice = Gating.parse(gating)
        found = metrics.mediation(model, choice, 6, None, images, moved, labels, ids, seed=0, draws=draws)
        clean, attacked = (
            score(model, choice, 6, None, pixels, labels, ids, seed=0, draws=draws) for pixels in (images, moved)
        )
        assert np.allclose(found.clean, clean.correct.mean(0))
        assert np.allclose(found.both, attacked.correct.mean(0))
        same = metrics.mediation(model, choice, 6, None, images, images, labels, ids, seed=0, draws=draws)
        assert np.array_equal(same.features, same.clean)
        assert np.array_equal(same.gates, same.clean)
        every = metrics.measures(clean, attacked, labels.numpy(), 3, costs(model.trunk, (3, 8, 8)))
        assert all(np.isfinite(value) for value in every.values())
    with pytest.raises(ValueError, match="expected"):
        metrics.mediation(model, Gating("expected"), 6, None, images, moved, labels, ids, seed=0, draws=1)
