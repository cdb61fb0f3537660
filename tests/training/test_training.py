"""Training: the joint loss by hand, recipes, resume after a kill, and checkpoints that cannot be mistaken."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch

from robustbench_aig.data import load_dataset
from robustbench_aig.data.dataset import Dataset
from robustbench_aig.errors import Prerequisite, UsageError, UserError
from robustbench_aig.models import checkpoints
from robustbench_aig.models.checkpoints import Card
from robustbench_aig.training import loop
from robustbench_aig.training.augmentation import augment
from robustbench_aig.training.loop import Epoch, evaluate, target_loss, train
from robustbench_aig.training.recipe import Recipe, recipe, recipes

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def digits() -> tuple[Dataset, Dataset]:
    return load_dataset("digits", split="train", limit=320), load_dataset("digits", split="validation", limit=60)


def job(seed: int = 0, architecture: str = "aig20") -> tuple[torch.nn.Module, Card]:
    card = Card(
        architecture,
        [str(n) for n in range(10)],
        (1, 8, 8),
        options={"norm": [[0.3], [0.4]]},
        dataset="digits",
        seed=seed,
    )
    torch.manual_seed(seed)
    return card.build(), card


def test_target_loss_is_equation_10() -> None:
    opened = torch.tensor([[1.0, 0.0], [1.0, 1.0], [0.0, 0.0], [1.0, 0.0]])  # rates 3/4 and 1/4
    by_hand = ((3 / 4 - 0.7) ** 2 + (1 / 4 - 0.5) ** 2) / 2
    assert target_loss(opened, torch.tensor([0.7, 0.5])).item() == pytest.approx(by_hand)


def test_joint_loss_is_equation_11(digits: tuple[Dataset, Dataset]) -> None:
    """One step's reported loss equals cross-entropy + lambda x Eq. 10 of the same forward pass."""
    settings = recipe("digits", epochs=1, batch_size=320, lr=1e-9, target_rate=0.25, target_weight=2.0)
    losses = {}
    for weight in (0.0, 2.0):
        model, _ = job()
        trainer = loop.Trainer(model, dataclasses.replace(settings, target_weight=weight), 0, CPU)
        losses[weight], _, rates = trainer.epoch(loop.Feed(digits[0], CPU), 0)
    expected = sum((rate - 0.25) ** 2 for rate in rates) / len(rates)
    assert losses[2.0] - losses[0.0] == pytest.approx(2 * expected, rel=1e-4)


def test_a_killed_run_resumes_to_the_same_weights(digits: tuple[Dataset, Dataset], tmp_path: Path) -> None:
    settings = recipe("digits", epochs=3)
    model, card = job()
    whole = train(model, card, *digits, settings, tmp_path / "whole", device=CPU)

    class Killed(Exception):
        pass

    def stop(epoch: Epoch) -> None:
        raise Killed

    for _ in range(2):
        model, card = job()
        with pytest.raises(Killed):
            train(model, card, *digits, settings, tmp_path / "parts", device=CPU, report=stop)
    model, card = job()
    parts = train(model, card, *digits, settings, tmp_path / "parts", device=CPU)
    assert parts.weights_sha256 == whole.weights_sha256
    history = json.loads((tmp_path / "parts" / "history.json").read_text())
    assert [row["epoch"] for row in history] == [1, 2, 3]
    assert all(len(row["rates"]) == 9 for row in history)


def test_images_kept_on_the_device_are_those_read_by_batch(digits: tuple[Dataset, Dataset]) -> None:
    rows = torch.tensor([7, 300, 0, 7])
    for kept, read in zip(*(loop.Feed(digits[0], CPU, resident).take(rows) for resident in (True, False)), strict=True):
        assert torch.equal(kept, read)
    assert loop.Feed(digits[0], CPU).pixels is None


def test_another_run_in_the_folder_is_refused(digits: tuple[Dataset, Dataset], tmp_path: Path) -> None:
    model, card = job()
    train(model, card, *digits, recipe("digits", epochs=1), tmp_path, device=CPU)
    model, card = job(seed=1)
    with pytest.raises(UserError, match="another training run"):
        train(model, card, *digits, recipe("digits", epochs=1), tmp_path, device=CPU)


@pytest.mark.parametrize("architecture", ["preresnet20", "stochastic-depth-resnet20", "resnet20"])
def test_other_families_train(digits: tuple[Dataset, Dataset], tmp_path: Path, architecture: str) -> None:
    model, card = job(architecture=architecture)
    kept = train(model, card, *digits, recipe("digits", epochs=2), tmp_path, device=CPU)
    assert kept.accuracy["validation"] > 0.2
    assert evaluate(model, digits[1], device=CPU)[0] == pytest.approx(kept.accuracy["validation"])


def test_soft_gates_train(digits: tuple[Dataset, Dataset], tmp_path: Path) -> None:
    model, card = job()
    train(model, card, *digits, recipe("digits", epochs=1, gates="soft"), tmp_path, device=CPU)
    assert evaluate(model, digits[1], device=CPU, stochastic_seed=0)[1]


