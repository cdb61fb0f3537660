"""``analyze``: every experiment on a small network, its numbers against the model itself, and what it refuses."""

import dataclasses
import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from click.testing import CliRunner, Result

from cli import cli
from robustbench_aig.contracts.gating import Gating
from robustbench_aig.contracts.policy import Deterministic, Forced
from robustbench_aig.contracts.scores import Scores
from robustbench_aig.data import load_dataset
from robustbench_aig.experiments import claims, costs, extremes, graphs, layers, rates, registry
from robustbench_aig.experiments.study import Seen, Study, look
from robustbench_aig.models import checkpoints
from robustbench_aig.models.architectures import build
from robustbench_aig.models.checkpoints import Card
from robustbench_aig.models.resolve import load_model
from tests.report.runs import Population, grid, write

Run = Callable[..., Result]
OPTIONS: dict[str, Any] = {"norm": [[0.3], [0.4]]}
FEW = ("--data", "digits", "--limit", "60", "--draws", "3", "--device", "cpu", "-q")


def save(folder: Path, architecture: str, **recipe: Any) -> Path:
    """An untrained network for digits; its gates, where it has some, differ between images."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = build(architecture, classes=10, channels=1, **OPTIONS).eval()
        for key, value in model.state_dict().items():
            if key.endswith("fc2.weight"):
                torch.nn.init.normal_(value, std=3.0)
    card = Card(architecture, list("0123456789"), (1, 8, 8), OPTIONS, "digits", recipe=recipe)
    checkpoints.save(folder, model, card)
    return folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Checkpoints of a plain network and of gated ones; the first gated one has a training log."""
    home = tmp_path_factory.mktemp("checkpoints")
    gates = {"target_rate": 0.7, "gates": "straight-through"}
    save(home / "plain", "resnet20")
    save(home / "aig", "aig20", **gates)
    save(home / "soft", "aig20", **gates | {"gates": "soft"})
    rows = [{"epoch": epoch, "rates": [0.9 - 0.01 * epoch * gate for gate in range(9)]} for epoch in (1, 2, 3)]
    (home / "aig" / "history.json").write_text(json.dumps(rows))
    return home


