"""What a clone installs: the lock, the metadata, the wheel's contents and the set-up of `make`."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import robustbench_aig

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("attacks", "defenses", "robustbench_aig")


@pytest.fixture(scope="module")
def pyproject() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


@pytest.fixture(scope="module")
def lock() -> list[str]:
    """One logical line per pinned version: a requirement and its hashes."""
    return (ROOT / "requirements.lock").read_text().replace("\\\n", " ").splitlines()


def pins(lock: list[str]) -> list[Requirement]:
    return [Requirement(line.split("--hash")[0]) for line in lock]


def test_every_pin_is_exact_and_hashed(lock: list[str]) -> None:
    assert lock
    for line in lock:
        requirement, *hashes = re.split(r"\s+--hash=", line.strip())
        assert [specifier.operator for specifier in Requirement(requirement).specifier] == ["=="], line
        assert hashes, requirement
        assert all(re.fullmatch(r"sha256:[0-9a-f]{64}", value) for value in hashes), requirement


def test_the_lock_names_no_host(lock: list[str]) -> None:
    """Nor a build that only one index has, such as ``torch==2.6.0+cpu``."""
    for line in lock:
        requirement = Requirement(line.split("--hash")[0])
        assert requirement.url is None
        assert "+" not in str(requirement.specifier), line
        assert not re.search(r"://|--(extra-)?index|--find-links|--trusted", line)


def test_every_dependency_is_locked_within_its_range(pyproject: dict[str, Any], lock: list[str]) -> None:
    wanted = [*pyproject["project"]["dependencies"], *pyproject["dependency-groups"]["dev"]]
    assert len(wanted) > 10
    for line in wanted:
        requirement = Requirement(line)
        name = canonicalize_name(requirement.name)
        versions = [next(iter(pin.specifier)).version for pin in pins(lock) if canonicalize_name(pin.name) == name]
        assert versions, name
        assert all(version in requirement.specifier for version in versions), (line, versions)


def test_optional_dependencies_are_not_locked(pyproject: dict[str, Any], lock: list[str]) -> None:
    locked = {canonicalize_name(pin.name) for pin in pins(lock)}
    extras = [line for lines in pyproject["project"]["optional-dependencies"].values() for line in lines]
    assert locked.isdisjoint(canonicalize_name(Requirement(line).name) for line in extras)


def test_versions_agree(pyproject: dict[str, Any]) -> None:
    assert pyproject["project"]["version"] == robustbench_aig.__version__


def test_the_command_is_callable(pyproject: dict[str, Any]) -> None:
    [(name, target)] = pyproject["project"]["scripts"].items()
    module, function = target.split(":")
    assert (name, module) == ("robustbench-aig", "cli")
    assert callable(getattr(import_module(module), function))


def test_python_dash_m_is_the_command() -> None:
    answers = [
        subprocess.run([sys.executable, *how, "--version"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
        for how in (["-m", "robustbench_aig"], ["cli.py"])
    ]
    assert answers[0] == answers[1]
    assert robustbench_aig.__version__ in answers[0]


def test_the_wheel_has_every_module_and_data_file(tmp_path: Path) -> None:
    source, built = tmp_path / "source", tmp_path / "built"
    ignored = shutil.ignore_patterns("__pycache__")
    for package in PACKAGES:
        shutil.copytree(ROOT / package, source / package, ignore=ignored)
    for file in ("cli.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / file, source)
    built.mkdir()
    build = f"from setuptools.build_meta import build_wheel; build_wheel({str(built)!r})"
    subprocess.run([sys.executable, "-c", build], cwd=source, check=True, capture_output=True)

    [wheel] = built.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        inside = {name for name in archive.namelist() if ".dist-info/" not in name}
        licences = [name for name in archive.namelist() if name.endswith("/licenses/LICENSE")]
    files = {path.relative_to(ROOT) for package in PACKAGES for path in (ROOT / package).rglob("*") if path.is_file()}
    expected = {path.as_posix() for path in files if "__pycache__" not in path.parts} | {"cli.py"}
    assert inside == expected
    assert licences


def make(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    plain = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    command = ["make", "--no-print-directory", *arguments]
    return subprocess.run(command, cwd=folder, env=plain | environment, capture_output=True, text=True, check=False)


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    for file in ("Makefile", "requirements.lock", "pyproject.toml"):
        shutil.copy(ROOT / file, tmp_path)
    return tmp_path


def test_make_alone_lists_the_targets_and_installs_nothing(clone: Path) -> None:
    answer = make(clone)
    assert answer.returncode == 0
    listed = [line.split()[0] for line in answer.stdout.splitlines()]
    assert {"help", "demo", "test", "lint", "types"} <= set(listed)
    assert not (clone / ".venv").exists()


def test_an_old_python_is_refused_with_a_remedy(clone: Path) -> None:
    old = clone / "old-python"
    old.write_text("#!/bin/sh\nexit 1\n")
    old.chmod(0o755)
    answer = make(clone, "test", "BASE_PYTHON=./old-python")
    assert answer.returncode != 0
    assert "not Python 3.11 to 3.14" in answer.stderr
    assert not (clone / ".venv").exists()


def test_the_environment_is_rebuilt_only_when_the_lock_or_the_metadata_change(clone: Path) -> None:
    (clone / ".venv").mkdir()
    stamp = clone / ".venv" / "installed"
    stamp.touch()
    for file in ("requirements.lock", "pyproject.toml"):
        os.utime(stamp, (2_000_000_000, 2_000_000_000))
        assert "pip sync" not in make(clone, "--dry-run", "test").stdout
        os.utime(clone / file, (2_000_000_001, 2_000_000_001))
        assert "pip sync" in make(clone, "--dry-run", "test").stdout
        os.utime(clone / file, (1_000_000_000, 1_000_000_000))
