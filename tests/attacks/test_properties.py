"""What every attack promises: inside the ball and the box, the clean image as a fallback, independent of batching."""

import pytest
import torch

import attacks
from robustbench_aig.contracts.norms import size
from robustbench_aig.errors import UsageError

QUICK = {
    "identity": "identity",
    "noise": "noise:kind=uniform",
    "fgsm": "fgsm:loss=margin",
    "bim": "bim:steps=3",
    "mifgsm": "mifgsm:steps=3",
    "pgd": "pgd:steps=3,restarts=2",
    "apgd": "apgd:steps=6",
    "apgd-t": "apgd-t:steps=3,classes=2",
    "square": "square:queries=12",
    "fmn": "fmn:steps=8",
    "deepfool": "deepfool:steps=3,candidates=3",
    "auto": "auto:steps=4,classes=2,queries=8",
    "worst": "worst:attacks=fgsm+bim",
}
BUDGETS = {"linf": [4 / 255, 24 / 255], "l2": [0.3, 1.0], "l1": [1.0, 8.0], "l0": [1, 9]}
NATIVE = [entry.name for entry in attacks.registry.entries() if entry.name in QUICK]
NORMS = {name: attacks.registry.entry(name).facts["norms"] for name in NATIVE}
NORMS["worst"] = ("linf", "l2", "l1")  # in L0, of attacks of other libraries only


def test_every_quick_specification_is_registered():
    assert set(NATIVE) == set(QUICK)


@pytest.mark.parametrize("gating", ["deterministic", "stochastic", "expected"])
@pytest.mark.parametrize(("name", "norm"), [(name, norm) for name in NATIVE for norm in NORMS[name]])
def test_inside_ball_and_box(gated, name, norm, gating):
    target = gated.target(gating, draws=2 if gating == "stochastic" else 1)
    budgets = BUDGETS[norm]
    images = attacks.make(QUICK[name], norm=norm)(target, gated.images, gated.labels, budgets)
    assert images.shape == (2, *gated.images.shape)
    assert images.dtype == torch.float32
    assert images.min() >= 0
    assert images.max() <= 1
    most = torch.tensor(budgets)[:, None] + (1e-5 if norm == "l1" else 1e-6)
    assert (size(images - gated.images, norm) <= most).all()


@pytest.mark.parametrize("name", NATIVE)
@pytest.mark.parametrize("gating", ["deterministic", "stochastic"])
def test_a_batch_and_its_parts_agree(gated, name, gating):
    """Noise is named by image id, so splitting the batch changes only summation order."""
    attack, target = attacks.make(QUICK[name]), gated.target(gating)
    whole = attack(target, gated.images, gated.labels, BUDGETS["linf"])
    index = torch.arange(5, 9)
    part = attack(gated.target(gating).take(index), gated.images[index], gated.labels[index], BUDGETS["linf"])
    assert (whole[:, index] - part).abs().mean() < 1e-3


@pytest.mark.parametrize("name", ["pgd", "apgd", "apgd-t", "square", "fmn", "auto"])
def test_a_larger_budget_breaks_what_a_smaller_one_did(plain, name):
    images = attacks.make(QUICK[name])(plain.target(), plain.images, plain.labels, [12 / 255, 24 / 255, 48 / 255])
    broken = plain.broken(images)
    assert (broken[1:] | ~broken[:-1]).all()
    assert broken[-1].sum() > broken[0].sum()


@pytest.mark.parametrize("name", ["pgd", "apgd", "square", "auto"])
def test_images_that_are_wrong_anyway_are_not_attacked(plain, name):
    wrong = (plain.labels + 1) % 10
    target = plain.target()
    images = attacks.make(QUICK[name])(target, plain.images, wrong, [8 / 255])
    known = plain.network(plain.images).argmax(1) != wrong
    assert torch.equal(images[0][known], plain.images[known])
    assert (target.passes.backwards[known] == 0).all()


def test_auto_breaks_what_any_member_breaks(plain):
    budgets = [16 / 255, 28 / 255]
    auto = attacks.make("auto:steps=10,classes=3,queries=30")(plain.target(), plain.images, plain.labels, budgets)
    for member in ("apgd:steps=10,carry=false", "fmn:steps=10"):
        images = attacks.make(member)(plain.target(), plain.images, plain.labels, budgets)
        assert plain.broken(auto).sum() >= plain.broken(images).sum()


@pytest.mark.parametrize(
    ("specification", "named"),
    [
        ("pgd:steps=0", "steps"),
        ("pgd:restarts=0", "restarts"),
        ("pgd:rel_step=0", "rel_step"),
        ("pgd:restarts=2,random_start=false", "random start"),
        ("apgd:stepz=3", "steps"),
        ("square:share=2", "share"),
        ("deepfool:candidates=1", "candidates"),
        ("worst:attacks=fgsn", "fgsm"),
        ("fmn:step=-1", "step"),
        ("noise:draw=-1", "draw"),
    ],
)
def test_bad_parameters_are_refused_by_name(specification, named):
    with pytest.raises(UsageError, match=named):
        attacks.make(specification)
