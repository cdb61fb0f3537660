"""Checkpoints: weights as safetensors beside a card in JSON that says what they are and how they were made."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from robustbench_aig.errors import Prerequisite, UsageError, UserError, first_line
from robustbench_aig.files import write_atomically
from robustbench_aig.models.architectures import architecture, build

WEIGHTS, CARD = "weights.safetensors", "card.json"


@dataclass
class Card:
    """What a checkpoint is.

    Attributes:
        architecture: name, as in ``list models``.
        options: how the architecture was built: ``shortcut``, ``norm``, ``hidden``.
        classes: class names in the order of the logits.
        image_shape: (C, H, W) of the training images.
        dataset: name of the training data.
        recipe: every setting of the training.
        seed: of initialisation, batches, augmentation and gate noise.
        epochs: epochs run, and ``best_epoch`` the one kept (chosen on held-out training images).
        accuracy: fractions by name, such as ``test``, ``test_stochastic``, ``validation``; ``test_pgd20`` after
            adversarial training, with the recipe's ``eps``.
        execution_rate: mean share of open gates by gating on the test images.
        rates: execution rate of each gate by gating.
        init: where training started from, if not from scratch: that checkpoint's hash, epochs, recipe and own ``init``.
        provenance: versions and device of the training.
        source: for weights trained elsewhere: where they come from and under which licence.
        weights_sha256: of the weights file.
    """

    architecture: str
    classes: list[str]
    image_shape: tuple[int, int, int]
    options: dict[str, Any] = field(default_factory=dict)
    dataset: str = ""
    recipe: dict[str, Any] = field(default_factory=dict)
    seed: int = 0
    epochs: int = 0
    best_epoch: int = 0
    accuracy: dict[str, float] = field(default_factory=dict)
    execution_rate: dict[str, float] = field(default_factory=dict)
    rates: dict[str, list[float]] = field(default_factory=dict)
    init: dict[str, Any] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)
    source: str = ""
    weights_sha256: str = ""
    format: int = 1

    def build(self) -> nn.Module:
        """A network of this architecture with fresh weights."""
        return build(self.architecture, classes=len(self.classes), channels=self.image_shape[0], **self.options)


def save(folder: Path, model: nn.Module, card: Card) -> None:
    """Write ``weights.safetensors`` and then ``card.json`` into ``folder``; the card names the weights' hash.

    Raises:
        UserError: the folder cannot be written.
    """
    tensors = {key: value.detach().cpu().contiguous() for key, value in model.state_dict().items()}
    with write_atomically(folder / WEIGHTS) as temporary:
        save_file(tensors, temporary)
        card.weights_sha256 = hashlib.sha256(temporary.read_bytes()).hexdigest()
    with write_atomically(folder / CARD) as temporary:
        temporary.write_text(json.dumps(asdict(card), indent=2) + "\n")


def load(path: Path) -> tuple[nn.Module, Card]:
    """Read a checkpoint of this suite: its folder, or the weights file in it.

    Returns:
        The network in eval mode, and its card.

    Raises:
        Prerequisite: nothing is there.
        UserError: card or weights are damaged, do not belong together, or hold NaN.
    """
    folder = path.parent if path.name == WEIGHTS else path
    card = read_card(folder)
    weights = folder / WEIGHTS
    if not weights.exists():
        raise Prerequisite(f"no weights at {weights}; train them, or point to the folder that holds {WEIGHTS}.")
    if hashlib.sha256(weights.read_bytes()).hexdigest() != card.weights_sha256:
        raise UserError(
            f"{weights} is not the file that its card describes (truncated or replaced); restore or retrain it."
        )
    try:
        tensors = load_file(weights)
    except (SafetensorError, ValueError, KeyError, OSError) as error:
        raise UserError(f"{weights} cannot be read ({first_line(error)}); restore or retrain it.") from None
    try:
        model = card.build()
    except (TypeError, ValueError, UsageError) as error:
        raise UserError(
            f"{folder / CARD} describes no {card.architecture} ({first_line(error)}); restore it."
        ) from None
    fill(model, tensors, str(weights))
    return model, card


def read_card(folder: Path) -> Card:
    """Read the card of the checkpoint in ``folder``, without its weights.

    Raises:
        Prerequisite: nothing is there.
        UserError: it is no card of this suite.
    """
    path = folder / CARD
    if not path.exists():
        raise Prerequisite(f"no checkpoint at {folder}: {CARD} is missing; train one with 'robustbench-aig train'.")
    try:
        fields: Any = json.loads(path.read_text())
        if isinstance(fields, dict) and fields.get("format", Card.format) != Card.format:
            raise UserError(
                f"{path} has format {fields['format']}, this version reads {Card.format}; update the suite."
            )
        card = Card(**fields)
        card.image_shape = (card.image_shape[0], card.image_shape[1], card.image_shape[2])
        _check_card(card)
    except (ValueError, TypeError, LookupError) as error:  # of JSON, of UTF-8, of fields
        raise UserError(f"{path} is not a card of this suite ({first_line(error)}); restore it.") from None
    architecture(card.architecture)
    return card


def _check_card(card: Card) -> None:
    """Raise a ValueError where a field that others rely on is of another kind."""
    kinds = {"architecture": str, "classes": list, "options": dict, "weights_sha256": str}
    for name, kind in kinds.items():
        if not isinstance(getattr(card, name), kind):
            raise ValueError(f"'{name}' is no {kind.__name__}")
    if not card.classes or not all(isinstance(name, str) for name in card.classes):
        raise ValueError("'classes' is no list of names")
    if not all(isinstance(size, int) and size > 0 for size in card.image_shape):
        raise ValueError("'image_shape' is no list of sizes")


def fill(model: nn.Module, tensors: Mapping[str, Tensor], origin: str) -> None:
    """Load ``tensors`` into ``model`` if they fit exactly, and put the model into eval mode.

    Raises:
        UserError: keys are missing or unexpected, a shape or kind differs, or a value is not finite.
    """
    own = model.state_dict()
    missing, unexpected = sorted(own.keys() - tensors.keys()), sorted(tensors.keys() - own.keys())
    if missing or unexpected:
        parts = [
            f"{title} {_some(keys)}" for title, keys in (("lacks", missing), ("has unexpected", unexpected)) if keys
        ]
        raise UserError(
            f"{origin} does not fit the architecture: it {' and '.join(parts)}; name the right one before the @."
        )
    for key, value in tensors.items():
        if value.shape != own[key].shape:
            raise UserError(
                f"{origin} does not fit: {key} has shape {tuple(value.shape)}, "
                f"the architecture needs {tuple(own[key].shape)}; "
                "name the right architecture before the @."
            )
        if own[key].is_floating_point() and not value.is_floating_point():
            kind = str(value.dtype).removeprefix("torch.")
            raise UserError(f"{origin} holds {kind} in {key}, which are no weights; load a file of floating point.")
        if value.is_floating_point() and not torch.isfinite(value).all():
            raise UserError(f"{origin} holds NaN or infinite values in {key}; retrain it or restore a sound copy.")
    model.load_state_dict(dict(tensors))
    model.eval()


def _some(keys: list[str], most: int = 4) -> str:
    return ", ".join(keys[:most]) + (f" and {len(keys) - most} more" if len(keys) > most else "")


def weights_hash(model: nn.Module) -> str:
    """SHA-256 over names, shapes and values of a model's state: what identifies it in a run."""
    digest = hashlib.sha256()
    for key, value in sorted(model.state_dict().items()):
        digest.update(key.encode())
        _digest(digest, value)
    for module in model.modules():  # a frozen TorchScript program keeps its weights as constants of its code
        if isinstance(module, torch.jit.ScriptModule) and hasattr(module, "code_with_constants"):
            code, constants = module.code_with_constants
            _digest(digest, [code, constants.const_mapping])
    return digest.hexdigest()


