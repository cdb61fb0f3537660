"""A run on the console."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table as Grid
from rich.text import Text

from robustbench_aig.audit.check import Finding
from robustbench_aig.report import tables, text
from robustbench_aig.report.headline import headlines
from robustbench_aig.report.run import Run
from robustbench_aig.report.tables import Shown, Table

STYLES = {"FAIL": "bold red", "WARN": "yellow", "INFO": "cyan", "PASS": "green", "n.a.": "dim"}
NOT_A_CLAIM = "NOT A ROBUSTNESS CLAIM"
_GAP = 2  # columns of the console between those of a table


def report(run: Run, width: int) -> Iterator[RenderableType]:
    """Everything that ``robustbench-aig report`` prints, on a console of some width."""
    yield headline(run)
    shown = chain(tables.accuracy(run), tables.sections(run), tables.certified(run))
    yield from chain.from_iterable(grids(table, width) for table in shown)


def headline(run: Run) -> Group:
    """The lowest accuracy of each model, gating and defence, with the audit; under a banner if that failed."""
    lines: list[RenderableType] = [*_banner(run), Text(tables.subject(run), "bold")]
    for entry in headlines(run):
        claim = f"{entry.contestant}  {entry.claim}"
        lines.append(Text.assemble((claim, "bold"), (f"  ({entry.circumstances})", "dim")))
    lines.append(Text(f"audit: {tables.audit_counts(run)}") if run.audit else Text("audit: not run", "dim"))
    for found in _sorted(run.audit, ("FAIL", "WARN", "INFO")):
        where = (f"  ({run.label(found.cell)})" if found.cell else "", "dim")
        lines.append(Text.assemble("  ", (found.verdict, STYLES[found.verdict]), f" {found.id}  {found.text}", where))
    lines += [Text(note, "dim") for note in run.notes]
    if run.unfinished:
        missing = f"{run.unfinished} of {len(run.cells)} cells have no result; the sweep's command resumes them."
        lines.append(Text(missing, "yellow"))
    return Group(*lines)


def audit(run: Run) -> Iterator[RenderableType]:
    """Every verdict of the audit: the worst first, each with symptom, remedy and what was measured."""
    yield from _banner(run)
    yield Text(f"{run.name} · {tables.subject(run)}", "bold")
    grid = _grid(f"audit: {tables.audit_counts(run)}" if run.audit else "audit: not run")
    for column in ("", "check", "finding", "measured", "limit"):
        grid.add_column(column, overflow="fold")
    for entry in _sorted(run.audit, STYLES):
        where = (f"\n{run.label(entry.cell)}" if entry.cell else "", "dim")
        numbers = (text.NONE if number is None else f"{number:.4g}" for number in (entry.value, entry.threshold))
        verdict = Text(entry.verdict, STYLES[entry.verdict])
        grid.add_row(verdict, f"{entry.id} {entry.title}", Text.assemble(entry.text, where), *numbers)
    yield grid


def show(run: Run, width: int) -> Iterator[RenderableType]:
    """What a run is made of: configuration, provenance and cells."""
    yield Text(f"{run.name} · {tables.subject(run)}", "bold")
    parts = (tables.settings("configuration", run.config), tables.settings("provenance", run.provenance))
    yield from chain.from_iterable(grids(table, width) for table in (*parts, tables.cells(run)))


def grids(table: Table, width: int) -> Iterator[Grid]:
    """A table on a console of some width; one with more numbers than fit goes on below."""
    names = [max(len(name), *(len(row[number]) for row, _ in table.rows)) for number, name in enumerate(table.names)]
    for columns in _fitting(table, width - sum(names) - _GAP * len(names)):
        grid = _grid(table.title if not columns or columns[0] == 0 else None)
        for name in table.names:
            grid.add_column(name, overflow="fold", no_wrap=bool(table.heads))
        for number in columns:
            grid.add_column(table.heads[number], justify="right", no_wrap=True)
        for row, numbers in table.rows:
            grid.add_row(*row, *(_number(numbers[number]) for number in columns))
        yield grid


def _fitting(table: Table, room: int) -> Iterator[Sequence[int]]:
    """The numbers of the columns, in runs that fit into the room; one that fits nowhere stands alone."""
    chosen: list[int] = []
    left = room
    for number, head in enumerate(table.heads):
        wide = _GAP + max(len(part) for _, row in table.rows for part in (head, row[number].text, row[number].span))
        if chosen and wide > left:
            yield chosen
            chosen, left = [], room
        chosen.append(number)
        left -= wide
    yield chosen


def _number(entry: Shown) -> Text:
    return Text.assemble(entry.text, (f"\n{entry.span}" if entry.span else "", "dim"))


def _sorted(entries: Sequence[Finding], verdicts: Iterable[str]) -> list[Finding]:
    """The entries with these verdicts, in their order."""
    return [entry for verdict in verdicts for entry in entries if entry.verdict == verdict]


def _banner(run: Run) -> Iterator[Panel]:
    if run.claim_valid is False:
        words = Text(f"{NOT_A_CLAIM}: a check of the audit failed, see below", "bold red")
        yield Panel(words, style="red", expand=False)


def _grid(title: str | None) -> Grid:
    looks = {"title_justify": "left", "title_style": "bold", "header_style": "dim"}
    return Grid(title=title, box=None, pad_edge=False, padding=(0, _GAP, 0, 0), **looks)  # type: ignore[arg-type]
