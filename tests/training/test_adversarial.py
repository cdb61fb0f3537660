"""Adversarial training: the attacks by hand, what they leave untouched, resume, and what is kept."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from torch import Tensor, nn

from cli import cli
from robustbench_aig.contracts.noise import logistic
from robustbench_aig.data import load_dataset
from robustbench_aig.data.dataset import Dataset
from robustbench_aig.errors import UsageError, UserError
from robustbench_aig.models import checkpoints
from robustbench_aig.models.aig import ConvNetAIG
from robustbench_aig.models.checkpoints import Card
from robustbench_aig.models.resnet import CifarResNet, StochasticDepth
from robustbench_aig.training import adversarial, loop
from robustbench_aig.training.averaging import Average
from robustbench_aig.training.loop import Epoch, Feed, Trainer, train, under_attack
from robustbench_aig.training.recipe import Recipe, recipe
from robustbench_aig.training.run import epoch_line, train_model

CPU = torch.device("cpu")
NAMES = ("n-fgsm", "pgd-at", "trades")
EPS = 0.15


def settings(name: str, **changes: object) -> Recipe:
    """An adversarial recipe for digits that takes a second or two."""
    usual: dict[str, object] = {"epochs": 4, "batch_size": 32, "eps": str(EPS), "bf16": False, "inner_steps": 3}
    return recipe(name, **{**usual, "crop_padding": 0, "flip": False, "averaging": 0.9, **changes})


def network(family: str = "plain", depth: int = 8) -> nn.Module:
    torch.manual_seed(0)
    trunk = CifarResNet(depth, channels=1, norm=((0.3,), (0.4,)))
    return {"plain": lambda t: t, "gated": ConvNetAIG, "stochastic depth": StochasticDepth}[family](trunk)


def card(architecture: str = "aig20") -> Card:
    options = {"norm": [[0.3], [0.4]]}
    return Card(architecture, [str(n) for n in range(10)], (1, 8, 8), options=options, dataset="digits", seed=0)


@pytest.fixture(scope="module")
def digits() -> tuple[Dataset, Dataset]:
    return load_dataset("digits", split="train", limit=320), load_dataset("digits", split="validation", limit=60)


@pytest.fixture
def batch(digits: tuple[Dataset, Dataset]) -> tuple[Tensor, Tensor]:
    rows = torch.arange(16)
    return digits[0].images(rows), digits[0].labels[rows]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def plain(model: nn.Module) -> adversarial.Forward:
    def forward(images: Tensor, noise: Tensor | None) -> Tensor:
        assert noise is None
        logits: Tensor = model(images)
        return logits

    return forward


class TestAttacks:
    def test_n_fgsm_by_hand(self) -> None:
        weight = torch.tensor([[1.0, -2.0], [0.5, 1.0]])  # with two classes the ascent is along the difference of rows
        images, labels = torch.full((1, 1, 1, 2), 0.5), torch.tensor([0])
        found = adversarial.n_fgsm(lambda x, _: x.flatten(1) @ weight.T, images, labels, None, generator(), eps=0.1)
        start = torch.empty(1, 1, 1, 2).uniform_(-0.2, 0.2, generator=generator())
        assert torch.allclose(found, images + start + 0.1 * torch.tensor([-1.0, 1.0]))

    def test_n_fgsm_leaves_the_ball_but_not_the_box(self, batch: tuple[Tensor, Tensor]) -> None:
        images, labels = batch
        found = adversarial.n_fgsm(plain(network()), images, labels, None, generator(), eps=0.1)
        assert 0.1 < (found - images).abs().max() <= 0.3 + 1e-6
        assert found.min() >= 0
        assert found.max() <= 1

    @pytest.mark.parametrize("start", [0.0, 1.0, 3.0])
    def test_pgd_stays_in_ball_and_box(self, batch: tuple[Tensor, Tensor], start: float) -> None:
        images, labels = batch
        found = adversarial.pgd(plain(network()), images, labels, None, generator(), eps=0.1, steps=3, start=start)
        assert (found - images).abs().max() <= 0.1 + 1e-6
        assert found.min() >= 0
        assert found.max() <= 1
        assert not torch.equal(found, images)

    def test_pgd_of_one_whole_step_is_fgsm(self, batch: tuple[Tensor, Tensor]) -> None:
        images, labels = batch
        model = network().eval()
        there = images.clone().requires_grad_()
        gradient = torch.autograd.grad(nn.functional.cross_entropy(model(there), labels), there)[0]
        whole = {"steps": 1, "step": 1.0, "start": 0.0}
        found = adversarial.pgd(plain(model), images, labels, None, generator(), eps=0.1, **whole)  # type: ignore[arg-type]
        assert torch.allclose(found, (images + 0.1 * gradient.sign()).clamp(0, 1))

    def test_trades_stays_in_ball_and_box_and_parts_the_distributions(self, batch: tuple[Tensor, Tensor]) -> None:
        images, model = batch[0], network().eval()
        found = adversarial.trades(plain(model), images, None, generator(), eps=0.1, steps=3)
        assert (found - images).abs().max() <= 0.1 + 1e-6
        assert found.min() >= 0
        assert found.max() <= 1
        near = adversarial.trades(plain(model), images, None, generator(), eps=0.1, steps=1, step=0.0)
        with torch.no_grad():
            ends = [adversarial.divergence(model(images), model(points)).mean() for points in (near, found)]
        assert ends[1] > 10 * ends[0]

    def test_divergence_is_the_sum_of_p_log_p_over_q(self) -> None:
        p, q = torch.tensor([[0.7, 0.2, 0.1]]), torch.tensor([[0.3, 0.3, 0.4]])
        expected = (p * (p / q).log()).sum().item()
        assert adversarial.divergence(p.log() + 5, q.log() - 3).item() == pytest.approx(expected, rel=1e-5)

    def test_each_step_has_its_own_noise_and_trades_has_one(self, batch: tuple[Tensor, Tensor]) -> None:
        images, labels = batch
        noise, seen = torch.arange(3.0).view(3, 1, 1).expand(3, 16, 2), []

        def forward(images: Tensor, noise: Tensor | None) -> Tensor:
            assert noise is not None
            assert noise.shape == (16, 2)
            seen.append(noise[0, 0].item())
            return images.flatten(1)[:, :10]

        adversarial.pgd(forward, images, labels, noise, generator(), eps=0.1, steps=3)
        assert seen == [0, 1, 2]
        adversarial.trades(forward, images, noise, generator(), eps=0.1, steps=3)
        assert seen[3:] == [0, 0, 0, 0]


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("family", ["plain", "gated", "stochastic depth"])
def test_the_search_changes_nothing_about_the_network(
    batch: tuple[Tensor, Tensor], family: str, training: bool
) -> None:
    model = network(family).train()
    frozen = next(model.parameters()).requires_grad_(False)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with adversarial.inner_pass(model, training=training):
        modes = {part.training for part in model.modules()}
        adversarial.pgd(plain(model), *batch, None, generator(), eps=0.1, steps=2)
    assert modes == {training}
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert all(weight.grad is None for weight in model.parameters())
    assert [weight for weight in model.parameters() if not weight.requires_grad] == [frozen]
    assert all(part.training for part in model.modules())
    model(batch[0])
    assert any(not torch.equal(before[key], value) for key, value in model.state_dict().items())


@pytest.mark.parametrize("family", ["plain", "gated"])
def test_every_recipe_makes_more_robust_than_clean_training(digits: tuple[Dataset, Dataset], family: str) -> None:
    def robust(chosen: Recipe) -> float:
        trainer = Trainer(network(family), chosen, 0, CPU)
        for number in range(chosen.epochs):
            trainer.epoch(Feed(digits[0], CPU), number)
        return under_attack(trainer.kept, digits[0], EPS, 10, device=CPU, seed=0)

    clean = robust(dataclasses.replace(settings("n-fgsm"), adversary="none", eps="0"))
    for name in NAMES:
        assert robust(settings(name)) > clean + 0.1, (name, clean)


@pytest.mark.parametrize("architecture", ["resnet20", "preresnet20", "stochastic-depth-resnet20", "aig20"])
@pytest.mark.parametrize("name", NAMES)
def test_every_family_trains_by_every_recipe(
    digits: tuple[Dataset, Dataset], tmp_path: Path, architecture: str, name: str
) -> None:
    rows: list[Epoch] = []
    described = card(architecture)
    chosen = settings(name, epochs=1, batch_size=160, inner_steps=2, bf16=True)
    train(described.build(), described, *digits, chosen, tmp_path, device=CPU, report=rows.append)
    assert rows[0].fgsm is not None
    assert len(rows[0].rates) == (9 if architecture == "aig20" else 0)


def test_the_loss_of_trades_by_hand(digits: tuple[Dataset, Dataset], batch: tuple[Tensor, Tensor]) -> None:
    images, labels = batch
    model = network("gated")
    assert isinstance(model, ConvNetAIG)
    trainer = Trainer(model, settings("trades", lr=1e-9, target_rate=0.4), 0, CPU)
    noise = logistic(0, "train", torch.arange(16), 3, [0])[0]
    perturbed = (images + 0.1).clamp(0, 1)
    with torch.no_grad():
        (clean,), first, _ = trainer.forward(images, noise)
        (attacked,), second, _ = trainer.forward(perturbed, noise)
    assert first is not None
    assert second is not None
    p, q = clean.softmax(1), attacked.softmax(1)
    expected = nn.functional.cross_entropy(clean, labels) + 6 * (p * (p / q).log()).sum(1).mean()
    expected += 2 * ((torch.cat([first, second]).mean(0) - 0.4) ** 2).mean()
    totals = trainer._step(images, perturbed, labels, noise)
    assert totals[0].item() / 16 == pytest.approx(expected.item(), rel=1e-5)
    assert totals[1] == (attacked.argmax(1) == labels).sum()
    assert torch.allclose(totals[2:], (first + second).double().sum(0) / 2)


def test_gates_are_searched_with_noise_of_their_own_or_that_of_the_step() -> None:
    ids, noise = torch.arange(16), logistic(0, "train", torch.arange(16), 3, [5])
    own, shared = (
        Trainer(network("gated"), settings("pgd-at", inner_noise=kind), 0, CPU)._inner_noise(noise, ids, 5)
        for kind in ("own", "shared")
    )
    assert own is not None
    assert shared is not None
    assert own.shape == shared.shape == (3, 16, 3)
    assert torch.equal(shared, noise.expand(3, -1, -1))
    assert not torch.isin(own, noise).any()
    assert len(own.unique()) == own.numel()
    assert Trainer(network(), settings("pgd-at"), 0, CPU)._inner_noise(None, ids, 5) is None


def test_the_average_is_the_hand_written_one(digits: tuple[Dataset, Dataset]) -> None:
    trainer = Trainer(network(), settings("n-fgsm"), 0, CPU)
    assert trainer.average is not None
    expected = {key: value.clone().double() for key, value in trainer.model.state_dict().items()}
    update, steps = trainer.average.update, []

    def follow(step: int) -> None:
        decay = min(0.9, (1 + step) / (10 + step))
        for key, value in trainer.model.state_dict().items():
            if value.is_floating_point():
                expected[key] = decay * expected[key] + (1 - decay) * value.double()
            else:
                expected[key] = value.double()
        steps.append(step)
        update(step)

    trainer.average.update = follow  # type: ignore[method-assign]
    for number in range(10):
        trainer.epoch(Feed(digits[0], CPU), number)
    assert steps == list(range(100))
    for key, value in trainer.kept.state_dict().items():
        assert torch.allclose(value.double(), expected[key], rtol=1e-4, atol=1e-6), key
    assert not trainer.kept.training
    assert not any(weight.requires_grad for weight in trainer.kept.parameters())


def test_without_averaging_the_network_itself_is_kept() -> None:
    trainer = Trainer(network(), settings("n-fgsm", averaging=0.0), 0, CPU)
    assert trainer.kept is trainer.model
    assert "average" not in trainer.state()


def test_an_average_starts_as_its_network() -> None:
    model = network("stochastic depth")
    average = Average(model, 0.5)
    assert all(torch.equal(a, b) for a, b in zip(average.model.parameters(), model.parameters(), strict=True))


@pytest.mark.parametrize("name", ["n-fgsm", "trades"])
def test_a_killed_run_resumes_to_the_same_weights(digits: tuple[Dataset, Dataset], tmp_path: Path, name: str) -> None:
    chosen = settings(name, epochs=3, batch_size=160, inner_steps=2, averaging=0.99)

    def run(folder: str, *, killed: bool = False) -> Card:
        described = card()
        torch.manual_seed(0)
        report = stop if killed else lambda epoch: None
        return train(described.build(), described, *digits, chosen, tmp_path / folder, device=CPU, report=report)

    def stop(epoch: Epoch) -> None:
        raise KeyboardInterrupt

    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            run("parts", killed=True)
    whole, parts = run("whole"), run("parts")
    assert parts.weights_sha256 == whole.weights_sha256
    last = [torch.load(tmp_path / name / loop.STATE, weights_only=True) for name in ("whole", "parts")]
    for part in ("model", "average"):
        assert all(torch.equal(last[0][part][key], value) for key, value in last[1][part].items())
    logs = [json.loads((tmp_path / name / loop.HISTORY).read_text()) for name in ("whole", "parts")]
    assert [{**row, "seconds": 0} for row in logs[0]] == [{**row, "seconds": 0} for row in logs[1]]


class TestCatastrophicOverfitting:
    @pytest.mark.parametrize(
        ("fgsm", "pgd", "before", "caught"),
        [
            (0.45, 0.40, [0.38], False),
            (0.45, 0.29, [], True),  # FGSM leaves far more than PGD
            (0.20, 0.18, [0.30, 0.40], True),  # less than half of the best
            (0.25, 0.21, [0.30, 0.40], False),
            (0.05, 0.03, [0.12], False),  # at chance there is nothing to collapse
        ],
    )
    def test_constructed_cases(self, fgsm: float, pgd: float, before: list[float], caught: bool) -> None:
        assert adversarial.overfits(fgsm, pgd, before, 0.1) is caught

    @pytest.mark.parametrize("masked", [True, False])
    def test_the_probe_catches_a_network_that_only_resists_fgsm(
        self, digits: tuple[Dataset, Dataset], masked: bool
    ) -> None:
        """The nearest class mean, in one case without a gradient at the images where FGSM takes it."""
        clean = digits[1].images(torch.arange(len(digits[1])))
        train_images = digits[0].images(torch.arange(len(digits[0]))).flatten(1)

        class Nearest(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                means = torch.stack([train_images[digits[0].labels == label].mean(0) for label in range(10)])
                self.means = nn.Parameter(means)

            def forward(self, images: Tensor) -> Tensor:
                logits = -((images.flatten(1)[:, None] - self.means) ** 2).sum(2)
                hidden = masked and torch.equal(images, clean)
                return logits.detach() + 0 * images.sum() if hidden else logits

        fgsm, pgd = Trainer(Nearest(), settings("n-fgsm", averaging=0.0), 0, CPU).probe(digits[1])
        assert adversarial.overfits(fgsm, pgd, [], 0.1) is masked

    def test_such_an_epoch_is_not_kept(
        self, digits: tuple[Dataset, Dataset], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        figures = iter([(0.4, 0.3), (0.9, 0.6), (0.42, 0.35), (0.3, 0.1)])
        monkeypatch.setattr(Trainer, "probe", lambda self, data: next(figures))
        rows: list[Epoch] = []
        described = card("resnet20")
        chosen = settings("n-fgsm", epochs=4, batch_size=160)
        kept = train(described.build(), described, *digits, chosen, tmp_path, device=CPU, report=rows.append)
        assert [row.overfitted for row in rows] == [False, True, False, True]
        assert kept.best_epoch == 3
        assert kept.accuracy["validation_pgd10"] == 0.35
        assert kept.accuracy["validation"] == rows[2].validation

    def test_a_run_of_such_epochs_alone_keeps_nothing(
        self, digits: tuple[Dataset, Dataset], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(Trainer, "probe", lambda self, data: (0.9, 0.1))
        described = card("resnet20")
        chosen = settings("n-fgsm", epochs=1, batch_size=160)
        with pytest.raises(UserError, match="every epoch"):
            train(described.build(), described, *digits, chosen, tmp_path, device=CPU)

    def test_the_command_warns(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        figures = iter([(0.4, 0.3), (0.9, 0.6)])
        monkeypatch.setattr(Trainer, "probe", lambda self, data: next(figures))
        arguments = "train resnet20 --recipe n-fgsm --epochs 2 --batch-size 512 --eps 0.1 --no-bf16 --device cpu -o"
        answer = CliRunner().invoke(cli, [*arguments.split(), str(tmp_path / "out")])
        assert answer.exit_code == 0
        assert "warning: catastrophic overfitting in epoch 2" in answer.stderr
        assert "epoch 1;" not in answer.stderr


def test_the_card_says_how_robust_the_network_is(digits: tuple[Dataset, Dataset], tmp_path: Path) -> None:
    splits = dict(zip(("train", "validation"), digits, strict=True))
    splits["test"] = load_dataset("digits", split="test", limit=40)
    chosen = settings("n-fgsm", epochs=1)
    made = train_model("resnet20", splits.__getitem__, chosen, tmp_path, device=CPU)
    model, kept = checkpoints.load(tmp_path)
    assert kept.recipe["eps"] == str(EPS)
    assert kept.accuracy["test_pgd20"] == made.accuracy["test_pgd20"]
    assert kept.accuracy["test_pgd20"] == under_attack(model, splits["test"], EPS, 20, device=CPU, seed=0)
    row = Epoch(**json.loads((tmp_path / loop.HISTORY).read_text())[0])
    assert f"fgsm {row.fgsm:.1%}  pgd {row.pgd:.1%}" in epoch_line(row, chosen)
    again = train_model("resnet20", splits.__getitem__, chosen, tmp_path, device=CPU)
    assert again.weights_sha256 == kept.weights_sha256


def test_a_finished_checkpoint_from_before_these_settings_is_left_alone(
    digits: tuple[Dataset, Dataset], tmp_path: Path
) -> None:
    splits = dict(zip(("train", "validation"), digits, strict=True))
    splits["test"] = load_dataset("digits", split="test", limit=40)
    train_model("resnet20", splits.__getitem__, recipe("digits", epochs=1), tmp_path, device=CPU)
    text = json.loads((tmp_path / checkpoints.CARD).read_text())
    new = ("adversary", "eps", "inner_steps", "inner_step", "inner_start", "inner_noise", "beta", "averaging")
    text["recipe"] = {key: value for key, value in text["recipe"].items() if key not in new}
    (tmp_path / checkpoints.CARD).write_text(json.dumps(text))
    train_model("resnet20", splits.__getitem__, recipe("digits", epochs=1), tmp_path, device=CPU)
    with pytest.raises(UserError, match="finished checkpoint"):
        train_model("resnet20", splits.__getitem__, settings("n-fgsm", epochs=1), tmp_path, device=CPU)


def test_recipes_are_those_of_the_papers() -> None:
    fast, slow, regularised = (recipe(name) for name in NAMES)
    assert (fast.adversary, fast.inner_step, fast.inner_start) == ("n-fgsm", 1, 2)
    assert (slow.adversary, slow.inner_steps, slow.inner_step, slow.inner_start) == ("pgd", 10, 0.25, 1)
    assert (regularised.adversary, regularised.inner_steps, regularised.beta) == ("trades", 10, 6)
    for chosen in (fast, slow, regularised):
        assert chosen.radius == 8 / 255
        assert chosen.averaging == 0.999
        assert recipe("n-fgsm", eps="0.03").radius == 0.03
    assert not recipe("quick").adversarial


@pytest.mark.parametrize(
    ("name", "changes", "words"),
    [
        ("n-fgsm", {"eps": "eight"}, "is not a number"),
        ("n-fgsm", {"eps": "0"}, "above 0 and at most 1"),
        ("n-fgsm", {"eps": "8"}, "above 0 and at most 1"),
        ("n-fgsm", {"eps": "2/255,8/255"}, "one epsilon, not 2"),
        ("quick", {"eps": "8/255"}, "takes no --eps"),
        ("n-fgsm", {"averaging": 1.0}, "decay"),
        ("pgd-at", {"inner_steps": 0}, "at least 1"),
        ("pgd-at", {"inner_step": float("nan")}, "size above 0"),
    ],
)
def test_bad_settings_are_refused(name: str, changes: dict[str, object], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        recipe(name, **changes)


def test_a_bad_epsilon_is_one_sentence(tmp_path: Path) -> None:
    arguments = ["train", "resnet20", "--recipe", "n-fgsm", "--eps", "eight", "-o", str(tmp_path / "out")]
    answer = CliRunner().invoke(cli, arguments)
    assert answer.exit_code == 2
    assert answer.stderr.count("\n") == 1
    assert "epsilon 'eight' is not a number" in answer.stderr