def _digest(digest: "hashlib._Hash", value: Any) -> None:
    """Add an entry of a state to a hash: mostly a tensor, but quantised layers keep tuples, types and numbers too."""
    if isinstance(value, Tensor) and value.is_quantized:
        scheme = value.qscheme()
        each = "channel" in str(scheme)
        scale = (value.q_per_channel_scales(), value.q_per_channel_zero_points()) if each else (value.q_scale(),)
        _digest(digest, [str(scheme), *scale, *(() if each else (value.q_zero_point(),)), value.int_repr()])
    elif isinstance(value, Tensor):
        digest.update(f"{tuple(value.shape)}{value.dtype}".encode())
        dense = value.detach().to_dense() if value.layout != torch.strided else value.detach()
        plain = torch.view_as_real(dense.resolve_conj()) if dense.is_complex() else dense
        digest.update(plain.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    elif isinstance(value, Mapping):
        for key, entry in value.items():
            digest.update(repr(key).encode())
            _digest(digest, entry)
    elif isinstance(value, list | tuple):
        digest.update(f"{len(value)} entries".encode())
        for entry in value:
            _digest(digest, entry)
    else:
        plainly = isinstance(value, str | bytes | int | float | bool | torch.dtype | None)
        digest.update((repr(value) if plainly else type(value).__qualname__).encode())
