"""Which module may import which, and what importing the front doors costs."""

import ast
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
OURS = frozenset({"attacks", "cli", "defenses", "robustbench_aig"})
HEAVY = frozenset(
    {"foolbox", "matplotlib", "pandas", "pyarrow", "scipy", "sklearn", "torch", "torchattacks", "torchvision"}
)

# Where each part may reach besides itself; a dotted name allows that module alone.
ALLOWED = {
    "attacks": {"robustbench_aig"},
    "defenses": {"robustbench_aig.registry", "robustbench_aig.errors"},
    "robustbench_aig": set(),
    "cli": {"attacks", "defenses", "robustbench_aig"},
}
# ``python -m robustbench_aig`` is the command itself.
ENTRY = Path("robustbench_aig/__main__.py")


def imports(source: str, package: str) -> Iterator[str]:
    """Dotted names of everything that a module of ``package`` imports, at any depth, also under TYPE_CHECKING.

    ``from a.b import c`` gives ``a.b.c``: whether ``c`` is a module does not matter to the question who reaches whom.
    """
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import(names=names):
                yield from (alias.name for alias in names)
            case ast.ImportFrom(module=module, names=names, level=level):
                base = package.split(".")[: len(package.split(".")) - level + 1] if level else []
                yield from (".".join([*base, *([module] if module else []), alias.name]) for alias in names)
            case ast.Call(
                func=ast.Name(id="import_module") | ast.Attribute(attr="import_module"),
                args=[ast.Constant(value=str(name)), *_],
            ):
                yield name


def breaches(part: str, source: str, package: str) -> list[str]:
    """Imports of ours, outside ``part`` itself, that ALLOWED does not grant."""
    found = [name for name in imports(source, package) if name.split(".")[0] in OURS - {part}]
    return [name for name in found if not any(f"{name}.".startswith(f"{allowed}.") for allowed in ALLOWED[part])]


def modules(part: str) -> list[Path]:
    return [ROOT / "cli.py"] if part == "cli" else sorted((ROOT / part).rglob("*.py"))


@pytest.mark.parametrize("part", sorted(ALLOWED))
def test_dependencies_point_one_way(part: str) -> None:
    files = modules(part)
    assert files
    found = {}
    for file in files:
        relative = file.relative_to(ROOT)
        wrong = breaches(part, file.read_text(), ".".join(relative.parent.parts))
        if wrong and relative != ENTRY:
            found[str(relative)] = wrong
    assert not found


@pytest.mark.parametrize(
    ("part", "source", "wrong"),
    [
        ("robustbench_aig", "def f():\n    from attacks.pgd import PGD", ["attacks.pgd.PGD"]),
        ("robustbench_aig", "import importlib\nimportlib.import_module('defenses.jpeg')", ["defenses.jpeg"]),
        ("robustbench_aig", "from . import store\nfrom robustbench_aig.errors import UserError", []),
        ("defenses", "from robustbench_aig.errors import UserError\nfrom robustbench_aig import registry", []),
        ("defenses", "from robustbench_aig.registry_of_others import x", ["robustbench_aig.registry_of_others.x"]),
        ("defenses", "import attacks", ["attacks"]),
        ("attacks", "from robustbench_aig.evaluation.target import Target\nimport torch", []),
        ("attacks", "import cli", ["cli"]),
    ],
)
def test_breaches_are_seen(part: str, source: str, wrong: list[str]) -> None:
    assert breaches(part, source, part) == wrong


def test_the_entry_point_only_calls_the_command() -> None:
    assert list(imports((ROOT / ENTRY).read_text(), "robustbench_aig")) == ["cli.main"]


@pytest.mark.parametrize("module", ["attacks", "cli", "defenses", "robustbench_aig"])
def test_front_doors_import_nothing_heavy(module: str) -> None:
    code = f"import json, sys, {module}; print(json.dumps(sorted({{name.split('.')[0] for name in sys.modules}})))"
    answer = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert HEAVY.isdisjoint(json.loads(answer.stdout))


def processor_seconds(*arguments: str) -> float:
    """User and system time of ``cli.py`` with the arguments, which a busy machine hardly changes; best of three."""

    def once() -> float:
        child = subprocess.Popen([sys.executable, "cli.py", *arguments], cwd=ROOT, stdout=subprocess.DEVNULL)
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        assert child.returncode == 0
        return usage.ru_utime + usage.ru_stime

    return min(once() for _ in range(3))


@pytest.mark.parametrize("arguments", [("--help",), ("sweep", "--help"), ("list", "attacks"), ("list", "defenses")])
def test_help_and_lists_answer_at_once(arguments: tuple[str, ...]) -> None:
    processor_seconds(*arguments)  # writes the byte code
    assert processor_seconds(*arguments) < 0.5


@pytest.mark.parametrize(
    "arguments", [("--help",), ("list", "attacks"), ("list", "models"), ("sweep", "--model", "no-such")]
)
def test_quick_answers_do_not_import_torch(arguments: tuple[str, ...]) -> None:
    """Usage errors included: -X importtime reports on stderr each module as it is imported."""
    command = [sys.executable, "-X", "importtime", "cli.py", *arguments]
    answer = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert answer.returncode in {0, 2}, answer.stderr.splitlines()[-1]
    imported = {
        line.rsplit("|", 1)[1].strip() for line in answer.stderr.splitlines() if line.startswith("import time:")
    }
    assert {"attacks", "defenses"} <= imported
    assert "torch" not in imported
