"""What models, attacks and defences of other people do wrong costs their cells and nothing else."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import pandas as pd
import pytest
import torch
from torch import Tensor, nn

import attacks
from defenses.jpeg import Jpeg
from robustbench_aig.audit.runner import sweep
from robustbench_aig.contracts.attack import Attack
from robustbench_aig.contracts.defense import NO_DEFENSE
from robustbench_aig.contracts.epsilons import Epsilon
from robustbench_aig.contracts.parts import even
from robustbench_aig.contracts.target import Target
from robustbench_aig.data.dataset import ArraySource, Dataset
from robustbench_aig.engine.plan import Settings, plan
from robustbench_aig.engine.preflight import preflight
from robustbench_aig.errors import Prerequisite, UsageError, UserError
from robustbench_aig.models.classifier import Classifier
from tests.engine import grids


@pytest.mark.parametrize("size", [1, 2, 3, 5, 16, 100])
def test_parts_are_even_cover_all_and_leave_no_image_alone(size: int) -> None:
    for count in range(60):
        parts = even(count, size)
        lengths = [part.stop - part.start for part in parts]
        assert [row for part in parts for row in range(count)[part]] == list(range(count))
        assert max(lengths, default=0) <= size + (size == 2)
        assert max(lengths, default=0) - min(lengths, default=0) <= 1
        if size > 1 and count > 1:
            assert min(lengths) > 1


class Odd(BaseException):
    def __str__(self) -> str:
        raise RuntimeError("no words")


@dataclass(frozen=True, kw_only=True)
class Failing(Attack):
    """Raises what it is told to."""

    name: ClassVar[str] = "failing"
    error: str = "UsageError"

    def __call__(self, target: Target, images: Tensor, labels: Tensor, budgets: Sequence[float]) -> Tensor:
        raise {
            "UsageError": UsageError("this needs more classes."),
            "UserError": UserError("this cannot be."),
            "SystemExit": SystemExit(7),
            "Odd": Odd(),
            "KeyError": KeyError("x"),
        }[self.error]


class Plain(nn.Module):
    """A linear network; ``fails`` says on which batches it does."""

    def __init__(self, fails: Any = lambda images: False) -> None:
        super().__init__()
        self.fails = fails
        self.out = nn.Linear(64, 10)
        with torch.no_grad():
            self.out.weight.copy_(torch.randn((10, 64), generator=torch.Generator().manual_seed(0)))

    def forward(self, images: Tensor) -> Tensor:
        if self.fails(images):
            raise RuntimeError("no\nsuch batch")
        logits: Tensor = self.out(images.view(len(images), -1))
        return logits


def settings(module: nn.Module, **changes: Any) -> Settings:
    grid = {"models": [Classifier.of("mine", module, "mine")], "defenses": (NO_DEFENSE,)}
    return grids.settings(**grid | changes)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        ("UsageError", "this needs more classes."),
        ("UserError", "this cannot be."),
        ("SystemExit", "SystemExit: 7 (test_failures.py, line N)"),
        ("Odd", "Odd (test_failures.py, line N)"),
        ("KeyError", "KeyError: 'x' (test_failures.py, line N)"),
    ],
)
def test_an_attack_that_fails_costs_its_own_cells(tmp_path: Path, error: str, reason: str) -> None:
    both = [Failing(error=error), attacks.make("fgsm")]
    done = sweep(settings(Plain(), attacks=both), tmp_path)
    (found,) = done.failed.values()
    assert re.sub(r"line \d+", "line N", found) == reason
    assert (done.done, done.claim_valid) == (2, True)
    assert set(pd.read_csv(tmp_path / "summary.csv", keep_default_na=False)["attack"]) == {"none", "fgsm"}


def test_failures_under_one_label_are_all_counted(tmp_path: Path) -> None:
    twice = [Failing(), Failing(norm="l2")]
    done = sweep(settings(Plain(), attacks=twice), tmp_path)
    assert (len(done.failed), done.done) == (2, 1)
    assert json.loads((tmp_path / "run.json").read_text())["failed"] == done.failed


def test_where_nothing_is_finished_nothing_is_claimed(tmp_path: Path) -> None:
    done = sweep(settings(Plain(lambda images: len(images) > 8)), tmp_path)
    assert (len(done.failed), done.done, done.claim_valid) == (2, 0, None)


class Sometimes(Jpeg):
    name: ClassVar[str] = "sometimes"

    def __call__(self, images: Tensor, uniform: Tensor | None = None) -> Tensor:
        raise KeyError("gone")


def test_preflight_says_what_fails_before_anything_is_written() -> None:
    preflight(settings(Plain()))
    for count in (8, 3):
        with pytest.raises(UserError, match=rf"cannot take {count} images of 1x8x8 \(RuntimeError: no\); mend it"):
            preflight(settings(Plain(lambda images, count=count: len(images) == count)))
    preflight(settings(Plain(lambda images: len(images) == 1)))  # then it gets the image twice
    with pytest.raises(UserError, match=r"defense 'sometimes:75' fails on images of 'digits' \(KeyError: 'gone'\)"):
        preflight(settings(Plain(), defenses=(Sometimes(),)))


class Choosy(Failing):
    name: ClassVar[str] = "choosy"

    def check_target(self, target: Target, images: Tensor, labels: Tensor) -> None:
        raise ZeroDivisionError


def test_every_attack_is_asked_beforehand() -> None:
    with pytest.raises(UserError, match=r"attack 'choosy' cannot say whether it suits 'mine' \(ZeroDivisionError\)"):
        preflight(settings(Plain(), attacks=[attacks.make("fgsm"), Choosy()]))


def data(classes: int) -> Dataset:
    pixels = torch.randint(256, (12, 1, 8, 8), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    names = tuple("abcdefghijkl"[:classes])
    return Dataset(
        "tiny", "test", torch.arange(12), torch.arange(12) % classes, names, {}, (1, 8, 8), ArraySource(pixels)
    )


def test_a_data_set_of_one_class_is_refused() -> None:
    with pytest.raises(UsageError, match="has one class"):
        preflight(settings(Plain(), dataset=data(1)))


class Lost(ArraySource):
    """Images of which some cannot be read."""

    def read(self, ids: Tensor) -> Tensor:
        if 9 in ids:
            raise Prerequisite("the image 9.png cannot be read; replace or remove it.")
        return super().read(ids)


def test_images_that_cannot_be_read_end_the_sweep_at_once(tmp_path: Path) -> None:
    lost = replace(data(10), source=Lost(data(10).source.read(torch.arange(12))))
    with pytest.raises(Prerequisite, match=r"9\.png"):
        sweep(settings(Plain(), dataset=lost, batch_size=4), tmp_path)


def test_the_identity_denies_the_name_and_the_label() -> None:
    one, renamed = settings(Plain()), settings(Plain())
    renamed = replace(renamed, models=[replace(renamed.models[0], name="other")])
    assert [cell.id for cell in plan(one)] == [cell.id for cell in plan(renamed)]
    assert plan(one)[1].identity["epsilons"] == ["1/20", "1/10"]
    same = replace(one, epsilons=[Epsilon.of("12.75/255"), Epsilon.of("51/510")])
    assert [cell.id for cell in plan(one)] == [cell.id for cell in plan(same)]
    with pytest.raises(UsageError, match="models 'mine' and 'other' are the same network; give it once"):
        plan(replace(one, models=[*one.models, *renamed.models]))


def test_budgets_that_no_image_can_have_are_refused_in_every_way_in() -> None:
    with pytest.raises(UsageError, match="did you mean 8/255"):
        plan(settings(Plain(), epsilons=[Epsilon.of("8")]))


def test_the_library_and_the_command_line_have_the_same_attackers() -> None:
    from robustbench_aig.commands.sweep import sweep as command

    option = next(option for option in command.params if option.name == "attacker")
    assert tuple(option.default) == Settings.__dataclass_fields__["attackers"].default  # type: ignore[arg-type]
