"""The suite's attacks against those of torchattacks and foolbox."""

import warnings

import pytest
import torch

import attacks

with warnings.catch_warnings():  # foolbox imports a deprecated name of scipy
    warnings.simplefilter("ignore")
    import foolbox
    import torchattacks

EPSILONS = [k / 255 for k in (1, 2, 8, 24)]


def test_fgsm_is_bit_equal_to_both_libraries(plain):
    ours = attacks.make("fgsm")(plain.target(), plain.images, plain.labels, EPSILONS)
    model = foolbox.PyTorchModel(plain.network, (0, 1))
    for epsilon, images in zip(EPSILONS, ours, strict=True):
        theirs = torchattacks.FGSM(plain.network, eps=epsilon)(plain.images, plain.labels)
        assert torch.equal(images, theirs)
        _, clipped, _ = foolbox.attacks.FGSM()(model, plain.images, plain.labels, epsilons=epsilon)
        assert torch.equal(images, clipped)


def test_fast_gradient_method_equals_foolbox_in_l2(plain):
    (ours,) = attacks.make("fgsm", norm="l2")(plain.target(), plain.images, plain.labels, [0.5])
    model = foolbox.PyTorchModel(plain.network, (0, 1))
    _, theirs, _ = foolbox.attacks.FGM()(model, plain.images, plain.labels, epsilons=0.5)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("ours", "theirs", "norm", "budget"),
    [
        ("bim:steps=10,step=2/255,loss=ce,stop=false", lambda m: torchattacks.BIM(m, steps=10), "linf", 8 / 255),
        ("mifgsm:steps=10,step=2/255,loss=ce,stop=false", lambda m: torchattacks.MIFGSM(m, steps=10), "linf", 8 / 255),
        (
            "pgd:steps=10,step=2/255,loss=ce,stop=false,random_start=false",
            lambda m: torchattacks.PGD(m, steps=10, random_start=False),
            "linf",
            8 / 255,
        ),
        (
            "pgd:steps=10,step=0.2,loss=ce,stop=false,random_start=false",
            lambda m: torchattacks.PGDL2(m, steps=10, random_start=False),
            "l2",
            1.0,
        ),
    ],
)
def test_textbook_iterations_equal_torchattacks(plain, ours, theirs, norm, budget):
    (images,) = attacks.make(ours, norm=norm)(plain.target(), plain.images, plain.labels, [budget])
    torch.testing.assert_close(images, theirs(plain.network)(plain.images, plain.labels), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("ours", "theirs", "slack"),
    [
        ("apgd:steps=30", {"cls": torchattacks.APGD, "steps": 30}, 1),
        ("apgd:steps=30,loss=dlr", {"cls": torchattacks.APGD, "steps": 30, "loss": "dlr"}, 1),
        ("apgd-t:steps=15", {"cls": torchattacks.APGDT, "steps": 15}, 1),
        ("square:queries=200", {"cls": torchattacks.Square, "n_queries": 200}, 3),
    ],
)
def test_at_least_as_strong_as_torchattacks(plain, ours, theirs, slack):
    """Random starts differ, so up to ``slack`` of 24 images may."""
    (images,) = attacks.make(ours)(plain.target(), plain.images, plain.labels, [20 / 255])
    options = dict(theirs)
    reference = options.pop("cls")(plain.network, eps=20 / 255, **options)
    with torch.random.fork_rng():
        other = reference(plain.images, plain.labels)
    assert plain.broken(images).sum() + slack >= plain.broken(other).sum()
    assert plain.broken(images).sum() > plain.broken(plain.images).sum()


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_deepfool_breaks_what_foolbox_breaks(plain, norm):
    budgets = [24 / 255, 48 / 255] if norm == "linf" else [0.6, 1.2]
    ours = attacks.make("deepfool", norm=norm)(plain.target(), plain.images, plain.labels, budgets)
    library = foolbox.attacks.LinfDeepFoolAttack() if norm == "linf" else foolbox.attacks.L2DeepFoolAttack()
    model = foolbox.PyTorchModel(plain.network, (0, 1))
    _, _, success = library(model, plain.images, plain.labels, epsilons=budgets)
    assert (plain.broken(ours) | ~success).all()
