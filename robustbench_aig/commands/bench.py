"""``bench``: time the suite beside the fewest passes that an answer needs."""

import importlib
import json
from typing import Any

import click

import defenses
from robustbench_aig.commands.options import PATH, data_options, device_option, json_option
from robustbench_aig.commands.output import print_rows
from robustbench_aig.errors import Prerequisite


def table() -> Any:
    """The package of benchmarks, which is part of the repository and not of an installation.

    Raises:
        Prerequisite: it is not there.
    """
    try:
        return importlib.import_module("benchmarks")
    except ModuleNotFoundError:
        raise Prerequisite(
            "benchmarks are not installed; run 'python cli.py bench' in a clone of the repository."
        ) from None


@click.command()
@click.argument("names", nargs=-1, metavar="[NAME…]")
@click.option("-m", "--model", default="resnet20-cifar10", show_default=True, help="Without gates.")
@click.option("--gated", default="aig20-cifar10", show_default=True, help="With gates.")
@data_options
@click.option("--limit", default=512, show_default=True, help="Images.")
@click.option("--repeats", default=5, show_default=True, help="Interleaved timings of each contender.")
@click.option("-o", "--out", type=PATH, help="Folder for NAME.csv and NAME.json (versions and machine).")
@device_option
@json_option
def bench(names: tuple[str, ...], **given: Any) -> None:
    """Time the suite beside the fewest passes that an answer needs, and beside other libraries.

    NAME is any of 'list benchmarks', or all; without one fgsm and audit. Ratios are of medians of interleaved repeats.
    """
    found = table()

    chosen = list(found.registry.table) if names == ("all",) else list(dict.fromkeys(names or found.DEFAULT))
    benchmarks = [found.registry.entry(name) for name in chosen]
    from benchmarks.run import save, shown, subject_of

    subject = subject_of(defenses.make("jpeg:75"), **given)
    rows = []
    for benchmark in benchmarks:
        measured = benchmark.load()(subject)
        rows += measured
        if given["out"]:
            save(given["out"], benchmark.name, measured, subject)
        if not given["as_json"]:
            print_rows(shown(measured), as_json=False)
    if given["as_json"]:
        click.echo(json.dumps([row.as_dict() for row in rows], indent=1))
