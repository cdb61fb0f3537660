"""Progress on stderr: a live bar with rate and time left on a terminal, plain lines elsewhere."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import (
    Progress as Bar,
)

PLAIN_SECONDS = 30.0


class Progress(Protocol):
    """What long work reports to."""

    def start(self, total: int, label: str) -> None:
        """Work of ``total`` units begins."""

    def advance(self, n: int) -> None:
        """``n`` more units are done."""

    def note(self, text: str) -> None:
        """Something worth a line."""

    def stop(self) -> None:
        """The work is over."""


class Silent:
    """Reports nothing."""

    def start(self, total: int, label: str) -> None: ...

    def advance(self, n: int) -> None: ...

    def note(self, text: str) -> None: ...

    def stop(self) -> None: ...


class Live:
    """A bar with units done, rate, elapsed and remaining time."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.bar: Bar | None = None
        self.task = TaskID(0)

    def start(self, total: int, label: str) -> None:
        self.stop()
        columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
        rate = TextColumn("{task.fields[rate]}")
        self.bar = Bar(
            *columns, rate, TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn(), console=self.console
        )
        self.bar.start()
        self.task = self.bar.add_task(label, total=total, rate="")

    def advance(self, n: int) -> None:
        if self.bar is not None:
            speed = self.bar.tasks[0].speed
            self.bar.update(self.task, advance=n, rate=f"{speed:.3g}/s" if speed else "")

    def note(self, text: str) -> None:
        self.console.print(text, highlight=False, markup=False)

    def stop(self) -> None:
        if self.bar is not None:
            self.bar.stop()


class Plain:
    """One line every half minute."""

    def __init__(self) -> None:
        self.total = self.done = 0
        self.label = ""
        self.started = self.last = 0.0

    def start(self, total: int, label: str) -> None:
        self.total, self.done, self.label = total, 0, label
        self.started = self.last = time.monotonic()

    def advance(self, n: int) -> None:
        self.done += n
        now = time.monotonic()
        if now - self.last >= PLAIN_SECONDS:
            self.last = now
            left = (now - self.started) / max(self.done, 1) * (self.total - self.done)
            self.note(f"{self.label}: {self.done}/{self.total}, about {left:.0f} s left")

    def note(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    def stop(self) -> None: ...


@contextmanager
def progress(quiet: bool = False) -> Iterator[Progress]:
    """What suits stderr: a bar on a terminal, else lines; nothing if ``quiet``. It stops with the block."""
    console = Console(stderr=True)
    reporter: Progress = Silent() if quiet else Live(console) if console.is_terminal else Plain()
    try:
        yield reporter
    finally:
        reporter.stop()
