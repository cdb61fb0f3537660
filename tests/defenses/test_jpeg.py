"""The real JPEG codec: equality with Pillow, independence of the batch, parameters, provenance."""

import io
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms.functional import to_pil_image, to_tensor

import defenses
from defenses import jpeg_codec
from defenses.jpeg import Jpeg
from robustbench_aig.errors import UsageError


def by_hand(image: torch.Tensor, **options: object) -> torch.Tensor:
    """One 8-bit image (C, H, W) through Pillow with its own defaults."""
    buffer = io.BytesIO()
    to_pil_image((image * 255).round().to(torch.uint8)).save(buffer, "JPEG", **options)
    return to_tensor(Image.open(buffer))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("height", "width"), [(32, 32), (1, 1), (7, 33), (65, 18), (224, 224)])
def test_equals_pillow_at_its_defaults(channels: int, height: int, width: int) -> None:
    generator = torch.Generator().manual_seed(height * width + channels)
    rough = torch.rand(4, channels, height, width, generator=generator)
    smooth = torch.nn.functional.avg_pool2d(rough, 5, 1, 2)
    images = (torch.cat([rough, smooth]) * 255).round() / 255
    expected = torch.stack([by_hand(image, quality=75) for image in images])
    assert torch.equal(Jpeg()(images), expected)


def test_quality_and_subsampling_reach_the_codec(cifar: torch.Tensor) -> None:
    full = Jpeg(30, subsampling="444")(cifar[:2])
    assert torch.equal(full, torch.stack([by_hand(image, quality=30, subsampling=0) for image in cifar[:2]]))
    assert not torch.equal(full, Jpeg(30)(cifar[:2]))
    assert not torch.equal(full, Jpeg(31, subsampling="444")(cifar[:2]))


def test_floor_is_the_path_through_to_pil_image(cifar: torch.Tensor) -> None:
    shifted = (cifar + 0.047).clamp(0, 1)
    expected = []
    for image in shifted:
        buffer = io.BytesIO()
        to_pil_image(image).save(buffer, "JPEG", quality=75)
        expected.append(to_tensor(Image.open(buffer)))
    assert torch.equal(Jpeg(quantize="floor")(shifted), torch.stack(expected))
    assert not torch.equal(Jpeg(quantize="round")(shifted), torch.stack(expected))


@pytest.mark.parametrize("size", [32, 224])
def test_an_image_gets_the_same_bits_in_any_company(cifar: torch.Tensor, imagenet: torch.Tensor, size: int) -> None:
    images = cifar if size == 32 else imagenet[:9]
    together = Jpeg()(images)
    assert torch.equal(together, torch.cat([Jpeg()(image[None]) for image in images]))
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    assert torch.equal(together[order], Jpeg()(images[order]))
    assert torch.equal(together, Jpeg()(images.contiguous(memory_format=torch.channels_last)))


