"""``demo``: train two small models, attack them, report."""

import shlex

import click

from robustbench_aig.commands.options import device_option

DEMO = (
    "train resnet20 --data digits --recipe digits --device {device} -o {checkpoints}/resnet20",
    "train aig20 --data digits --recipe digits --device {device} -o {checkpoints}/aig20",
    "sweep -m resnet20@{checkpoints}/resnet20 -m aig20@{checkpoints}/aig20 --data digits -a fgsm --eps 0:0.3:7"
    " -d none -d jpeg:75 --attacker static --device {device} -o {out}",
    "report --quiet {out}",
)


@click.command()
@click.option("-o", "--out", default="results/demo", show_default=True, help="Run folder.")
@click.option("--checkpoints", default="checkpoints/demo", show_default=True, help="Where the two models go.")
@device_option
@click.pass_context
def demo(ctx: click.Context, /, **given: str) -> None:
    """Train a ResNet and an AIG on digits, attack them with and without JPEG, report."""
    for command in DEMO:
        words = [word.format(**given) for word in shlex.split(command)]
        program = ctx.find_root().command
        click.echo(f"$ {shlex.join([str(program.name), *words])}", err=True)
        with program.make_context(str(program.name), words) as inner:
            code = program.invoke(inner)
        if code:
            ctx.exit(code)
