"""Command lines: options, numbers, specifications and names that are right, nearly right and wrong."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tests.fuzz.fuzzing import cases, held, run

NETS = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, classes=10):
        super().__init__()
        self.weight = nn.Parameter(torch.randn((64, classes), generator=torch.Generator().manual_seed(0)))
    def forward(self, images):
        return images.view(len(images), -1) @ self.weight

def plain(): return Net()
def three(): return Net(3)
def raises(): raise ValueError
def nothing(): pass
value = 3
"""

WORDS = st.text(st.characters(exclude_characters="\x00", exclude_categories=()), max_size=12).filter(
    lambda text: not text.startswith("-")
)
"""Any text that the system hands to a program; bytes that are no UTF-8 arrive as surrogates."""

MODELS = ["nets.py:plain", "nets.py:three", "aig20@small", "nets.py:plain"]
NO_MODELS = [
    *("nets.py:raises", "nets.py:nothing", "nets.py:value", "nets.py:", "nets.py", "nets.py:absent", "no.py:plain"),
    *("resnet20", "resnet20-cifar10", "resnet20@", "resnet20@nets.py", "aig21@x", "torchvision:", "torchvision:nope"),
    *("@", ":", "", ".", "/", "pets", "pets:x", "file", "file:plain", "small", "resnet20@small", "timm:nope"),
]

GOOD = {
    "--data": ["digits", "imagefolder:pets,resize=none,crop=none,channels=1", "foolbox:cifar10"],
    "--split": ["test", "train", "validation", "trainval"],
    "--limit": ["1", "2", "3", "5"],
    "--attack": [
        *("fgsm", "fgsm:loss=margin", "pgd:steps=2", "apgd-t:steps=1,classes=1", "square:queries=2", "fmn:steps=1"),
        *(
            "identity",
            "noise",
            "deepfool:steps=1",
            "torchattacks:FGSM",
            "torchattacks:PGDL2:steps=1",
            "gates:open:steps=1",
        ),
        *("foolbox:L2FastGradientAttack", "foolbox:DDNAttack:steps=1", "worst:attacks=fgsm+noise", "mifgsm:steps=1"),
    ],
    "--norm": ["linf", "l2"],
    "--eps": ["0,0.1", "0.1", "8/255", "16/510", "0", "1e-99", "0:1:3", "1/3", "0.5"],
    "--gating": ["stochastic", "deterministic", "deterministic:0.3", "expected"],
    "--defense": ["none", "jpeg:75", "bitdepth", "median", "resize-pad", "jpeg:30+median", "smoothing:0.1"],
    "--attacker": ["static", "adaptive", "known-noise"],
    "--draws": ["1", "2"],
    "--eot": ["1", "2"],
    "--seed": ["0", "1"],
    "--batch-size": ["1", "2", "3", "auto"],
    "--device": ["cpu", "auto"],
    "--precision": ["float32", "bfloat16"],
}
"""Values that suit some models and data sets, if not all."""

WRONG = {
    "--model": NO_MODELS,
    "--data": [
        *("imagefolder:pets,resize=none,crop=8", "imagefolder:pets", "imagefolder:pets,channels=2", "imagefolder:file"),
        *(
            "imagefolder:pets,crop=0",
            "imagefolder:",
            "imagefolder:.",
            "imagefolder:pets,resize=4,crop=9",
            "digits ",
            "",
        ),
        *("cifar10", "imagenet", "imagefolder:PATH", "imagefolder:no,where=1"),
    ],
    "--data-dir": ["nowhere", "file"],
    "--split": ["val", ""],
    "--limit": ["0", "-3", "x", "99999999999999999999"],
    "--attack": [
        *("pgd:steps=0", "pgd:steps=nan", "pgd:steps=", "pgd:2,2,2,2,2,2,2,2,2,2,2,2,2", "pgd:step=2", "fgsm:loss="),
        *("fgsm:loss=dlr", "apgd-t:steps=1", "torchattacks:nope", "torchattacks:", "torchattacks:TIFGSM", "gates:", ""),
        *("torchattacks:PGD:steps=x", "torchattacks:JSMA", "worst:attacks=", "worst:attacks=fgsm+nope", ":", "fgsm:"),
        *("foolbox:EADAttack:steps=0", "gates:route:to=101", "gates:route:to=class/lion", "FGSM", "fgsm,pgd"),
    ],
    "--norm": ["l1", "l0", "l3", ""],
    "--eps": ["8", "", ",", "nan", "1e99", "0:1", "1/0", "-1", "0.1,", "0:1:9999"],
    "--gating": ["deterministic:2", "x", "deterministic:", "expected:1", ""],
    "--defense": ["jpeg:0", "jpeg:x", "jpeg+", "+", "", "smoothing:sigma=-1", "none+jpeg", "jpeg:75,75,75,75,75,75"],
    "--attacker": ["none", ""],
    "--protocol": ["paper", "none"],
    "--draws": ["0", "-1", "x", "1.5"],
    "--eot": ["0", "-1", "x", "auto"],
    "--seed": ["-1", "x", "99999999999999999999"],
    "--batch-size": ["0", "-1", "many", "1.5", "99999999999999999999", ""],
    "--device": ["cuda", "tpu", "cuda:99", ""],
    "--precision": ["half"],
    "--out": ["file", "file/below", "pets", ""],
    "--nope": ["1"],
}


