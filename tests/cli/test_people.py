"""Files, folders and models as people have them, through the command line."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from robustbench_aig.data import load_dataset
from robustbench_aig.report import read_run
from tests.cli.helpers import TINY, Run, refused

ROOT = Path(__file__).resolve().parents[2]

NETS = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, look=lambda x: x, finish=lambda x: x):
        super().__init__()
        self.look, self.finish, self.passes = look, finish, 0
        self.weight = nn.Parameter(torch.randn((64, 10), generator=torch.Generator().manual_seed(0)))
    def forward(self, images):
        self.passes += 1
        return self.finish(self.look(images).view(len(images), -1) @ self.weight)

def at_most_eight(logits):
    if len(logits) > 8:
        raise RuntimeError("too many images\\nfor this network")
    return logits

def plain(): return Net()
def few(): return Net(finish=at_most_eight)
def squeezing(): return Net(finish=lambda logits: logits.squeeze())
def writing(): return Net(look=lambda images: images.sub_(0.5))
def shifted(): return Net(look=lambda images: images - 0.5)
def talking():
    print("building")
    return Net(look=lambda images: print("looking") or images)

class Stopped(Net):
    def forward(self, images):
        if self.passes > 5:
            raise KeyboardInterrupt
        return super().forward(images)
def stopped(): return Stopped()
"""


@pytest.fixture
def nets(elsewhere: Path) -> Path:
    (elsewhere / "nets.py").write_text(NETS)
    return elsewhere / "nets.py"


def digits_in(root: Path, classes: tuple[str, ...], count: int, levels: int = 1, part: str = "") -> Path:
    """Digits as PNG files of 8 x 8 grey pixels, one of each class in turn; ``levels`` of 257 writes them in 16 bits."""
    data = load_dataset("digits")
    pixels = data.uint8(torch.arange(len(data)))[:, 0].numpy()
    for number, name in enumerate(classes):
        folder = root / part / name
        folder.mkdir(parents=True)
        for row in np.flatnonzero(data.labels.numpy() == number)[:count]:
            image = pixels[row].astype(np.uint16) * levels if levels > 1 else pixels[row]
            Image.fromarray(image).save(folder / f"{row}.png")
    return root


DIGITS = tuple("abcdefghij")
GREY = "resize=none,crop=none,channels=1"


def folder_sweep(root: Path, nets: str, *more: str) -> list[str]:
    tiny = [part for part in TINY if part not in ("--data", "digits")]
    return ["sweep", "-m", nets, "--data", f"imagefolder:{root},{GREY}", *tiny, "--attacker", "static", *more]


def accuracies(out: str = "out") -> dict[str, float]:
    rows = read_run(Path(out)).summary
    return dict(zip(rows["eps_label"], rows["accuracy"], strict=True))


def test_when_every_cell_fails_the_reason_is_the_sentence(run: Run, nets: Path) -> None:
    sweep = ["sweep", "-m", f"{nets}:few", *TINY, "--batch-size", "12", "-o", "out"]
    result = run(*sweep)
    assert result.exit_code == 1
    assert result.stdout == ""
    *cells, error = result.stderr.splitlines()
    assert "every cell failed (RuntimeError: too many images (nets.py, line 16))" in error
    assert len(cells) == 1
    assert "and 1 more: RuntimeError" in cells[0]
    refused(run("show", "out"), 3, "no cell of 'out' is finished (RuntimeError: too many images (nets.py, line 16))")
    loud = run(*[part for part in sweep if part != "-q"])
    assert "Traceback" not in loud.stderr
    assert loud.stderr.count("too many images") == 3  # each cell as it fails, and the end


def test_after_ctrl_c_what_is_finished_can_be_read(run: Run, nets: Path) -> None:
    sweep = ["sweep", "-m", f"{nets}:plain", "-m", f"{nets}:stopped", *TINY, "--attacker", "static", "-o", "out"]
    stopped = run(*sweep)
    assert stopped.exit_code == 130
    assert "go on with: robustbench-aig sweep -m" in stopped.stderr
    shown = run("show", "out")
    assert shown.exit_code == 0, shown.stderr
    finished = read_run("out")
    assert set(finished.summary["model"]) >= {"nets:plain"}
    assert finished.unfinished >= 1
    assert run("report", "-q", "out").exit_code == 0
    assert Path("out/report.html").exists()


def test_what_models_print_does_not_reach_the_results(run: Run, nets: Path) -> None:
    result = run("sweep", "-m", f"{nets}:talking", *TINY, "-o", "out", "--json")
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["cells"]
    assert "building\n" in result.stderr
    assert "looking\n" in result.stderr


