"""From a grid of choices to cells: what a sweep will compute, and the identity of each part."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import torch

from robustbench_aig.contracts.attack import Attack
from robustbench_aig.contracts.defense import NO_DEFENSE, Defense
from robustbench_aig.contracts.epsilons import Epsilon, check_epsilons
from robustbench_aig.contracts.gating import Gating
from robustbench_aig.data.dataset import Dataset
from robustbench_aig.errors import UsageError
from robustbench_aig.models.classifier import Classifier

IDENTITY_VERSION = 2

Attacker = Literal["none", "static", "adaptive", "known-noise"]

Eot = int | Literal["auto"]
"""Draws that one adaptive gradient averages over; ``auto`` finds a number by doubling."""

FEWEST_DRAWS = 8
"""Where ``auto`` begins."""


@dataclass(frozen=True)
class Settings:
    """The grid of a sweep; every list is crossed with the others where that makes sense.

    Attributes:
        models: what is attacked; names are unique.
        dataset: the images.
        attacks: with their norms.
        epsilons: ascending, in the norm of every attack; a zero is the clean row, which every sweep has anyway.
        gatings: for models with gates; others have one, ``none``.
        defenses: ``NO_DEFENSE`` is one of them.
        attackers: ``static`` (one gate draw, defence unknown) and ``adaptive`` (knows both). Where there is neither
            gate nor defence to know of they are the same, and one cell stands for both. ``known-noise`` knows the
            scoring draws too; it is planned only where something is random, and enters no worst case.
        draws: S, scoring draws of anything random.
        eot: K, gate and defence draws that one gradient of the adaptive attacker averages over, or ``auto``.
        seeds: each repeats the grid.
        device: where to compute; does not enter identities.
        batch_size: images per pass; None finds one. Does not enter identities.
        reference: images that attacks may learn from and that are not attacked; needed by those that learn.
        half: gradients in bfloat16, of attacks that take them; verdicts stay in float32.
    """

    models: Sequence[Classifier]
    dataset: Dataset
    attacks: Sequence[Attack]
    epsilons: Sequence[Epsilon]
    gatings: Sequence[Gating] = (Gating("stochastic"), Gating("deterministic"))
    defenses: Sequence[Defense] = (NO_DEFENSE,)
    attackers: Sequence[Attacker] = ("static", "adaptive")
    draws: int = 10
    eot: Eot = 8
    seeds: Sequence[int] = (0,)
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    batch_size: int | None = None
    reference: Dataset | None = None
    half: bool = False


@dataclass(frozen=True, eq=False)
class Cell:
    """One model, gating, defence, attack, attacker and seed over all epsilons. ``attack`` None is the clean cell.

    A cell without an attack scores the unperturbed images; every other cell is read against it. ``chosen`` is the
    number that an ``eot`` of ``auto`` came to, which follows from the identity and so is no part of it.
    """

    model: Classifier
    gating: Gating
    defense: Defense
    attack: Attack | None
    attacker: Attacker
    epsilons: tuple[Epsilon, ...]
    dataset: Dataset
    draws: int
    eot: Eot
    seed: int
    reference: Dataset | None = None
    chosen: int | None = None
    half: bool = False

    @property
    def stochastic(self) -> bool:
        """Whether two scoring draws can differ."""
        return self.gating.stochastic or not self.defense.deterministic

    @property
    def scoring_draws(self) -> int:
        """S, or 1 where nothing is random."""
        return self.draws if self.stochastic else 1

    @property
    def averages(self) -> bool:
        """Whether gradients average over draws."""
        return self.attacker == "adaptive" and self.stochastic

    @property
    def gradient_draws(self) -> int:
        """K, or 1 where gradients average over nothing."""
        if not self.averages:
            return 1
        return (self.chosen or FEWEST_DRAWS) if self.eot == "auto" else self.eot

    @cached_property
    def identity(self) -> dict[str, Any]:
        """Everything that changes the numbers, and nothing else."""
        identity: dict[str, Any] = {
            "version": IDENTITY_VERSION,
            "weights": self.model.weights_hash,
            "gating": self.gating.name,
            "defense": None if self.defense.nothing else self.defense.settings(),
            "attack": None if self.attack is None else self.attack.settings(),
            "attacker": self.attacker,
            "eot": self.eot if self.averages else 1,
            "epsilons": [str(epsilon.exact) for epsilon in self.epsilons],
            "dataset": [self.dataset.name, self.dataset.split, self.dataset.index_hash, self.dataset.content_hash],
            "draws": self.scoring_draws,
            "seed": self.seed,
        }
        if self.half and self.attack is not None:
            identity["half"] = True
        if self.reference is not None:
            identity["reference"] = [self.reference.split, self.reference.index_hash, self.reference.content_hash]
        return identity

    @cached_property
    def id(self) -> str:
        """The first 12 hexadecimal digits of the SHA-256 of the identity's canonical JSON."""
        text = json.dumps(self.identity, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    @property
    def columns(self) -> dict[str, Any]:
        """The columns of a result row that say which cell it belongs to."""
        return {
            "model": self.model.name,
            "dataset": self.dataset.name,
            "gating": self.gating.name,
            "defense": self.defense.label,
            "attack": "none" if self.attack is None else self.attack.label,
            "attacker": self.attacker,
            "norm": "none" if self.attack is None else self.attack.norm,
        }

    @property
    def label(self) -> str:
        """The cell in a few words."""
        c = self.columns
        return " · ".join([c["model"], c["gating"], c["defense"], c["attack"], c["attacker"], f"seed {self.seed}"])


def plan(settings: Settings) -> list[Cell]:
    """The cells of a grid, the clean cell of each model, gating and defence before the attacks on it.

    Raises:
        UsageError: models repeat, an attack on decisions meets only models that make none, or a number is out of range.
    """
    _refuse_repeats(settings.models)
    for attack in settings.attacks:
        check_epsilons(settings.epsilons, attack.norm, settings.dataset.image_shape)
    if settings.draws < 1 or (settings.eot != "auto" and settings.eot < 1):
        raise UsageError("the numbers of draws must be at least 1.")
    if settings.half and not any(attack.takes_half for attack in settings.attacks):
        raise UsageError("none of these attacks takes gradients in bfloat16; leave --precision out, or add pgd.")
    for attack in settings.attacks:
        _refuse(attack, settings)
    cells = list({cell.id: cell for cell in _cells(settings)}.values())
    if set(settings.attackers) == {"known-noise"} and not any(cell.stochastic for cell in cells):
        raise UsageError("nothing in this grid is random, so there is no noise to know; choose another --attacker.")
    return cells


def _refuse_repeats(models: Sequence[Classifier]) -> None:
    """Raise a UsageError where two models share a name, or are one network, whose cells could not be told apart."""
    names: set[str] = set()
    networks: dict[str, str] = {}
    for model in models:
        if model.name in names:
            raise UsageError(f"two models have the name '{model.name}'; give each model once.")
        names.add(model.name)
        other = networks.setdefault(model.weights_hash, model.name)
        if other != model.name:
            raise UsageError(f"models '{other}' and '{model.name}' are the same network; give it once.")


def _cells(settings: Settings) -> Iterator[Cell]:
    epsilons = tuple(epsilon for epsilon in settings.epsilons if epsilon.value > 0)
    for seed in settings.seeds:
        for model in settings.models:
            for gating in settings.gatings if model.layout else (Gating("none"),):
                for attack in (None, *(settings.attacks if epsilons else ())):
                    if attack is not None and attack.needs_gates and model.layout is None:
                        continue
                    for attacker in settings.attackers if attack is not None else ("none",):
                        for defense in settings.defenses:
                            cell = Cell(
                                model,
                                gating,
                                defense,
                                attack,
                                attacker,
                                epsilons if attack is not None else (),
                                settings.dataset,
                                settings.draws,
                                settings.eot,
                                seed,
                                settings.reference if attack is not None and attack.learns else None,
                                half=settings.half and attack is not None and attack.takes_half,
                            )
                            if not _needless(cell, settings):
                                yield cell


def left_out(settings: Settings) -> list[str]:
    """What of the grid has no cells though it was asked for, in sentences: attacks on decisions, for plain models."""
    plain = [model.name for model in settings.models if model.layout is None]
    aimed = list(dict.fromkeys(attack.label for attack in settings.attacks if attack.needs_gates))
    if not plain or not aimed:
        return []
    return [f"attacks on decisions ({', '.join(aimed)}) are left out for models that make none ({', '.join(plain)})."]


def _refuse(attack: Attack, settings: Settings) -> None:
    """Raise a UsageError where the attack cannot be what the grid makes of it."""
    if attack.needs_gates and all(model.layout is None for model in settings.models):
        names = ", ".join(model.name for model in settings.models)
        raise UsageError(f"attack '{attack.name}' aims at decisions, but {names} makes none; add a dynamic model.")
    if attack.learns and settings.reference is None:
        raise UsageError(f"attack '{attack.name}' learns from reference images; give some in the settings.")
    if "known-noise" in settings.attackers and (attack.needs_gates or not attack.follows_noise):
        raise UsageError(
            f"attack '{attack.name}' cannot be told each image's noise; leave it or --attacker known-noise out."
        )


def _needless(cell: Cell, settings: Settings) -> bool:
    """Whether another cell answers the same: an attacker who knows of more, where there is nothing more to know."""
    if cell.attacker == "known-noise":
        return not cell.stochastic
    nothing = cell.model.layout is None and cell.defense.nothing
    return cell.attacker == "adaptive" and nothing and "static" in settings.attackers
