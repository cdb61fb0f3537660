"""From what ``-m`` says to a classifier that is ready to be evaluated."""

import dataclasses
import hashlib
import importlib.util
import sys
from collections.abc import Iterable
from contextlib import redirect_stdout
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from robustbench_aig.errors import Prerequisite, UsageError, UserError, described, first_line, readable, unknown
from robustbench_aig.models.architectures import ARCHITECTURES
from robustbench_aig.models.architectures import architecture as find_architecture
from robustbench_aig.user_code import beside

if TYPE_CHECKING:
    import torch

    from robustbench_aig.models.checkpoints import Card
    from robustbench_aig.models.classifier import Classifier

ZOO = Path(str(files("robustbench_aig.models").joinpath("weights")))


def zoo_names() -> list[str]:
    """The models that come with their weights, such as ``resnet20-cifar10``."""
    return sorted(card.parent.name for card in ZOO.glob("*/card.json"))


def checkpoint_folder(specification: str) -> Path | None:
    """The folder of the checkpoint of this suite that ``-m`` names; None for any other kind of model.

    Raises:
        UsageError: the specification names nothing that is known.
    """
    check_name(specification)
    if specification in zoo_names():
        return ZOO / specification
    path = Path(specification.partition("@")[2] or specification).expanduser()
    folder = path.parent if path.name == "weights.safetensors" else path
    return None if folder.is_file() or ":" in specification.partition("@")[0] else folder


def load_models(specifications: Iterable[str], device: "torch.device | str" = "cpu") -> list["Classifier"]:
    """Load several models under different names: the first of a name keeps it, later ones add their checkpoint's.

    Args:
        specifications: as in :func:`load_model`; repeats are loaded once.
        device: where to put them.
    """
    models: dict[str, Classifier] = {}
    for specification in dict.fromkeys(specifications):
        model = load_model(specification, device)
        if model.name in models:
            model = dataclasses.replace(model, name=f"{model.name}@{specification.partition('@')[2] or specification}")
        models[model.name] = model
    return list(models.values())


def load_model(specification: str, device: "torch.device | str" = "cpu") -> "Classifier":
    """Load a model; the global random state is left as it was.

    Args:
        specification: a zoo name (``resnet20-cifar10``); ``ARCHITECTURE@CHECKPOINT`` (a folder or weights of this
            suite, or a foreign ``.pth``); the folder of a checkpoint; ``torchvision:NAME``; ``timm:NAME``; or
            ``FILE.py:factory``, a function without arguments that returns a module from images in [0, 1] to logits.
        device: where to put it.

    Raises:
        UsageError: the specification names nothing that is known.
        Prerequisite: weights or a package are missing.
        UserError: the checkpoint is damaged or of another architecture.
    """
    check_name(specification)
    import torch

    with torch.random.fork_rng():
        model = _load(specification)
    model.network.to(device)
    return model


def check_name(specification: str) -> None:
    """Refuse what names no model, without importing torch or opening a file of weights.

    Raises:
        UsageError: it names nothing that is known.
    """
    prefix, colon, _ = specification.partition(":")
    name, at, _ = specification.partition("@")
    path = Path(specification).expanduser()
    if colon and (prefix in ("torchvision", "timm") or prefix.endswith(".py")):
        return
    if at:
        find_architecture(name)
    elif path.is_file() and path.name != "weights.safetensors":
        raise UsageError(f"'{specification}' does not say what the file holds; write ARCHITECTURE@{specification}.")
    elif specification in ARCHITECTURES:
        raise UsageError(f"'{name}' is an architecture without weights; write {name}@CHECKPOINT, or train one.")
    elif specification not in zoo_names() and len(path.parts) < 2 and not path.is_dir():
        kinds = ("ARCHITECTURE@CHECKPOINT", "torchvision:NAME", "timm:NAME", "FILE.py:factory")
        raise unknown("model", specification, [*zoo_names(), *kinds])


def import_checkpoint(architecture: str, file: Path, folder: Path) -> "Card":
    """Rewrite a checkpoint of another project as one of this suite.

    Args:
        architecture: what the file holds.
        file: see :func:`robustbench_aig.models.foreign.load` for the layouts that are known.
        folder: receives weights and card; it must not hold a checkpoint yet.

    Raises:
        UsageError: unknown architecture.
        Prerequisite: there is no such file.
        UserError: the file does not hold exactly this architecture, or the folder is taken or cannot be written.
    """
    find_architecture(architecture)
    import torch

    from robustbench_aig.models import checkpoints, foreign

    if (folder / checkpoints.CARD).exists():
        raise UserError(f"{folder} holds a checkpoint already; choose another folder with -o.")
    with torch.random.fork_rng():
        network, card = foreign.load(file, architecture)
    checkpoints.save(folder, network, card)
    return card


def _load(specification: str) -> "Classifier":
    from robustbench_aig.models import checkpoints
    from robustbench_aig.models.classifier import Classifier

    prefix, _, rest = specification.partition(":")
    if prefix == "torchvision":
        return _torchvision(rest)
    if prefix == "timm":
        return _timm(rest)
    if prefix.endswith(".py"):
        return _factory(Path(prefix).expanduser(), rest)
    name, at, path = specification.partition("@")
    if at:
        return _checkpoint(name, Path(path).expanduser())
    folder = ZOO / specification if specification in zoo_names() else Path(specification).expanduser()
    network, card = checkpoints.load(folder)
    return Classifier.of(folder.name, network, card.architecture, classes=len(card.classes), card=card)


