"""``report``, ``compare`` and ``show``: the commands that read runs."""

import json
from pathlib import Path

import click

from robustbench_aig.commands.options import PATH, json_option, run_argument
from robustbench_aig.commands.output import show_result
from robustbench_aig.commands.terminal import console
from robustbench_aig.errors import UsageError


@click.command()
@run_argument
@click.option("--group", multiple=True, help="A class or category that gets an execution figure of its own.")
@click.option("-q", "--quiet", is_flag=True, help="Write the files, print no tables.")
@json_option
def report(run: Path, group: tuple[str, ...], quiet: bool, as_json: bool) -> None:
    """Print a run's tables and write its figures and report.html."""
    from robustbench_aig.report import write_report

    files = write_report(run, group)
    if as_json or not quiet:
        show_result(run, as_json)
    for path in files:
        click.echo(f"wrote {path}", err=True)


@click.command()
@click.argument("runs", nargs=-1, required=True, metavar="RUN…", type=PATH)
@click.option(
    "--measure",
    metavar="NAME",
    help="Compare the attacks of a run, not models: by accuracy, macs, executed, flips, kept, features or gates.",
)
@click.option(
    "-a", "--attack", multiple=True, help="With --measure: the attack that is held against the others [the first]."
)
@json_option
def compare(runs: tuple[Path, ...], measure: str | None, attack: tuple[str, ...], as_json: bool) -> None:
    """Compare models, or the attacks on one model, image by image.

    Example: robustbench-aig compare results/gates --measure macs -a gates:open
    """
    from robustbench_aig.report import compare_attacks, compare_runs

    shown = None if as_json else console()
    if measure is None:
        if attack:
            raise UsageError("--attack goes with --measure; add one, such as --measure macs.")
        result = compare_runs(runs, shown)
    elif len(runs) > 1:
        raise UsageError("--measure compares the attacks of one run; name one run.")
    else:
        result = compare_attacks(runs[0], measure, attack, shown)
    if as_json:
        click.echo(json.dumps(result, indent=1))


@click.command()
@run_argument
@json_option
def show(run: Path, as_json: bool) -> None:
    """Show a run: configuration, cells, provenance and audit."""
    from robustbench_aig.report import describe_run, show_run

    if as_json:
        click.echo(json.dumps(describe_run(run), indent=1))
    else:
        show_run(run, console())