@pytest.fixture
def run(folders: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.chdir(folders)
    return lambda *arguments: CliRunner().invoke(cli, ["analyze", *map(str, arguments)])


@pytest.fixture(scope="module")
def study(folders: Path) -> Study:
    model = load_model(f"aig20@{folders / 'aig'}")
    return Study([model], load_dataset("digits", limit=60), draws=3)


@pytest.fixture(scope="module")
def seen(study: Study) -> list[Seen]:
    return list(look(study, study.models, study.gatings))


@pytest.mark.parametrize("experiment", [name for name in registry.table if name != "claims"])
def test_every_experiment_writes_tables_a_figure_and_where_they_come_from(
    run: Run, folders: Path, tmp_path: Path, experiment: str
) -> None:
    result = run(experiment, "-m", "aig20@aig", *FEW, "-o", tmp_path, "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)
    table = pd.read_csv(tmp_path / f"{experiment}.csv")
    assert len(table) >= 2
    assert (tmp_path / f"{experiment}.png").read_bytes().startswith(b"\x89PNG")
    record = json.loads((tmp_path / f"{experiment}.json").read_text())
    assert record["config"]["model"] == ["aig20@aig"]
    assert record["versions"]["torch"]


def test_rates_are_the_models_own(study: Study, seen: list[Seen]) -> None:
    table = rates.measure(seen[0], study)
    network: Any = study.models[0].network
    with torch.no_grad():
        _, trace = network.traced(study.dataset.images(torch.arange(60)), Deterministic())
    even = study.dataset.labels % 2 == 0
    for group, mask in (("all", torch.ones(60, dtype=torch.bool)), ("even", even), ("3", study.dataset.labels == 3)):
        rows = table[table["group"] == group]
        assert rows["rate"].to_numpy() == pytest.approx(trace.open[mask].double().mean(0).numpy())
        assert set(rows["n"]) == {int(mask.sum())}
    assert (table["lo"] <= table["rate"]).all()
    assert (table["rate"] <= table["hi"]).all()
    assert table.loc[table["downsampling"], "block"].unique().tolist() == ["layer2.0", "layer3.0"]


def test_classes_are_sorted_by_category() -> None:
    categories = {"animals": (2, 3, 4, 5, 6, 7), "vehicles": (0, 1, 8, 9), "birds": (2,), "mammals": (3, 4, 5, 7)}
    order = rates.arrange(np.arange(11), categories)
    assert [number for number, _, _ in order] == [2, 3, 4, 5, 7, 6, 0, 1, 8, 9, 10]
    assert order[0] == (2, "animals", "birds")
    assert order[5] == (6, "animals", "other animals")
    assert order[6] == (0, "vehicles", "vehicles")
    assert order[10] == (10, "others", "others")


def test_the_distribution_of_layers_is_a_distribution(study: Study, seen: list[Seen]) -> None:
    for one in seen:
        table = layers.measure(one, study, ["all", "even"])
        assert table.groupby("group")["share"].sum().to_numpy() == pytest.approx(1)
        every = table[table["group"] == "all"]
        mean = (every["executed"] * every["share"]).sum()
        summary = layers.summarise(one, study, ["all"]).iloc[0]
        assert mean == pytest.approx(one.scores.open.sum(2).mean())
        assert summary["mean"] == pytest.approx(mean)
        assert summary["lo"] < mean < summary["hi"]


def test_extremes_are_extreme(study: Study, seen: list[Seen]) -> None:
    table = extremes.measure(seen[1], study, ["even"])
    fewest, most = (table[table["end"] == end] for end in extremes.ENDS)
    executed = seen[1].rates.sum(1)[study.labels % 2 == 0]
    assert fewest["executed"].to_list() == pytest.approx(sorted(executed)[:8])
    assert most["executed"].to_list() == pytest.approx(sorted(executed, reverse=True)[:8])
    assert not set(fewest["id"]) & set(most["id"])
    assert table["class"].isin(list("02468")).all()


def test_costs_know_what_each_gating_executes(study: Study) -> None:
    gatings = (Gating("deterministic"), Gating("expected"))
    hard, starred = look(study, study.models, gatings)
    found = [costs.row(one, study) for one in (hard, starred)]
    assert found[0]["macs"] < found[1]["macs"]
    assert found[1]["executed"] == 1
    assert found[0]["executed"] == pytest.approx(hard.rates.mean())
    assert found[0]["parameters"] == sum(p.numel() for p in build("aig20", classes=10, channels=1).parameters())
    assert found[0]["error"] == pytest.approx(1 - hard.accuracy.mean())


def test_plain_networks_stand_beside_gated_ones(run: Run, tmp_path: Path) -> None:
    result = run("costs", "-m", "resnet20@plain", "-m", "aig20@aig", "-m", "aig20@soft", *FEW, "-o", tmp_path)
    assert result.exit_code == 0, result.output
    table = pd.read_csv(tmp_path / "costs.csv")
    assert table["gating"].to_list() == ["none", *["deterministic", "stochastic"] * 2]
    assert table["gates"].to_list()[1:] == ["straight-through"] * 2 + ["soft"] * 2
    assert table["macs"].iloc[0] >= table["macs"].max()
    result = run("thresholds", "-m", "resnet20@plain", "-m", "aig20@aig", *FEW, "-o", tmp_path)
    assert result.exit_code == 0, result.output
    assert pd.read_csv(tmp_path / "thresholds.csv")["threshold"].isna().sum() == 1


def test_claims_about_models_and_attacks(run: Run, tmp_path: Path) -> None:
    sweep = write(tmp_path / "sweep", Population(60, 5, (2, 8)), list(grid()))
    result = run("claims", "-m", "aig20@aig", "-m", "aig20@soft", "--run", sweep, *FEW, "-o", tmp_path)
    assert result.exit_code == 0, result.output
    table = pd.read_csv(tmp_path / "claims.csv")
    counts = table["claim"].str.split().str[0].value_counts()
    assert counts["deterministic"] == 2
    assert counts["straight-through"] == 2
    assert counts["rates"] == counts["later"] == 4
    assert counts["downsampling"] == 8
    assert counts["stochastic"] > 0
    assert set(table["verdict"]) <= {"held", "not held", "undecided"}
    above, below = table["lo"] > table["bound"], table["hi"] < table["bound"]
    assert (above == (table["verdict"] == "held")).all()
    assert (below == (table["verdict"] == "not held")).all()


def made(study: Study, chances: np.ndarray) -> Seen:
    """Draws of gates that open with given chances (classes, L) for images of each class."""
    generator = np.random.default_rng(0)
    opened = generator.random((5, len(study.labels), chances.shape[1])) < chances[study.labels]
    correct = np.ones(opened.shape[:2], bool)
    prob = chances[study.labels].astype(np.float32)
    empty = np.zeros(len(study.labels))
    scores = Scores(correct, empty.astype(np.int16), empty.astype(np.uint16), opened, prob, empty)
    return Seen(study.models[0], Gating("stochastic"), scores, 5)


@pytest.fixture(scope="module")
def many(study: Study) -> Study:
    return dataclasses.replace(study, dataset=load_dataset("digits", limit=400))


def test_claims_hold_where_gates_are_made_so(many: Study) -> None:
    chances = np.full((10, 9), 0.7)
    chances[:, [3, 6]] = 1.0  # the downsampling layers
    chances[::2, 7:] = 0.4
    one = made(many, chances)
    assert claims.separation(one).verdict == "held"
    assert claims.separation(one).measure.endswith("layers 4 7")
    assert claims.specific(one, many).verdict == "held"
    assert [claim.verdict for claim in claims.always(one)] == ["held", "held"]


def test_claims_do_not_hold_where_gates_are_made_so(many: Study) -> None:
    chances = np.full((10, 9), 0.7)
    chances[::2, :4] = 0.4
    one = made(many, chances)
    assert claims.specific(one, many).verdict == "not held"
    assert [claim.verdict for claim in claims.always(one)] == ["not held", "not held"]
    even = made(many, np.full((10, 9), 0.7))
    assert claims.separation(even).verdict == "not held"
    assert claims.specific(even, many).verdict == "undecided"


@pytest.mark.parametrize("experiment", [name for name in registry.table if name != "costs"])
def test_models_without_gates_are_refused(run: Run, tmp_path: Path, experiment: str) -> None:
    result = run(experiment, "-m", "resnet20@plain", *FEW, "-o", tmp_path)
    refused(result, 2, "gates")


def refused(result: Result, code: int, words: str) -> None:
    assert result.exit_code == code, result.output
    (line,) = result.stderr.strip().splitlines()
    assert line.startswith("Error: ")
    assert words in line


@pytest.mark.parametrize("experiment", ["rates", "layers", "extremes"])
def test_data_without_categories_is_refused(run: Run, folders: Path, tmp_path: Path, experiment: str) -> None:
    from PIL import Image

    for number in range(10):
        (tmp_path / "val" / str(number)).mkdir(parents=True)
        Image.new("RGB", (32, 32), (number, 0, 0)).save(tmp_path / "val" / str(number) / "0.png")
    data = f"imagefolder:{tmp_path},resize=none,crop=32"
    result = run(experiment, "-m", "aig20-cifar10", "--data", data, "-q", "-o", tmp_path / "out")
    refused(result, 2, "no categories")


def test_what_is_missing_is_said_in_a_sentence(run: Run, folders: Path, tmp_path: Path) -> None:
    out = ("-q", "-o", tmp_path / "out")
    refused(run("training", "-m", "aig20@soft", *out), 3, "no training log at")
    refused(run("training", "-m", "aig20@nowhere", *out), 3, "no checkpoint at")
    refused(run("training", "-m", "torchvision:resnet18", *out), 2, "no checkpoint of this suite")
    refused(run("claims", "-m", "aig20@aig", "--run", "nowhere", *FEW, "-o", tmp_path), 3, "no run folder")
    refused(run("layers", "-m", "aig20@aig", "--category", "evn", *FEW, "-o", tmp_path), 2, "did you mean even")
    refused(run("rates", "-m", "aig20@aig", *FEW, "--draws", "0", "-o", tmp_path), 2, "--draws")
    refused(run("rates", "-m", "aig20-cifar10", *FEW, "-o", tmp_path), 1, "images of 3x32x32")
    assert run("heatmap", "-m", "aig20@aig", "-o", tmp_path).exit_code == 2


@pytest.mark.parametrize("text", ["", "[]", "{}", '[{"epoch": 1, "rates": [0.5]}]'])
def test_a_damaged_training_log_is_refused(run: Run, folders: Path, tmp_path: Path, text: str) -> None:
    save(tmp_path / "aig", "aig20", target_rate=0.7)
    (tmp_path / "aig" / "history.json").write_text(text)
    refused(run("training", "-m", f"aig20@{tmp_path / 'aig'}", "-q", "-o", tmp_path / "out"), 1, "no training log of")


def test_graphs_are_those_of_forcing_each(study: Study) -> None:
    few = dataclasses.replace(study, dataset=load_dataset("digits", limit=6))
    found = graphs.analyze(few)
    (model,) = few.models
    images = few.dataset.images(torch.arange(6))
    every = torch.tensor(list(itertools.product((0.0, 1.0), repeat=len(model.units))))
    with torch.no_grad():
        own = model.network.traced(images, Deterministic())[1].open  # type: ignore[operator]
        verdicts = [model.network.traced(images, Forced(graph[None]))[0].argmax(1) for graph in every]  # type: ignore[operator]
    wrong = torch.stack(verdicts) != few.dataset.labels
    apart = (every[:, None] - own).abs().sum(2)
    nearest = torch.where(wrong, apart, torch.inf).amin(0)
    row = found.tables["graphs-models"].iloc[0]
    assert row["wrong_graphs"] == pytest.approx(wrong.float().mean().item())
    assert row["every_graph_right"] == pytest.approx((~wrong).all(0).float().mean().item())
    assert row["deterministic"] == pytest.approx((nearest != 0).float().mean().item())
    flips = found.tables["graphs"]
    assert list(flips["images"]) == [int((nearest == n).sum()) for n in range(10)] + [int(nearest.isinf().sum())]
    sampled = next(iter(look(dataclasses.replace(few, draws=400), few.models, (Gating("stochastic"),))))
    assert row["stochastic"] == pytest.approx(sampled.accuracy.mean(), abs=0.06)


def test_graphs_of_a_network_beyond_the_limit_are_refused(run: Run, tmp_path: Path) -> None:
    deep = save(tmp_path / "deep", "aig32")
    result = run("graphs", "-m", f"aig32@{deep}", *FEW, "-o", tmp_path / "out")
    assert result.exit_code == 2
    assert "up to 1024 routes, this model has 32,768" in result.stderr
