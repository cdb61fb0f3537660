"""The registry: lists that import nothing, one file for a new thing, and other people's classes, broken ones too."""

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

import attacks
import defenses
from cli import cli
from robustbench_aig.contracts.gating import Gating
from robustbench_aig.contracts.target import Passes, Target
from robustbench_aig.errors import Prerequisite, UsageError, UserError
from robustbench_aig.registry import GIVEN_ELSEWHERE, HABITS, Registry

ATTACK = '''
from dataclasses import dataclass
import torch
from beside import FACTOR
from robustbench_aig.contracts.attack import Attack

@dataclass(frozen=True, kw_only=True)
class Brighter(Attack):
    """Adds a share of the budget."""

    share: float = 1.0

    def __call__(self, target, images, labels, budgets):
        return torch.stack([(images + FACTOR * self.share * budget).clamp(0, 1) for budget in budgets])
'''
DEFENSE = '''
from dataclasses import dataclass
from robustbench_aig.contracts.defense import Defense

@dataclass(frozen=True)
class Darker(Defense):
    """Scales images."""

    factor: float = 0.5

    def __call__(self, images, uniform=None):
        return self.factor * images
'''


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Registry[object]]]:
    """Writes a package of files and returns its registry."""
    monkeypatch.syspath_prepend(str(tmp_path))
    before = set(sys.modules)

    def write(files: dict[str, str], **facts: object) -> Registry[object]:
        for name, text in {"__init__.py": "", **files}.items():
            path = tmp_path / "toys" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return Registry("toy", "toys", **facts)

    yield write
    for name in set(sys.modules) - before:
        if name.partition(".")[0] == "toys":
            del sys.modules[name]


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """A folder with an attack, the module that it imports from beside it, and a defence."""
    (tmp_path / "mine.py").write_text(ATTACK)
    (tmp_path / "beside.py").write_text("FACTOR = 1\n")
    (tmp_path / "dark.py").write_text(DEFENSE)
    return tmp_path


def target(count: int) -> Target:
    rows = torch.arange(count)
    return Target(torch.nn.Identity(), Gating("none"), rows, rows, Passes.none(count), seed=0)


