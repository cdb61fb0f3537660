"""The geometry of the balls against what the definitions say, and which attacks take which norm."""

import pytest
import torch
from scipy.optimize import minimize

import attacks
from attacks.common.norms import SPARSE, climb, project, random_point
from robustbench_aig.contracts.norms import size
from robustbench_aig.errors import UsageError


def cloud(seed: int, count: int = 6, side: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    """Images and perturbed images, some of which leave the box."""
    generator = torch.Generator().manual_seed(seed)
    centre = torch.rand(count, 3, side, side, generator=generator)
    return centre, centre + 0.5 * torch.randn(centre.shape, generator=generator)


@pytest.mark.parametrize("budget", [0.3, 2.0, 8.0, 1000.0])
def test_projection_onto_l1_ball_and_box_is_the_nearest_point(budget):
    """The conditions of optimality: inside both, and one threshold explains every entry (Croce and Hein 2021)."""
    centre, points = cloud(0)
    found = project(points, centre, budget, "l1")
    assert (size(found - centre, "l1") <= budget + 1e-5).all()
    assert found.min() >= 0
    assert found.max() <= 1
    for one, inside, middle in zip(points, found, centre, strict=True):
        wanted, moved = (one - middle).abs(), (inside - middle).abs()
        room = torch.where(one > middle, 1 - middle, middle)
        free = (moved > 1e-6) & (moved < room - 1e-6)
        thresholds = (wanted - moved)[free]
        threshold = thresholds.mean() if len(thresholds) else wanted.new_zeros(())
        assert torch.allclose(thresholds, threshold, atol=1e-5)
        assert torch.allclose(moved, (wanted - threshold).clamp_min(0).minimum(room), atol=1e-5)
        if moved.sum() < budget - 1e-4:
            assert threshold.abs() < 1e-5  # only the box holds it


def test_projection_onto_l1_ball_and_box_agrees_with_a_general_solver():
    centre, points = cloud(1, count=2, side=2)
    found = project(points, centre, 0.7, "l1").double()
    for one, inside, middle in zip(points.double(), found, centre.double(), strict=True):
        wanted, start = (one - middle).flatten().numpy(), middle.flatten().numpy()

        def distance(split, wanted=wanted):
            up, down = split.reshape(2, -1)
            return ((up - down - wanted) ** 2).sum()

        solved = minimize(
            distance,
            [0.01] * (2 * len(wanted)),
            bounds=[(0, 1 - value) for value in start] + [(0, value) for value in start],
            constraints={"type": "ineq", "fun": lambda split: 0.7 - split.sum()},
            method="SLSQP",
            options={"ftol": 1e-12},
        )
        assert distance(solved.x) == pytest.approx(float(((inside - one) ** 2).sum()), abs=1e-5)


def test_points_of_the_ball_stay_where_they_are():
    centre, _ = cloud(2)
    near = (centre + 0.001).clamp(0, 1)
    assert torch.allclose(project(near, centre, 1.0, "l1"), near, atol=1e-7)


def test_a_step_in_l1_moves_the_values_of_the_largest_gradients_that_can_move():
    points = torch.full((2, 1, 20, 20), 0.5)
    gradient = torch.linspace(-1, 1, 400).view(1, 1, 20, 20).expand(2, -1, -1, -1).clone()
    points[0, 0, -1, -1] = 1.0  # the largest gradient, with nowhere to go
    gradient[1] = 0
    moved = climb(points, gradient, torch.tensor([2.0, 2.0]).view(-1, 1, 1, 1), "l1") - points
    assert int((moved[0] != 0).sum()) == SPARSE * 400
    assert torch.allclose(size(moved, "l1"), torch.tensor([2.0, 0.0]))
    assert moved[0, 0, -1, -1] == 0
    changed = set(moved[0, 0].flatten().nonzero()[:, 0].tolist())
    assert {0, 1, 398} < changed <= {0, 1, 2, 397, 398}  # the last two have equal gradients
    assert (moved[0].sign() == gradient[0].sign())[moved[0] != 0].all()


def test_random_points_of_the_l1_ball_are_spread_over_it(plain):
    target = plain.target()
    found = [random_point(target, plain.images, 3.0, "l1", draw) - plain.images for draw in range(2)]
    sizes = torch.stack([size(offset, "l1") for offset in found])
    assert (sizes <= 3 + 1e-5).all()
    assert sizes.min() < 0.5 < 1.5 < sizes.max()
    assert not torch.equal(*found)


@pytest.mark.parametrize("name", ["fgsm", "bim", "pgd:steps=10", "apgd:steps=10"])
def test_attacks_in_l1_break_more_than_noise(plain, name):
    budget = [4.0]
    noisy = attacks.make("noise", norm="l1")(plain.target(), plain.images, plain.labels, budget)
    found = attacks.make(name, norm="l1")(plain.target(), plain.images, plain.labels, budget)
    assert plain.broken(found).sum() > plain.broken(noisy).sum()


def test_iterations_in_l1_break_more_than_one_step(plain):
    budgets = [2.0, 4.0]
    broken = {}
    for name in ("fgsm", "pgd", "foolbox:L1FMNAttack", "apgd"):
        found = attacks.make(name, norm="l1")(plain.target(), plain.images, plain.labels, budgets)
        broken[name] = int(plain.broken(found).sum())
    assert broken["fgsm"] < broken["pgd"]
    assert broken["apgd"] >= broken["foolbox:L1FMNAttack"] > broken["fgsm"]


@pytest.mark.parametrize(
    ("specification", "norm", "message"),
    [
        ("square", "l1", "'square' works in linf or l2, not l1; choose that norm"),
        ("auto", "l1", "'auto' works in linf or l2"),
        ("fmn", "l0", "'fmn' works in linf or l2, not l0"),
        ("pgd", "l0", "'pgd' works in linf or l2 or l1, not l0"),
        ("gates:open", "l1", "'gates:open' works in linf or l2"),
        ("worst:attacks=fgsm+square", "l1", "'square' works in linf or l2, not l1"),
        ("torchattacks:PGD", "l1", "'torchattacks:PGD' works in linf, not l1"),
        ("pgd:norm=l3", None, "must be one of linf, l2, l1, l0"),
    ],
)
def test_a_norm_that_an_attack_lacks_is_refused(specification, norm, message):
    with pytest.raises(UsageError, match=message):
        attacks.make(specification, **({} if norm is None else {"norm": norm}))
