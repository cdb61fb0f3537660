"""Benchmarks: what the suite costs beside the fewest passes that an answer needs, and beside other libraries.

One benchmark, one module, with a function ``run(subject: Subject) -> list[Row]``; listing them imports nothing heavy.
"""

import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from robustbench_aig.errors import unknown

if TYPE_CHECKING:
    from benchmarks.measure import Row
    from benchmarks.subject import Subject

__all__ = ["BENCHMARKS", "DEFAULT", "find"]


@dataclass(frozen=True)
class Benchmark:
    """One entry of the table: its module under ``benchmarks``, and what it compares."""

    name: str
    module: str
    summary: str

    def run(self, subject: "Subject") -> "list[Row]":
        """Import and run it."""
        rows: list[Row] = importlib.import_module(f"benchmarks.{self.module}").run(subject)
        return rows


BENCHMARKS = {
    entry.name: entry
    for entry in (
        Benchmark("fgsm", "fgsm", "FGSM over nine epsilons, beside its floor and libraries"),
        Benchmark("pgd-10", "pgd_10", "PGD-10 with every image attacked to the end, beside its floor and libraries"),
        Benchmark("pgd-40", "pgd_40", "robust accuracy under PGD-40 at 8/255, beside libraries"),
        Benchmark("pgd-sweep", "pgd_sweep", "PGD-40 over nine epsilons, beside nine runs of it"),
        Benchmark("bfloat16", "bfloat16", "PGD-40 with gradients in bfloat16, beside float32"),
        Benchmark("auto", "auto", "auto beside torchattacks' AutoAttack with 100 steps, on 128 images"),
        Benchmark("skipping", "skipping", "gated inference at rates .5, .7, .9, beside the plain network"),
        Benchmark("eot", "eot", "a gradient over 20 gate draws, beside 20 passes"),
        Benchmark("training", "training", "training steps of a gated network, beside the plain one"),
        Benchmark("jpeg", "jpeg", "JPEG-75, beside a PGD step"),
        Benchmark("overhead", "overhead", "a whole sweep, beside its attack and scoring passes"),
        Benchmark("audit", "audit", "the core audit, beside the PGD-20 sweep that it ends"),
        Benchmark("memory", "memory", "peak memory of a sweep over all images, beside a tenth of them"),
        Benchmark(
            "scaling", "scaling", "cost over images, epsilons, scoring draws and depth, beside proportional growth"
        ),
    )
}

DEFAULT = ("fgsm", "audit")


def find(name: str) -> Benchmark:
    """The benchmark of that name.

    Raises:
        UsageError: there is none.
    """
    if name not in BENCHMARKS:
        raise unknown("benchmark", name, BENCHMARKS)
    return BENCHMARKS[name]
