"""The command line: exit codes, one sentence for every mistake, nothing written by it, and whole runs."""

import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from click.testing import Result
from PIL import Image

from robustbench_aig.contracts.noise import Stage, logistic
from robustbench_aig.contracts.policy import Stochastic
from robustbench_aig.data import load_dataset
from robustbench_aig.models import checkpoints
from robustbench_aig.models.architectures import build
from tests.cli.helpers import TINY, Run, refused

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def factories(elsewhere: Path) -> Path:
    """Models that a sweep must refuse, or that fail in the middle of one."""
    (elsewhere / "nets.py").write_text(
        """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, finish):
        super().__init__()
        self.finish = finish
        self.weight = nn.Parameter(torch.randn((64, 10), generator=torch.Generator().manual_seed(0)))
    def forward(self, images):
        return self.finish(images.flatten(1) @ self.weight)

def at_most_eight(logits):
    if len(logits) > 8:
        raise RuntimeError("too many images")
    return logits

def good(): return Net(lambda logits: logits)
def staircase(): return Net(lambda logits: logits.round())
def probabilities(): return Net(lambda logits: logits.softmax(1))
def broken(): return Net(lambda logits: logits / 0)
def maps(): return Net(lambda logits: logits[:, :, None])
def small_batches(): return Net(at_most_eight)
def deep():
    from robustbench_aig.models.architectures import build
    return build("aig44", classes=10, channels=1, norm=((0.3,), (0.4,))).eval()
def stopped(): raise KeyboardInterrupt
"""
    )
    return elsewhere / "nets.py"


