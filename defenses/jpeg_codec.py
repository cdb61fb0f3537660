"""JPEG round trips of 8-bit images through libjpeg-turbo, and the checks that they are the expected ones.

Pillow is the reference. imagecodecs (where installed) or torchvision is used only after giving the same bits as Pillow
on ``patterns()`` in this process; both spend a third of its time.
"""

import functools
import hashlib
import importlib
import io
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal

import numpy as np
import PIL
import torch
from numpy.typing import NDArray
from PIL import Image, features

Pixels = NDArray[np.uint8]
Subsampling = Literal["420", "444"]
Codec = Callable[[Pixels, int, Subsampling], Pixels]

GOLDEN = {"3": "76fced141755c93b66a2b5fc9c38d63e0baff4048876ff4741092c4e14b06c25"}
"""SHA-256 of the decoded ``patterns()`` at quality 75, 4:2:0, by major version of libjpeg-turbo."""

# Pillow holds the interpreter lock while encoding: with two threads, images of 32, 128 and 224 pixels a side took
# 1.3, 1.1 and 0.75 times as long as with one.
_THREADED_PIXELS = 160 * 160
_MOST_THREADS = 4
_IMAGES_PER_THREAD = 4


def round_trip(pixels: Pixels, quality: int, subsampling: Subsampling) -> Pixels:
    """Encode and decode each image on its own, in memory; parallel where the images are large enough for it to pay.

    Args:
        pixels: (N, H, W) grey or (N, H, W, 3) RGB.
        quality: 1 to 100, libjpeg's scale.
        subsampling: of the chroma planes; without effect on grey images.

    Returns:
        The decoded images, same shape.
    """
    _, codec = selected()
    threads = min(torch.get_num_threads(), _MOST_THREADS, len(pixels) // _IMAGES_PER_THREAD)
    if threads < 2 or pixels.shape[1] * pixels.shape[2] < _THREADED_PIXELS:
        return codec(pixels, quality, subsampling)
    with ThreadPoolExecutor(threads) as pool:
        parts = pool.map(lambda part: codec(part, quality, subsampling), np.array_split(pixels, threads))
        return np.concatenate(list(parts))


def pillow(pixels: Pixels, quality: int, subsampling: Subsampling) -> Pixels:
    """The reference codec; arguments and result as in ``round_trip``."""
    decoded = np.empty_like(pixels)
    buffer = io.BytesIO()
    ratio = ":".join(subsampling)
    for source, target in zip(pixels, decoded, strict=True):
        buffer.seek(0)
        buffer.truncate()
        Image.fromarray(source).save(buffer, "JPEG", quality=quality, subsampling=ratio)
        buffer.seek(0)
        target[...] = np.asarray(Image.open(buffer, formats=("JPEG",)))
    return decoded


def imagecodecs(pixels: Pixels, quality: int, subsampling: Subsampling) -> Pixels:
    """The same through the optional package imagecodecs."""
    library: Any = importlib.import_module("imagecodecs")
    decoded = np.empty_like(pixels)
    for source, target in zip(pixels, decoded, strict=True):
        encoded = library.jpeg8_encode(np.ascontiguousarray(source), level=quality, subsampling=subsampling)
        target[...] = library.jpeg8_decode(encoded)
    return decoded


def torchvision(pixels: Pixels, quality: int, subsampling: Subsampling) -> Pixels:
    """The same through torchvision, which knows no subsampling but 4:2:0; for the other Pillow runs."""
    if subsampling != "420":
        return pillow(pixels, quality, subsampling)
    importlib.import_module("torchvision.io")  # registers its operators; its functions for them warn of their end
    operators: Any = torch.ops.image
    planes = pixels[:, None] if pixels.ndim == 3 else pixels.transpose(0, 3, 1, 2)
    encoded = [operators.encode_jpeg(image, quality) for image in torch.from_numpy(planes.copy())]
    decoded = [operators.decode_jpeg(data, 0, False) for data in encoded]  # 0: as many channels as there are
    stacked: Pixels = torch.stack(decoded).permute(0, 2, 3, 1).numpy() if decoded else np.empty_like(pixels)
    return stacked.reshape(pixels.shape)


@functools.cache
def selected() -> tuple[str, Codec]:
    """Name and function of the codec in use: the first of imagecodecs and torchvision to be trusted, else Pillow."""
    quick = {"imagecodecs": imagecodecs, "torchvision": torchvision}
    return next(((name, codec) for name, codec in quick.items() if agrees(codec)), ("pillow", pillow))


def agrees(codec: Codec) -> bool:
    """Whether ``codec`` runs and gives the same bits as Pillow on ``patterns()``."""
    subsamplings: tuple[Subsampling, ...] = ("420", "444")
    try:
        return all(
            np.array_equal(codec(batch, quality, subsampling), pillow(batch, quality, subsampling))
            for batch in patterns()
            for subsampling in subsamplings
            for quality in (30, 75)
        )
    except Exception:  # absent, broken or with another interface: for every reason alike, the reference is used
        return False


def patterns() -> list[Pixels]:
    """Four batches of one image with smooth and rough parts, by integer arithmetic: three RGB, one grey.

    Their sides are 32x32, 33x17, 224x224 and 33x17.
    """
    batches = []
    for height, width, channels in ((32, 32, 3), (33, 17, 3), (224, 224, 3), (33, 17, 1)):
        y, x, c = np.ogrid[:height, :width, :channels]
        smooth = (3 * x + 5 * y + 60 * c) % 256
        rough = (x * x * 7 + y * y * 11 + x * y * (3 + c)) % 256
        image = np.where((x // 8 + y // 8) % 2 == 0, smooth, rough).astype(np.uint8)
        batches.append(image[None] if channels == 3 else image[None, :, :, 0])
    return batches


def digest() -> str:
    """SHA-256 of the ``patterns()`` after Pillow's round trip at quality 75, 4:2:0."""
    decoded = b"".join(pillow(batch, 75, "420").tobytes() for batch in patterns())
    return hashlib.sha256(decoded).hexdigest()


@functools.cache
def _examination() -> tuple[str | None, str, str | None]:
    version = features.version_feature("libjpeg_turbo")
    found = digest()
    expected = GOLDEN.get(version.split(".")[0]) if version else None
    if version is None:
        return version, found, "Pillow was built without libjpeg-turbo, so JPEG pixels may be unlike other machines'."
    if expected is None:
        return version, found, f"no reference pixels are known for libjpeg-turbo {version}."
    if found != expected:
        return version, found, f"libjpeg-turbo {version} gives other pixels than its major version should."
    return version, found, None


def provenance() -> dict[str, str | None]:
    """Which codec runs, its versions and its golden hash; ``warning`` is None when the hash is the expected one."""
    version, found, warning = _examination()
    return {
        "codec": selected()[0],
        "pillow": PIL.__version__,
        "libjpeg_turbo": version,
        "golden_sha256": found,
        "warning": warning,
    }
