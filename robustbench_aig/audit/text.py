"""How checks state accuracies: a difference is in percentage points, with its interval where there is one."""

from robustbench_aig.statistics.intervals import Interval


def points(difference: float) -> str:
    """A difference of two accuracies, which are fractions: ``14.1 points``."""
    return f"{100 * difference:.1f} points"


def difference(interval: Interval) -> str:
    """A difference with its interval: ``+14.1 points [-0.2, +28.3]``."""
    return f"{100 * interval.value:+.1f} points [{100 * interval.lo:+.1f}, {100 * interval.hi:+.1f}]"
