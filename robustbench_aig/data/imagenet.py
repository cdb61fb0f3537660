"""ImageNet (ILSVRC 2012, Russakovsky et al. 2015) and its ten-class part Imagenette, from folders named by wnid."""

from pathlib import Path

from robustbench_aig.data import folder
from robustbench_aig.data.dataset import Dataset
from robustbench_aig.data.folder import Preprocess
from robustbench_aig.data.imagenet_categories import CATEGORIES
from robustbench_aig.data.locate import find
from robustbench_aig.errors import Prerequisite
from robustbench_aig.registry import register

IMAGENETTE = {
    "n01440764": 0,
    "n02102040": 217,
    "n02979186": 482,
    "n03000684": 491,
    "n03028079": 497,
    "n03394916": 566,
    "n03417042": 569,
    "n03425413": 571,
    "n03445777": 574,
    "n03888257": 701,
}
"""The ImageNet index of each Imagenette class."""

IMAGENET_FOLDERS = ("imagenet", "ILSVRC2012", "ILSVRC/Data/CLS-LOC")
IMAGENETTE_FOLDERS = ("imagenette128", "imagenette", "imagenette2-160", "imagenette2-320", "imagenette2")
IMAGENETTE_SIZE = 128


def class_names() -> tuple[str, ...]:
    """The thousand class names, by index, as torchvision's weights carry them."""
    from torchvision.models import ResNet50_Weights

    return tuple(ResNet50_Weights.IMAGENET1K_V2.meta["categories"])


@register("imagenet", "ImageNet (ILSVRC 2012), labels 0 to 999", classes=1000)
def load(split: str, places: tuple[Path, ...]) -> Dataset:
    """ImageNet by the paper's test path; the sorted wnids are the labels 0 to 999.

    Raises:
        Prerequisite: it is in none of the places, or is not sorted into its thousand folders.
    """
    remedy = "get it from image-net.org and let torchvision.datasets.ImageNet sort it into train/WNID and val/WNID"
    root = find(places, IMAGENET_FOLDERS, "ImageNet", remedy)
    wnids = folder.class_folders(root)
    if len(wnids) != 1000:
        raise Prerequisite(
            f"{root} holds {len(wnids)} class folders where ImageNet has 1000; use imagefolder:PATH for a part of it."
        )
    index = {wnid: label for label, wnid in enumerate(wnids)}
    names = class_names()
    return folder.load(root, split, Preprocess(), name="imagenet", index=index, classes=names, categories=CATEGORIES)


@register("imagenette:imagenet", "Imagenette with ImageNet's size and labels", classes=1000)
def load_as_imagenet(split: str, places: tuple[Path, ...]) -> Dataset:
    """Imagenette for models of ImageNet; arguments and errors as in :func:`load_imagenette`."""
    return load_imagenette(split, places, imagenet_labels=True)


@register("imagenette", "ten ImageNet classes at 128 pixels, labels 0 to 9", classes=10, image_shape=(3, 128, 128))
def load_imagenette(split: str, places: tuple[Path, ...], *, imagenet_labels: bool = False) -> Dataset:
    """Imagenette's ten classes.

    Args:
        split: ``train``, ``validation``, ``trainval`` or ``test``.
        places: folders to look in.
        imagenet_labels: label by ImageNet index, at 224 pixels, for models with 1000 outputs; else 0 to 9, at 128.

    Raises:
        Prerequisite: it is in none of the places, or holds other classes.
    """
    root = find(places, IMAGENETTE_FOLDERS, "Imagenette", "get it from github.com/fastai/imagenette")
    wnids = folder.class_folders(root)
    if set(wnids) != set(IMAGENETTE):
        raise Prerequisite(f"{root} holds other class folders than Imagenette's ten; use imagefolder:PATH instead.")
    names = class_names()
    if imagenet_labels:
        return folder.load(
            root,
            split,
            Preprocess(),
            name="imagenette:imagenet",
            index=IMAGENETTE,
            classes=names,
            categories=CATEGORIES,
        )
    return folder.load(
        root,
        split,
        Preprocess(resize=IMAGENETTE_SIZE, crop=IMAGENETTE_SIZE),
        name="imagenette",
        index={wnid: label for label, wnid in enumerate(IMAGENETTE)},
        classes=tuple(names[index] for index in IMAGENETTE.values()),
        categories={"animals": (0, 1), "man-made objects": tuple(range(2, 10))},
    )