def test_evaluation_does_not_depend_on_the_batch(digits: tuple[Dataset, Dataset]) -> None:
    model, _ = job()
    results = [evaluate(model, digits[1], device=CPU, stochastic_seed=3, batch_size=size)[0] for size in (1, 7, 60)]
    assert len(set(results)) == 1


def test_recipes_are_the_papers() -> None:
    paper = recipe("paper")
    assert (paper.epochs, paper.batch_size, paper.milestones, paper.target_rate, paper.target_weight) == (
        350,
        256,
        (150, 250),
        0.7,
        2,
    )
    assert [paper.rate(epoch) for epoch in (0, 149, 150, 250)] == pytest.approx([0.1, 0.1, 0.01, 0.001])
    assert recipe("official-code").target_rate == 0.6
    assert recipe("official-code-imagenet").target_weight == 1
    for name in recipes():
        assert isinstance(recipe(name), Recipe)


def test_changing_epochs_moves_the_milestones() -> None:
    assert recipe("paper", epochs=35).milestones == (15, 25)


@pytest.mark.parametrize(
    ("changes", "words"),
    [({"target_rate": 1.2}, "target rates"), ({"lr": float("nan")}, "learning rate"), ({"epochs": 0}, "at least 1")],
)
def test_bad_settings_are_refused(changes: dict[str, float], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        recipe("paper", **changes)


def test_schedules_are_those_of_the_published_readme() -> None:
    for t in (0.4, 0.5, 0.6, 0.7):
        assert recipe(f"paper-aig50-t{t}").targets(16) == (1, 1, 0.8, 1, t, t, t, 1, t, t, t, t, t, 1, 0.7, 1)
    for t in (0.3, 0.5):
        assert recipe(f"paper-aig101-t{t}").targets(33) == (1,) * 8 + (t,) * 25
    for t in (0.5, 0.7):
        soft = recipe(f"paper-aig50-t{t}-soft")
        assert soft == dataclasses.replace(recipe(f"paper-aig50-t{t}"), gates="soft")
    assert (soft.epochs, soft.milestones, soft.weight_decay, soft.batch_size) == (100, (30, 60, 90), 1e-4, 256)


def test_a_schedule_of_the_wrong_length_is_refused() -> None:
    with pytest.raises(UsageError, match="3 entries"):
        recipe("paper", target_rate=(0.5, 0.5, 0.5)).targets(9)


def test_augmentation_moves_pixels_without_inventing_any() -> None:
    images = torch.randint(1, 255, (64, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    out = augment(images, recipe("quick", crop_padding=2), torch.Generator().manual_seed(1))
    assert out.shape == images.shape
    assert out.dtype == torch.uint8
    assert not torch.equal(out, images)
    again = augment(images, recipe("quick", crop_padding=2), torch.Generator().manual_seed(1))
    assert torch.equal(out, again)
    for before, after in zip(images, out, strict=True):
        assert set(after.unique().tolist()) <= {0, *before.unique().tolist()}


def test_resized_crops_have_the_size_that_the_recipe_asks_for() -> None:
    images = torch.randint(1, 255, (6, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    settings = dataclasses.replace(recipe("quick-imagenet"), flip=False)
    for crop_size, side in ((24, 24), (0, 32)):
        chosen = dataclasses.replace(settings, crop_size=crop_size)
        crops = augment(images, chosen, torch.Generator().manual_seed(1))
        assert crops.shape == (6, 3, side, side)
        assert crops.dtype == torch.uint8
        assert torch.equal(crops, augment(images, chosen, torch.Generator().manual_seed(1)))
    flat = torch.full((4, 3, 32, 32), 77, dtype=torch.uint8)
    assert augment(flat, settings, torch.Generator()).unique().tolist() == [77]  # nothing from beyond the border
    assert recipe("quick-imagenet").crop_size == 96


class TestCheckpoints:
    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        model, card = job()
        checkpoints.save(tmp_path, model, card)
        return tmp_path

    def test_round_trip(self, folder: Path) -> None:
        model, _ = job()
        loaded, card = checkpoints.load(folder)
        assert card.architecture == "aig20"
        assert checkpoints.weights_hash(loaded) == checkpoints.weights_hash(model)
        assert not loaded.training

    def test_missing(self, tmp_path: Path) -> None:
        with pytest.raises(Prerequisite, match="no checkpoint"):
            checkpoints.load(tmp_path / "nothing")

    def test_truncated(self, folder: Path) -> None:
        weights = folder / checkpoints.WEIGHTS
        weights.write_bytes(weights.read_bytes()[:-100])
        with pytest.raises(UserError, match="truncated"):
            checkpoints.load(folder)

    def test_other_architecture(self, folder: Path) -> None:
        card = json.loads((folder / checkpoints.CARD).read_text())
        (folder / checkpoints.CARD).write_text(json.dumps(card | {"architecture": "resnet20"}))
        with pytest.raises(UserError, match="does not fit"):
            checkpoints.load(folder)

    def test_nan(self, tmp_path: Path) -> None:
        model, card = job()
        next(model.parameters()).data.view(-1)[0] = float("nan")
        checkpoints.save(tmp_path, model, card)
        with pytest.raises(UserError, match="NaN"):
            checkpoints.load(tmp_path)
