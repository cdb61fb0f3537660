"""``audit``: what the audit of a run found."""

import json
from pathlib import Path

import click

from robustbench_aig.commands.options import PATH, json_option, quiet_option, run_argument
from robustbench_aig.commands.sweep import NOT_VALID, settings_of
from robustbench_aig.commands.terminal import console
from robustbench_aig.errors import UserError


@click.command()
@run_argument
@click.option("--full", is_flag=True, help="First run the full tier, on the models and data of the sweep.")
@click.option("--data-dir", type=PATH, help="With --full: where data sets are [$ROBUSTBENCH_AIG_DATA, ./data].")
@click.option("--strict", is_flag=True, help="Exit with 5 if a check failed.")
@json_option
@quiet_option
def audit(run: Path, full: bool, data_dir: Path | None, strict: bool, as_json: bool, quiet: bool) -> int:
    """Show what the audit of a run found, with symptom and remedy; or repeat its attacks, stronger (--full)."""
    from robustbench_aig.report import audit_run

    if full:
        _audit_again(run, data_dir, quiet)
    found = audit_run(run, None if as_json else console())
    if as_json:
        click.echo(json.dumps(found, indent=1))
    return NOT_VALID if strict and not found["claim_valid"] else 0


def _audit_again(run: Path, data_dir: Path | None, quiet: bool) -> None:
    """Resume a finished sweep with the full tier of its audit."""
    from robustbench_aig.audit.runner import sweep as compute
    from robustbench_aig.progress import progress
    from robustbench_aig.report import read_run

    config = read_run(run).config
    if "model" not in config:
        raise UserError(f"{run} does not say how it was swept; sweep again with the full tier of the audit.")
    given = {**config, "audit": "full", "data_dir": data_dir, "download": False}
    settings = settings_of(given)
    with progress(quiet) as reporter:
        compute(settings, run, tier="full", config={**config, "audit": "full"}, progress=reporter)
