"""The documents agree with the code."""

import subprocess
import sys
from pathlib import Path

import pytest

from cli import cli

ROOT = Path(__file__).resolve().parent.parent


def test_generated_pages_are_current() -> None:
    result = subprocess.run([sys.executable, "docs/build.py", "--check"], cwd=ROOT, check=False)
    assert result.returncode == 0, "run: python docs/build.py"


@pytest.mark.parametrize("name", sorted(cli.commands))
def test_every_command_has_help_and_stands_in_the_readme(name: str) -> None:
    assert cli.commands[name].help
    assert f"`{name}`" in (ROOT / "README.md").read_text()


def test_links_in_the_documents_lead_somewhere() -> None:
    import re

    for page in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")):
        for link in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
            if "://" not in link:
                assert (page.parent / link).exists(), f"{page.name}: {link}"
