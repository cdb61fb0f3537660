import hashlib
import struct

import pytest
import torch
from torch import Tensor

from robustbench_aig.data import load_dataset
from robustbench_aig.data.dataset import ArraySource, Dataset, check_images
from robustbench_aig.errors import UserError


def small() -> Dataset:
    pixels = torch.arange(256, dtype=torch.int32).to(torch.uint8).reshape(4, 1, 8, 8)
    return Dataset(
        name="ramp",
        split="test",
        ids=torch.tensor([3, 0, 2]),
        labels=torch.tensor([1, 0, 1]),
        classes=("a", "b"),
        categories={},
        image_shape=(1, 8, 8),
        source=ArraySource(pixels),
    )


def test_images_are_the_exact_quotients() -> None:
    dataset = small()
    images = dataset.images(torch.tensor([1, 0]))
    assert images.dtype == torch.float32
    values = [0 + k for k in range(64)] + [192 + k for k in range(64)]
    expected = torch.tensor([value / 255 for value in values], dtype=torch.float32)  # rounded once, from double
    assert torch.equal(images.flatten(), expected)
    assert torch.equal((images * 255).round().to(torch.uint8), dataset.uint8(torch.tensor([1, 0])))


def test_reading_does_not_change_the_source() -> None:
    dataset = small()
    before = dataset.content_hash
    dataset.images(torch.arange(3)).zero_()
    dataset.uint8(torch.arange(3)).zero_()
    assert small().content_hash == before == dataset.source.fingerprint(dataset.ids)


def test_take_keeps_numbers_labels_and_pixels_together() -> None:
    dataset = small()
    part = dataset.take(torch.tensor([2, 0]))
    assert part.ids.tolist() == [2, 3]
    assert part.labels.tolist() == [1, 1]
    assert torch.equal(part.images(torch.arange(2)), dataset.images(torch.tensor([2, 0])))
    assert len(part) == 2
    assert part.take(torch.tensor([1])).ids.tolist() == [3]


def test_index_hash_is_over_little_endian_ids_and_labels() -> None:
    expected = hashlib.sha256(struct.pack("<3q", 3, 0, 2) + struct.pack("<3q", 1, 0, 1)).hexdigest()
    assert small().index_hash == expected
    assert small().take(torch.tensor([0, 1])).index_hash != expected


def test_content_hash_sees_one_changed_pixel() -> None:
    dataset = small()
    assert isinstance(dataset.source, ArraySource)
    changed = dataset.source.pixels.clone()
    changed[3, 0, 0, 0] ^= 1
    assert ArraySource(changed).fingerprint(dataset.ids) != dataset.content_hash
    assert ArraySource(changed).fingerprint(torch.tensor([0, 2])) == dataset.source.fingerprint(torch.tensor([0, 2]))


def test_good_images_pass() -> None:
    digits = load_dataset("digits", limit=20)
    check_images(digits.images(torch.arange(20)))
    check_images(torch.empty(0, 3, 4, 4))


@pytest.mark.parametrize(
    ("images", "words"),
    [
        (torch.zeros(3, 8, 8), r"shape \(N, C, H, W\), not \(3, 8, 8\)"),
        (torch.zeros(1, 3, 8, 8, dtype=torch.uint8), "float32 in .* not uint8"),
        (torch.zeros(1, 3, 8, 8, dtype=torch.float64), "not float64"),
        (torch.full((1, 1, 2, 2), torch.nan), "NaN or infinite"),
        (torch.full((1, 1, 2, 2), torch.inf), "NaN or infinite"),
        (torch.tensor([[[[-0.01, 0.5]]]]), r"span \[-0.01, 0.5\] instead of \[0, 1\]"),
        (torch.tensor([[[[0.0, 255.0]]]]), r"span \[0, 255\] instead"),
    ],
)
def test_bad_images_are_refused_with_the_reason(images: Tensor, words: str) -> None:
    with pytest.raises(UserError, match=words):
        check_images(images)
