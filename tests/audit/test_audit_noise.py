"""The audit on random gates, on surrogates and on the codec: each fixture trips exactly the checks meant for it."""

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from torch import nn

import attacks
import defenses
from defenses import jpeg_codec
from robustbench_aig.contracts import noise
from robustbench_aig.contracts.epsilons import parse_epsilons
from robustbench_aig.contracts.gating import Gating
from robustbench_aig.data import load_dataset
from tests.audit.audits import PGD, found, run
from tests.fixtures import broken_attacks, broken_models

RANDOM: dict[str, Any] = {
    "dataset": load_dataset("digits", limit=60),
    "attacks": [attacks.make(PGD)],
    "epsilons": parse_epsilons(["0.1"]),
    "gatings": (Gating("stochastic"),),
    "attackers": ("adaptive",),
    "eot": 16,  # with 8 two gradients agree no better than G5 wants
}


def test_sound_random_gates_trip_nothing(gated: nn.Module, tmp_path: Path) -> None:
    assert found(run(tmp_path, gated, **RANDOM | {"attackers": ("adaptive", "known-noise")})) == set()


def test_gradients_that_random_gates_mislead(gated: nn.Module, tmp_path: Path) -> None:
    """One known draw is as hard as all of them (R2), the deterministic twin is ahead (S7), and downhill of a clean
    image there is nothing better than the image (U)."""
    network = broken_models.MisledByNoise(copy.deepcopy(gated.trunk))
    network.load_state_dict(gated.state_dict())
    assert found(run(tmp_path, network, **RANDOM)) == {("G7", "FAIL"), ("R2", "FAIL"), ("S7", "WARN"), ("U", "WARN")}


def test_an_attack_that_only_the_twin_carries(gated: nn.Module, tmp_path: Path) -> None:
    shy = broken_attacks.Shy(steps=10, rel_step=0.25)
    assert found(run(tmp_path, gated, **RANDOM | {"attacks": [shy]})) == {("S7", "WARN")}


def test_fresh_noise_ahead_of_known_noise(gated: nn.Module, tmp_path: Path) -> None:
    forgetful = broken_attacks.Forgetful(steps=10, rel_step=0.25)
    grid = RANDOM | {"attacks": [forgetful], "attackers": ("adaptive", "known-noise")}
    document = run(tmp_path, gated, **grid)
    assert found(document) == {("R7", "FAIL")}
    assert document["claim_valid"] is False


def test_streams_that_share_numbers(gated: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(noise._STAGES, "craft", noise._STAGES["score"])
    document = run(tmp_path, gated, **RANDOM | {"eot": 32})
    assert found(document) == {("R4", "FAIL")}
    assert "craft and score" in next(entry["text"] for entry in document["audit"] if entry["id"] == "R4")


def test_few_draws(gated: nn.Module, tmp_path: Path) -> None:
    assert found(run(tmp_path, gated, **RANDOM | {"draws": 4})) == {("R4", "WARN")}


JPEG: dict[str, Any] = {
    "dataset": load_dataset("digits", limit=60),
    "attacks": [attacks.make(PGD)],
    "epsilons": parse_epsilons(["0.1"]),
    "attackers": ("adaptive",),
}


def test_a_surrogate_unlike_its_defence(plain: nn.Module, tmp_path: Path) -> None:
    sound = run(tmp_path / "sound", plain, **JPEG, defenses=(defenses.make("jpeg:90"),))
    assert found(sound) == set()
    coarse = run(tmp_path / "coarse", plain, **JPEG, defenses=(broken_models.CoarseSurrogate(quality=90),))
    assert found(coarse) == {("D2", "WARN")}


@pytest.fixture
def other_codec(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A codec that decodes the corner of an image one level off."""
    real = jpeg_codec.pillow
    caches = (jpeg_codec.selected, jpeg_codec._examination)

    def off(pixels: jpeg_codec.Pixels, quality: int, ratio: jpeg_codec.Subsampling) -> jpeg_codec.Pixels:
        decoded = real(pixels, quality, ratio)
        decoded[:, 0, 0] ^= 1
        return decoded

    monkeypatch.setattr(jpeg_codec, "pillow", off)
    for cache in caches:
        cache.cache_clear()
    yield
    for cache in caches:
        cache.cache_clear()


@pytest.mark.usefixtures("other_codec")
def test_another_codec(plain: nn.Module, tmp_path: Path) -> None:
    assert found(run(tmp_path, plain, **JPEG, defenses=(defenses.make("jpeg:90"),))) == {("D3", "WARN")}
