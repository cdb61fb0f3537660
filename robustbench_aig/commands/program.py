"""The command line: its group and its commands.

torch is imported inside commands, so that help and lists answer at once.
"""

from pathlib import Path
from typing import NoReturn

import click

import attacks
import defenses
from robustbench_aig import __version__
from robustbench_aig.commands.analyze import analyze
from robustbench_aig.commands.audit import audit
from robustbench_aig.commands.bench import bench
from robustbench_aig.commands.check import check
from robustbench_aig.commands.demo import demo
from robustbench_aig.commands.doctor import doctor
from robustbench_aig.commands.estimators import estimators
from robustbench_aig.commands.list import list_command
from robustbench_aig.commands.options import PATH
from robustbench_aig.commands.runs import compare, report, show
from robustbench_aig.commands.sweep import sweep
from robustbench_aig.commands.terminal import Program, read_config
from robustbench_aig.commands.train import import_command, train
from robustbench_aig.errors import UserError


@click.group(
    "robustbench-aig",
    cls=Program,
    context_settings={"help_option_names": ["-h", "--help"], "auto_envvar_prefix": "ROBUSTBENCH_AIG"},
)
@click.version_option(__version__)
@click.option(
    "--config", type=PATH, callback=read_config, is_eager=True, expose_value=False, help="TOML file of options."
)
def cli() -> None:
    """Measure how robust image classifiers really are, with a look inside the gates of ConvNet-AIG.

    Results go to stdout, everything else to stderr. Options come from the command line, then from the environment
    (ROBUSTBENCH_AIG_SWEEP_DRAWS=20), then from --config FILE.toml with a table per command ([sweep], [train]).

    Exit codes: 0 done, 1 failed, 2 usage, 3 something is missing (data, checkpoint, CUDA), 4 some cells failed,
    5 a --strict check failed, 130 interrupted; the same command goes on.
    """
    for module in (attacks, defenses):  # common names: refuse to run with anybody else's
        found = Path(module.__file__ or "").resolve().parent
        if found != Path(__file__).resolve().parents[2] / module.__name__:
            raise UserError(
                f"the module '{module.__name__}' in use is {found}, not this suite's; "
                "install the suite into an environment of its own."
            )


COMMANDS = (  # in the order of use, as the help shows them
    *(demo, train, sweep, report, compare, show, analyze, estimators),
    *(audit, check, list_command, import_command, bench, doctor),
)
for command in COMMANDS:
    cli.add_command(command)


def main() -> NoReturn:
    """Entry point of ``robustbench-aig`` and ``python cli.py``."""
    cli.main()
