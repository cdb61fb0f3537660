"""Options from a TOML file: one table per command, whose keys are the names of its options."""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from robustbench_aig.errors import Prerequisite, UsageError, unknown


def read_tables(path: Path, options: Mapping[str, Mapping[str, bool]]) -> dict[str, dict[str, Any]]:
    """The options that a file sets.

        [sweep]
        model = ["resnet20-cifar10", "aig20-cifar10"]
        eps = "0:16/255:9"

    Args:
        path: the file.
        options: by command, the name of every option without dashes (``batch-size``) and whether it can be repeated.

    Returns:
        Values by command and option; lists for options that can be repeated.

    Raises:
        Prerequisite: the file cannot be read.
        UsageError: it is no TOML, or names an unknown command or option.
    """
    try:
        document = tomllib.loads(path.read_text())
    except OSError as error:
        raise Prerequisite(f"cannot read {path} ({error.strerror}); give a TOML file to --config.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is not valid TOML: {error}.") from None
    for command, table in document.items():
        if not isinstance(table, dict):
            raise UsageError(f"{path} sets '{command}' outside a table; put it below a line such as [sweep].")
        if command not in options:
            raise unknown(f"table in {path}:", command, options)
        for name in table:
            if name not in options[command]:
                raise unknown(f"option in [{command}] of {path}:", name, options[command])
    return {
        command: {name: _listed(value, options[command][name]) for name, value in table.items()}
        for command, table in document.items()
    }


def _listed(value: Any, repeatable: bool) -> Any:
    return [value] if repeatable and not isinstance(value, list) else value
