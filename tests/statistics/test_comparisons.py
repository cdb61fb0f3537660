import numpy as np
import pytest
from scipy.stats import binom

from robustbench_aig.statistics.comparisons import (
    compare,
    holm,
    mcnemar_exact,
    paired_bootstrap,
    paired_difference_interval,
    sign_flip,
    simultaneous_band,
)
from robustbench_aig.statistics.intervals import accuracy, mean_interval


def pairs(both, only_first, only_second, neither):
    """Verdicts of two models with the given 2 x 2 table."""
    counts = [both, only_first, only_second, neither]
    return np.repeat([True, True, False, False], counts), np.repeat([True, False, True, False], counts)


def test_mcnemar_by_hand():
    a, b = pairs(50, 6, 1, 43)
    # Seven discordant images: P(6 or 7 of 7) = 8 / 128, and twice that.
    assert mcnemar_exact(a, b, "greater") == pytest.approx(8 / 128)
    assert mcnemar_exact(a, b) == mcnemar_exact(b, a) == pytest.approx(16 / 128)
    assert mcnemar_exact(b, a, "greater") == pytest.approx(binom.sf(0, 7, 0.5))
    assert mcnemar_exact(a, a) == 1.0


@pytest.mark.parametrize(
    ("table", "lo", "hi"),
    [
        ((36, 12, 2, 0), 0.0569, 0.3404),  # Newcombe 1998
        ((14, 5, 0, 22), 0.011, 0.226),  # Altman et al. 2000, Statistics with Confidence
        ((1, 1, 7, 12), -0.507, -0.026),  # Fagerland, Lydersen and Laake 2014
    ],
)
def test_newcombe_gives_the_published_intervals(table, lo, hi):
    interval = paired_difference_interval(*pairs(*table))
    assert interval.value == pytest.approx((table[1] - table[2]) / sum(table))
    assert (interval.lo, interval.hi) == pytest.approx((lo, hi), abs=6e-4)


@pytest.mark.parametrize("table", [(10, 0, 0, 0), (0, 10, 0, 0), (0, 0, 10, 0), (5, 0, 0, 5), (0, 5, 5, 0)])
def test_newcombe_at_the_ends(table):
    interval = paired_difference_interval(*pairs(*table))
    assert -1 <= interval.lo <= interval.value <= interval.hi <= 1
    assert interval.hi > interval.lo


def shares(generator, n, draws, chance):
    return generator.binomial(draws, chance, n) / draws


def test_bootstrap_is_drawing_images_with_replacement():
    generator = np.random.Generator(np.random.PCG64(0))
    chance = generator.beta(0.5, 0.5, 500)
    a, b = shares(generator, 500, 10, chance), shares(generator, 500, 10, chance * 0.8)
    ours = paired_bootstrap(a, b, seed=1)
    plain = (a - b)[generator.integers(0, 500, (10_000, 500))].mean(axis=1)
    assert ours.method == "paired-bootstrap"
    assert ours.value == pytest.approx(np.mean(a - b))
    assert (ours.lo, ours.hi) == pytest.approx(np.quantile(plain, [0.025, 0.975]), abs=1e-3)
    assert ours == paired_bootstrap(a, b, seed=1) != paired_bootstrap(a, b, seed=2)


def test_chunks_of_the_bootstrap_give_what_one_piece_gives(monkeypatch):
    generator = np.random.Generator(np.random.PCG64(1))
    a, b = generator.random(50), generator.random(50)
    whole = paired_bootstrap(a, b, seed=0, resamples=1001)
    monkeypatch.setattr("robustbench_aig.statistics.comparisons._CHUNK", 50 * 100)
    assert paired_bootstrap(a, b, seed=0, resamples=1001)[:3] == pytest.approx(whole[:3], abs=1e-12)


def test_bootstrap_without_differences_is_not_certain():
    a = np.linspace(0, 1, 100)
    interval = paired_bootstrap(a, a, seed=0)
    assert interval == mean_interval(np.zeros(100))
    assert interval.lo < 0 < interval.hi


def test_sign_flip_is_mcnemar_on_verdicts():
    a, b = pairs(50, 14, 5, 31)
    for alternative in ("two-sided", "greater"):
        p = sign_flip(a, b, seed=0, alternative=alternative, resamples=100_000)
        assert p == pytest.approx(mcnemar_exact(a, b, alternative), abs=0.002)
    assert sign_flip(a, a, seed=0) == 1.0


