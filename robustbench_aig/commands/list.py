"""``list``: what there is, by name."""

from typing import Any

import click

import attacks
import defenses
from robustbench_aig.commands.options import json_option
from robustbench_aig.commands.output import print_rows
from robustbench_aig.registry import Registry


@click.command("list")
@click.argument(
    "what",
    metavar="KIND",
    type=click.Choice(["models", "systems", "attacks", "defenses", "datasets", "recipes", "checks", "benchmarks"]),
)
@click.option("--macs", is_flag=True, help="Models: parameters and multiply-adds, beside the paper's.")
@json_option
def list_command(what: str, macs: bool, as_json: bool) -> None:
    """List models, systems of the paper, attacks, defenses, datasets, recipes, checks or benchmarks."""
    registries: dict[str, Registry[Any]] = {"attacks": attacks.registry, "defenses": defenses.registry}
    if what == "benchmarks":
        from robustbench_aig.commands.bench import table

        registries["benchmarks"] = table().registry
    from robustbench_aig.commands.listing import rows

    print_rows(rows(what, registries, macs), as_json)
