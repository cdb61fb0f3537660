"""``list``: what there is, by name."""

import click

import attacks
import defenses
from robustbench_aig.commands.options import json_option
from robustbench_aig.commands.output import print_rows


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
    if what == "benchmarks":
        from robustbench_aig.commands.bench import table

        print_rows([{"name": name, "summary": entry.summary} for name, entry in table().BENCHMARKS.items()], as_json)
        return
    from robustbench_aig.commands.listing import rows

    print_rows(rows(what, {"attacks": attacks.registry, "defenses": defenses.registry}, macs), as_json)