SWEEP = ["sweep", "-m", "aig20@CHECKPOINT", "-o", "out"]


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["swep"], 2, "did you mean sweep"),
        (["sweep", "-m", "x", "--epss", "1"], 2, "No such option"),
        (["sweep", "-m", "resnet20-cifar", "-o", "out"], 2, "unknown model 'resnet20-cifar'"),
        (["sweep", "-m", "resnet20", "-o", "out"], 2, "architecture without weights"),
        (["sweep", "-m", "resnet20@nowhere", "-o", "out"], 3, "no checkpoint at nowhere"),
        (["sweep", "-m", "aig20@CHECKPOINT"], 2, "name the run folder"),
        ([*SWEEP, "-a", "fgms"], 2, "did you mean fgsm"),
        ([*SWEEP, "-a", "pgd:stride=3"], 2, "no parameter 'stride'"),
        ([*SWEEP, "-d", "jpg"], 2, "did you mean jpeg"),
        ([*SWEEP, "-d", "jpeg:0"], 2, "jpeg:0"),
        ([*SWEEP, "-d", "jpeg:75+"], 2, "unknown defense ''"),
        ([*SWEEP, "--data", "digit"], 2, "did you mean digits"),
        ([*SWEEP, "--data", "cifar10", "--data-dir", "nowhere"], 3, "nowhere/cifar-10-batches-py"),
        ([*SWEEP, "--eps", "-1"], 2, "epsilon '-1'"),
        ([*SWEEP, "--eps", "nan"], 2, "epsilon 'nan'"),
        ([*SWEEP, "--eps", "8/0"], 2, "divides by zero"),
        ([*SWEEP, "--eps", "8"], 2, "did you mean 8/255?"),
        ([*SWEEP, "--norm", "l2", "--eps", "9"], 2, "larger in l2 than the distance of any two images of 64 values, 8"),
        ([*SWEEP, "-a", "fgsm", "-a", "torchattacks:CW"], 2, "linf and l2, which share no budgets"),
        ([*SWEEP, "-a", "torchattacks:JSMA", "--eps", "8/255"], 2, "counts changed pixels"),
        ([*SWEEP, "-a", "torchattacks:TIFGSM"], 2, "takes images of 3 channels, not 1"),
        ([*SWEEP, "--protocol", "paper", "-a", "pgd"], 2, "--protocol paper chooses --attack itself"),
        ([*SWEEP, "--protocol", "paper", "-d", "jpeg", "--draws", "3"], 2, "chooses --defense and --draws itself"),
        ([*SWEEP, "--split", "val"], 2, "is not one of"),
        ([*SWEEP, "-m", "CHECKPOINT"], 2, "are the same network; give it once"),
        ([*SWEEP, "--eps", "small"], 2, "epsilon 'small'"),
        ([*SWEEP, "--limit", "0"], 2, "at least 1, not 0"),
        ([*SWEEP, "--draws", "0"], 2, "at least 1"),
        ([*SWEEP, "--batch-size", "0"], 2, "batch-size"),
        ([*SWEEP, "--gating", "random"], 2, "unknown gating"),
        ([*SWEEP, "--gating", "deterministic:2"], 2, "from 0 to 1"),
        ([*SWEEP, "--device", "tpu"], 2, "device 'tpu' is unknown"),
        ([*SWEEP, "--device", "cuda:99"], 3, "no device 'cuda:99'"),
        (["--config", "nowhere.toml", *SWEEP], 3, "cannot read nowhere.toml"),
        (["sweep", "-m", "resnet20@CHECKPOINT", "-o", "out"], 1, "holds a aig20"),
        (["train", "aig21", "-o", "out"], 2, "unknown architecture"),
        (["train", "aig20", "--recipe", "qick", "-o", "out"], 2, "did you mean quick"),
        (["train", "aig20", "--target-rate", "most", "-o", "out"], 2, "target rate 'most'"),
        (["train", "aig20", "--target-rate", "1,0.5", "-o", "out"], 2, "2 entries, the network 9 gates"),
        (["train", "aig20", "--target-rate", "1.5", "-o", "out"], 2, "[0, 1]"),
        (["train", "aig20", "--epochs", "0", "-o", "out"], 2, "at least 1"),
        (["train", "resnet18", "-o", "out"], 2, "3 channels"),
        (["train", "aig20", "--data", "foolbox:cifar10", "-o", "out"], 2, "no split 'train'"),
        (["import", "resnet20", "nowhere.pth", "-o", "out"], 3, "no checkpoint at nowhere.pth"),
        (["import", "resnet21", "nowhere.pth", "-o", "out"], 2, "unknown architecture"),
        (["report", "nowhere"], 3, "no run folder"),
        (["show", "nowhere"], 3, "no run folder"),
        (["compare", "nowhere"], 3, "no run folder"),
        (["compare", "nowhere", "--measure", "macs"], 3, "no run folder"),
        (["compare", "one", "other", "--measure", "macs"], 2, "name one run"),
        (["compare", "nowhere", "-a", "fgsm"], 2, "--attack goes with --measure"),
        (["audit", "nowhere"], 3, "no run folder"),
        (["audit", "nowhere", "--full"], 3, "no run folder"),
        ([*SWEEP, "--eot", "few"], 2, "--eot must be auto or a number"),
        ([*SWEEP, "--gating", "deterministic", "--attacker", "known-noise"], 2, "nothing in this grid is random"),
        ([*SWEEP, "-a", "torchattacks:PGD", "--attacker", "known-noise"], 2, "cannot be told each image's noise"),
        (["list", "model"], 2, "is not one of"),
        (["estimators", "-m", "resnet20-cifar10", "--limit", "2", "-o", "out"], 2, "has no gates"),
        (["estimators", "--repeats", "0", "-o", "out"], 2, "--repeats must be 1 or more"),
    ],
)
def test_mistakes(run: Run, elsewhere: Path, checkpoint: Path, arguments: list[str], code: int, text: str) -> None:
    refused(run(*(argument.replace("CHECKPOINT", str(checkpoint)) for argument in arguments)), code, text)
    assert list(elsewhere.iterdir()) == []


@pytest.mark.parametrize(
    ("function", "text"),
    [
        ("probabilities", "returns probabilities"),
        ("broken", "NaN or infinite"),
        ("maps", "must return logits of shape"),
    ],
)
def test_models_that_break_the_contract_are_refused(run: Run, factories: Path, function: str, text: str) -> None:
    refused(run("sweep", "-m", f"{factories}:{function}", *TINY, "-o", "out"), 1, text)
    assert not Path("out").exists()


@pytest.mark.parametrize(
    ("function", "attack", "text"),
    [
        ("good", "gates:open", "'nets:good' has none"),
        ("deep", "gates:route:to=101", "has 3 gates, this model has 21"),
        ("deep", "gates:route:to=class/lion", "unknown class 'lion'"),
        ("deep", "gates:universal:aim=misclassify,estimator=exact", "exact enumeration goes up to 10 gates"),
        ("deep", "gates:open:estimator=exact", "exact enumeration goes up to 10 gates"),
    ],
)
def test_gate_attacks_that_cannot_be_are_refused(
    run: Run, factories: Path, function: str, attack: str, text: str
) -> None:
    arguments = [
        "sweep",
        "-m",
        f"{factories}:{function}",
        "-a",
        attack,
        "--eps",
        "0.1",
        "--limit",
        "4",
        "-q",
        "-o",
        "out",
    ]
    refused(run(*arguments), 2, text)
    assert not Path("out").exists()


