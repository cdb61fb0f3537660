"""``analyze``: the paper's tables and figures about gates."""

import json
from typing import Any

import click

from robustbench_aig.commands.options import (
    PATH,
    data_options,
    device_option,
    json_option,
    load_data,
    quiet_option,
    split_option,
)
from robustbench_aig.commands.output import print_rows
from robustbench_aig.errors import UsageError
from robustbench_aig.experiments import registry

_LIST = "\n".join(f"{entry.name:<11} {entry.summary}" for entry in registry.entries())


@click.command(epilog=f"\b\n{_LIST}\n\nFig. 10 is a sweep and its report.")
@click.argument("experiment", metavar="EXPERIMENT", type=click.Choice(list(registry.table)))
@click.option("-m", "--model", multiple=True, required=True, help="As for sweep; several stand side by side.")
@data_options
@split_option
@click.option("--limit", type=int, help="At most this many images (a stratified subset).")
@click.option(
    "--gating",
    multiple=True,
    default=["deterministic", "stochastic"],
    show_default=True,
    help="For rates, layers, extremes and costs; also deterministic:T, expected (AIG*).",
)
@click.option("--draws", default=10, show_default=True, help="Gate draws per image where they are sampled.")
@click.option("--seed", default=0, show_default=True, help="Of the draws.")
@click.option("--category", multiple=True, help="Groups of images that layers and extremes show [all categories].")
@click.option("--run", multiple=True, type=PATH, help="Sweeps that claims about attacks are tested on.")
@click.option("-o", "--out", type=PATH, required=True, help="Folder for tables (CSV) and figures (PNG).")
@device_option
@json_option
@quiet_option
def analyze(experiment: str, **given: Any) -> None:
    """The paper's tables and figures about gates, from trained models.

    Example: robustbench-aig analyze rates -m aig20-cifar10 --data cifar10 -o results/rates
    """
    from robustbench_aig.contracts.gating import Gating
    from robustbench_aig.models.resolve import check_name
    from robustbench_aig.progress import progress

    if given["draws"] < 1:
        raise UsageError(f"--draws must be at least 1, not {given['draws']}.")
    gatings = tuple(dict.fromkeys(map(Gating.parse, given["gating"])))
    for model in given["model"]:
        check_name(model)
    from robustbench_aig.device import resolve_device
    from robustbench_aig.experiments.run import analyze as compute

    kept = ("model", "data", "split", "limit", "gating", "draws", "seed", "category")
    with progress(given["quiet"]) as reporter:
        table, files = compute(
            experiment,
            given["model"],
            given["out"],
            lambda: load_data(given, split=given["split"], limit=given["limit"], seed=given["seed"]),
            device=resolve_device(given["device"]),
            config={name: given[name] for name in kept} | {"run": [str(run) for run in given["run"]]},
            gatings=gatings,
            draws=given["draws"],
            seed=given["seed"],
            categories=given["category"],
            runs=given["run"],
            progress=reporter,
        )
    print_rows(json.loads(table.to_json(orient="records")), given["as_json"])
    for path in files:
        click.echo(f"wrote {path}", err=True)
