"""The paper's tables and figures about gates and their cost: one experiment, one module, with a registered function
from a :class:`~robustbench_aig.experiments.study.Study` to its findings.

Importing this imports no torch and no matplotlib.
"""

from typing import TYPE_CHECKING

from robustbench_aig.registry import Registry

if TYPE_CHECKING:
    from robustbench_aig.experiments.study import Findings

registry: "Registry[Findings]" = Registry(
    "experiment",
    "robustbench_aig.experiments",
    reads="models",  # or the logs of their training: then the function gets what -m said
)
