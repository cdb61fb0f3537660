"""Where data sets are looked for."""

import os
from pathlib import Path

from robustbench_aig.errors import Prerequisite

VARIABLE = "ROBUSTBENCH_AIG_DATA"
DEFAULT = Path("data")


def places(data_dir: Path | None) -> tuple[Path, ...]:
    """The folders to look in, in order: the one asked for and no other, else $ROBUSTBENCH_AIG_DATA and ``./data``."""
    if data_dir is not None:
        return (Path(data_dir).expanduser(),)
    named = os.environ.get(VARIABLE)
    return (Path(named).expanduser(), DEFAULT) if named else (DEFAULT,)


def find(places: tuple[Path, ...], folders: tuple[str, ...], title: str, remedy: str) -> Path:
    """The first ``place/folder`` that is a folder, places first.

    Raises:
        Prerequisite: there is none; the message names every place that was looked at and the remedy.
    """
    candidates = list(dict.fromkeys(place / folder for place in places for folder in folders))
    for candidate in candidates:
        if candidate.is_dir():
            return candidate
    looked = ", ".join(map(str, candidates))
    raise Prerequisite(
        f"{title} was not found (looked for {looked}); {remedy}, or name its parent folder by --data-dir or {VARIABLE}."
    )
