"""The report as one HTML file that needs nothing else: no request leaves the page."""

import base64
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

import jinja2

from robustbench_aig.files import write_atomically
from robustbench_aig.report import tables
from robustbench_aig.report.console import NOT_A_CLAIM
from robustbench_aig.report.headline import headlines
from robustbench_aig.report.run import Run


def write(run: Run, path: Path, figures: Sequence[tuple[Path, str]]) -> Path:
    """Write the page; returns its path.

    Args:
        run: what to report.
        path: of the page.
        figures: PNG files to put into it, and what each shows.

    Raises:
        UserError: the folder cannot be written or the disk is full.
    """
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    template = environment.from_string(files("robustbench_aig.report").joinpath("template.html").read_text("utf-8"))
    page = template.render(
        run=run,
        subject=tables.subject(run),
        not_a_claim=NOT_A_CLAIM,
        headlines=headlines(run),
        audit_counts=tables.audit_counts(run),
        worst=list(tables.worst(run)),
        figures=[(caption, base64.b64encode(file.read_bytes()).decode()) for file, caption in figures],
        every=tables.every_row(run),
        sections=[*tables.sections(run, every=True), *tables.certified(run), *tables.layers(run)],
        settings=[
            tables.settings("configuration", run.config),
            tables.settings("provenance", run.provenance),
            tables.cells(run),
        ],
    )
    with write_atomically(path) as temporary:
        temporary.write_text(page, encoding="utf-8", errors="backslashreplace")
    return path
