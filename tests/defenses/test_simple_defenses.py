"""Bit depth, median, resize-pad and smoothing against independent calculations."""

import numpy as np
import pytest
import torch
from scipy import ndimage, stats
from torch import Tensor

import defenses
from defenses.bitdepth import BitDepth
from defenses.median import Median
from defenses.resize_pad import ResizePad
from defenses.smoothing import Smoothing, certify


def uniforms(count: int, width: int, seed: int = 0) -> Tensor:
    return torch.rand(count, width, generator=torch.Generator().manual_seed(seed)).clamp(1e-6, 1 - 1e-6)


def test_none_is_the_identity(cifar: Tensor) -> None:
    none = defenses.make("none")
    images = cifar.clone().requires_grad_()
    assert torch.equal(none(images), cifar)
    assert torch.equal(torch.autograd.grad(none.surrogate("soft", images).sum(), images)[0], torch.ones_like(cifar))


def test_bitdepth_rounds_to_equally_spaced_levels(cifar: Tensor) -> None:
    assert BitDepth(1)(torch.tensor([[[[0.0, 0.49, 0.51, 1.0]]]])).flatten().tolist() == [0, 0, 1, 1]
    for bits in (3, 5):
        levels = np.linspace(0, 1, 2**bits)
        expected = levels[np.abs(cifar.numpy()[..., None] - levels).argmin(-1)]
        np.testing.assert_allclose(BitDepth(bits)(cifar).numpy(), expected, atol=1e-6)
    assert torch.equal(BitDepth(8)(cifar), cifar)


def test_bitdepth_surrogates(cifar: Tensor) -> None:
    images = (cifar + 0.003).clamp(0, 1).requires_grad_()
    for kind in BitDepth.surrogates:
        result = BitDepth(3).surrogate(kind, images)
        assert torch.equal(result, BitDepth(3)(images))
        (gradient,) = torch.autograd.grad(result.sum(), images)
        distance = (images * 7 - (images * 7).round()).detach()
        torch.testing.assert_close(gradient, torch.ones_like(cifar) if kind == "identity" else 3 * distance**2)


@pytest.mark.parametrize("bits", [0, 9])
def test_bitdepth_range(bits: int) -> None:
    with pytest.raises(ValueError, match=f"from 1 to 8, not {bits}"):
        BitDepth(bits)


def test_median_equals_scipy(cifar: Tensor) -> None:
    expected = ndimage.median_filter(cifar.numpy(), size=(1, 1, 3, 3), mode="nearest")
    assert np.array_equal(Median()(cifar).numpy(), expected)


def test_median_gradients() -> None:
    images = uniforms(2, 3 * 8 * 8).reshape(2, 3, 8, 8).requires_grad_()
    (identity,) = torch.autograd.grad(Median().surrogate("identity", images).sum(), images)
    assert torch.equal(identity, torch.ones_like(images))
    double = images.detach().double().requires_grad_()  # without ties the filter is smooth around a random point
    assert torch.autograd.gradcheck(lambda x: Median().surrogate("end-to-end", x), double, eps=1e-9, atol=1e-4)


@pytest.mark.parametrize(("size", "canvas"), [(32, 36), (299, 331), (224, 248)])
def test_resize_pad_follows_the_paper(size: int, canvas: int) -> None:
    defense = ResizePad()
    assert defense.output_shape((3, size, size)) == (3, canvas, canvas)
    draws = 200
    images = torch.ones(draws, 1, size, size)
    result = defense(images, uniforms(draws, 3)) == 1
    sides = result.any(3).sum(2).flatten()
    assert torch.equal(sides, result.any(2).sum(2).flatten())
    assert sides.min() >= size
    assert sides.max() <= canvas - 1
    assert len(sides.unique()) > min(canvas - size, 20) - 1
    assert torch.equal(result.sum((1, 2, 3)), sides**2)  # a full square, the rest grey