@pytest.mark.parametrize(("function", "same"), [("squeezing", "plain"), ("writing", "shifted")])
def test_networks_that_squeeze_and_write_have_the_verdicts_of_those_that_do_not(
    run: Run, nets: Path, function: str, same: str
) -> None:
    more = ["--limit", "33", "--batch-size", "16", "-a", "pgd:steps=3", "-a", "torchattacks:PGD:steps=2"]
    for name in (function, same):
        result = run("sweep", "-m", f"{nets}:{name}", *TINY, *more, "-o", name)
        assert result.exit_code == 0, result.stderr
    one, other = (read_run(name) for name in (function, same))
    assert one.summary["accuracy"].tolist() == other.summary["accuracy"].tolist()
    assert one.summary["accuracy"].nunique() > 1
    verdicts = {entry.id: entry.verdict for entry in one.audit}
    assert verdicts == {entry.id: entry.verdict for entry in other.audit}


def test_grey_pictures_in_8_and_16_bits_have_one_accuracy(run: Run, nets: Path) -> None:
    found = []
    for levels in (1, 257):
        root = digits_in(Path(f"bits{levels}"), DIGITS, 3, levels)
        assert run(*folder_sweep(root, f"{nets}:plain", "-o", f"out{levels}", "--limit", "30")).exit_code == 0
        found.append(accuracies(f"out{levels}"))
    data = load_dataset("digits")
    rows = torch.cat([(data.labels == number).nonzero()[:3, 0] for number in range(10)])
    weight = torch.randn((64, 10), generator=torch.Generator().manual_seed(0))
    right = ((data.images(rows).flatten(1) @ weight).argmax(1) == data.labels[rows]).float().mean().item()
    assert found[0] == found[1]
    assert found[0]["0"] == pytest.approx(right)


def test_a_class_called_all_leaves_the_group_of_all_images(run: Run, checkpoint: Path) -> None:
    root = digits_in(Path("pets"), ("all", *DIGITS[1:]), 2)
    assert run(*folder_sweep(root, f"aig20@{checkpoint}", "-o", "out", "--limit", "20")).exit_code == 0
    sizes = pd.read_csv("out/execution.csv").groupby("group")["n"].first()
    assert sizes["all"] == 20
    assert sizes["class all"] == 2
    assert run("report", "out", "-q", "--group", "class all").exit_code == 0
    assert Path("out/figures/execution-class-all.png").exists()


def test_parts_and_sizes_of_an_image_folder_are_said_and_chosen(run: Run, nets: Path) -> None:
    root = digits_in(digits_in(Path("pets"), DIGITS, 1, part="test"), DIGITS, 3, part="train")
    for split, images in (("test", 10), ("train", 27)):
        arguments = folder_sweep(root, f"{nets}:plain", "--limit", "99", "--split", split, "-o", split)
        assert run(*arguments).exit_code == 0
        assert set(read_run(split).summary["n"]) == {images}
        assert read_run(split).config["split"] == split
    plain = [part for part in folder_sweep(root, f"{nets}:plain", "-o", "out") if part != "-q"]
    plain = [part.partition(f",{GREY}")[0] for part in plain]
    result = run(*plain)
    assert result.exit_code == 1
    note, error = result.stderr.splitlines()
    assert note == (
        "imagefolder:pets: the first image has 8x8 pixels in grey; images are resized to 256, cut to 224x224, "
        "read in colour. To keep them as they are: imagefolder:PATH,resize=none,crop=none,channels=1"
    )
    assert "cannot take 8 images of 3x224x224" in error
    shutil.rmtree(root / "test")
    refused(run(*folder_sweep(root, f"{nets}:plain", "-o", "none")), 3, "choose another with --split")


def test_an_attack_that_needs_more_classes_is_refused_beforehand(run: Run, elsewhere: Path) -> None:
    root = digits_in(Path("pets"), DIGITS[:3], 4)
    code = NETS.replace("(64, 10)", "(64, 3)")
    (elsewhere / "three.py").write_text(code)
    arguments = folder_sweep(root, "three.py:plain", "-o", "out")
    refused(run(*arguments, "-a", "fgsm", "-a", "apgd-t"), 2, "the DLR loss needs 4 classes or more, not 3")
    refused(run(*arguments, "-a", "torchattacks:AutoAttack"), 2, "needs 4 classes or more, not 3")
    assert not Path("out").exists()
    assert run(*arguments, "-a", "apgd-t:loss=margin,steps=2").exit_code == 0
    alone = digits_in(Path("alone"), DIGITS[:1], 4)
    refused(run(*folder_sweep(alone, "three.py:plain", "-o", "one")), 2, "has one class, so there is no wrong one")


