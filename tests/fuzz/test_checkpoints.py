"""Checkpoints that are truncated, renamed, wrapped or of other types are read as PyTorch reads them, or refused."""

import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save
from torch import Tensor, nn

from robustbench_aig.errors import UserError
from robustbench_aig.models import checkpoints
from robustbench_aig.models.architectures import build
from robustbench_aig.models.resnet import IMAGENET_NORM
from robustbench_aig.models.resolve import load_model
from tests.fuzz.fuzzing import CASES, cases, held, run, sentence

State = dict[str, Any]
SUFFIXES = st.sampled_from([".pth", "", ".t7", ".safetensors"])


def network() -> nn.Module:
    """A ResNet-20 with option-A shortcuts, as public files hold it."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return build("resnet20", classes=10, shortcut="A", norm=IMAGENET_NORM).eval()


PLAIN = network()
IMAGES = torch.rand((3, 3, 32, 32), generator=torch.Generator().manual_seed(0))


def under(prefix: str) -> Callable[[State], State]:
    return lambda state: {prefix + key: value for key, value in state.items()}


def cast(dtype: torch.dtype) -> Callable[[State], State]:
    return lambda state: {key: value.to(dtype) if value.is_floating_point() else value for key, value in state.items()}


HARMLESS: list[Callable[[State], Any]] = [
    *(under(prefix) for prefix in ("module.", "model.", "net.", "module.model.", "1.", "_orig_mod.", "a.b.c.")),
    *(lambda state, name=name: {name: state} for name in ("state_dict", "model_state_dict", "model_ema", "ema", "x")),
    lambda state: {"epoch": 3, "optimizer": {"state": {}, "param_groups": []}, "net": state},
    lambda state: {"a": {"b": state}, "c": None},
    lambda state: dict(sorted(state.items())),
    lambda state: {key: nn.Parameter(value, requires_grad=False) for key, value in state.items()},
    lambda state: {key.replace("fc.", "linear."): value for key, value in state.items()},
    lambda state: {key: value for key, value in state.items() if "num_batches" not in key},
    lambda state: {
        key: value.clone().t().contiguous().t() if value.ndim == 2 else value for key, value in state.items()
    },
    lambda state: {**state, "epoch": 7},
    cast(torch.float64),
    cast(torch.float16),
    cast(torch.bfloat16),
]
"""Files that hold the same network, in so many words."""

HARMFUL: list[Callable[[State], Any]] = [
    lambda state: {},
    lambda state: None,
    lambda state: [state],
    lambda state: list(state.values()),
    lambda state: torch.zeros(3),
    lambda state: "weights",
    lambda state: {"state_dict": {}, "epoch": 1},
    lambda state: {"student": state, "teacher": state},
    lambda state: {key: value for key, value in state.items() if key != "layer1.0.conv1.weight"},
    lambda state: {key: value for key, value in state.items() if key != "fc.weight"},
    lambda state: {**state, "fc.weight": torch.zeros(3)},
    lambda state: {**state, "fc.weight": torch.zeros(3, 64, 1)},
    lambda state: {**state, "fc.weight": torch.zeros(0, 64), "fc.bias": torch.zeros(0)},
    lambda state: {**state, "conv1.weight": torch.zeros(16)},
    lambda state: {**state, "conv1.weight": torch.zeros(16, 5, 3, 3)},
    lambda state: {**state, "conv1.weight": torch.full((16, 3, 3, 3), torch.nan)},
    lambda state: {**state, "conv1.weight": "weights"},
    lambda state: {**state, "layer9.0.conv1.weight": torch.zeros(1)},
    lambda state: {**state, "mean": torch.tensor([125.0] * 3), "std": torch.tensor([60.0] * 3)},
    lambda state: {**state, "mean": torch.tensor([0.5] * 3)},
    lambda state: {**state, "mean": torch.tensor([0.5] * 3), "std": torch.zeros(3)},
    lambda state: {**state, "mean": torch.tensor([0.5] * 2), "std": torch.tensor([0.5] * 2)},
    lambda state: dict(enumerate(state.values())),
    lambda state: {f"{key}.": value for key, value in state.items()},
    lambda state: {
        key: value.to(torch.complex64) if value.is_floating_point() else value for key, value in state.items()
    },
]
"""Files that do not."""


def saved(content: Any, kind: str) -> bytes:
    """The bytes of a file; only plain dictionaries of tensors can be safetensors."""
    if kind == "safetensors":
        return save({key: value.contiguous().clone() for key, value in content.items()})
    stream = io.BytesIO()
    torch.save(content, stream, _use_new_zipfile_serialization=kind == "zip")
    return stream.getvalue()


def told(file: Path, name: str = "resnet20") -> Tensor | str:
    """The logits of the model in a file, or the sentence that refuses it."""
    try:
        model = load_model(f"{name}@{file}")
    except UserError as error:
        return sentence(error)
    with torch.no_grad():
        return model.network(IMAGES)


def test_what_holds_the_network_in_other_words_is_the_network(tmp_path: Path) -> None:
    @cases(45)
    @given(st.sampled_from(HARMLESS), st.sampled_from(HARMLESS), st.sampled_from(["zip", "old"]), SUFFIXES)
    def check(first: Any, then: Any, kind: str, suffix: str) -> None:
        CASES["checkpoints"] += 1
        once = first(dict(PLAIN.state_dict()))
        steps = [first, then] if all(isinstance(value, Tensor) for value in once.values()) else [first]
        file = tmp_path / f"file{suffix}"
        file.write_bytes(saved(then(once) if len(steps) > 1 else once, kind))
        logits = told(file)
        assert isinstance(logits, Tensor), logits
        expected = network()
        for change in steps:
            if change in HARMLESS[-3:]:
                expected.load_state_dict(change(dict(expected.state_dict())))
        with torch.no_grad():
            torch.testing.assert_close(logits, expected(IMAGES), rtol=1e-4, atol=1e-4)

    check()


def test_what_does_not_hold_the_network_is_refused(tmp_path: Path) -> None:
    @cases(45)
    @given(
        st.sampled_from(HARMFUL), st.sampled_from(["zip", "old"]), st.sampled_from(["resnet20", "aig20", "resnet18"])
    )
    def check(change: Any, kind: str, name: str) -> None:
        CASES["checkpoints"] += 1
        (tmp_path / "file.pth").write_bytes(saved(change(dict(PLAIN.state_dict())), kind))
        assert isinstance(told(tmp_path / "file.pth", name), str)

    check()


def test_damaged_bytes_are_refused_or_do_no_harm(tmp_path: Path) -> None:
    whole = {kind: saved(dict(PLAIN.state_dict()), kind) for kind in ("zip", "old", "safetensors")}

    @cases(80)
    @given(
        st.sampled_from(sorted(whole)),
        st.floats(0, 1),
        st.one_of(st.none(), st.binary(min_size=1, max_size=9)),
        st.sampled_from([".pth", ".safetensors"]),
    )
    def check(kind: str, place: float, patch: bytes | None, suffix: str) -> None:
        CASES["damaged checkpoints"] += 1
        content = whole[kind]
        # Headers are where readers fail in their own ways, so half of the damage is there.
        at = int(place * 2 * len(content)) if place < 0.5 else int((place - 0.5) * 2 * 4000)
        file = tmp_path / f"file{suffix}"
        file.write_bytes(content[:at] if patch is None else content[:at] + patch + content[at + len(patch) :])
        found = told(file)
        assert isinstance(found, str) or found.shape == (3, 10)

    check()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 40) | st.floats(allow_nan=False) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=4,
)


def test_cards_of_any_content_are_refused_or_do_no_harm(tmp_path: Path, small_checkpoint: Path) -> None:
    card = json.loads((small_checkpoint / checkpoints.CARD).read_text())

    @cases(60)
    @given(st.sampled_from([*sorted(card), "more", ""]), JSON)
    def check(name: str, value: Any) -> None:
        CASES["cards"] += 1
        folder = tmp_path / "card"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(small_checkpoint, folder)
        (folder / checkpoints.CARD).write_text(json.dumps({**card, name: value} if name else value))
        try:
            model = load_model(f"aig20@{folder}")
        except UserError as error:
            sentence(error)
        else:
            assert model.gates == 9

    check()


@pytest.mark.parametrize("name", ["resnet20", "aig20"])
def test_import_writes_a_checkpoint_or_nothing(tmp_path: Path, name: str) -> None:
    @cases(12)
    @given(st.sampled_from([*HARMLESS[:4], *HARMFUL]))
    def check(change: Any) -> None:
        shutil.rmtree(tmp_path / "out", ignore_errors=True)
        (tmp_path / "file.pth").write_bytes(saved(change(dict(PLAIN.state_dict())), "zip"))
        result = run("import", name, "file.pth", "-o", "out")
        held("imports", result, tmp_path / "nowhere")
        assert (tmp_path / "out").exists() == (result.exit_code == 0)
        if result.exit_code == 0:
            assert isinstance(told(tmp_path / "out", name), Tensor)

    check()
