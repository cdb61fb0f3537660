"""Noise is a pure function of its name, and follows its law."""

import numpy as np
import torch
from scipy.stats import kstest

from robustbench_aig.contracts.noise import logistic, uniform


def test_numbers_depend_on_the_image_and_not_on_its_place_in_the_batch() -> None:
    ids = torch.tensor([5, 900, 17, 3])
    order = torch.tensor([2, 0, 3, 1])
    together = logistic(1, "score", ids, 7, range(3))
    assert torch.equal(together[:, order], logistic(1, "score", ids[order], 7, range(3)))
    assert torch.equal(together[:, 1:2], logistic(1, "score", ids[1:2], 7, range(3)))
    assert torch.equal(together[2:], logistic(1, "score", ids, 7, [2]))


def test_every_coordinate_matters() -> None:
    ids = torch.arange(50)
    reference = uniform(0, "score", ids, 4, [0])
    for other in (uniform(1, "score", ids, 4, [0]), uniform(0, "craft", ids, 4, [0]), uniform(0, "score", ids, 4, [1])):
        assert not np.isin(other, reference).any()
    assert len(np.unique(reference)) == reference.size


def test_the_global_generators_are_left_alone() -> None:
    before = torch.get_rng_state()
    logistic(0, "craft", torch.arange(3), 2, [0])
    assert torch.equal(before, torch.get_rng_state())


def test_logistic_law() -> None:
    sample = logistic(3, "score", torch.arange(4000), 5, range(2)).double().flatten().numpy()
    assert kstest(sample, "logistic").pvalue > 0.01


def test_uniform_numbers_are_uncorrelated_between_neighbouring_names() -> None:
    numbers = uniform(0, "craft", torch.arange(20_000), 2, [0, 1])
    pairs = [
        (numbers[0, :, 0], numbers[0, :, 1]),
        (numbers[0, :, 0], numbers[1, :, 0]),
        (numbers[0, :-1, 0], numbers[0, 1:, 0]),
    ]
    for left, right in pairs:
        assert abs(np.corrcoef(left, right)[0, 1]) < 0.025
