"""Specifications, names, identities and compositions."""

import dataclasses
import subprocess
import sys

import pytest
import torch
from torch import Tensor

import defenses
from defenses.bitdepth import BitDepth
from defenses.composed import Composed
from defenses.jpeg import Jpeg
from defenses.median import Median
from defenses.resize_pad import ResizePad
from defenses.smoothing import Smoothing
from robustbench_aig.contracts.defense import NO_DEFENSE, STRENGTHS
from robustbench_aig.errors import UsageError

ALL = [entry.name for entry in defenses.registry.entries()]


def test_listing_imports_no_torch() -> None:
    code = "import sys, defenses; list(defenses.registry.entries()); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("name", ALL)
def test_every_defence_keeps_the_contract(name: str, cifar: Tensor) -> None:
    defense = defenses.make(name)
    entry = next(entry for entry in defenses.registry.entries() if entry.name == name)
    assert defense.name == name
    assert defense.deterministic is entry.facts["deterministic"]
    assert defense.deterministic is (defense.uniforms((3, 32, 32)) == 0)
    assert list(defense.surrogates) == [kind for kind in STRENGTHS if kind in defense.surrogates]
    assert defense.settings()["name"] == name
    assert set(defense.settings()) == {"name"} | {field.name for field in dataclasses.fields(defense)}  # type: ignore[arg-type]
    assert defenses.make(defense.label) == defense
    generator = torch.Generator().manual_seed(0)
    uniform = torch.rand(20, defense.uniforms((3, 32, 32)), generator=generator).clamp(1e-6, 1 - 1e-6)
    before = cifar.clone()
    real = defense(cifar, uniform)
    assert real.shape[1:] == defense.output_shape((3, 32, 32))
    for kind in defense.surrogates or STRENGTHS:
        images = cifar.clone().requires_grad_()
        stand_in = defense.surrogate(kind, images, uniform)
        assert stand_in.shape == real.shape
        assert stand_in.dtype == torch.float32
        assert kind == "end-to-end" or torch.equal(stand_in, real)
        (gradient,) = torch.autograd.grad(stand_in.square().sum(), images)
        assert gradient.isfinite().all()
        assert gradient.any()
    assert torch.equal(cifar, before)


@pytest.mark.parametrize(
    ("specification", "defense", "label"),
    [
        ("none", NO_DEFENSE, "none"),
        ("jpeg", Jpeg(), "jpeg:75"),
        ("jpeg:quantize=floor", Jpeg(quantize="floor"), "jpeg:75,quantize=floor"),
        ("jpeg:50,subsampling=444", Jpeg(50, subsampling="444"), "jpeg:50,subsampling=444"),
        ("bitdepth:3", BitDepth(3), "bitdepth:3"),
        ("smoothing:1/4", Smoothing(0.25), "smoothing:0.25"),
        ("median", Median(), "median"),
        ("none+jpeg:75", Jpeg(), "jpeg:75"),
        ("none+none", NO_DEFENSE, "none"),
        ("jpeg:75 + bitdepth:5", Composed((Jpeg(), BitDepth())), "jpeg:75+bitdepth:5"),
    ],
)
def test_specifications(specification: str, defense: object, label: str) -> None:
    made = defenses.make(specification)
    assert made == defense
    assert made.label == label
    assert defenses.make(label) == made


@pytest.mark.parametrize(
    ("specification", "words"),
    [
        ("jpg", "unknown defense 'jpg'; did you mean jpeg"),
        ("jpeg:75+bitdeth:5", "did you mean bitdepth"),
        ("jpeg:q=5", "no parameter 'q'; it takes: quality, quantize, subsampling"),
        ("jpeg:quantize=ceil", "must be one of round, floor"),
        ("bitdepth:9", "from 1 to 8, not 9"),
        ("smoothing:-1", "positive and finite"),
        ("jpeg:75+", "empty member"),
        ("", "empty member"),
        ("median:3", "more values than 'median' has parameters"),
    ],
)
def test_bad_specifications(specification: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        defenses.make(specification)


def test_composition_applies_in_order(cifar: Tensor) -> None:
    one, other = defenses.make("jpeg:75+bitdepth:3"), defenses.make("bitdepth:3+jpeg:75")
    assert torch.equal(one(cifar), BitDepth(3)(Jpeg()(cifar)))
    assert torch.equal(other(cifar), Jpeg()(BitDepth(3)(cifar)))
    assert one.deterministic
    assert one.settings() == {"name": "composed", "members": [Jpeg().settings(), BitDepth(3).settings()]}
    assert one.settings() != other.settings()
    assert one.record() == {"jpeg:75": Jpeg().record()}


def test_composition_takes_each_member_s_closest_surrogate(cifar: Tensor) -> None:
    composed = Composed((Jpeg(), BitDepth(3), Median()))
    assert composed.surrogates == ("identity", "soft", "end-to-end")
    taken = {
        "identity": ["identity"] * 3,
        "soft": ["soft", "soft", "identity"],
        "end-to-end": ["end-to-end", "soft", "end-to-end"],
    }
    for kind, (first, second, third) in taken.items():
        images, again = cifar.clone().requires_grad_(), cifar.clone().requires_grad_()
        result = composed.surrogate(kind, images)
        expected = Median().surrogate(third, BitDepth(3).surrogate(second, Jpeg().surrogate(first, again)))
        assert torch.equal(result, expected)
        gradients = [torch.autograd.grad(out.square().sum(), x)[0] for out, x in ((result, images), (expected, again))]
        assert torch.equal(*gradients)
    with pytest.raises(ValueError, match="has no surrogate 'hard'; it has: identity, soft, end-to-end"):
        composed.surrogate("hard", cifar)
    with pytest.raises(ValueError, match="has no surrogate 'soft'; it has: identity, end-to-end"):
        Median().surrogate("soft", cifar)


def test_composition_shares_out_the_uniform_numbers(cifar: Tensor) -> None:
    composed = defenses.make("resize-pad+jpeg:75+smoothing:0.1")
    assert not composed.deterministic
    assert composed.output_shape((3, 32, 32)) == (3, 36, 36)
    assert composed.uniforms((3, 32, 32)) == 3 + 3 * 36 * 36
    uniform = torch.rand(20, 3891, generator=torch.Generator().manual_seed(0)).clamp(1e-6, 1 - 1e-6)
    expected = Smoothing(0.1)(Jpeg()(ResizePad()(cifar, uniform[:, :3])), uniform[:, 3:])
    assert torch.equal(composed(cifar, uniform), expected)
    assert torch.equal(composed.surrogate("soft", cifar, uniform), expected)
    with pytest.raises(ValueError, match=r"of shape \(20, 3891\), but got none"):
        composed(cifar)


def test_composition_of_differentiable_defences_is_differentiable(cifar: Tensor) -> None:
    composed = defenses.make("resize-pad+smoothing:0.1")
    assert composed.surrogates == ()
    uniform = torch.full((20, composed.uniforms((3, 32, 32))), 0.5)
    assert torch.equal(composed.surrogate("soft", cifar, uniform), composed(cifar, uniform))
