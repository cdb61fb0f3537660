"""How often the audit cries wolf, and how often it misses: sound and broken models under many lists of attacks.

python -m tests.audit.matrix              # every model under every list; writes docs/audit-rates.json
python -m tests.audit.matrix --only NAME  # those whose names contain NAME; writes nothing

A false alarm is a FAIL on a sound model. A miss is a broken model on which none of the checks that are meant for it
FAILs, or WARNs where its fault is worth no more. Models of CIFAR-10 need its images (ROBUSTBENCH_AIG_DATA).
"""

import argparse
import copy
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import nn

import attacks
import defenses
from robustbench_aig.contracts.defense import NO_DEFENSE, Defense
from robustbench_aig.contracts.epsilons import parse_epsilons
from robustbench_aig.contracts.gating import Gating
from robustbench_aig.data import load_dataset
from robustbench_aig.models.resolve import load_model
from tests.audit.audits import Found, classifier, found, run, trained
from tests.fixtures import broken_models as broken

RATES = Path(__file__).resolve().parents[2] / "docs" / "audit-rates.json"
ROOT = Path(__file__).resolve().parents[2]

IMAGES = {"digits": 40, "cifar10": 24}


@dataclass(frozen=True)
class List:
    """What a sweep is asked for: attacks, their norm and budgets."""

    attacks: tuple[str, ...]
    epsilons: str
    norm: str | None = None

    def grid(self, scale: float) -> dict[str, Any]:
        """For a sweep; budgets are multiplied by ``scale``, because digits take more than photographs."""
        norm = {"norm": self.norm} if self.norm else {}
        values = ",".join(f"{scale * float(part):.6g}" for part in self.epsilons.split(","))
        return {
            "attacks": [attacks.make(name, **norm) for name in self.attacks],
            "epsilons": parse_epsilons([values]),
        }


PGD = "pgd:steps=10,rel_step=0.25"

LISTS: Mapping[str, List] = {
    "three budgets": List(("fgsm", PGD), "0.05,0.1,0.2"),
    "one large budget": List((PGD,), "0.3"),
    "one tiny budget": List((PGD,), "0.002"),
    "tiny and huge": List(("fgsm", PGD), "0.002,0.9"),
    "single steps": List(("fgsm",), "0.05,0.4"),
    "l2": List(("fgsm", PGD, "fmn:steps=20"), "0.5,1.5", "l2"),
    "l1": List(("foolbox:L1FastGradientAttack", "foolbox:L1ProjectedGradientDescentAttack:steps=10"), "2,6"),
    "l0": List(("foolbox:L0FMNAttack:steps=20", "torchattacks:Pixle:restarts=2,max_iterations=5"), "4,12"),
    "auto": List(("auto:steps=10,restarts=1,queries=40",), "0.05,0.15"),
    "weak and strong": List(("deepfool:steps=10", "square:queries=60", "noise"), "0.05,0.15"),
    "libraries": List(("torchattacks:AutoAttack:steps=5", "torchattacks:MIFGSM", "foolbox:LInfFMNAttack"), "0.03,0.1"),
    "momentum": List(("apgd:steps=10", "apgd-t:steps=5", "mifgsm", "identity"), "0.1,0.25"),
}


@dataclass(frozen=True)
class Sound:
    """A model that keeps every contract, and how it is swept.

    Attributes:
        network: makes it.
        data: ``digits`` or ``cifar10``.
        options: of the sweep, such as gatings and attackers.
        scale: of the budgets.
        skipped: lists that do not apply.
    """

    network: Callable[[], nn.Module]
    data: str = "digits"
    options: Mapping[str, Any] = field(default_factory=dict)
    scale: float = 1.0
    skipped: tuple[str, ...] = ()


@cache
def digits_network(architecture: str) -> nn.Module:
    """A network of the suite after six epochs of digits."""
    with tempfile.TemporaryDirectory() as folder:
        return trained(architecture, Path(folder))


