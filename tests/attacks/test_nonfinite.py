"""NaN and infinity are never a success, and never a step: in logits, in losses and in gradients."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import attacks
from attacks.common.losses import Criterion
from attacks.common.search import selection
from attacks.libraries.adapter import Attackable
from attacks.libraries.capability import LINF, Capability
from robustbench_aig.contracts.defense import NO_DEFENSE
from robustbench_aig.contracts.forward import View
from robustbench_aig.contracts.gating import Gating
from robustbench_aig.contracts.margin import margin, right, wrong
from robustbench_aig.contracts.scores import NO_CLASS
from robustbench_aig.contracts.target import Passes, Target
from robustbench_aig.engine.scoring import score
from tests.fixtures.broken_models import HalfNaNGradient, RootInput, Wrapped

BAD = torch.tensor([[torch.nan, 0.0, 0.0], [0.0, 1.0, torch.nan], [torch.inf, 0.0, 0.0], [0.0, 0.0, -torch.inf]])
LABELS = torch.tensor([0, 1, 0, 1])


def target(network: nn.Module, count: int, **options: Any) -> Target:
    ids = torch.arange(count)
    return Target(network, Gating("none"), ids, ids, Passes.none(count), 0, **options)


@pytest.mark.parametrize("aims", [None, torch.tensor([1, 2, 1, 0])])
def test_nan_logits_are_neither_right_nor_wrong_nor_a_success(aims: Tensor | None) -> None:
    assert not right(BAD, LABELS).any()
    assert not wrong(BAD, LABELS).any()
    assert (margin(BAD, LABELS, aims) == -torch.inf).all()
    criterion, view = Criterion(LABELS, aims), View(BAD[None], None)
    assert not criterion.success(view).any()
    assert (criterion.margin(view) == -torch.inf).all()
    for loss in ("ce", "auto", "margin") if aims is not None else ("ce", "auto", "margin", "dlr"):
        assert (criterion.objective(loss)(view) == -torch.inf).all()


def test_scoring_counts_nan_logits_and_calls_them_wrong() -> None:
    class Given(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return torch.cat([BAD, torch.eye(3)[:1]])[: len(images)]

    labels = torch.tensor([0, 1, 0, 1, 0])
    images, ids = torch.zeros(5, 1, 2, 2), torch.arange(5)
    scores = score(Given(), Gating("none"), NO_DEFENSE, images, labels, ids, seed=0, draws=2)
    assert scores.count.tolist() == [0, 0, 0, 0, 2]
    assert scores.vote.tolist() == [NO_CLASS] * 4 + [0]
    assert scores.nonfinite.tolist() == [2, 2, 2, 2, 0]


def test_entries_that_are_nan_are_counted_and_left_out(plain: Any) -> None:
    count, images, labels = len(plain.images), plain.images, plain.labels
    assert torch.equal(HalfNaNGradient(plain.network)(images), plain.network(images))
    sound, broken = target(plain.network, count), target(HalfNaNGradient(plain.network), count)
    objective = Criterion(labels).objective("ce")
    gradients = [side.gradient(images, objective)[1] for side in (sound, broken)]
    kept = (images.amax(1, keepdim=True) > 0.5).expand_as(images)
    assert torch.equal(gradients[1][kept], gradients[0][kept])
    assert not gradients[1][~kept].any()
    spoilt = (~kept).flatten(1).any(1)
    assert spoilt.any()
    assert broken.passes.nonfinite.tolist() == spoilt.long().tolist()
    assert sound.passes.nonfinite.tolist() == [0] * count


@pytest.mark.parametrize(
    "name", ["fgsm", "pgd:steps=3", "pgd:steps=3,stop=false", "apgd:steps=3", "deepfool:steps=3", "fmn:steps=3"]
)
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_attacks_return_finite_images_whatever_the_gradient(name: str, norm: str, plain: Any) -> None:
    broken = target(HalfNaNGradient(plain.network), len(plain.images))
    found = attacks.make(name, norm=norm)(broken, plain.images, plain.labels, [0.05, 0.1])
    assert found.isfinite().all()
    assert (found != plain.images).flatten(2).any(2).any(0).float().mean() > 0.9
    assert (broken.passes.nonfinite > 0).any()


def test_a_library_is_not_told_that_nan_is_a_success(plain: Any) -> None:
    """It sees the label in place of NaN, whatever the order of its images."""

    class Blind(Wrapped):
        def forward(self, images: Tensor) -> Tensor:
            return torch.full_like(super().forward(images), torch.nan)

    count, images, labels = len(plain.images), plain.images, plain.labels
    model = Attackable(target(Blind(plain.network), count), images, labels, Capability("plain", LINF))
    order = torch.arange(count).flip(0)[:-3]
    moved = images[order] + 0.01 * torch.rand(len(order), 1, 1, 1, generator=torch.Generator().manual_seed(0))
    assert right(model(moved), labels[order]).all()


def test_gradients_of_a_library_are_counted_and_cleaned(plain: Any) -> None:
    count, images, labels = len(plain.images), plain.images, plain.labels
    found, spent = [], []
    for network in (plain.network, HalfNaNGradient(plain.network)):
        aimed = target(network, count)
        found.append(attacks.make("torchattacks:FGSM")(aimed, images, labels, [0.1])[0])
        spent.append(aimed.passes.nonfinite)
    kept = (images.amax(1, keepdim=True) > 0.5).expand_as(images)
    assert torch.equal(found[1][kept], found[0][kept])
    assert torch.equal(found[1][~kept], images[~kept])
    assert spent[0].tolist() == [0] * count
    assert int((spent[1] > 0).sum()) == int((~kept).flatten(1).any(1).sum())


def test_auto_does_not_stop_at_nan(plain: Any) -> None:
    """A square root at black pixels, in L2: steps along a gradient end just below 0, and square breaks more."""
    count, images, labels = len(plain.images), plain.images, plain.labels
    rooted = RootInput(plain.network)
    few = "steps=8,restarts=1,queries=60,pace=0"

    def left(specification: str) -> np.ndarray:
        side = target(rooted, count)
        found = attacks.make(specification, norm="l2")(side, images, labels, [0.5])[0]
        return ~wrong(selection(target(rooted, count), found).logits[0], labels).numpy()

    auto, square = left(f"auto:{few}"), left("square:queries=60")
    assert not (auto & ~square).any(), "its own member breaks more"
