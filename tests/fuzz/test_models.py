"""Tiny models that look at their images in their own way: the verdicts of plain PyTorch, or one sentence."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from robustbench_aig.data import load_dataset
from robustbench_aig.report import read_run
from tests.fuzz.fuzzing import cases, held, run
from tests.fuzz.tiny import BUILDS, ENDS, LAYOUTS, LOOKS, TEMPERS, Net

EPSILON = 0.1
FACTORY = """
import sys
sys.path.insert(0, {root!r})
from tests.fuzz.tiny import build

def net(): return build(*{parts!r})
"""

PARTS = st.tuples(*(st.sampled_from(sorted(table)) for table in (BUILDS, LAYOUTS, LOOKS, ENDS, TEMPERS)))
"""How a model is made, what it does to the layout of its images, to the images, to its logits, and how it behaves."""

SOUND = st.tuples(
    st.sampled_from(["plain", "silent train", "scripted", "nested", "talking"]),
    st.sampled_from(sorted(LAYOUTS)),
    st.sampled_from(["as they are", "view", "write", "write all", "grey", "double"]),
    st.sampled_from(["as they are", "squeeze", "double", "half", "view", "expanded"]),
    st.just("calm"),
)
"""Models that are fine elsewhere."""


def plainly(parts: tuple[str, ...], images: Tensor, labels: Tensor) -> tuple[float, float]:
    """Accuracy on clean images, and on those of FGSM, by PyTorch alone, with copies of the images in pairs of two."""
    model = Net(LAYOUTS[parts[1]], LOOKS[parts[2]], ENDS[parts[3]], TEMPERS[parts[4]]).eval()

    def logits(batch: Tensor) -> Tensor:
        found: Tensor = model(torch.cat([batch, batch]).clone())[: len(batch)]
        return found.float()

    points = images.clone().requires_grad_()
    nn.functional.cross_entropy(logits(points), labels, reduction="sum").backward()
    assert points.grad is not None
    moved = (images + EPSILON * points.grad.sign()).clamp(0, 1)
    with torch.no_grad():
        return tuple((logits(batch).argmax(1) == labels).double().mean().item() for batch in (images, moved))  # type: ignore[return-value]


def swept(place: Path, parts: tuple[str, ...], size: int) -> Any:
    root = str(Path(__file__).resolve().parents[2])
    (place / "nets.py").write_text(FACTORY.format(root=root, parts=list(parts)))
    words = ["--data=digits", "--limit=9", f"--eps=0,{EPSILON}", "--attacker=static", f"--batch-size={size}"]
    return run("sweep", "--model=nets.py:net", *words, "--out=out", "--quiet")


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
def test_models_that_are_fine_elsewhere_have_the_verdicts_of_pytorch(place: Path) -> None:
    data = load_dataset("digits", limit=9)
    images, labels = data.images(torch.arange(9)), data.labels

    @cases(30)
    @given(SOUND, st.sampled_from([1, 2, 4, 8, 16]))
    def check(parts: tuple[str, ...], size: int) -> None:
        result = swept(place, parts, size)
        held("sound models", result, place / "out")
        assert result.exit_code == 0, result.stderr
        rows = read_run(place / "out").summary
        assert (rows["accuracy"].iloc[0], rows["accuracy"].iloc[1]) == pytest.approx(plainly(parts, images, labels))
        remove(place)

    check()


@pytest.mark.filterwarnings("ignore")
def test_models_of_any_kind_are_swept_or_refused_in_one_sentence(place: Path) -> None:
    @cases(70)
    @given(PARTS, st.sampled_from([1, 2, 4, 16]))
    def check(parts: tuple[str, ...], size: int) -> None:
        result = swept(place, parts, size)
        held("models", result, place / "out")
        if (place / "out" / "run.json").exists():
            json.dumps(read_run(place / "out").failed) if result.exit_code in (0, 4) else None
        remove(place)

    check()


def remove(place: Path) -> None:
    import shutil

    shutil.rmtree(place / "out", ignore_errors=True)