def test_folders_that_are_not_ours_are_refused(run: Run, checkpoint: Path) -> None:
    Path("mine").mkdir()
    Path("mine/notes.txt").write_text("mine")
    Path("file").write_text("a file")
    for out, text in (("mine", "no run of this suite"), ("file", "is a file"), ("file/below", "Not a directory")):
        refused(run("sweep", "-m", f"aig20@{checkpoint}", *TINY, "-o", out), 1, text)
    refused(run("train", "resnet20", "--recipe", "digits", "-o", "file/below"), 1, "cannot write file/below")
    refused(run("train", "resnet20", "--recipe", "digits", "-o", checkpoint), 1, "finished checkpoint")
    assert sorted(path.name for path in Path().rglob("*")) == ["file", "mine", "notes.txt"]


def test_ctrl_c_says_how_to_go_on(run: Run, factories: Path) -> None:
    arguments = ["sweep", "-m", f"{factories}:stopped", *TINY, "-o", "my results"]
    result = run(*arguments)
    assert result.exit_code == 130
    assert "robustbench-aig sweep -m" in result.stderr
    assert result.stderr.rstrip().endswith("-o 'my results'")


def test_a_sweep_resumes_reports_and_compares(run: Run, checkpoint: Path) -> None:
    sweep = [
        "sweep",
        "-m",
        f"aig20@{checkpoint}",
        *TINY,
        "-d",
        "none",
        "-d",
        "jpeg:75",
        "--attacker",
        "static",
        "-o",
        "run",
    ]
    planned = json.loads(run(*sweep, "--dry-run", "--json").stdout)
    assert len(planned) == 2 * 2 * 2
    assert not Path("run").exists()
    first = run(*sweep)
    assert first.exit_code == 0, first.stderr
    assert "aig20" in first.stdout
    table = Path("run/summary.csv").read_bytes()
    again = run(*sweep, "--json")
    assert Path("run/summary.csv").read_bytes() == table
    described = json.loads(again.stdout)
    assert {cell["id"] for cell in described["cells"]} == {cell["id"] for cell in planned}
    assert described["config"]["eps"] == ["0,0.1"]
    assert not {"out", "data_dir", "quiet"} & described["config"].keys()
    assert json.loads(run("show", "run", "--json").stdout)["summary"] == described["summary"]
    assert "aig20" in run("show", "run").stdout
    assert run("report", "-q", "run").stdout == ""
    assert Path("run/report.html").stat().st_size > 10_000
    compared = json.loads(run("compare", "run", "--json").stdout)
    assert {(pair["a"], pair["b"]) for pair in compared["comparisons"]} == {
        ("aig20 · stochastic", "aig20 · deterministic")
    }


def test_a_cell_that_fails_leaves_the_others_and_exits_with_4(run: Run, factories: Path) -> None:
    models = ["-m", f"{factories}:good", "-m", f"{factories}:small_batches"]
    result = run("sweep", *models, *TINY, "--batch-size", "12", "--attacker", "static", "-o", "run")
    assert result.exit_code == 4
    assert "too many images" in result.stderr
    assert set(pd.read_csv("run/summary.csv").model) == {"nets:good"}
    resumed = run("sweep", *models, *TINY, "--batch-size", "8", "--attacker", "static", "-o", "run")
    assert resumed.exit_code == 0
    assert set(pd.read_csv("run/summary.csv").model) == {"nets:good", "nets:small_batches"}


def test_strict_exits_with_5_where_the_audit_fails(run: Run, factories: Path) -> None:
    sweep = ["sweep", "-m", f"{factories}:staircase", *TINY, "--attacker", "static", "-o", "run"]
    assert run(*sweep).exit_code == 0
    strict = run(*sweep, "--strict")
    assert strict.exit_code == 5
    assert "no robustness claim" in strict.stderr


def test_training_resumes_and_its_checkpoint_is_a_model(run: Run) -> None:
    train = ["train", "resnet20", "--recipe", "digits", "--epochs", "1", "--device", "cpu", "-o", "trained"]
    first = run(*train)
    assert first.exit_code == 0, first.stderr
    assert "epoch 1/1" in first.stderr
    card = checkpoints.load(Path("trained"))[1]
    assert f"accuracy (test): {card.accuracy['test']:.4f}" in first.stdout
    assert card.provenance["versions"]["torch"] == torch.__version__.split("+")[0]
    weights = Path("trained/weights.safetensors").stat().st_mtime_ns
    again = run(*train, "--json")
    assert json.loads(again.stdout)["accuracy"] == card.accuracy
    assert Path("trained/weights.safetensors").stat().st_mtime_ns == weights
    refused(run(*train, "--seed", "1"), 1, "finished checkpoint")
    assert run("sweep", "-m", "trained", *TINY, "--attacker", "static", "-o", "run").exit_code == 0


