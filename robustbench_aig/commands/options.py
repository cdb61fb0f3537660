"""Options that several commands take."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from robustbench_aig.commands.terminal import together
from robustbench_aig.errors import UsageError

if TYPE_CHECKING:
    from robustbench_aig.data.dataset import Dataset

PATH = click.Path(path_type=Path)
data_options = together(
    click.option("--data", default="digits", show_default=True, help="Data set; see 'list datasets'."),
    click.option("--data-dir", type=PATH, help="Where data sets are [$ROBUSTBENCH_AIG_DATA, ./data]."),
    click.option("--download", is_flag=True, help="Fetch the data set if it is missing (CIFAR-10)."),
)
device_option = click.option(
    "--device", default="auto", show_default=True, help="auto (CUDA where there is one), cpu, cuda or cuda:N."
)
split_option = click.option(
    "--split",
    type=click.Choice(["test", "train", "validation", "trainval"]),
    default="test",
    show_default=True,
    help="Part of the data set.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
quiet_option = click.option("-q", "--quiet", is_flag=True, help="No progress on stderr.")
run_argument = click.argument("run", type=PATH)


def places(given: Mapping[str, Any]) -> dict[str, Any]:
    """What :data:`data_options` say of where data sets are."""
    return {"data_dir": given["data_dir"], "download": given["download"]}


def load_data(given: Mapping[str, Any], **choice: Any) -> "Dataset":
    """The data set that options name, with a line on stderr about how its images are read, unless ``quiet``.

    Args:
        given: the options.
        choice: ``split``, ``limit`` and ``seed``, as for :func:`robustbench_aig.data.load_dataset`.
    """
    from robustbench_aig.data import load_dataset

    data = load_dataset(given["data"], **choice, **places(given))
    if data.note and not given.get("quiet"):
        click.echo(data.note, err=True)
    return data


def number_or_auto(given: Mapping[str, Any], name: str) -> int | None:
    """The value of an option that is a number of at least 1, or None for auto."""
    value = str(given[name])
    if value != "auto" and not (value.isdecimal() and int(value) > 0):
        raise UsageError(f"--{name.replace('_', '-')} must be auto or a number of at least 1, not '{value}'.")
    return None if value == "auto" else int(value)
