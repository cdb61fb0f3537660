"""The differentiable JPEG model: fidelity to libjpeg-turbo, and gradients that mislead nobody."""

import io

import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from defenses.jpeg import Jpeg
from defenses.rounding import soft_round
from defenses.soft_jpeg import quantization_table, soft_jpeg
from robustbench_aig.contracts.defense import straight_through


def psnr(one: Tensor, other: Tensor) -> float:
    return float(-10 * (one - other).square().mean().log10())


@pytest.mark.parametrize("quality", [1, 10, 49, 50, 75, 95, 100])
def test_quantization_tables_are_those_that_pillow_writes(quality: int) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, "JPEG", quality=quality)
    with Image.open(buffer) as image:
        written = image.quantization  # type: ignore[attr-defined]
    assert [quantization_table(component, quality) for component in ("luma", "chroma")] == [written[0], written[1]]


@pytest.mark.parametrize("subsampling", ["420", "444"])
@pytest.mark.parametrize("channels", [1, 3])
def test_model_is_close_to_the_codec(cifar: Tensor, imagenet: Tensor, channels: int, subsampling: str) -> None:
    codec = Jpeg(subsampling=subsampling)  # type: ignore[arg-type]
    for images in (cifar, cifar[:, :, :31, :27], imagenet[:4], imagenet[:4, :, :61, :35]):
        images = images[:, :channels]
        fidelity = psnr(soft_jpeg(images, 75, subsampling), codec(images))
        assert fidelity >= 42
        assert fidelity > psnr(images, codec(images)) + 3  # unlike a model that does nothing


@pytest.mark.parametrize(("height", "width"), [(1, 1), (2, 3), (5, 4), (16, 5), (9, 17)])
def test_borders_and_narrow_images_follow_the_codec(imagenet: Tensor, height: int, width: int) -> None:
    images = imagenet[:, :, 100 : 100 + height, 80 : 80 + width]
    assert soft_jpeg(images, 75).shape == images.shape
    assert psnr(soft_jpeg(images, 90), Jpeg(90)(images)) >= 42


def test_chroma_is_interpolated_as_in_the_codec() -> None:
    """A flat luma with a chroma ramp: wrong interpolation or a shifted bias shows at once."""
    ramp = torch.linspace(0.2, 0.8, 32).expand(32, 32)
    images = torch.stack([ramp, 0.5 - 0.4 * (ramp - 0.5), ramp.T])[None]
    assert (soft_jpeg(images, 95) - Jpeg(95)(images)).abs().max() <= 3.5 / 255


@pytest.mark.parametrize(("height", "width"), [(32, 32), (18, 24), (18, 5), (33, 17)])
def test_integer_steps_and_padding_are_the_codec_s(height: int, width: int) -> None:
    """On noise: every rounding and bias shows at quality 100, the padding of incomplete blocks at quality 20."""
    generator = torch.Generator().manual_seed(0)
    noise = (torch.rand(20, 3, height, width, generator=generator) * 255).round() / 255
    assert (soft_jpeg(noise, 100) == Jpeg(100)(noise)).float().mean() > 0.84
    assert (soft_jpeg(noise, 20) - Jpeg(20)(noise)).abs().mean() < 4.5 / 255


def test_forward_of_identity_and_soft_is_the_codec_bit_for_bit(cifar: Tensor) -> None:
    images = (cifar + 0.0137).clamp(0, 1).requires_grad_()
    for codec in (Jpeg(), Jpeg(50, "floor", "444")):
        for kind in ("identity", "soft"):
            assert torch.equal(codec.surrogate(kind, images), codec(images))
        assert not torch.equal(codec.surrogate("end-to-end", images), codec(images))


def test_gradients_are_finite_and_their_own(cifar: Tensor) -> None:
    weights = torch.randn(cifar.shape, generator=torch.Generator().manual_seed(0))
    gradients = {}
    for kind in Jpeg.surrogates:
        images = cifar.clone().requires_grad_()
        (gradients[kind],) = torch.autograd.grad((Jpeg().surrogate(kind, images) * weights).sum(), images)
        assert gradients[kind].isfinite().all()
        assert (gradients[kind].flatten(1).abs().amax(1) > 0).all()
    assert torch.equal(gradients["identity"], weights)
    torch.testing.assert_close(gradients["soft"], gradients["end-to-end"])
    assert not torch.allclose(gradients["soft"], weights)


@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
def test_gradients_of_flat_images_are_finite(value: float) -> None:
    images = torch.full((2, 3, 32, 32), value, requires_grad=True)
    (gradient,) = torch.autograd.grad(soft_jpeg(images, 75).square().sum(), images)
    assert gradient.isfinite().all()


def test_gradient_does_not_depend_on_memory_layout_or_batch(cifar: Tensor) -> None:
    def gradient(images: Tensor) -> Tensor:
        images = images.detach().requires_grad_()
        return torch.autograd.grad(soft_jpeg(images, 75).pow(2).sum(), images)[0]

    whole = gradient(cifar)
    torch.testing.assert_close(gradient(cifar.contiguous(memory_format=torch.channels_last)), whole)
    torch.testing.assert_close(gradient(cifar[3:5]), whole[3:5], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("kind", ["soft", "end-to-end"])
def test_ascent_through_the_real_codec_beats_random_signs(imagenet: Tensor, channels: int, kind: str) -> None:
    tiles = imagenet.unfold(2, 32, 64).unfold(3, 32, 64).permute(0, 2, 3, 1, 4, 5)
    patches = tiles.reshape(-1, 3, 32, 32)[:120, :channels]
    generator = torch.Generator().manual_seed(1)
    convolutions = nn.Conv2d(channels, 16, 5, 2), nn.ReLU(), nn.Conv2d(16, 16, 5, 2), nn.ReLU()
    net = nn.Sequential(*convolutions, nn.Flatten(), nn.Linear(400, 1))
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.1)
    codec, step = Jpeg(), 4 / 255
    images = patches.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(net(codec.surrogate(kind, images)).sum(), images)
    random = torch.randint(0, 2, patches.shape, generator=generator) * 2.0 - 1
    with torch.no_grad():
        start = net(codec(patches))
        along, astray = (net(codec((patches + step * way).clamp(0, 1))) > start for way in (gradient.sign(), random))
    assert along.float().mean() >= 0.95
    assert along.sum() > astray.sum() + 30


def test_rounding_helpers() -> None:
    values = torch.tensor([0.0, 0.25, 0.5, 0.75, -1.25], requires_grad=True)
    rounded = values.detach().round()
    (slope,) = torch.autograd.grad(soft_round(values, rounded).sum(), values)
    torch.testing.assert_close(slope, torch.tensor([0.0, 0.1875, 0.75, 0.1875, 0.1875]))
    result = straight_through(torch.full((5,), 0.1), values * 3)
    assert torch.equal(result.detach(), torch.full((5,), 0.1))
    assert torch.equal(torch.autograd.grad(result.sum(), values)[0], torch.full((5,), 3.0))