def test_import_writes_a_checkpoint(run: Run) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = build("resnet20", classes=10, shortcut="A")
    torch.save({f"module.{key}": value for key, value in model.state_dict().items()}, "foreign.pth")
    assert run("import", "resnet20", "foreign.pth", "-o", "imported").exit_code == 0
    loaded, card = checkpoints.load(Path("imported"))
    assert card.options["shortcut"] == "A"
    assert torch.equal(loaded.state_dict()["fc.weight"], model.state_dict()["fc.weight"])
    refused(run("import", "resnet20", "foreign.pth", "-o", "imported"), 1, "holds a checkpoint already")


def planned(result: Result) -> list[str]:
    assert result.exit_code == 0, result.stderr
    return [cell["label"] for cell in json.loads(result.stdout)]


def test_flags_win_over_the_environment_over_the_file_over_defaults(run: Run, checkpoint: Path) -> None:
    Path("run.toml").write_text(
        f"[sweep]\nmodel = 'aig20@{checkpoint}'\nattack = 'bim'\nlimit = 3\nseed = [1]\n[train]\nseed = 4\n"
    )
    command = ["--config", "run.toml", "sweep", "--dry-run", "--json", "--gating", "expected", "--attacker", "static"]
    assert planned(run(*command))[1] == "aig20 · expected · none · bim · static · seed 1"
    environment = {"ROBUSTBENCH_AIG_SWEEP_ATTACK": "pgd mifgsm"}
    labels = planned(run(*command, env=environment))
    assert [label.split(" · ")[3] for label in labels] == ["none", "pgd", "mifgsm"]
    labels = planned(run(*command, "-a", "fgsm", env=environment))
    assert [label.split(" · ")[3] for label in labels] == ["none", "fgsm"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[sweep]\nmodell = 'x'", "did you mean model"),
        ("[swep]\nmodel = 'x'", "did you mean sweep"),
        ("model = 'x'", "outside a table"),
        ("[sweep\n", "not valid TOML"),
        ("[sweep]\nmodel='x'\ndraws = 'many'", "not a valid integer"),
    ],
)
def test_configuration_mistakes(run: Run, text: str, message: str) -> None:
    Path("run.toml").write_text(text)
    refused(run("--config", "run.toml", "sweep", "-o", "out"), 2, message)


def test_lists_are_the_same_in_text_and_json(run: Run) -> None:
    for kind in ("models", "attacks", "defenses", "datasets", "recipes", "checks", "benchmarks"):
        rows = json.loads(run("list", kind, "--json").stdout)
        lines = run("list", kind).stdout.splitlines()
        assert len(lines) == len(rows) + 1
        for row, line in zip(rows, lines[1:], strict=True):
            assert line.split()[0] == next(iter(row.values()))


def test_list_models_counts_parameters_and_macs(run: Run) -> None:
    rows = {row["name"]: row for row in json.loads(run("list", "models", "--macs", "--json").stdout)}
    assert rows["aig110"]["parameters"] == 1_766_630
    assert rows["aig110"]["macs"] == pytest.approx(0.2532e9, rel=5e-3)


def test_doctor_finds_what_the_tests_run_on(run: Run) -> None:
    result = run("doctor", "--json")
    assert result.exit_code == 0, result.output
    findings = {finding["what"]: finding for finding in json.loads(result.stdout)}
    assert torch.__version__ in findings["torch"]["text"]
    assert findings["python"]["verdict"] == "ok"