def test_resize_pad_is_nearest_neighbour_and_differentiable() -> None:
    images = uniforms(6, 3 * 32 * 32).reshape(6, 3, 32, 32).requires_grad_()
    uniform = torch.tensor([[u, v, w] for u, v, w in uniforms(6, 3, 7).tolist()])
    uniform[0] = 1 - 2**-24
    uniform[1] = 2**-24
    result = ResizePad()(images, uniform)
    for image, padded, (size, top, left) in zip(images, result, uniform.double().tolist(), strict=True):
        side = 32 + int(size * 4)
        y, x = int(top * (36 - side)), int(left * (36 - side))
        enlarged = torch.nn.functional.interpolate(image[None], (side, side), mode="nearest")[0]
        expected = torch.nn.functional.pad(enlarged, (x, 36 - side - x, y, 36 - side - y), value=0.5)
        assert torch.equal(padded, expected)
    (gradient,) = torch.autograd.grad(result.sum(), images)
    assert gradient.min() >= 1


def test_smoothing_adds_normal_noise(cifar: Tensor) -> None:
    defense = Smoothing(0.5)
    assert defense.uniforms((3, 32, 32)) == 3072
    images = cifar.clone().requires_grad_()
    result = defense(images, uniforms(20, 3072))
    noise = (result - images).detach().flatten() / 0.5
    assert stats.kstest(noise.numpy(), "norm").pvalue > 0.01
    assert torch.equal(torch.autograd.grad(result.sum(), images)[0], torch.ones_like(cifar))
    half = defense(cifar, torch.full((20, 3072), 0.5))
    torch.testing.assert_close(half, cifar)
    almost_one = torch.full((20, 3072), 1 - 1e-12, dtype=torch.float64)
    assert defense(cifar, almost_one).isfinite().all()
    assert defense(cifar, almost_one).dtype == torch.float32


@pytest.mark.parametrize("sigma", [0.0, -1.0, float("nan"), float("inf")])
def test_smoothing_range(sigma: float) -> None:
    with pytest.raises(ValueError, match="positive and finite"):
        Smoothing(sigma)


def test_certified_radius_is_cohens() -> None:
    counts = np.array([0, 40, 50, 70, 99, 100])
    radii = certify(counts, 100, 0.25, alpha=0.001)
    bounds = [stats.binomtest(int(k), 100, alternative="greater").proportion_ci(0.999, "exact").low for k in counts]
    expected = [max(0.0, 0.25 * stats.norm.ppf(bound)) if bound > 0.5 else 0.0 for bound in bounds]
    np.testing.assert_allclose(radii, expected, rtol=1e-6)
    assert list(radii[:3]) == [0, 0, 0]
    # All of 100,000 draws at sigma 1 and alpha 0.001: the largest radius the paper's setting can certify.
    assert certify(100_000, 100_000, 1.0) == pytest.approx(stats.norm.ppf(0.001 ** (1 / 100_000)))


def test_certificates_of_a_linear_classifier_are_wrong_no_more_often_than_alpha() -> None:
    """For sign(x - c) the true robust radius is |x - c|: a longer certificate is false."""
    distances = np.linspace(0.05, 0.6, 20_000)
    counts = np.random.default_rng(0).binomial(1000, stats.norm.cdf(distances / 0.25))
    wrong = certify(counts, 1000, 0.25, alpha=0.05) > distances
    assert 0.02 < wrong.mean() <= 0.052


def test_certify_refuses_nonsense() -> None:
    with pytest.raises(ValueError, match="between 0 and the number of draws, 10"):
        certify([11], 10, 0.25)
    with pytest.raises(ValueError, match="alpha"):
        certify([5], 10, 0.25, alpha=1.0)


@pytest.mark.parametrize("name", ["resize-pad", "smoothing"])
def test_random_defences_are_pure_functions_of_their_numbers(name: str, cifar: Tensor) -> None:
    defense = defenses.make(name)
    uniform = uniforms(20, defense.uniforms((3, 32, 32)))
    together = defense(cifar, uniform)
    state = torch.get_rng_state()
    assert torch.equal(together, torch.cat([defense(i[None], u[None]) for i, u in zip(cifar, uniform, strict=True)]))
    assert torch.equal(together, defense.surrogate("identity", cifar, uniform))
    assert torch.equal(torch.get_rng_state(), state)
    assert not torch.equal(together, defense(cifar, uniforms(20, uniform.shape[1], seed=1)))
    with pytest.raises(ValueError, match=r"needs uniform numbers of shape \(20, \d+\), but got none"):
        defense(cifar)
    with pytest.raises(ValueError, match="but got shape"):
        defense(cifar, uniform[:, :-1])