def _fitted(network: nn.Module) -> nn.Module:
    """The network after a hundred steps on digits."""
    data = load_dataset("digits", split="train")
    images, labels = data.images(torch.arange(len(data))), data.labels
    generator = torch.Generator().manual_seed(0)
    optimizer = torch.optim.Adam(network.parameters(), 3e-3)
    for _ in range(100):
        chosen = torch.randint(0, len(labels), (128,), generator=generator)
        loss = nn.functional.cross_entropy(network(images[chosen]), labels[chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return network.eval()


def _seeded(build: Callable[[], nn.Module]) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return _fitted(build())


@cache
def lenet() -> nn.Module:
    """Max-pooling and ReLU, without normalisation."""
    return _seeded(
        lambda: nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(16, 32, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(128, 64),
            nn.ReLU(),
            nn.Linear(64, 10),
        )
    )


@cache
def smooth() -> nn.Module:
    """GELU and layer normalisation: not one kink."""
    return _seeded(
        lambda: nn.Sequential(
            nn.Conv2d(1, 24, 3, padding=1), nn.GELU(), nn.Flatten(), nn.LayerNorm(1536), nn.Linear(1536, 10)
        )
    )


@cache
def connected() -> nn.Module:
    """Fully connected, with leaky units of a learnt slope and smooth ones."""
    return _seeded(
        lambda: nn.Sequential(
            nn.Flatten(), nn.Linear(64, 96), nn.PReLU(), nn.Linear(96, 96), nn.SiLU(), nn.Linear(96, 10)
        )
    )


def _zoo(name: str) -> nn.Module:
    return load_model(name).network


def _behind(defense: str) -> tuple[Defense | None, ...]:
    return (defenses.make(defense),)


STOCHASTIC = {"gatings": (Gating("stochastic"),), "attackers": ("static", "adaptive"), "eot": 4, "draws": 10}
ONE_PATH = ("auto", "libraries", "momentum", "l0", "tiny and huge", "weak and strong")
"""Lists that would take minutes where gradients are averaged over draws, or run several paths."""


def _digits(architecture: str) -> Callable[[], nn.Module]:
    return lambda: digits_network(architecture)


CIFAR = {"data": "cifar10", "scale": 0.1, "skipped": ("libraries",)}
SOUND: Mapping[str, Sound] = {
    "digits resnet20": Sound(_digits("resnet20")),
    "digits LeNet": Sound(lenet),
    "digits smooth": Sound(smooth),
    "digits fully connected": Sound(connected),
    "digits aig20, deterministic": Sound(
        _digits("aig20"), options={"gatings": (Gating("deterministic"), Gating("deterministic", 0.7))}
    ),
    "digits aig20, expected": Sound(_digits("aig20"), options={"gatings": (Gating("expected"),)}),
    "digits aig20, sampled": Sound(_digits("aig20"), options=STOCHASTIC, skipped=ONE_PATH),
    "digits aig20, sampled and fixed": Sound(
        _digits("aig20"),
        options={**STOCHASTIC, "gatings": (Gating("stochastic"), Gating("deterministic")), "attackers": ("adaptive",)},
        skipped=ONE_PATH,
    ),
    "digits resnet20, jpeg": Sound(
        _digits("resnet20"),
        options={"defenses": (NO_DEFENSE, *_behind("jpeg:75")), "attackers": ("static", "adaptive")},
        skipped=("auto",),
    ),
    "digits resnet20, smoothing": Sound(
        _digits("resnet20"),
        options={"defenses": _behind("smoothing:0.05"), "attackers": ("adaptive",), "eot": 4},
        skipped=ONE_PATH,
    ),
    "digits LeNet, median": Sound(lenet, options={"defenses": _behind("median"), "attackers": ("adaptive",)}),
    "digits aig20, sampled, bit depth": Sound(
        _digits("aig20"),
        options={**STOCHASTIC, "defenses": _behind("bitdepth:4"), "attackers": ("adaptive",)},
        skipped=ONE_PATH,
    ),
    "resnet20-cifar10": Sound(lambda: _zoo("resnet20-cifar10"), **CIFAR),
    "public resnet20": Sound(lambda: _zoo(f"resnet20@{_public()}"), **CIFAR),
    "aig20-cifar10, deterministic": Sound(
        lambda: _zoo("aig20-cifar10"), options={"gatings": (Gating("deterministic"),)}, **CIFAR
    ),
    "aig20-cifar10, sampled": Sound(
        lambda: _zoo("aig20-cifar10"), options=STOCHASTIC, **CIFAR | {"skipped": (*ONE_PATH, "l2", "l1")}
    ),
}


def _public() -> Path:
    places = [Path(os.environ.get("ROBUSTBENCH_AIG_DATA", "data")), ROOT.parent / "shared" / "data"]
    return next(file for place in places if (file := place / "weights" / "resnet20-12fca82f.th").is_file())


@dataclass(frozen=True)
class Broken:
    """A model with a fault, and the checks that are meant for it.

    Attributes:
        network: makes it.
        checks: at least one of these must complain.
        verdict: the least that it must say.
        options: of the sweep.
        lists: under which it must be found.
    """

    network: Callable[[], nn.Module]
    checks: frozenset[str]
    verdict: str = "FAIL"
    options: Mapping[str, Any] = field(default_factory=dict)
    lists: tuple[str, ...] = ("three budgets", "one large budget", "one tiny budget", "l2")


def _plain(kind: Callable[[nn.Module], nn.Module]) -> Callable[[], nn.Module]:
    return lambda: kind(copy.deepcopy(digits_network("resnet20")))


def _gated(kind: Callable[[Any], nn.Module]) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        sound: Any = copy.deepcopy(digits_network("aig20"))
        network = kind(sound.trunk)
        network.load_state_dict(sound.state_dict())
        return network.eval()

    return build


def _broken() -> Iterator[tuple[str, Broken]]:
    for kinds, checks in (
        (
            (
                broken.HalfOfPixels,
                broken.EveryOtherPixel,
                broken.MiddleOfPixels,
                broken.BrightPixels,
                broken.BlackPixels,
                broken.ClampedInput,
                broken.ThirdOfImagesFlipped,
                broken.LouderGradient,
                broken.SofterGradientOnPart,
                broken.NoisyGradient,
                broken.ShiftedGradient,
                broken.HalfOfFeaturesDetached,
            ),
            {"G7"},
        ),
        ((broken.ThirdOfImagesDetached, broken.FirstHalfOfBatchDetached), {"G2", "G7"}),
        ((broken.FlippedGradient,), {"G4", "G7"}),
        ((broken.ZeroGradient, broken.QuantisedInput, broken.SaturatedLogits), {"G2"}),
        ((broken.HalfNaNGradient, broken.NaNGradientOnPart, broken.InfiniteGradientOfSome, broken.RootInput), {"G6"}),
        ((broken.NaNLogitsOfSome, broken.NaNOffGrid, broken.InfiniteLogits), {"T6"}),
        ((broken.DetachedInput,), {"G1"}),
        ((broken.ShatteredGradient,), {"G4"}),
        ((broken.SoftmaxHead, broken.HalfPrecision, broken.BatchCentred, broken.TrainModeBatchNorm), {"T3"}),
        ((broken.CountsPasses,), {"T3", "R1"}),
        ((broken.NoisyLogits, broken.DropoutInside), {"R1"}),
    ):
        for kind in kinds:
            yield kind.__name__, Broken(_plain(kind), frozenset(checks))
    single = ("single steps",)
    yield "LargeLogits", Broken(_plain(broken.LargeLogits), frozenset({"G2", "G3"}), "WARN", lists=single)
    yield "InPlace", Broken(_plain(broken.InPlace), frozenset({"T3"}), "WARN")
    sampled = {"gatings": (Gating("stochastic"),), "attackers": ("adaptive",), "eot": 4}
    some = ("three budgets", "one tiny budget")
    for kind in (broken.DisobedientGates, broken.TrainingGates):
        yield kind.__name__, Broken(_gated(kind), frozenset({"R6"}), options=sampled, lists=some)
    yield (
        "MisledByNoise",
        Broken(_gated(broken.MisledByNoise), frozenset({"R2", "G7"}), options=sampled, lists=some),
    )
    opaque = {"defenses": (broken.OpaqueJpeg(),), "attackers": ("adaptive",)}
    yield "OpaqueJpeg", Broken(lambda: digits_network("resnet20"), frozenset({"G1"}), options=opaque, lists=some)
    coarse = {"defenses": (broken.CoarseSurrogate(quality=90),), "attackers": ("adaptive",)}
    yield (
        "CoarseSurrogate",
        Broken(lambda: digits_network("resnet20"), frozenset({"D2"}), "WARN", options=coarse, lists=some),
    )


BROKEN: Mapping[str, Broken] = dict(_broken())


def complaints(network: nn.Module, data: str, wanted: List, scale: float, options: Mapping[str, Any]) -> Found:
    """What the core audit of a sweep complains about."""
    place = {"data_dir": Path(os.environ["ROBUSTBENCH_AIG_DATA"])} if data == "cifar10" else {}
    grid = {"models": [classifier(network)], "dataset": load_dataset(data, limit=IMAGES[data], **place)}
    with tempfile.TemporaryDirectory() as folder:
        return found(run(Path(folder), network, **grid | wanted.grid(scale) | dict(options)))


def alarms(name: str, wanted: str) -> Found:
    """FAILs on a sound model under a list."""
    case = SOUND[name]
    told = complaints(case.network(), case.data, LISTS[wanted], case.scale, case.options)
    return {entry for entry in told if entry[1] == "FAIL"}


def missed(name: str, wanted: str) -> tuple[bool, Found]:
    """Whether the audit misses a broken model under a list, and what it says."""
    case = BROKEN[name]
    told = complaints(case.network(), "digits", LISTS[wanted], 1.0, case.options)
    enough = {"FAIL"} if case.verdict == "FAIL" else {"FAIL", "WARN"}
    return not any(check in case.checks and verdict in enough for check, verdict in told), told


def main() -> None:
    """Measure both rates."""
    options = argparse.ArgumentParser()
    options.add_argument("--only", default="")
    only = options.parse_args().only
    torch.set_num_threads(1)
    started = time.monotonic()
    false: list[str] = []
    audits = models = 0
    for name, case in SOUND.items():
        chosen = [wanted for wanted in LISTS if wanted not in case.skipped and only in f"{name}, {wanted}"]
        models += bool(chosen)
        for wanted in chosen:
            told = alarms(name, wanted)
            audits += 1
            false += [f"{name}, {wanted}: {sorted(told)}"] if told else []
            print(f"{time.monotonic() - started:6.0f} s  sound   {name}, {wanted}: {sorted(told) or 'ok'}", flush=True)
    misses: list[str] = []
    tries = faults = 0
    for name, flaw in BROKEN.items():
        chosen = [wanted for wanted in flaw.lists if only in f"{name}, {wanted}"]
        faults += bool(chosen)
        for wanted in chosen:
            miss, told = missed(name, wanted)
            tries += 1
            misses += [f"{name}, {wanted}: {sorted(told)}"] if miss else []
            print(
                f"{time.monotonic() - started:6.0f} s  broken  {name}, {wanted}: {'MISSED ' * miss}{sorted(told)}",
                flush=True,
            )
    rates = {
        "sound": {"models": models, "lists": len(LISTS), "audits": audits, "false alarms": len(false)},
        "broken": {"models": faults, "audits": tries, "misses": len(misses)},
    }
    print(json.dumps({**rates, "which": false + misses}, indent=1))
    if not only:
        RATES.write_text(json.dumps(rates, indent=1) + "\n")


if __name__ == "__main__":
    main()
