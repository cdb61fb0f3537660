"""How much of a misclassification passes through the gates: features of one image along the graph of another.

Of the four combinations of clean and attacked features and graphs, scoring has run two. The other two are forward
passes with forced gates, and only for images whose graph the attack moved: where it did not, features alone are the
attacked image, and gates alone the clean one.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from robustbench_aig.contracts.records import Bools, Record

CROSSED_DRAWS = 2
"""Scoring draws in which features and graphs are crossed, or all where there are fewer. Images are the unit, so few
draws are enough."""


@dataclass(frozen=True)
class Crossed(Record):
    """Verdicts of the first M scoring draws for N images with features and graphs crossed, at E epsilons.

    Attributes:
        features: (M, E, N) bool, correct with the features of the attacked image along the graph of the clean one.
        gates: (M, E, N) bool, correct with the features of the clean image along the graph of the attacked one.
        passes: (E, N) forward passes that this took.
    """

    features: Bools
    gates: Bools
    passes: npt.NDArray[np.int64]
