"""Measuring: contenders that answer one question, timed in turn in one process, with their answers compared."""

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from torch import Tensor

from benchmarks.memory_peak import peak

OURS = "robustbench-aig"

SLOW = 20.0
"""Seconds from which a contender's first run needs no warming up and is its first timing too."""

Answer = Tensor | None
"""What a contender finds: a tensor on the CPU, of the same shape for all; None where there is nothing to compare."""


@dataclass(frozen=True)
class Row:
    """One contender in one case of a benchmark.

    Attributes:
        benchmark: its name.
        case: the setting within it.
        contender: who.
        seconds: median wall time of one answer.
        cpu_seconds: median processor time of one answer, all threads, which other processes disturb less.
        reference: the contender of the same case that ratios are to.
        ratio: seconds over the reference's (other units where the benchmark says so).
        cpu_ratio: the same of cpu_seconds.
        limit: what the ratio should not exceed, where something is promised.
        same: share of the answer that agrees with the suite's own.
        peak_mib: memory that one answer needed on top of what was held before; None where it cannot be known.
        note: anything else.
    """

    benchmark: str
    case: str
    contender: str
    seconds: float
    cpu_seconds: float | None
    reference: str
    ratio: float
    cpu_ratio: float | None = None
    limit: float | None = None
    same: float | None = None
    peak_mib: float | None = None
    note: str = ""

    @property
    def met(self) -> bool | None:
        """Whether the limit holds; None without one."""
        return None if self.limit is None else self.ratio <= self.limit

    def as_dict(self) -> dict[str, Any]:
        """For JSON and CSV."""
        return {**asdict(self), "met": self.met}


@dataclass(frozen=True)
class Measured:
    """What :func:`measure` saw of one contender: median times, peak memory in MiB and the last answer."""

    seconds: float
    cpu_seconds: float
    peak_mib: float | None
    answer: Answer


@dataclass
class _Timed:
    """The runs of one contender so far."""

    call: Callable[[], Answer]
    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    answer: Answer = None

    def run(self) -> None:
        started, busy = time.perf_counter(), time.process_time()
        self.answer = self.call()
        self.wall.append(time.perf_counter() - started)
        self.cpu.append(time.process_time() - busy)

    def seen(self, peak_mib: float | None) -> Measured:
        return Measured(statistics.median(self.wall), statistics.median(self.cpu), peak_mib, self.answer)


def measure(contenders: Mapping[str, Callable[[], Answer]], repeats: int) -> dict[str, Measured]:
    """Run contenders once for their memory, then in turn for their times, until each has been timed ``repeats`` times.

    The first run of a :data:`SLOW` contender is timed as well.
    """
    timed = {name: _Timed(call) for name, call in contenders.items()}
    peaks = {}
    for name, one in timed.items():
        _, peaks[name] = peak(one.run)
        if one.wall[0] < SLOW:
            one.wall.clear()
            one.cpu.clear()
    while short := [one for one in timed.values() if len(one.wall) < repeats]:
        for one in short:
            one.run()
    return {name: one.seen(peaks[name]) for name, one in timed.items()}


def compare(
    benchmark: str,
    case: str,
    contenders: Mapping[str, Callable[[], Answer]],
    *,
    reference: str,
    repeats: int,
    limits: Mapping[str, float] | None = None,
    notes: Mapping[str, str] | None = None,
) -> list[Row]:
    """Rows of a case, with ratios to the contender ``reference`` and answers compared with those of :data:`OURS`."""
    return rows(benchmark, case, measure(contenders, repeats), reference, limits or {}, notes or {})


def rows(
    benchmark: str,
    case: str,
    measured: Mapping[str, Measured],
    reference: str,
    limits: Mapping[str, float],
    notes: Mapping[str, str],
) -> list[Row]:
    """As :func:`compare`, of what was measured before."""
    base = measured[reference]
    ours = measured[OURS].answer if OURS in measured else None
    return [
        Row(
            benchmark,
            case,
            name,
            seen.seconds,
            seen.cpu_seconds,
            reference,
            seen.seconds / base.seconds,
            seen.cpu_seconds / base.cpu_seconds if base.cpu_seconds else None,
            limits.get(name),
            None if ours is None or seen.answer is None else (seen.answer == ours).float().mean().item(),
            seen.peak_mib,
            notes.get(name, ""),
        )
        for name, seen in measured.items()
    ]