def test_threads_do_not_change_bits(imagenet: torch.Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = (imagenet * 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous().numpy()
    used = []

    def counted(part: jpeg_codec.Pixels, *options: Any) -> jpeg_codec.Pixels:
        used.append(len(part))
        return jpeg_codec.pillow(part, *options)

    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    monkeypatch.setattr(jpeg_codec, "selected", lambda: ("counted", counted))
    threaded = jpeg_codec.round_trip(pixels, 75, "420")
    assert sorted(used) == [6, 7, 7]
    assert np.array_equal(threaded, jpeg_codec.pillow(pixels, 75, "420"))


def test_result_is_float32_on_the_8_bit_grid_and_an_empty_batch_stays_empty(cifar: torch.Tensor) -> None:
    result = Jpeg()(cifar)
    assert result.dtype == torch.float32
    assert result.is_contiguous()
    assert torch.equal((result * 255).round() / 255, result)
    assert Jpeg()(cifar[:0]).shape == (0, 3, 32, 32)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_gives_the_same_bits(cifar: torch.Tensor) -> None:
    result = Jpeg()(cifar.cuda())
    assert result.is_cuda
    assert torch.equal(result.cpu(), Jpeg()(cifar))
    model = Jpeg().surrogate("end-to-end", cifar.cuda()).cpu()
    assert (model - Jpeg().surrogate("end-to-end", cifar)).abs().mean() < 0.1 / 255


@pytest.mark.parametrize("quality", [0, 101, -5, 75.5])
def test_bad_quality_is_refused(quality: float) -> None:
    with pytest.raises(ValueError, match=f"JPEG quality must be an integer from 1 to 100, not {quality}"):
        Jpeg(quality)  # type: ignore[arg-type]


def test_bad_options_and_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="quantize must be round or floor"):
        Jpeg(quantize="ceil")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="subsampling must be 420 or 444"):
        Jpeg(subsampling="411")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="1 or 3"):
        Jpeg()(torch.zeros(2, 4, 8, 8))
    with pytest.raises(UsageError, match=r"from 1 to 100, not 0 \(parameters: quality, quantize, subsampling\)"):
        defenses.make("jpeg:0")


def test_record_names_the_codec_and_knows_its_pixels() -> None:
    record = Jpeg().record()
    major = record["libjpeg_turbo"].split(".")[0]
    assert record["codec"] in ("pillow", "imagecodecs", "torchvision")
    assert record["golden_sha256"] == jpeg_codec.digest()
    if major in jpeg_codec.GOLDEN:
        assert record["warning"] is None
    else:
        assert f"libjpeg-turbo {record['libjpeg_turbo']}" in record["warning"]


@pytest.mark.parametrize(
    ("golden", "words"), [({}, "no reference pixels are known"), (dict.fromkeys("123456789", "0"), "other pixels")]
)
def test_record_warns_of_unknown_pixels(golden: dict[str, str], words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jpeg_codec, "GOLDEN", golden)
    jpeg_codec._examination.cache_clear()
    try:
        assert words in Jpeg().record()["warning"]
    finally:
        jpeg_codec._examination.cache_clear()


def test_only_a_bit_equal_codec_is_trusted() -> None:
    def off_by_one(pixels: jpeg_codec.Pixels, quality: int, subsampling: jpeg_codec.Subsampling) -> jpeg_codec.Pixels:
        return jpeg_codec.pillow(pixels, quality - 1, subsampling)

    def deaf_to_subsampling(pixels: jpeg_codec.Pixels, quality: int, _: jpeg_codec.Subsampling) -> jpeg_codec.Pixels:
        return jpeg_codec.pillow(pixels, quality, "420")

    def broken(pixels: jpeg_codec.Pixels, quality: int, subsampling: jpeg_codec.Subsampling) -> jpeg_codec.Pixels:
        raise RuntimeError("no such function")

    assert jpeg_codec.agrees(jpeg_codec.pillow)
    assert not any(map(jpeg_codec.agrees, (off_by_one, deaf_to_subsampling, broken)))


def test_imagecodecs_where_installed_is_bit_equal() -> None:
    pytest.importorskip("imagecodecs")
    assert jpeg_codec.agrees(jpeg_codec.imagecodecs)
    assert jpeg_codec.selected()[0] == "imagecodecs"


def test_torchvision_is_bit_equal_where_it_is_in_use(cifar: torch.Tensor) -> None:
    if jpeg_codec.selected()[0] != "torchvision":
        pytest.skip("another codec is in use")
    pixels = (cifar * 255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous().numpy()
    for quality in (1, 30, 75, 95, 100):
        for subsampling in ("420", "444"):
            mine, reference = (
                codec(pixels, quality, subsampling) for codec in (jpeg_codec.torchvision, jpeg_codec.pillow)
            )
            assert np.array_equal(mine, reference)
    grey = pixels[..., 0]
    assert np.array_equal(jpeg_codec.torchvision(grey, 75, "420"), jpeg_codec.pillow(grey, 75, "420"))
