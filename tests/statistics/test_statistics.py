import math

import numpy as np
import pytest
from scipy.stats import binomtest

from robustbench_aig.statistics.intervals import (
    accuracy,
    cluster_mean,
    mean_interval,
    mean_intervals,
    proportion,
    worst_at,
    worst_shares,
)


def ones(correct, n):
    return np.arange(n) < correct


@pytest.mark.parametrize(("correct", "n"), [(1, 10), (37, 100), (999, 1000), (5000, 10_000)])
@pytest.mark.parametrize("confidence", [0.9, 0.95, 0.999])
def test_proportion_is_wilson(correct, n, confidence):
    interval = proportion(ones(correct, n), confidence)
    expected = binomtest(correct, n).proportion_ci(confidence, method="wilson")
    assert interval.method == "wilson"
    assert interval.value == correct / n
    assert (interval.lo, interval.hi) == pytest.approx((expected.low, expected.high), abs=1e-12)


@pytest.mark.parametrize("n", [1, 7, 1000])
@pytest.mark.parametrize("all_correct", [False, True])
def test_proportion_is_clopper_pearson_at_the_ends(n, all_correct):
    interval = proportion(np.full(n, all_correct))
    expected = binomtest(n * all_correct, n).proportion_ci(0.95, method="exact")
    assert interval.method == "clopper-pearson"
    assert (interval.lo, interval.hi) == pytest.approx((expected.low, expected.high), abs=1e-12)


@pytest.mark.parametrize("draws", [1, 10])
def test_zero_of_a_thousand_is_not_certain(draws):
    value, lo, hi, _ = accuracy(np.zeros(1000, dtype=int), draws)
    assert (value, lo) == (0, 0)
    assert round(hi, 4) == 0.0037


def test_cluster_mean_by_hand():
    share = np.repeat([0.2, 0.4, 0.9], 40)
    interval = cluster_mean(share)
    # Mean 0.5; squared deviations 0.09, 0.01, 0.16 times 40 make 10.4, over 119 degrees of freedom.
    half = 1.959963985 * math.sqrt(10.4 / 119 / 120)
    assert interval.method == "image-cluster"
    assert interval[:3] == pytest.approx((0.5, 0.5 - half, 0.5 + half))


def test_cluster_mean_of_equal_shares_is_wilson_over_images():
    assert cluster_mean(np.full(400, 0.5)) == proportion(ones(200, 400))


def test_a_few_lucky_draws_do_not_narrow_the_interval():
    nothing = accuracy(np.zeros(1000), 10)
    something = accuracy(ones(3, 1000).astype(int), 10)
    assert something.method == "wilson"
    assert something.hi > nothing.hi
    assert something.lo > 0


def test_cluster_mean_is_clipped():
    share = np.zeros(60)
    share[:20], share[0] = 0.01, 1.0
    interval = cluster_mean(share)
    assert (interval.method, interval.lo) == ("image-cluster", 0.0)
    assert cluster_mean(1 - share).hi == 1.0


def test_cluster_interval_covers_where_pooled_wilson_does_not():
    """4000 evaluations of 1000 images at 10 draws; most images are nearly always, or nearly never, correct."""
    repetitions, n, draws, (a, b) = 4000, 1000, 10, (0.2, 0.3)
    generator = np.random.Generator(np.random.PCG64(0))
    correct = generator.binomial(draws, generator.beta(a, b, (repetitions, n)))
    truth = a / (a + b)
    clustered = [accuracy(row, draws) for row in correct]
    pooled = [binomtest(int(row.sum()), n * draws).proportion_ci(method="wilson") for row in correct]
    assert {interval.method for interval in clustered} == {"image-cluster"}
    assert 0.94 <= np.mean([i.lo <= truth <= i.hi for i in clustered]) <= 0.96
    assert np.mean([i.low <= truth <= i.high for i in pooled]) < 0.60


