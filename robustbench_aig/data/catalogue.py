"""What can be loaded, as facts: names, sizes and splits. Imports nothing heavy, so that ``list`` stays fast."""

from dataclasses import dataclass

from robustbench_aig.errors import UsageError

SPLITS = ("train", "validation", "trainval", "test")
"""``validation`` is a fixed tenth of the training set, ``train`` the rest of it and ``trainval`` both together."""


@dataclass(frozen=True)
class Card:
    """Facts about one data set.

    Attributes:
        name: what ``load_dataset`` takes.
        summary: one line for people.
        classes: number of classes; None where the folder decides.
        image_shape: (channels, height, width) in pixels.
        splits: the splits that it has.
        source: where its files come from: ``bundled``, ``download`` or ``manual``.
    """

    name: str
    summary: str
    classes: int | None
    image_shape: tuple[int, int, int]
    splits: tuple[str, ...]
    source: str


CATALOGUE: dict[str, Card] = {
    card.name: card
    for card in (
        Card("digits", "handwritten digits that come with scikit-learn", 10, (1, 8, 8), SPLITS, "bundled"),
        Card("cifar10", "CIFAR-10, 50,000 training and 10,000 test images", 10, (3, 32, 32), SPLITS, "download"),
        Card("imagenet", "ImageNet (ILSVRC 2012), labels 0 to 999", 1000, (3, 224, 224), SPLITS, "manual"),
        Card("imagenette", "ten ImageNet classes at 128 pixels, labels 0 to 9", 10, (3, 128, 128), SPLITS, "manual"),
        Card("imagenette:imagenet", "the same with ImageNet's size and labels", 1000, (3, 224, 224), SPLITS, "manual"),
        Card(
            "imagefolder:PATH",
            "any folder of CLASS, or of train/CLASS and test/CLASS",
            None,
            (3, 224, 224),
            SPLITS,
            "manual",
        ),
        Card("foolbox:cifar10", "20 CIFAR-10 test images from foolbox", 10, (3, 32, 32), ("test",), "bundled"),
        Card("foolbox:imagenet", "20 ImageNet images from foolbox", 1000, (3, 224, 224), ("test",), "bundled"),
    )
}

NAMES: tuple[str, ...] = tuple(CATALOGUE)


def check_limit(limit: int | None) -> None:
    """Refuse a limit on the number of images that leaves none.

    Raises:
        UsageError: ``limit`` is less than 1.
    """
    if limit is not None and limit < 1:
        raise UsageError(f"the limit on images must be at least 1, not {limit}; leave it out to use all images.")
