"""``doctor``: is everything there."""

from pathlib import Path

import click

from robustbench_aig.commands.options import PATH, json_option
from robustbench_aig.commands.output import print_rows
from robustbench_aig.errors import Prerequisite


@click.command()
@click.option("--data-dir", type=PATH, help="Where data sets are.")
@json_option
def doctor(data_dir: Path | None, as_json: bool) -> int:
    """Check Python, packages, CUDA, codec, data and disk; exit with 3 if something needed is missing."""
    from robustbench_aig.doctor import examine

    findings = examine(data_dir)
    print_rows(findings, as_json)
    return Prerequisite.exit_code if any(finding["verdict"] == "FAIL" for finding in findings) else 0
