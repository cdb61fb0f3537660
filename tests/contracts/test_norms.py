"""Sizes of perturbations, and that crafting holds every attack to the size of its own norm."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

from robustbench_aig.contracts.attack import Attack
from robustbench_aig.contracts.crafting import craft
from robustbench_aig.contracts.gating import Gating
from robustbench_aig.contracts.norms import Norm, size, tolerance
from robustbench_aig.contracts.target import Passes, Target
from robustbench_aig.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class Adds(Attack):
    """Adds a fixed perturbation, whatever the budget."""

    name = "adds"
    norms = ("linf", "l2", "l1", "l0")

    offset: Any

    def __call__(self, target: Target, images: Tensor, labels: Tensor, budgets: Sequence[float]) -> Tensor:
        return torch.stack([images + self.offset for _ in budgets])


def crafted(norm: Norm, offset: Tensor, budgets: Sequence[float], level: float = 0.5) -> Any:
    images = torch.full_like(offset, level)[None]
    rows = torch.arange(1)
    target = Target(torch.nn.Identity(), Gating("none"), rows, rows, Passes.none(1), seed=0)
    return craft(Adds(norm=norm, offset=offset), target, images, rows, budgets)


def two_pixels() -> Tensor:
    """(3, 4, 4): one pixel changed in two channels by 0.3 and -0.1, another in one by 0.2."""
    offset = torch.zeros(3, 4, 4)
    offset[0, 0, 0], offset[2, 0, 0], offset[1, 3, 2] = 0.3, -0.1, 0.2
    return offset


@pytest.mark.parametrize(("norm", "expected"), [("linf", 0.3), ("l2", 0.14**0.5), ("l1", 0.6), ("l0", 2)])
def test_sizes(norm: Norm, expected: float) -> None:
    batch = torch.stack([two_pixels(), torch.zeros(3, 4, 4)]).expand(5, 2, 3, 4, 4)
    sizes = size(batch, norm)
    assert sizes.shape == (5, 2)
    assert torch.allclose(sizes[:, 0], torch.full((5,), float(expected)))
    assert (sizes[:, 1] == 0).all()


def test_rounding_is_no_change_and_nan_is_one() -> None:
    offset = torch.full((3, 4, 4), 6e-8)
    assert size(offset, "l0") == 0
    offset[1, 2, 3] = torch.nan
    assert size(offset, "l0") == 1
    assert size(offset, "l1").isnan()


@pytest.mark.parametrize(
    ("norm", "budgets", "invalid"),
    [
        ("linf", [0.2, 0.3], [True, False]),
        ("l2", [0.37, 0.38], [True, False]),
        ("l1", [0.59, 0.6], [True, False]),
        ("l1", [0.38, 12.0], [True, False]),  # as an L2 size, 0.38 would do
        ("l0", [1, 2], [True, False]),
    ],
)
def test_a_budget_is_held_in_its_own_norm(norm: Norm, budgets: list[float], invalid: list[bool]) -> None:
    found = crafted(norm, two_pixels(), budgets)
    assert found.invalid[:, 0].tolist() == invalid
    own = [0.0 if bad else float(size(two_pixels(), norm)) for bad in invalid]
    assert found.size[:, 0].tolist() == pytest.approx(own)
    assert found.linf[:, 0].tolist() == pytest.approx([0.0 if bad else 0.3 for bad in invalid])
    assert torch.equal(found.images[0], torch.full((1, 3, 4, 4), 0.5))


def test_storing_large_images_in_float32_leaves_no_l1_ball() -> None:
    """All of 150 528 values move by exactly the budget's share, and each is rounded when it is stored."""
    shape, budget = (3, 224, 224), 12.0
    generator = torch.Generator().manual_seed(0)
    clean = torch.rand(1, *shape, generator=generator)
    offset = torch.full(shape, budget / (3 * 224 * 224)) * torch.where(clean[0] > 0.5, -1, 1)
    sizes = size(clean + offset - clean, "l1")
    assert sizes <= budget + tolerance("l1", 3 * 224 * 224)
    assert tolerance("l1", 3 * 224 * 224) < 0.001 * budget


def test_an_attack_in_a_norm_that_it_lacks_is_refused() -> None:
    offset = two_pixels()
    images, rows = offset[None] + 0.5, torch.arange(1)
    target = Target(torch.nn.Identity(), Gating("none"), rows, rows, Passes.none(1), seed=0)
    attack = Adds(norm="l7", offset=offset)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="'adds' works in linf or l2 or l1 or l0, not l7"):
        craft(attack, target, images, rows, [0.1])