@pytest.mark.parametrize("broken", [0.003, 0.01, 0.02, 0.05])
def test_coverage_survives_near_zero_accuracy(broken):
    """A strong attack leaves few images that are ever correct; a bare mean ± z·sd/√N covers 67 to 91 % here."""
    repetitions, n, draws = 1000, 1000, 10
    generator = np.random.Generator(np.random.PCG64(1))
    chance = np.where(generator.random((repetitions, n)) < broken, generator.beta(0.3, 3, (repetitions, n)), 0.0)
    correct = generator.binomial(draws, chance)
    truth = broken * 0.3 / 3.3
    intervals = [accuracy(row, draws) for row in correct]
    assert np.mean([i.lo <= truth <= i.hi for i in intervals]) >= 0.93


def test_the_interval_contains_the_point():
    generator = np.random.Generator(np.random.PCG64(2))
    for _ in range(300):
        n, draws = int(generator.integers(1, 80)), int(generator.integers(1, 12))
        correct = generator.binomial(draws, generator.beta(0.3, 0.3, n) * generator.choice([0, 0.1, 1]))
        confidence = float(generator.choice([0.05, 0.5, 0.95, 0.999]))
        interval = accuracy(correct, draws, confidence)
        assert 0 <= interval.lo <= interval.value <= interval.hi <= 1
        assert interval.hi > interval.lo
        shift = mean_interval(correct / draws - generator.choice([0, 0.5, 1]), confidence)
        assert -1 <= shift.lo <= shift.value <= shift.hi <= 1


def test_worst_at_by_hand():
    correct = [10, 5, 9, 1]  # C(k, 2) / C(10, 2) = 45/45, 10/45, 36/45, 0/45
    assert worst_shares(correct, 10, 2) == pytest.approx([1, 10 / 45, 36 / 45, 0])
    assert worst_at(correct, 10, 2) == pytest.approx(91 / 180)
    assert worst_at(correct, 10, 1) == accuracy(correct, 10).value


def test_worst_at_is_unbiased_where_the_plug_in_is_not():
    n, draws, queries = 40_000, 50, 20
    generator = np.random.Generator(np.random.PCG64(3))
    chance = generator.beta(2, 0.3, n)
    correct = generator.binomial(draws, chance)
    truth = np.mean(chance**queries)
    error = np.std(worst_shares(correct, draws, queries) - chance**queries) / math.sqrt(n)
    assert abs(worst_at(correct, draws, queries) - truth) < 3 * error
    assert np.mean((correct / draws) ** queries) - truth > 10 * error


def test_mean_intervals_by_hand():
    shift = np.array([[0.5, 0.0], [-0.5, 0.0], [0.3, 0.0]])
    first, second = mean_intervals(shift)
    # With -1 and +1 added: five values, mean 0.06, and sum of squares 2.59 - 5 * 0.06**2 over 4.
    half = 1.959963985 * math.sqrt((2.59 - 5 * 0.0036) / 4 / 5)
    assert first[:3] == pytest.approx((0.1, 0.06 - half, 0.06 + half))
    assert second.value == 0
    assert second.lo == -second.hi < 0
    assert mean_interval(shift[:, 0]) == first


def test_mean_interval_covers_small_shifts():
    """A gate that flips on one image in fifty, in groups of 100 images such as one class."""
    generator = np.random.Generator(np.random.PCG64(4))
    flips = generator.choice([-1, 0, 1], p=[0.015, 0.98, 0.005], size=(100, 4000))
    assert np.mean([i.lo <= -0.01 <= i.hi for i in mean_intervals(flips)]) >= 0.94


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: worst_at([1, 2], 10, 11), "worst@11"),
        (lambda: worst_at([1, 2], 10, 0), "worst@0"),
        (lambda: accuracy([1, 11], 10), r"\[0, 10\]"),
        (lambda: accuracy([0.5, 1], 10), "whole numbers"),
        (lambda: accuracy([0], 0), "at least one draw"),
        (lambda: proportion([]), "at least one image"),
        (lambda: proportion([0, 1], confidence=1.0), "confidence"),
        (lambda: cluster_mean([0.0, math.nan]), r"\[0, 1\]"),
        (lambda: cluster_mean([[0.5]]), "1 axes"),
        (lambda: mean_interval([1.5]), r"\[-1, 1\]"),
    ],
)
def test_bad_input_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
