"""Gradient estimators against exact enumeration, and what they cost."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from attacks.gates.compute import Open
from attacks.gates.estimators import FIDELITY, Estimator, estimate, resolve
from attacks.gates.joint import Joint
from robustbench_aig.contracts.target import Passes, Target
from robustbench_aig.errors import UsageError
from robustbench_aig.experiments.estimators import compare
from robustbench_aig.models.aig import ConvNetAIG
from robustbench_aig.models.resnet import CifarResNet
from tests.attacks.gates.conftest import CLASSES, N

See = Callable[..., Target]


def cosines(target: Target, images: Tensor, labels: Tensor, estimator: Estimator, draws: int) -> Tensor:
    goal, penalty = Open().goal(target, images, labels), torch.zeros(len(images))
    found, exact = (estimate(target, images, goal, penalty, 3, name, draws) for name in (estimator, "exact"))
    return cosine_similarity(found.gradient.flatten(1), exact.gradient.flatten(1))


def test_the_default_estimator_beats_a_hundred_straight_through_draws_at_a_tenth_of_the_passes(
    see: See, images: Tensor, labels: Tensor
) -> None:
    target = see("stochastic")
    assert resolve("auto", target) == "likely"
    for attack in (Open(), Joint()):
        rows = compare(
            target, images, attack.goal(target, images, labels), draws={"straight-through": (100,)}, repeats=1
        )
        table = {row.estimator: row for row in rows}
        assert table["exact"].cosine == pytest.approx(1)
        assert table["likely"].cosine > 0.99
        assert table["likely"].cosine >= table["straight-through"].cosine
        assert table["likely"].forwards <= 11
        assert table["straight-through"].forwards == 100
        assert all(row.cosine_lo < row.cosine < row.cosine_hi for row in rows if row.estimator != "exact")


@pytest.mark.parametrize("estimator", ["straight-through", "score-function", "local-expectation"])
def test_more_draws_come_nearer(estimator: Estimator, see: See, images: Tensor, labels: Tensor) -> None:
    few, many = (cosines(see("stochastic"), images, labels, estimator, draws).mean() for draws in (2, 64))
    assert many > few
    assert many > 0.8


def test_draws_double_until_an_image_is_steady(see: See, images: Tensor, labels: Tensor) -> None:
    target = see("stochastic")
    goal, penalty = Open().goal(target, images, labels), torch.zeros(N)
    spent = Passes.none(N)
    found = estimate(replace(target, passes=spent), images, goal, penalty, 3, "local-expectation", 0)
    used = spent.backwards
    assert set(used.tolist()) <= {8, 16, 32, 64}
    assert len(set(used.tolist())) > 1
    exact = estimate(target, images, goal, penalty, 3, "exact", 0)
    assert cosine_similarity(found.gradient.flatten(1), exact.gradient.flatten(1)).mean() > FIDELITY - 0.05
    alone = torch.tensor([2])
    part = estimate(target.take(alone), images[alone], goal.take(alone), penalty[alone], 3, "local-expectation", 0)
    assert torch.allclose(part.gradient, found.gradient[alone], atol=1e-6)


def test_a_defence_that_the_attacker_knows_is_enumerated_through(see: See, images: Tensor, labels: Tensor) -> None:
    import defenses

    plain = see("stochastic")
    known = replace(plain, defense=defenses.make("jpeg:75"), surrogate="identity")
    goal, penalty = Open().goal(plain, images, labels), torch.zeros(N)
    one, other = (estimate(target, images, goal, penalty, 0, "exact", 0) for target in (plain, known))
    assert other.values.shape == (N,)
    assert not torch.allclose(one.values, other.values)
    assert other.gradient.abs().sum() > 0


def test_exact_enumeration_is_refused_beyond_its_limit(see: See) -> None:
    torch.manual_seed(0)
    deep = see("stochastic", network=ConvNetAIG(CifarResNet(38, classes=CLASSES)).eval())
    assert resolve("auto", deep) == "straight-through"
    with pytest.raises(UsageError, match="up to 1024 routes, this model has 262,144"):
        resolve("exact", deep)