def test_a_list_reads_files_and_imports_none(package: Callable[..., Registry[object]]) -> None:
    wooden = '@register("car", "drives", wheels=4)\n@other(\n    1,\n)\nclass Car:\n    pass\n'
    both = '@register("ball", "rolls")\n@register("box", "stands")  # twice\ndef solid():\n    return 1\n'
    inner = '    @register("no", "is indented")\n    def no(): ...\n'
    registry = package(
        {"wooden.py": f"raise RuntimeError\n{wooden}", "deep/both.py": both, "deep/inner.py": f"if True:\n{inner}"},
        wheels=0,
    )
    listed = {entry.name: (entry.summary, entry.target, dict(entry.facts)) for entry in registry.entries()}
    assert listed == {
        "ball": ("rolls", "toys.deep.both:solid", {"wheels": 0}),
        "box": ("stands", "toys.deep.both:solid", {"wheels": 0}),
        "car": ("drives", "toys.wooden:Car", {"wheels": 4}),
    }
    assert "toys.wooden" not in sys.modules
    with pytest.raises(RuntimeError):  # our own file: a mistake is not made pretty
        registry.entry("car").load()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('@register("a", "one")\ndef f(): ...\n@register("a", "two")\ndef g(): ...\n', "'a' is registered twice"),
        ('@register("a", "one", colour="red")\ndef f(): ...\n', "unknown facts: colour"),
        ('@register("a", SUMMARY)\ndef f(): ...\n', "all literals"),
        ('@register("a")\ndef f(): ...\n', "a name, a summary"),
    ],
)
def test_mistakes_in_a_decorator_are_told(package: Callable[..., Registry[object]], text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        list(package({"wrong.py": text}).entries())


def test_a_new_attack_is_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    head = "from robustbench_aig.registry import register\n"
    text = ATTACK.replace("from beside import FACTOR", "FACTOR = 1").replace(
        "@dataclass", '@register("brighter", "adds light", access="none", aims_at="nothing")\n@dataclass'
    )
    (tmp_path / "brighter.py").write_text(head + text)
    monkeypatch.setattr(attacks, "__path__", [*attacks.__path__, str(tmp_path)])
    monkeypatch.setattr(attacks.__spec__, "submodule_search_locations", attacks.__path__)
    monkeypatch.setattr(attacks, "registry", Registry("attack", "attacks", **attacks.registry.facts))
    rows = json.loads(CliRunner().invoke(cli, ["list", "attacks", "--json"]).stdout)
    (row,) = [row for row in rows if row["name"] == "brighter"]
    assert (row["summary"], row["access"], row["aims_at"]) == ("adds light", "none", "nothing")
    made = attacks.make("brighter:share=1/2", norm="l2")
    assert made.settings() == {"name": "brighter", "norm": "l2", "share": 0.5}
    assert (made.aims_at, made.needs_gradient) == ("nothing", False)


def test_an_attack_of_a_file(mine: Path) -> None:
    path = mine / "mine.py"
    made = attacks.make(f"{path}:Brighter:share=0.5", norm="l2")
    assert (made.name, made.label, made.norm) == ("mine.py:Brighter", "mine.py:Brighter:share=0.5", "l2")
    images = torch.full((2, 1, 2, 2), 0.5)
    (found,) = made(target(2), images, torch.zeros(2, dtype=torch.int64), [0.2])
    assert torch.allclose(found, images + 0.1)
    assert attacks.make(f"{path}:Brighter:share=0.5", norm="l2").settings() == made.settings()
    code = made.settings()["code"]
    path.write_text(ATTACK.replace("Adds a share", "Adds some share"))
    changed = attacks.make(f"{path}:Brighter:share=0.5", norm="l2").settings()
    assert changed["code"] != code
    assert {**changed, "code": code} == made.settings()
    (mine / "beside.py").write_text("FACTOR = 2\n")
    doubled = attacks.make(f"{path}:Brighter:share=0.5")
    assert torch.allclose(doubled(target(2), images, torch.zeros(2, dtype=torch.int64), [0.2]), images + 0.2)
    assert doubled.settings()["code"] not in (code, changed["code"])


def test_a_defence_of_a_file_alone_and_among_others(mine: Path) -> None:
    made = defenses.make(f"{mine / 'dark.py'}:Darker:0.25")
    assert (made.name, made.label) == ("dark.py:Darker", "dark.py:Darker:0.25")
    assert torch.equal(made(torch.ones(1, 1, 2, 2)), torch.full((1, 1, 2, 2), 0.25))
    assert set(made.settings()) == {"name", "factor", "code"}
    both = defenses.make(f"bitdepth:3+{mine / 'dark.py'}:Darker")
    assert both.label == "bitdepth:3+dark.py:Darker:0.5"
    assert both.settings()["members"][1]["code"] == made.settings()["code"]


@pytest.mark.parametrize(
    ("text", "attribute", "kind", "message"),
    [
        (None, "Mine", Prerequisite, "there is no file"),
        ("", "", UsageError, "needs the name of a class"),
        ("", "Mine", UserError, "has no class 'Mine'"),
        ("Mine = 3", "Mine", UserError, "is no attack: it must be a class that derives from"),
        ("class Mine: pass", "Mine", UserError, "is no attack"),
        ("def Mine(): pass", "Mine", UserError, "is no attack"),
        ("from attacks.common.search import Stepwise as Mine", "Mine", UserError, "incomplete: it must define attack"),
        ("x = 1\nraise KeyError('k')", "Mine", UserError, "raised KeyError: 'k' in line 2"),
        ("x = 1\n\nraise ValueError", "Mine", UserError, "raised ValueError in line 3"),
        ("def f(:", "Mine", UserError, "raised SyntaxError: .* in line 1"),
        ("import sys\nsys.exit(3)", "Mine", UserError, "raised SystemExit: 3 in line 2"),
        ("import no_such_module", "Mine", UserError, "No module named 'no_such_module' in line 1"),
        (ATTACK + "    steps: int = 'many'\n", "Brighter:steps=x", UsageError, "'steps' must be int"),
        (ATTACK + "    kind: object = object()\n", "Brighter", UserError, "settings must be numbers"),
        (ATTACK + "    kind: 'Missing' = 1\n", "Brighter", UserError, "name 'Missing' is not defined"),
        (ATTACK + "    def __init__(self, a=1): pass\n", "Brighter", UserError, "must be a frozen dataclass"),
        (ATTACK + "    def __post_init__(self): raise ValueError('never')\n", "Brighter", UsageError, "never"),
        (
            ATTACK + "    def __post_init__(self): raise KeyError('oh')\n",
            "Brighter",
            UserError,
            "KeyError: 'oh'; mend",
        ),
    ],
)
def test_a_file_that_cannot_be_used_is_one_sentence(
    mine: Path, text: str | None, attribute: str, kind: type[UserError], message: str
) -> None:
    path = mine / "wrong.py"
    if text is not None:
        path.write_text(text)
    with pytest.raises(kind, match=message) as caught:
        attacks.make(f"{path}:{attribute}")
    assert type(caught.value) is kind
    assert "\n" not in str(caught.value)


def test_what_a_file_prints_does_not_reach_stdout(mine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (mine / "loud.py").write_text("print('hello')\n" + DEFENSE)
    defenses.make(f"{mine / 'loud.py'}:Darker")
    said = capsys.readouterr()
    assert (said.out, said.err) == ("", "hello\n")


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package of somebody else's that brings a good attack and five that cannot be used."""
    info = tmp_path / "others-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: others\nVersion: 1.0\n")
    points = {
        "good": "others_good:Brighter",
        "raises": "others_raises:Brighter",
        "absent": "others_absent:Brighter",
        "nothing": "others_good:Nothing",
        "function": "others_good:dataclass",
        "defence": "others_dark:Darker",
        "pgd": "others_good:Brighter",
    }
    lines = "\n".join(f"{name} = {value}" for name, value in points.items())
    (info / "entry_points.txt").write_text(f"[robustbench_aig.attacks]\n{lines}\n")
    (tmp_path / "others_good.py").write_text(ATTACK.replace("from beside import FACTOR", "FACTOR = 1"))
    (tmp_path / "others_raises.py").write_text("raise RuntimeError('broken\\nbadly')")
    (tmp_path / "others_dark.py").write_text(DEFENSE)
    monkeypatch.syspath_prepend(str(tmp_path))
    given = (attacks.registry.kind, "attacks", attacks.registry.group, attacks.registry.base)
    monkeypatch.setattr(attacks, "registry", Registry(*given, **attacks.registry.facts))


@pytest.mark.usefixtures("installed")
def test_packages_bring_attacks_and_a_broken_one_does_not_hide_the_others() -> None:
    listed = {entry.name: entry for entry in attacks.registry.entries()}
    assert {"good", "raises", "absent", "nothing", "function", "defence"} <= set(listed)
    assert listed["good"].summary == "from package others"
    assert listed["pgd"].target == "attacks.pgd:PGD"
    assert attacks.make("good:share=0.5").label == "good:share=0.5"
    result = CliRunner().invoke(cli, ["list", "attacks"])
    assert result.exit_code == 0
    assert "from package others" in result.stdout


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("raises", r"'raises' of package others cannot be loaded \(RuntimeError: broken\)"),
        ("absent", "No module named 'others_absent'"),
        ("nothing", "has no attribute 'Nothing'"),
        ("function", "'function' of package others is no attack"),
        ("defence", "'defence' of package others is no attack"),
    ],
)
def test_a_broken_package_is_one_sentence(name: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        attacks.make(name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("specification", "message"),
    [
        ("pgdd:steps=40,restarts=5", "unknown attack 'pgdd'; did you mean pgd"),
        ("gates:opn", "unknown attack 'gates:opn'; did you mean gates:open"),
        ("torchattacks", "'torchattacks' is incomplete"),
        ("torchattacks:NAME", "'torchattacks:NAME' is incomplete"),
        ("pgd:iters=3", r"has no parameter 'iters'; it takes: .*\(did you mean steps\?\)"),
        ("pgd:alpha=1/255", r"\(did you mean step\?\)"),
        ("pgd:eps_iter=1/255", r"\(did you mean step\?\)"),
        ("pgd:n_restarts=3", r"\(did you mean restarts\?\)"),
        ("pgd:step=10", r"did you mean steps=10\?"),
        ("apgd:step=3", r"\(did you mean steps\?\)"),
        ("apgd:stepz=3", r"\(did you mean steps\?\)"),
        ("square:n_queries=3", r"\(did you mean queries\?\)"),
        ("fgsm:eps=8/255", r"\(eps is given for all attacks, by --eps\)"),
        ("fgsm:iters=3", "it takes: norm, loss, average, goal.$"),
        ("torchattacks:PGD:iters=3", r"it takes: alpha, steps, random_start \(did you mean steps\?\)"),
        ("torchattacks:PGD:eps=8/255", r"by --eps\)"),
    ],
)
def test_wrong_names_get_the_one_that_was_meant(specification: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        attacks.make(specification)


def test_habits_of_other_libraries_lead_to_parameters_that_exist() -> None:
    ours = {
        key for entry in attacks.registry.entries() if not entry.family for key in attacks.make(entry.name).settings()
    }
    assert {meant for several in HABITS.values() for meant in several} <= ours
    options = {option for parameter in cli.commands["sweep"].params for option in parameter.opts}
    assert set(GIVEN_ELSEWHERE.values()) <= options


def test_a_sweep_with_a_users_attack_and_defence_resumes_until_the_file_changes(
    mine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(mine)
    Path("tiny.py").write_text(
        "import torch\n"
        "def model():\n"
        "    torch.manual_seed(0)\n"
        "    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))\n"
    )
    command = ["sweep", "-m", "tiny.py:model", "--limit", "16", "-a", "mine.py:Brighter", "-d", "dark.py:Darker"]
    command += ["--eps", "0.1", "--json"]
    first = CliRunner().invoke(cli, [*command, "-o", "run"])
    assert first.exit_code == 0, first.output
    rows = json.loads(Path("run/run.json").read_text())["cells"]
    labels = {row["label"] for row in rows}
    assert any("dark.py:Darker:0.5 · mine.py:Brighter · adaptive" in label for label in labels)
    planned = CliRunner().invoke(cli, [*command, "--dry-run"])
    assert {row["id"] for row in json.loads(planned.stdout)} == {row["id"] for row in rows}
    Path("mine.py").write_text(ATTACK.replace("a share", "one share"))
    changed = CliRunner().invoke(cli, [*command, "--dry-run"])
    assert len({row["id"] for row in json.loads(changed.stdout)} & {row["id"] for row in rows}) == 1  # the clean cell
