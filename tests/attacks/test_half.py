"""Gradients in bfloat16: what is fooled is fooled in float32, as much is fooled, and cells tell the two apart."""

from dataclasses import replace

import pytest
import torch

import attacks
from attacks.common.losses import Criterion
from robustbench_aig.contracts.forward import View
from robustbench_aig.engine.plan import plan
from robustbench_aig.errors import UsageError
from tests.engine import grids

BUDGETS = [k / 255 for k in (12, 24)]


@pytest.mark.parametrize("name", ["pgd:steps=20", "bim:steps=20"])
def test_as_many_images_are_broken(plain, name):
    full, half = (
        plain.broken(attacks.make(name)(plain.target(half=h), plain.images, plain.labels, BUDGETS))
        for h in (False, True)
    )
    assert full.any()
    assert not full.all()
    assert int((full & ~half).sum()) <= 1


def test_an_image_leaves_on_a_verdict_in_float32_only(plain):
    """Whatever bfloat16 says, an image that was given fewer steps than there are is really misclassified."""
    target = plain.target(half=True)
    images = attacks.make("pgd:steps=20")(target, plain.images, plain.labels, BUDGETS[1:])
    left = target.passes.backwards < 20
    assert left.any()
    assert plain.broken(images)[0][left].all()


def test_a_success_seen_in_bfloat16_alone_is_none(plain, monkeypatch):
    """Gradient passes that call everything misclassified: float32 does not believe them."""
    target = plain.target(half=True)
    honest = type(target).gradient

    def lying(self, images, objective, step=0, policy=None):
        values, gradient, view = honest(self, images, objective, step, policy)
        if self.half:
            other = torch.nn.functional.one_hot((plain.labels[self.rows] + 1) % 10, 10).float()
            view = View(other.expand_as(view.logits), view.trace)
        return values, gradient, view

    monkeypatch.setattr(type(target), "gradient", lying)
    images = attacks.make("pgd:steps=5")(target, plain.images, plain.labels, [1 / 255])
    survived = ~plain.broken(images)[0]
    assert survived.any()
    assert (target.passes.backwards[survived] == 5).all()


def test_gradients_are_those_of_float32_up_to_its_digits(plain):
    criterion = Criterion(plain.labels).objective("ce")
    gradients = [plain.target(half=h).gradient(plain.images, criterion)[1].flatten(1) for h in (False, True)]
    assert torch.nn.functional.cosine_similarity(*gradients).median() > 0.98
    assert not torch.equal(*gradients)


def test_cells_in_bfloat16_have_an_identity_of_their_own_and_others_keep_theirs():
    named = ("pgd:steps=2", "fgsm", "gates:open:steps=2")
    grid = grids.settings(attacks=[attacks.make(name) for name in named], half=True)
    ids = {half: {cell.label: cell.id for cell in plan(replace(grid, half=half))} for half in (False, True)}
    assert ids[True].keys() == ids[False].keys()
    changed = {label for label in ids[True] if ids[True][label] != ids[False][label]}
    assert changed == {label for label in ids[True] if " pgd" in label}


def test_asking_for_it_without_an_attack_that_takes_it_is_refused():
    with pytest.raises(UsageError, match="leave --precision out"):
        plan(grids.settings(half=True))


@pytest.mark.parametrize("folded", [False, True])
def test_gates_decide_in_float32(gated, folded):
    network = gated.network.fused() if folded else gated.network
    target = replace(gated.target("stochastic", draws=4), model=network)
    criterion = Criterion(gated.labels).objective("ce")
    (_, exact, _), (_, rough, view) = (replace(target, half=h).gradient(gated.images, criterion) for h in (False, True))
    assert view.trace is not None
    assert view.trace.margin.dtype == torch.float32
    assert torch.nn.functional.cosine_similarity(exact.flatten(1), rough.flatten(1)).median() > 0.95
