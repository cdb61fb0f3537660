"""What every data set has: splits, and a limit on images. Imports nothing heavy."""

from robustbench_aig.errors import UsageError

SPLITS = ("train", "validation", "trainval", "test")
"""``validation`` is a fixed tenth of the training set, ``train`` the rest of it and ``trainval`` both together."""


def check_limit(limit: int | None) -> None:
    """Refuse a limit on the number of images that leaves none.

    Raises:
        UsageError: ``limit`` is less than 1.
    """
    if limit is not None and limit < 1:
        raise UsageError(f"the limit on images must be at least 1, not {limit}; leave it out to use all images.")
