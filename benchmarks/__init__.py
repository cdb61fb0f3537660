"""Benchmarks: what the suite costs beside the fewest passes that an answer needs, and beside other libraries.

One benchmark, one module, with a registered function from a :class:`~benchmarks.subject.Subject` to a list of
:class:`~benchmarks.measure.Row`; listing them imports nothing heavy.
"""

from typing import TYPE_CHECKING

from robustbench_aig.registry import Registry

if TYPE_CHECKING:
    from benchmarks.measure import Row

__all__ = ["DEFAULT", "registry"]

registry: "Registry[list[Row]]" = Registry("benchmark", "benchmarks")

DEFAULT = ("fgsm", "audit")