def _checkpoint(name: str, path: Path) -> "Classifier":
    from robustbench_aig.models import checkpoints, foreign
    from robustbench_aig.models.classifier import Classifier

    find_architecture(name)
    if path.is_dir() or path.name == checkpoints.WEIGHTS or not path.exists():
        network, card = checkpoints.load(path)
        if card.architecture != name:
            raise UserError(f"{path} holds a {card.architecture}, not a {name}; write {card.architecture}@{path}.")
    else:
        network, card = foreign.load(path, name)
    return Classifier.of(name, network, name, classes=len(card.classes), card=card)


def _torchvision(name: str) -> "Classifier":
    from urllib.error import URLError

    import torchvision
    from torch import nn

    from robustbench_aig.models.classifier import Classifier
    from robustbench_aig.models.resnet import IMAGENET_NORM, ImageNetResNet, Normalize

    known = torchvision.models.list_models(module=torchvision.models)
    if name not in known:
        raise unknown("torchvision model", name, known)
    try:
        network: nn.Module = torchvision.models.get_model(name, weights="DEFAULT")
    except (URLError, OSError, RuntimeError) as error:  # a download that was cut short fails its checksum
        raise Prerequisite(
            f"the weights of torchvision's {name} cannot be downloaded ({first_line(error)}); "
            f"fetch them elsewhere and write {name}@FILE if it is a ResNet, or FILE.py:factory."
        ) from None
    ours = f"resnet{name.removeprefix('resnet')}" if name.removeprefix("resnet").isdecimal() else ""
    if ours in ARCHITECTURES:
        own = ImageNetResNet(ARCHITECTURES[ours].depth)
        own.load_state_dict(network.state_dict())
        return Classifier.of(f"torchvision:{name}", own, name, classes=1000)
    model = Classifier.of(f"torchvision:{name}", nn.Sequential(Normalize(*IMAGENET_NORM), network), name, classes=1000)
    return _named(model)


def _timm(name: str) -> "Classifier":
    from torch import nn

    from robustbench_aig.models.classifier import Classifier
    from robustbench_aig.models.resnet import Normalize

    if importlib.util.find_spec("timm") is None:
        raise Prerequisite("timm models need the package timm; install robustbench-aig[timm].")
    import timm

    try:
        network: Any = timm.create_model(name, pretrained=True)
    except Exception as error:  # timm raises whatever its hub raises
        raise Prerequisite(
            f"timm cannot provide '{name}' ({first_line(error)}); check the name and the network."
        ) from None
    settings = network.pretrained_cfg
    normalize = Normalize(settings["mean"], settings["std"])
    model = Classifier.of(f"timm:{name}", nn.Sequential(normalize, network), name, classes=network.num_classes)
    return _named(model)


def _named(model: "Classifier") -> "Classifier":
    """A model of a library, whose name says how its weights are used."""
    return dataclasses.replace(model, weights_hash=f"{model.weights_hash}+{model.name}")


def _factory(path: Path, function: str) -> "Classifier":
    from torch import nn

    if not path.is_file():
        raise Prerequisite(
            f"no file {path}; give the path of a Python file and the name of its function, FILE.py:factory."
        )
    if not function:
        raise UsageError(f"'{path}' needs the name of a function behind a colon: {path}:factory.")
    try:
        with redirect_stdout(sys.stderr), beside(path) as helpers:  # results alone go to stdout
            network = _made(path, function)
    except (UserError, KeyboardInterrupt):
        raise
    except SystemExit as error:
        raise UserError(
            f"{path}:{function} ends the program ({described(error)}), as a script does that reads the command line; "
            "guard that part with if __name__ == '__main__'."
        ) from None
    except BaseException as error:
        raise UserError(f"{path}:{function} raised {described(error)}; fix the factory.") from error
    if not isinstance(network, nn.Module):
        got = "the class itself" if isinstance(network, type) else type(network).__name__
        raise UserError(
            f"{path} has no function '{function}' that returns a torch module, but {got}; name one that does."
        )
    name = f"{readable(path.stem)}:{function}"
    model = _prepared(name, network, f"{readable(path.name)}:{function}")
    code = hashlib.sha256(function.encode())  # equal weights in another forward pass are another model
    for file in dict.fromkeys((path.resolve(), *helpers)):
        code.update(hashlib.sha256(file.read_bytes()).digest())
    return dataclasses.replace(model, weights_hash=f"{model.weights_hash}+{code.hexdigest()}")


def _made(path: Path, function: str) -> Any:
    """What the factory of a file returns."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules.setdefault(path.stem, module)  # classes defined there can then be pickled and copied
    spec.loader.exec_module(module)
    factory = getattr(module, function, None)
    if not callable(factory):
        own = [name for name, value in vars(module).items() if getattr(value, "__module__", "") == path.stem]
        known = ", ".join(name for name in own if callable(vars(module)[name])) or "none"
        raise UserError(f"{path} has no function '{function}' that returns a torch module; it has: {known}.")
    return factory()


def _prepared(name: str, network: Any, architecture: str, **more: Any) -> "Classifier":
    """A classifier of a network that somebody else wrote, whose methods may raise anything.

    Raises:
        UserError: it cannot be put into eval mode, or its weights cannot be read.
    """
    from robustbench_aig.models.classifier import Classifier

    try:
        return Classifier.of(name, network, architecture, **more)
    except (UserError, KeyboardInterrupt):
        raise
    except BaseException as error:
        raise UserError(
            f"model '{name}' cannot be prepared ({described(error)}); "
            "its eval() and its state_dict() must work as those of other torch modules."
        ) from error
