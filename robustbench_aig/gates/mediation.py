"""How much of a misclassification passes through the gates: features of one image along the graph of another.

Of the four combinations of clean and attacked features and graphs, scoring has run two. The other two are forward
passes with forced gates, and only for images whose graph the attack moved: where it did not, features alone are the
attacked image, and gates alone the clean one.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from robustbench_aig.contracts.scores import Scores
from robustbench_aig.statistics.measure import Measure, difference, plain, share

Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Crossed:
    """Verdicts of the first M scoring draws for N images with features and graphs crossed.

    Attributes:
        features: (M, N) bool, correct with the features of the attacked image along the graph of the clean one.
        gates: (M, N) bool, correct with the features of the clean image along the graph of the attacked one.
        passes: (N,) forward passes that this took.
    """

    features: Bools
    gates: Bools
    passes: npt.NDArray[np.int64]

    @classmethod
    def join(cls, parts: "list[Crossed]") -> "Crossed":
        """One record of consecutive batches."""
        return cls(
            np.concatenate([part.features for part in parts], 1),
            np.concatenate([part.gates for part in parts], 1),
            np.concatenate([part.passes for part in parts]),
        )

    def choose(self, other: "Crossed", where: Bools) -> "Crossed":
        """This record with the images ``where`` (N,) replaced by those of ``other``."""
        return Crossed(
            np.where(where, other.features, self.features),
            np.where(where, other.gates, self.gates),
            np.where(where, other.passes, self.passes),
        )


def mediation(before: Scores, after: Scores, crossed: Crossed) -> dict[str, Measure]:
    """Accuracy with neither, features, gates or both of the attacked image, and what each alone takes away.

    All four are over the same draws, so that they can be compared. ``mediation_direct`` is what the attack takes
    through features alone, ``mediation_indirect`` through gates alone; what is left of its whole effect is
    ``mediation_interaction``.
    """
    draws = len(crossed.features)
    neither, both = before.correct[:draws].mean(0), after.correct[:draws].mean(0)
    features, gates = crossed.features.mean(0), crossed.gates.mean(0)
    return {
        "mediation_neither": share(neither),
        "mediation_features": share(features),
        "mediation_gates": share(gates),
        "mediation_both": share(both),
        "mediation_direct": difference(neither - features),
        "mediation_indirect": difference(neither - gates),
        "mediation_interaction": difference(features + gates - neither - both, reach=2),
        "mediation_draws": plain(draws, len(neither)),
        "mediation_forwards": plain(float(crossed.passes.mean()), len(neither)),
    }