def options(table: dict[str, list[str]], most: int) -> st.SearchStrategy[list[str]]:
    """Up to so many options with a value of the table, some of them twice."""
    one = st.sampled_from(sorted(table)).flatmap(lambda name: st.sampled_from(table[name]).map(lambda v: f"{name}={v}"))
    return st.lists(one, max_size=most)


NUMBERS = st.one_of(
    st.floats(-1, 2, allow_nan=False).map(lambda value: [f"--eps={value}"]),
    st.fractions(0, 1, max_denominator=999).map(lambda value: [f"--eps={value}"]),
    st.tuples(st.sampled_from(sorted(set(WRONG) - {"--out"})), WORDS).map(lambda pair: [f"{pair[0]}={pair[1]}"]),
    st.just([]),
)


@st.composite
def sweeps(draw: st.DrawFn) -> list[str]:
    """The words of a sweep with a few options that fit, and at most two that may not."""
    words = ["sweep", f"--model={draw(st.sampled_from(MODELS))}", "--limit=4", "--out=out", "--quiet"]
    words += draw(options(GOOD, 5)) + draw(options(WRONG, 2)) + draw(NUMBERS)
    return words + draw(st.lists(st.sampled_from(["--strict", "--json"]), max_size=1))


def joined(*parts: st.SearchStrategy[list[str]]) -> st.SearchStrategy[list[str]]:
    return st.tuples(*parts).map(lambda lists: [word for words in lists for word in words])


@pytest.fixture
def people(place: Path, small_checkpoint: Path) -> Path:
    """A folder with a file, models and images."""
    (place / "nets.py").write_text(NETS)
    (place / "file").write_text("no model, no data, no run\n")
    for number, name in enumerate("abc"):
        (place / "pets" / name).mkdir(parents=True)
        for row in range(2):
            pixels = np.random.default_rng(10 * number + row).integers(0, 256, (8, 8), dtype=np.uint8)
            Image.fromarray(pixels).save(place / "pets" / name / f"{row}.png")
    shutil.copytree(small_checkpoint, place / "small")
    return place


def untouched(place: Path) -> None:
    assert {path.name for path in place.iterdir()} <= {"nets.py", "file", "pets", "out", "small", "__pycache__"}
    assert (place / "file").read_text() == "no model, no data, no run\n"
    assert sorted(path.name for path in (place / "pets").iterdir()) == ["a", "b", "c"]
    shutil.rmtree(place / "out", ignore_errors=True)


def test_sweeps_as_planned(people: Path) -> None:
    @cases(150)
    @given(sweeps())
    def check(words: list[str]) -> None:
        result = run(*words, "--dry-run")
        held("planned sweeps", result, people / "out")
        assert not (people / "out").exists()
        untouched(people)

    check()


def test_sweeps_that_run(people: Path) -> None:
    @cases(60)
    @given(sweeps())
    def check(words: list[str]) -> None:
        result = run(*words)
        held("sweeps", result, people / "out")
        untouched(people)

    check()


OTHER_OPTIONS = {
    "--out": ["file", "file/below"],
    "--model": NO_MODELS,
    "--recipe": ["quick", "qick", ""],
    "--target-rate": ["0.5", "most", "1,2", "2"],
    "--epochs": ["0", "-1", "x"],
    "--measure": ["macs", "none"],
}

OTHERS = joined(
    st.sampled_from(
        [
            *(
                ["show"],
                ["report"],
                ["compare"],
                ["audit"],
                ["list"],
                ["import"],
                ["train"],
                ["analyze"],
                ["estimators"],
            ),
            *(
                ["show", "pets"],
                ["report", "file"],
                ["compare", "pets", "pets"],
                ["audit", "nowhere"],
                ["list", "models"],
            ),
            *(["import", "resnet20", "file"], ["import", "resnet20", "pets"], ["import", "aig21", "file"], ["bench"]),
            *(["train", "aig20"], ["train", "resnet20", "--out=file/below"], ["analyze", "rates"], ["nope"], [""]),
        ]
    ),
    options(OTHER_OPTIONS, 3),
    st.lists(WORDS, max_size=2),
    st.lists(st.sampled_from(["--json", "--quiet", "--strict", "--help"]), max_size=1),
)


def test_other_commands(people: Path) -> None:
    @cases(140)
    @given(OTHERS)
    def check(words: list[str]) -> None:
        result = run(*words)
        if words and result.exit_code == 2 and "Usage:" in result.stderr:  # a group or command without arguments
            return
        held("other commands", result, people / "out")
        untouched(people)

    check()


CONFIGS = st.one_of(
    st.text(max_size=40),
    st.binary(max_size=40),
    st.tuples(
        st.sampled_from(["sweep", "train", "swep", "a b"]),
        st.sampled_from(["model", "eps", "limit", "draws", "modell", "quiet", "dry-run"]),
        st.sampled_from(["1", "'x'", "true", "[1, 2]", "{}", "1979-05-27", "'a\\u0000b'", "nan", "[[]]"]),
    ).map(lambda parts: f"[{parts[0]}]\n{parts[1]} = {parts[2]}\n"),
)


def test_configuration_files(people: Path) -> None:
    @cases(60)
    @given(CONFIGS)
    def check(content: str | bytes) -> None:
        file = people / "out.toml"
        file.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass"))
        result = run("--config=out.toml", "sweep", "--model=nets.py:plain", "--dry-run", "--quiet")
        file.unlink()
        held("configuration files", result, people / "out")
        untouched(people)

    check()
