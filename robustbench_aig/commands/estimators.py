"""``estimators``: gradients through sampled gates, beside the exact one."""

import json
from typing import Any

import click

from robustbench_aig.commands.options import PATH, data_options, device_option, json_option, load_data, split_option
from robustbench_aig.commands.output import print_rows
from robustbench_aig.errors import UsageError


@click.command()
@click.option("-m", "--model", default="aig20-cifar10", show_default=True, help="With at most ten gates.")
@data_options
@split_option
@click.option("--limit", default=64, show_default=True, help="Images.")
@click.option("--repeats", default=3, show_default=True, help="Independent gradients of each estimator.")
@click.option("--seed", default=0, show_default=True, help="Of the gate draws.")
@click.option("-o", "--out", type=PATH, required=True, help="Folder for estimators.csv, .png and .json.")
@device_option
@json_option
def estimators(**given: Any) -> None:
    """How near estimators of the gradient through sampled gates come to the exact gradient.

    Example: robustbench-aig estimators -m aig20-cifar10 --data cifar10 -o results/estimators
    """
    from robustbench_aig.models.resolve import check_name

    check_name(given["model"])
    if given["repeats"] < 1:
        raise UsageError("--repeats must be 1 or more.")
    from robustbench_aig.device import resolve_device
    from robustbench_aig.experiments import estimators as fidelity
    from robustbench_aig.models.resolve import load_model

    device = resolve_device(given["device"])
    dataset = load_data(given, split=given["split"], limit=given["limit"], seed=given["seed"])
    table = fidelity.study(
        load_model(given["model"], device), dataset, device, seed=given["seed"], repeats=given["repeats"]
    )
    config = {name: given[name] for name in ("model", "data", "split", "limit", "repeats", "seed")}
    files = list(fidelity.save(table, given["out"], config, device))
    print_rows(json.loads(table.round(4).to_json(orient="records")), given["as_json"])
    for path in files:
        click.echo(f"wrote {path}", err=True)
