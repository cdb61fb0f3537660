"""Groups of ImageNet classes like those of the paper's Figs. 6 and 9, as indices 0 to 999 in the order of the wnids.

The order of the wnids follows WordNet, so that most groups are a few ranges. Their ends were chosen by reading the
thousand class names. Left out wherever the name leaves doubt: from food, fodder (958) and vessels (923, 968); from
man-made objects the honeycomb (599) and the spider web (815); from vehicles what is pushed by hand or lies wrecked;
from instruments parts and accessories. The paper's ``container`` and ``consumer goods`` are not here, since names
alone do not decide them.
"""


def _span(*ranges: tuple[int, int]) -> tuple[int, ...]:
    """The indices in ranges given by their first and last member."""
    return tuple(index for first, last in ranges for index in range(first, last + 1))


# fmt: off
_VEHICLES = (
    403, 404, 405, 407, 408, 417, 436, 444, 450, 466, 468, 472, 484, 510, 511, 537, 547, 554, 555, 561, 565, 569, 573,
    575, 576, 586, 603, 609, 612, 625, 627, 628, 654, 656, 661, 665, 670, 671, 675, 690, 705, 717, 724, 734, 751, 757,
    779, 780, 802, 803, 812, 814, 817, 820, 829, 833, 847, 864, 866, 867, 870, 871, 874, 880, 895, 914,
)
_INSTRUMENTS = (
    401, 402, 420, 432, 486, 494, 513, 541, 546, 558, 566, 577, 579, 593, 594, 641, 642, 683, 684, 687, 699, 776, 822,
    875, 881, 889,
)
# fmt: on

CATEGORIES: dict[str, tuple[int, ...]] = {
    "animals": _span((0, 397)),
    "birds": _span((7, 24), (80, 100), (127, 146)),
    "dogs": _span((151, 268)),
    "other mammals": _span((101, 106), (147, 150), (269, 299), (330, 388)),
    "reptiles": _span((33, 68)),
    "other animals": _span((0, 6), (25, 32), (69, 79), (107, 126), (300, 329), (389, 397)),
    "amphibians": _span((25, 32)),
    "fish": _span((0, 6), (389, 397)),
    "insects": _span((300, 326)),
    "arachnids": _span((70, 78)),
    "man-made objects": _span((398, 598), (600, 814), (816, 922)),
    "vehicles": _VEHICLES,
    "musical instruments": _INSTRUMENTS,
    "food": _span((924, 957), (959, 967), (969, 969)),
    "geological formations": _span((970, 970), (972, 980)),
}
