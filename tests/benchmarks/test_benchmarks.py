"""Benchmarks: what they compare is the same question, and ratios are what they say. No test here judges seconds."""

import itertools
from dataclasses import replace

import pytest
import torch

import benchmarks as table
import defenses
from benchmarks import measure, memory_peak
from benchmarks.measure import OURS, Measured
from benchmarks.subject import Subject
from robustbench_aig.data import load_dataset
from robustbench_aig.errors import UsageError
from robustbench_aig.models.classifier import Classifier


@pytest.fixture(scope="module")
def subject(plain, gated) -> Subject:
    """The trained 8 x 8 networks and colour digits that they never saw."""
    digits = load_dataset("digits", limit=16)
    digits = replace(digits, source=Colour(digits.source), image_shape=(3, 8, 8))
    models = [Classifier.of(name, victim.network, "", classes=10) for name, victim in (("p", plain), ("g", gated))]
    codec = defenses.make("jpeg:75")
    return Subject(models[0], models[1], digits, codec, "digits", None, "", torch.device("cpu"), repeats=1)


class Colour:
    """Grey images repeated in three channels."""

    def __init__(self, source) -> None:
        self.source = source

    def read(self, ids):
        return self.source.read(ids).expand(-1, 3, -1, -1)

    def fingerprint(self, ids):
        return self.source.fingerprint(ids)


def test_every_entry_names_a_module_that_runs():
    for entry in table.registry.entries():
        assert callable(entry.load())
    assert set(table.DEFAULT) <= set(table.registry.table)


def test_an_unknown_benchmark_is_refused_with_a_guess():
    with pytest.raises(UsageError, match="pgd-10"):
        table.registry.entry("pgd-1O")


def test_contenders_take_turns_and_medians_are_compared(monkeypatch):
    order = []
    clock = itertools.count()
    monkeypatch.setattr(measure.time, "perf_counter", lambda: next(clock))
    contenders = {name: lambda name=name: order.append(name) for name in ("a", "b")}
    seen = measure.measure(contenders, repeats=3)
    assert order == ["a", "b"] * 4  # one round for memory, three for time
    assert {one.seconds for one in seen.values()} == {1}


def test_the_first_run_of_a_slow_contender_counts(monkeypatch):
    order = []
    clock = itertools.count(step=measure.SLOW)
    monkeypatch.setattr(measure.time, "perf_counter", lambda: next(clock))
    measure.measure({name: lambda name=name: order.append(name) for name in ("a", "b")}, repeats=3)
    assert order == ["a", "b"] * 3


def test_ratios_are_to_the_reference_and_answers_to_ours():
    yes, half = torch.tensor([True, True]), torch.tensor([True, False])
    seen = {"floor": Measured(2.0, 4.0, 1.0, None), OURS: Measured(3.0, 5.0, None, yes), "x": Measured(1, 1, 0, half)}
    floor, ours, other = measure.rows("b", "c", seen, "floor", {OURS: 1.4}, {"x": "slow"})
    assert (floor.ratio, ours.ratio, ours.cpu_ratio) == (1, 1.5, 1.25)
    assert (floor.met, ours.met, other.met) == (None, False, None)
    assert (floor.same, ours.same, other.same) == (None, 1.0, 0.5)
    assert other.note == "slow"
    assert ours.as_dict()["met"] is False


def test_peak_memory_counts_what_was_given_back():
    if memory_peak.high_water() is None:
        pytest.skip("no /proc/self/status")
    _, little = memory_peak.peak(lambda: None)
    _, much = memory_peak.peak(lambda: torch.ones(32 * 2**20).sum())
    assert little < 16
    assert 100 < much < 200  # 32 Mi floats are 128 MiB


@pytest.mark.parametrize("name", ["fgsm", "pgd-10", "pgd-40", pytest.param("pgd-sweep", marks=pytest.mark.slow)])
def test_libraries_answer_the_same_question(subject, name):
    rows = table.registry.entry(name).load()(subject)
    same = {row.contender: row.same for row in rows if row.same is not None}
    assert same[OURS] == 1
    assert {"torchattacks", "foolbox"} <= {contender.split(",")[0] for contender in same}
    # an attack that stops at a success breaks more than one that reports its last iterate
    assert min(same.values()) >= (1 if name in ("fgsm", "pgd-10") else 0.9)


def test_skipping_gives_what_multiplying_gives_at_every_rate(subject, monkeypatch):
    monkeypatch.setattr("benchmarks.skipping.BATCHES", (8, 64))
    rows = [row for row in table.registry.entry("skipping").load()(subject) if row.contender == OURS]
    assert [row.case for row in rows] == ["batch 8, rate 0.5", "batch 8, rate 0.7", "batch 8, rate 0.9"]  # 16 images
    assert {row.same for row in rows} == {1.0}
    limits = [row.limit for row in rows]
    assert limits == sorted(limits)


def test_the_gradient_over_draws_is_the_mean_of_single_ones(subject):
    ours, passes = reversed(table.registry.entry("eot").load()(subject))
    assert ours.contender == OURS
    assert passes.same > 0.99  # signs, where sums in another order may tip a zero


@pytest.mark.parametrize("name", ["jpeg", "overhead"])
def test_other_benchmarks_run(subject, name):
    rows = table.registry.entry(name).load()(subject)
    assert all(row.seconds > 0 and row.ratio > 0 for row in rows)
    assert any(row.limit for row in rows)
