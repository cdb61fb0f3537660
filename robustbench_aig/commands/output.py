"""What several commands print."""

import json
from pathlib import Path
from typing import Any

import click

from robustbench_aig.commands.terminal import console


def print_rows(rows: list[dict[str, Any]], as_json: bool) -> None:
    """Records as a table or as JSON."""
    from robustbench_aig.commands.listing import text

    click.echo(json.dumps(rows, indent=1) if as_json else text(rows))


def show_result(run: Path, as_json: bool) -> None:
    """A run's tables, or the run as JSON."""
    from robustbench_aig.report import describe_run, print_run

    if as_json:
        click.echo(json.dumps(describe_run(run), indent=1))
    else:
        print_run(run, console())