def test_help_lists_and_mistakes_do_not_import_torch(elsewhere: Path) -> None:
    code = """
import sys
from click.testing import CliRunner
from cli import cli

lists = [["list", kind] for kind in ("models", "attacks", "defenses", "datasets", "recipes", "checks", "benchmarks")]
helps = [["--help"], ["--version"], *([name, "--help"] for name in cli.commands)]
mistakes = [
    ["swep"],
    ["sweep"],
    ["train", "aig21", "-o", "out"],
    ["train", "aig20", "--recipe", "qick", "-o", "out"],
    ["train", "aig20", "--data", "nothing", "-o", "out"],
    *(
        ["sweep", "-m", "aig20@x", "-o", "out", *wrong]
        for wrong in (
            ["--eps", "8/0"], ["-a", "fgsm", "-a", "nothing"], ["-d", "jpeg:75", "-d", "nothing"], ["-m", "nothing"],
            ["--data", "nothing"], ["--gating", "nothing"], ["--batch-size", "0"], ["--limit", "0"], ["--norm", "l3"],
        )
    ),
]
for expected, commands in ((0, lists + helps), (2, mistakes)):
    for arguments in commands:
        result = CliRunner().invoke(cli, arguments)
        assert result.exit_code == expected, (arguments, result.output)
        assert "torch" not in sys.modules, arguments
"""
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_audit_shows_every_finding_and_repeats_the_sweep_in_full(run: Run, factories: Path) -> None:
    run("sweep", "-m", f"{factories}:staircase", *TINY, "--attacker", "static", "-o", "run")
    shown = run("audit", "run")
    assert shown.exit_code == 0, shown.stderr
    assert "NOT A ROBUSTNESS CLAIM" in shown.stdout
    assert "G2 zero gradients" in shown.stdout
    assert run("audit", "run", "--strict").exit_code == 5
    core = json.loads(run("audit", "run", "--json").stdout)
    assert core["claim_valid"] is False
    table = Path("run/summary.csv").read_bytes()
    repeated = run("audit", "run", "--full", "--json", "-q")
    assert repeated.exit_code == 0, repeated.stderr
    full = json.loads(repeated.stdout)
    added = {entry["id"] for entry in full["audit"]} - {entry["id"] for entry in core["audit"]}
    assert added == {"T2", "T5", "S3", "S4", "S5"}
    assert Path("run/summary.csv").read_bytes() == table
    assert json.loads(run("show", "run", "--json").stdout)["config"]["audit"] == "full"


def test_the_paper_protocol_is_one_noisy_gradient_and_a_late_codec(run: Run, checkpoint: Path) -> None:
    tiny = [part for part in TINY if part not in ("--draws", "2")]
    result = run("sweep", "-m", f"aig20@{checkpoint}", *tiny, "--protocol", "paper", "-o", "run")
    assert result.exit_code == 0, result.stderr
    config = json.loads(Path("run/run.json").read_text())["config"]
    assert (config["attack"], config["defense"], config["draws"]) == (["fgsm"], ["none", "jpeg:75,floor"], 1)
    title = "accuracy [95 %] · fgsm · "
    assert -1 < result.stdout.find(f"{title}static") < result.stdout.find(f"{title}adaptive")
    summary = pd.read_csv("run/summary.csv").query("gating == 'stochastic' and eps > 0")
    assert set(summary.draws) == {1}
    assert set(summary.defense) == {"none", "jpeg:75,quantize=floor"}
    network, data = checkpoints.load(checkpoint)[0].eval(), load_dataset("digits", limit=12)
    images = data.images(torch.arange(12)).requires_grad_()

    def logits(seen: torch.Tensor, stage: Stage) -> torch.Tensor:
        policy = Stochastic(logistic(0, stage, data.ids, 9, [0])[0], "straight-through")
        found: torch.Tensor = network.traced(seen, policy)[0]
        return found

    torch.nn.functional.cross_entropy(logits(images, "craft"), data.labels).backward()
    assert images.grad is not None
    moved = (images + 0.1 * images.grad.sign()).clamp(0, 1).detach()
    for defense, seen in (("none", moved), ("jpeg:75,quantize=floor", stored(moved))):
        cell = summary.query(f"defense == '{defense}' and attacker == 'static'").cell.iloc[0]
        predictions = pd.read_parquet(f"run/cells/{cell}/samples.parquet").prediction.to_numpy()
        assert (predictions == logits(seen, "score").argmax(1).numpy()).all()


def stored(images: torch.Tensor) -> torch.Tensor:
    """Grey images (N, 1, H, W) after 8-bit levels by cutting off, and JPEG at quality 75."""
    decoded = []
    for levels in (images[:, 0] * 255).to(torch.uint8).numpy():
        buffer = io.BytesIO()
        Image.fromarray(levels).save(buffer, "JPEG", quality=75)
        decoded.append(torch.from_numpy(np.array(Image.open(buffer))))
    return torch.stack(decoded)[:, None].float() / 255


def test_estimators_are_held_against_the_exact_gradient(run: Run, checkpoint: Path) -> None:
    done = run("estimators", "-m", f"aig20@{checkpoint}", "--limit", "2", "--repeats", "1", "-o", "found", "--json")
    assert done.exit_code == 0, done.stderr
    rows = json.loads(done.stdout)
    exact = [row for row in rows if row["estimator"] == "exact"]
    assert {row["objective"] for row in exact} == {"multiply-adds", "cross-entropy"}
    assert all(row["cosine"] == 1 for row in exact)
    assert max(row["cosine"] for row in rows) <= 1
    assert len(Path("found/estimators.csv").read_text().splitlines()) == len(rows) + 1
    assert Path("found/estimators.png").stat().st_size > 10_000
