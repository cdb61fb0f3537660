"""A run folder like those that a sweep writes, drawn from a small made-up population of images."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

import attacks
from robustbench_aig.engine.store import RunFolder
from robustbench_aig.statistics.intervals import accuracy, mean_intervals, worst_at
from robustbench_aig.statistics.measure import mean, plain, share

CLASSES = ("airplane", "bird", "cat", "dog", "ship")
LAYERS, FLOOR, BLOCK = 9, 6.0e6, 3.2e6


@dataclass(frozen=True)
class Population:
    """How easily each of N images is lost: the same for every cell, as one data set is."""

    images: int
    draws: int
    epsilons: tuple[int, ...]
    seed: int = 0

    def labels(self) -> npt.NDArray[np.int16]:
        return (np.arange(self.images) % len(CLASSES)).astype(np.int16)

    def margin(self) -> npt.NDArray[np.float64]:
        return np.random.default_rng(self.seed).gamma(3.0, 1.3, self.images) - 0.3

    def correct(self, eps: int, strength: float, draws: int, cell: int) -> npt.NDArray[np.uint8]:
        generator = np.random.default_rng([self.seed, cell, eps])
        noise = generator.normal(0.0, 1.2 if draws > 1 else 0.4, (draws, self.images))
        kept: npt.NDArray[np.bool_] = (self.margin() - strength * eps + noise) > 0
        return np.asarray(kept.sum(0), np.uint8)

    def opened(self, eps: int, draws: int, cell: int) -> npt.NDArray[np.uint8]:
        generator = np.random.default_rng([self.seed, cell % 2, 7])
        rate = np.clip(
            np.linspace(0.95, 0.45, LAYERS)
            + 0.15 * np.sin(np.arange(LAYERS))
            + generator.normal(0, 0.12, (self.images, LAYERS)),
            0,
            1,
        )
        moved = np.clip(rate + 0.012 * eps * np.cos(np.arange(LAYERS)), 0, 1)
        if draws == 1:
            return (moved > 0.5).astype(np.uint8)
        return np.random.default_rng([self.seed, cell % 2, eps]).binomial(draws, moved).astype(np.uint8)


Cell = dict[str, Any]


def grid() -> Iterator[Cell]:
    """The cells of one ResNet and one AIG with both gatings, with and without JPEG, in the order a sweep plans them."""
    for model, gating in (("resnet20", "none"), ("aig20", "stochastic"), ("aig20", "deterministic")):
        for attack, attacker, strength in (
            ("none", "none", 0.0),
            ("fgsm", "static", 0.55),
            ("pgd:steps=20", "adaptive", 1.3),
        ):
            for defense, help_ in (("none", 1.0), ("jpeg:75", 0.45 if attacker == "static" else 0.95)):
                gain = 0.8 if gating == "stochastic" and attacker == "static" else 1.0
                yield {
                    "model": model,
                    "gating": gating,
                    "defense": defense,
                    "attack": attack,
                    "attacker": attacker,
                    "strength": strength * help_ * gain,
                }


def write(folder: Path, population: Population, cells: list[Cell], audit: list[dict[str, Any]] | None = None) -> Path:
    """Write the cells as a sweep does, and ``run.json`` with the given audit."""
    store = RunFolder(folder)
    findings = audit or []
    listed: list[dict[str, Any]] = []
    for number, cell in enumerate(cells):
        identifier = f"{number:012x}"
        listed.append(
            {
                "id": identifier,
                "label": " · ".join(str(cell[key]) for key in ("model", "gating", "defense", "attack", "attacker")),
                "iterated": cell["attack"] != "none" and attacks.make(cell["attack"]).iterated,
                "aims_at": cell.get("aims_at", "class"),
                "identity": {
                    "attack": {"name": cell["attack"], "steps": cell.get("steps", 20)},
                    "defense": {"name": cell["defense"]},
                    "dataset": ["cifar10", "test", "index", "content"],
                },
            }
        )
        _write_cell(store, population, cell, identifier, number)
    store.write_tables([cell["id"] for cell in listed])
    store.write_run(
        {
            "config": {
                "data": "cifar10",
                "limit": population.images,
                "epsilons": [f"{k}/255" for k in population.epsilons],
            },
            "cells": listed,
            "provenance": {
                "robustbench_aig": "0.1.0",
                "git": {"commit": "0f3c9a1", "dirty": False},
                "libjpeg_turbo": "3.1.0",
            },
            "audit": findings,
            "claim_valid": not any(entry["verdict"] == "FAIL" for entry in findings),
            "failed": {},
        }
    )
    return folder


def _write_cell(store: RunFolder, population: Population, cell: Cell, identifier: str, number: int) -> None:
    n, labels = population.images, population.labels()
    draws = population.draws if cell["gating"] == "stochastic" else 1
    gated = cell["gating"] != "none"
    clean_correct = population.correct(0, 0.0, draws, 0)
    clean_open = population.opened(0, draws, number)
    rows, samples, tables, measures = [], [], [], []
    for eps in (0,) if cell["attack"] == "none" else population.epsilons:
        label = "0" if eps == 0 else f"{eps}/255"
        correct = clean_correct if eps == 0 else population.correct(eps, cell["strength"], draws, number)
        opened = population.opened(eps, draws, number)
        found = accuracy(correct, draws)
        flips = np.abs(opened.astype(int) - clean_open.astype(int)).astype(np.uint8)
        null = (2 * (clean_open / draws) * (1 - clean_open / draws)).mean(0)
        macs_clean, macs_adv = (FLOOR + BLOCK * (counts / draws).sum(1) for counts in (clean_open, opened))
        norm = "none" if cell["attack"] == "none" else "linf"
        keys = {
            "model": cell["model"],
            "dataset": "cifar10",
            **{k: cell[k] for k in ("gating", "defense", "attack", "attacker")},
            "norm": norm,
        }
        gate_columns = {
            "exec_rate_clean": clean_open.mean() / draws,
            "exec_rate_adv": opened.mean() / draws,
            "macs_clean": macs_clean.mean(),
            "macs_adv": macs_adv.mean(),
            "flip_rate": flips.mean() / draws,
            "flip_rate_null": null.mean(),
            "flip_rate_independent": null.mean(),
        }
        rows.append(
            {
                **keys,
                "eps": eps / 255,
                "eps_label": label,
                "seed": population.seed,
                "n": n,
                "draws": draws,
                "accuracy": found.value,
                "lo": found.lo,
                "hi": found.hi,
                "vote_accuracy": float((2 * correct > draws).mean()),
                "worst_accuracy": worst_at(correct, draws, draws),
                "worst_accuracy_clean": worst_at(clean_correct, draws, draws),
                **{name: float(value) if gated else None for name, value in gate_columns.items()},
                "forwards_per_image": 1.0,
                "backwards_per_image": 1.0,
                "flags": "",
                "cell": identifier,
            }
        )
        columns: dict[str, Any] = {
            "id": np.arange(n),
            "label": labels,
            "eps": np.full(n, eps / 255),
            "eps_label": np.full(n, label),
            "prediction": np.where(2 * correct > draws, labels, (labels + 1) % len(CLASSES)),
            "correct": correct,
            "linf": np.full(n, eps / 255, np.float32),
            "l2": np.full(n, eps / 255, np.float32),
        }
        if gated:
            columns |= {"macs_clean": macs_clean, "macs_adv": macs_adv}
            columns |= {"open_clean": list(clean_open), "open_adv": list(opened), "flips": list(flips)}
            columns |= {f"correct_{part}": np.minimum(correct, 2) for part in ("features", "gates")}
            columns |= {"graph_kept": ((flips == 0).all(1) * draws).astype(np.uint16)}
        samples.append(pa.table(columns))
        if gated and eps:
            head = {"eps": eps / 255, "seed": population.seed, **{k: v for k, v in keys.items() if k != "dataset"}}
            shares = {"clean": clean_correct / draws, "adv": correct / draws}
            measures += [_measures(head, label, identifier, shares, flips / draws)]
            tables += [_layers(head, group, mask, clean_open, opened, flips, draws) for group, mask in _groups(labels)]
    files = {"execution": tables, "gates": measures}
    found = {name: pd.concat(parts, ignore_index=True) for name, parts in files.items() if parts}
    result = {"id": identifier, "rows": _plain(rows)}
    store.write_cell(identifier, result, {"samples": pa.concat_tables(samples), **found}, None)


def _measures(
    head: dict[str, Any],
    label: str,
    identifier: str,
    shares: dict[str, npt.NDArray[np.float64]],
    flips: npt.NDArray[np.float64],
) -> pd.DataFrame:
    """Measures of whole graphs as if gates alone took a tenth of what the attack takes, and features the rest."""
    clean, adv = shares["clean"], shares["adv"]
    images = {
        "hamming": flips.mean(1),
        "hamming_null": 0 * clean,
        "hamming_macs": flips.mean(1),
        "graph_kept": (flips == 0).all(1).astype(float),
        "mediation_neither": clean,
        "mediation_features": 0.9 * adv + 0.1 * clean,
        "mediation_gates": 0.9 * clean + 0.1 * adv,
        "mediation_both": adv,
    }
    found = [(name, *share(values)) for name, values in images.items()]
    found += [(name, *plain(0.4, len(clean))) for name in ("information_clean", "information_adv", "macs_ratio_max")]
    found += [("recovered_up", *mean(np.array([])))]
    table = pd.DataFrame(found, columns=["measure", "value", "lo", "hi", "n"])
    return table.assign(**head, eps_label=label, cell=identifier)


def _groups(labels: npt.NDArray[np.int16]) -> Iterator[tuple[str, npt.NDArray[np.bool_]]]:
    yield "all", np.ones(len(labels), bool)
    for number, name in enumerate(CLASSES):
        yield name, labels == number


def _layers(
    head: dict[str, Any],
    group: str,
    mask: npt.NDArray[np.bool_],
    before: npt.NDArray[np.uint8],
    after: npt.NDArray[np.uint8],
    flips: npt.NDArray[np.uint8],
    draws: int,
) -> pd.DataFrame:
    clean, attacked = before[mask] / draws, after[mask] / draws
    shift = mean_intervals(attacked - clean)
    layers = range(1, LAYERS + 1)
    return pd.DataFrame(
        {
            **head,
            "group": group,
            "layer": layers,
            "block": [f"layer{1 + layer // 4}.{layer % 4}" for layer in layers],
            "n": int(mask.sum()),
            "rate_clean": clean.mean(0),
            "rate_adv": attacked.mean(0),
            "shift": [interval.value for interval in shift],
            "lo": [interval.lo for interval in shift],
            "hi": [interval.hi for interval in shift],
            "prob_clean": clean.mean(0),
            "prob_adv": attacked.mean(0),
            "flip_rate": flips[mask].mean(0) / draws,
            "flip_rate_null": (2 * clean * (1 - clean)).mean(0),
        }
    )


def _plain(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    converted: list[dict[str, Any]] = json.loads(json.dumps(rows))
    return converted


AUDIT: list[dict[str, Any]] = [
    {"id": "T1", "title": "budget", "verdict": "PASS", "text": "every scored image is inside its ball", "cell": None},
    {
        "id": "G3",
        "title": "saturation",
        "verdict": "WARN",
        "text": "CE is 0 on 42 % of images: FGSM is blunt here; add a margin loss.",
        "cell": "000000000002",
    },
]
