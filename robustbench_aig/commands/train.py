"""``train`` and ``import``: the commands that make checkpoints."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from robustbench_aig.commands.options import PATH, data_options, device_option, json_option, load_data, quiet_option

if TYPE_CHECKING:
    from robustbench_aig.training.loop import Epoch


@click.command()
@click.argument("architecture")
@data_options
@click.option("--recipe", default="quick", show_default=True, help="See 'list recipes'.")
@click.option("--epochs", type=int, help="Change the recipe's epochs; milestones move in proportion.")
@click.option("--lr", type=float, help="Change the recipe's peak learning rate.")
@click.option("--batch-size", type=int, help="Change the recipe's batch size.")
@click.option("--target-rate", metavar="RATE[,…]", help="One target execution rate, or one per gate.")
@click.option("--eps", metavar="EPS", help="Change the size of an adversarial recipe's perturbations, as in 8/255.")
@click.option("--gates", type=click.Choice(["straight-through", "soft"]), help="Form of the Gumbel-softmax.")
@click.option("--shortcut", type=click.Choice(["projection", "A"]), help="Downsampling of CIFAR networks.")
@click.option("--init", type=PATH, help="Checkpoint to start from in place of fresh weights.")
@click.option("--bf16/--no-bf16", default=None, help="bfloat16 passes.")
@click.option("--compile/--no-compile", default=None, help="torch.compile the passes.")
@click.option("--seed", default=0, show_default=True, help="Of everything random.")
@click.option("-o", "--out", type=PATH, required=True, help="Checkpoint folder; the same command resumes.")
@device_option
@json_option
@quiet_option
def train(architecture: str, **given: Any) -> None:
    """Train a ResNet or ConvNet-AIG; ARCHITECTURE is a name from 'list models'.

    Example: robustbench-aig train aig20 --data cifar10 --target-rate 0.7 -o checkpoints/aig20
    """
    from dataclasses import asdict
    from functools import cache

    from robustbench_aig.models import architectures
    from robustbench_aig.progress import progress
    from robustbench_aig.training.recipe import parse_rates, recipe

    architectures.architecture(architecture)
    changes = {name: given[name] for name in ("epochs", "lr", "batch_size", "eps", "gates", "bf16", "compile")}
    settings = recipe(given["recipe"], target_rate=parse_rates(given["target_rate"]), **changes)
    splits = cache(lambda split: load_data(given | {"quiet": given["quiet"] or split != "train"}, split=split))
    splits("train")  # wrong names are answered before torch is imported
    from robustbench_aig.device import resolve_device
    from robustbench_aig.training.run import epoch_line, overfitting_line, train_model

    device = resolve_device(given["device"])
    with progress(given["quiet"]) as reporter:
        reporter.start(settings.epochs, architecture)

        def report(epoch: "Epoch") -> None:
            reporter.note(epoch_line(epoch, settings))
            if epoch.overfitted:
                reporter.note(overfitting_line(epoch))
            reporter.advance(1)

        more = {"seed": given["seed"], "device": device, "shortcut": given["shortcut"], "init": given["init"]}
        card = train_model(architecture, splits, settings, given["out"], report=report, **more)
    if given["as_json"]:
        click.echo(json.dumps(asdict(card), indent=1))
        return
    for title, values in (("accuracy", card.accuracy), ("execution rate", card.execution_rate)):
        for name, value in values.items():
            click.echo(f"{title} ({name.replace('_', ', ')}): {value:.4f}")
    click.echo(f"saved in {given['out']}; use it with -m {architecture}@{given['out']}")


@click.command("import")
@click.argument("architecture")
@click.argument("file", type=PATH)
@click.option("-o", "--out", type=PATH, required=True, help="Checkpoint folder to write.")
def import_command(architecture: str, file: Path, out: Path) -> None:
    """Turn another project's checkpoint FILE of ARCHITECTURE into one of this suite."""
    from robustbench_aig.models.resolve import import_checkpoint

    card = import_checkpoint(architecture, file, out)
    click.echo(f"{len(card.classes)} classes, images {'x'.join(map(str, card.image_shape))}, {card.options}")
    click.echo(f"saved in {out}; use it with -m {architecture}@{out}")