def test_sign_flip_keeps_its_level_and_finds_a_difference():
    """A deterministic model against ten draws of a stochastic one: equal accuracy, then five points apart."""
    generator = np.random.Generator(np.random.PCG64(2))
    false_alarms, found = [], []
    for seed in range(600):
        chance = generator.beta(0.4, 0.4, 300)
        verdict = (generator.random(300) < 0.5).astype(float)
        false_alarms.append(sign_flip(verdict, shares(generator, 300, 10, chance), seed=seed, resamples=400))
        a, b = shares(generator, 300, 10, chance), shares(generator, 300, 10, chance * 0.9)
        found.append(sign_flip(a, b, seed=seed, alternative="greater", resamples=400))
    assert 0.025 <= np.mean(np.array(false_alarms) <= 0.05) <= 0.075
    assert np.mean(np.array(found) <= 0.05) > 0.9


def test_compare_picks_the_method():
    a, b = pairs(50, 14, 5, 31)
    exact = compare(a, b, seed=0, alternative="greater")
    assert exact.test == "mcnemar-exact"
    assert exact.difference == paired_difference_interval(a, b)
    assert exact.p_value == mcnemar_exact(a, b, "greater")
    half = a * 0.5
    mixed = compare(half, b, seed=3)
    assert mixed.test == "sign-flip"
    assert mixed.difference == paired_bootstrap(half, b, seed=3)
    assert mixed.p_value == sign_flip(half, b, seed=3)


def test_holm_by_hand():
    # Sorted 0.005, 0.01, 0.03, 0.04 times 4, 3, 2, 1 make 0.02, 0.03, 0.06, 0.04; the last may not fall below 0.06.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.7]) == pytest.approx([1.0, 1.0])
    assert holm([0.2]) == pytest.approx([0.2])


def curve(generator, repetitions, n, draws):
    """Correct draws (repetitions, 8, n) of images whose robustness at neighbouring epsilons is only loosely related."""
    level = np.linspace(1.0, 0.2, 8)[:, None]
    chance = 0.5 * generator.beta(0.4, 0.4, (repetitions, 1, n)) + 0.5 * generator.beta(0.4, 0.4, (repetitions, 8, n))
    return generator.binomial(draws, level * chance), 0.5 * level[:, 0]


def test_band_covers_the_whole_curve():
    draws, repetitions = 10, 400
    correct, truth = curve(np.random.Generator(np.random.PCG64(5)), repetitions, 200, draws)
    together = pointwise = 0
    for seed, rows in enumerate(correct):
        lo, hi = simultaneous_band(rows, draws, seed=seed, resamples=400)
        single = [accuracy(row, draws) for row in rows]
        together += bool(np.all((lo <= truth) & (truth <= hi)))
        pointwise += all(i.lo <= t <= i.hi for i, t in zip(single, truth, strict=True))
        assert all(low <= i.lo and i.hi <= high for i, low, high in zip(single, lo, hi, strict=True))
    assert 0.92 <= together / repetitions <= 0.98
    assert pointwise / repetitions < 0.85


def test_band_at_the_ends():
    lo, hi = simultaneous_band([[1] * 50, [0] * 50], 1, seed=0)
    assert lo == pytest.approx([accuracy([1] * 50, 1).lo, 0.0])
    assert hi == pytest.approx([1.0, accuracy([0] * 50, 1).hi])
    lo, hi = simultaneous_band([[3] * 50, [0] * 50, list(range(10)) * 5], 9, seed=0)
    assert np.all(hi > lo)
    assert simultaneous_band([[1], [0]], 1, seed=0)[1].tolist() == [1.0, 0.975]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: mcnemar_exact([1, 0], [1]), "same images"),
        (lambda: mcnemar_exact([0.5], [1]), "true or false"),
        (lambda: compare([1.5], [1], seed=0), r"\[0, 1\]"),
        (lambda: paired_bootstrap([], [], seed=0), "same images"),
        (lambda: holm([]), "p-values"),
        (lambda: holm([0.1, 1.1]), "p-values"),
        (lambda: simultaneous_band([1, 0], 1, seed=0), "2 axes"),
        (lambda: simultaneous_band([[1, 2]], 1, seed=0), r"\[0, 1\]"),
    ],
)
def test_bad_input_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