def test_names_with_dollars_and_bytes_that_are_no_text(run: Run, elsewhere: Path) -> None:
    folder = elsewhere / os.fsdecode(b"caf\xe9")
    folder.mkdir()
    (folder / "$x^{$.py").write_text(NETS)
    root = digits_in(folder / "pets", (os.fsdecode(b"\xe9t\xe9"), *DIGITS[1:]), 2)
    result = run(*folder_sweep(root, f"{folder / '$x^{$.py'}:plain", "-o", "out"))
    assert result.exit_code == 0, result.stderr
    assert set(read_run("out").summary["model"]) == {"$x^{$:plain"}
    assert run("report", "out").exit_code == 0
    assert run("show", "out").exit_code == 0
    assert Path("out/figures").is_dir()
    refused(run("sweep", "-m", f"{folder / 'no.py'}:plain", "-o", "none"), 3, "no file")


def test_every_norm_has_its_own_budgets(run: Run, nets: Path) -> None:
    tiny = [part for part in TINY if part not in ("--eps", "0,0.1")]
    arguments = ["sweep", "-m", f"{nets}:plain", *tiny, "--attacker", "static"]
    assert run(*arguments, "--norm", "l2", "-o", "out").exit_code == 0
    assert list(accuracies()) == ["0", "0.25", "0.5", "0.75", "1"]
    assert read_run("out").config["eps"] == ["0", "0.25", "0.5", "0.75", "1"]
    assert run("audit", "out", "--full", "-q").exit_code == 0


def test_a_budget_written_otherwise_is_the_same_cell(run: Run, nets: Path) -> None:
    tiny = [part for part in TINY if part not in ("--eps", "0,0.1")]
    arguments = ["sweep", "-m", f"{nets}:plain", *tiny, "--dry-run", "--json"]
    plans = [json.loads(run(*arguments, "--eps", eps).stdout) for eps in ("8/255", "16/510")]
    assert plans[0] == plans[1]
    shutil.copy(nets, "renamed.py")
    renamed = [*arguments[:2], "renamed.py:plain", *arguments[3:], "--eps", "8/255"]
    other = json.loads(run(*renamed).stdout)
    assert [cell["id"] for cell in other] == [cell["id"] for cell in plans[0]]


STRANGERS = {
    "cli.py": "raise RuntimeError('not mine')",
    "attacks.py": "raise RuntimeError('not mine')",
    "defenses/__init__.py": "raise RuntimeError('not mine')",
}


def test_the_package_runs_in_a_folder_that_holds_modules_of_its_names(elsewhere: Path) -> None:
    for name, text in STRANGERS.items():
        (elsewhere / name).parent.mkdir(exist_ok=True)
        (elsewhere / name).write_text(text)
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "robustbench_aig", "list", "defenses", "--json"]
    result = subprocess.run(command, cwd=elsewhere, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert "jpeg" in {row["name"] for row in json.loads(result.stdout)}


@pytest.mark.parametrize("kind", ["attacks", "defenses"])
def test_a_broken_entry_point_of_another_package_is_one_sentence(elsewhere: Path, nets: Path, kind: str) -> None:
    """A package that was installed beside the suite and whose module cannot be imported."""
    site = elsewhere / "site"
    (site / "broken-1.0.dist-info").mkdir(parents=True)
    (site / "broken-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1.0\n")
    (site / "broken-1.0.dist-info" / "entry_points.txt").write_text(
        f"[robustbench_aig.{kind}]\nmine = broken_module:Mine\nlost = no_such_module:Lost\n"
    )
    (site / "broken_module.py").write_text("import a_package_that_is_not_there\n")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(site), str(ROOT)])}

    def cli(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "robustbench_aig", *arguments]
        return subprocess.run(command, cwd=elsewhere, env=environment, capture_output=True, text=True, check=False)

    listed = cli("list", kind, "--json")
    assert listed.returncode == 0, listed.stderr
    assert {"mine", "lost"} <= {row["name"] for row in json.loads(listed.stdout)}
    flag = "-a" if kind == "attacks" else "-d"
    for name in ("mine", "lost"):
        result = cli("sweep", "-m", f"{nets}:plain", *TINY, flag, name, "-o", "out")
        assert "Traceback" not in result.stderr
        assert result.returncode in (1, 2, 3)
        assert name in result.stderr
        assert result.stderr.count("\n") == 1
    assert not (elsewhere / "out").exists()
