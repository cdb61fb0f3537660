"""Models by specification: our checkpoints, other projects' files, factories; and what is refused, in one sentence."""

import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import resnet18

from robustbench_aig.data import load_dataset
from robustbench_aig.errors import Prerequisite, UsageError, UserError
from robustbench_aig.models import checkpoints
from robustbench_aig.models.architectures import build
from robustbench_aig.models.checkpoints import Card
from robustbench_aig.models.classifier import Classifier, check
from robustbench_aig.models.resnet import CIFAR10_NORM, IMAGENET_NORM, Normalize
from robustbench_aig.models.resolve import import_checkpoint, load_model, load_models
from robustbench_aig.training.loop import evaluate


def images(size: int = 32, channels: int = 3, count: int = 4) -> Tensor:
    return torch.rand((count, channels, size, size), generator=torch.Generator().manual_seed(0))


def network(name: str, seed: int = 0, **options: object) -> nn.Module:
    """A network with statistics and gates that are not those of a fresh one."""
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = build(name, classes=10, **options).eval()
    for key, value in model.state_dict().items():
        if key.endswith(("running_mean", "fc2.weight")):
            value.copy_(torch.randn(value.shape, generator=generator) * 0.3)
    return model


def close(model: Classifier, other: nn.Module, batch: Tensor) -> bool:
    with torch.no_grad():
        return torch.allclose(model.network(batch), other(batch), atol=1e-4, rtol=1e-4)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A checkpoint of this suite: an AIG-20 for digits."""
    options = {"norm": [[0.3], [0.4]]}
    model = network("aig20", channels=1, **options)
    checkpoints.save(tmp_path / "mine", model, Card("aig20", list("0123456789"), (1, 8, 8), options, "digits"))
    return tmp_path / "mine"


def official(model: nn.Module, *, counters: bool, flat: bool) -> dict[str, Tensor]:
    """The state of an AIG under the names of the published code."""
    blocks = model.trunk.block_names  # type: ignore[union-attr]
    renamed = {}
    for key, value in model.state_dict().items():
        if key.endswith("num_batches_tracked") and not counters:
            continue
        part = key.split(".")
        if part[0] == "gates":
            leaf = "fc1bn" if part[2] == "bn" else part[2]
            matrix = value[:, :, None, None] if value.ndim == 2 and not flat else value
            renamed[f"module.{blocks[int(part[1])]}.{leaf}.{part[3]}"] = matrix
        else:
            name = key.removeprefix("trunk.").replace(".downsample.", ".shortcut.").replace("fc.", "linear.")
            renamed[f"module.{name}"] = value
    return renamed


def test_a_checkpoint_loads_as_what_was_saved(checkpoint: Path) -> None:
    original = checkpoints.load(checkpoint)[0]
    before = torch.get_rng_state()
    for specification in (f"aig20@{checkpoint}", str(checkpoint), f"aig20@{checkpoint / 'weights.safetensors'}"):
        model = load_model(specification)
        assert close(model, original, images(8, 1))
        assert len(model.units) == 9
        assert model.classes == 10
        assert not model.network.training
        assert model.image_shape == (1, 8, 8)
    assert torch.equal(before, torch.get_rng_state())


def test_models_of_one_name_are_told_apart(checkpoint: Path) -> None:
    one, other = f"aig20@{checkpoint}", f"aig20@{checkpoint / 'weights.safetensors'}"
    names = [model.name for model in load_models([one, other, one])]
    assert names == ["aig20", other]


def test_akamaster_files_have_option_a_shortcuts_and_imagenet_normalisation(tmp_path: Path) -> None:
    original = network("resnet20", shortcut="A", norm=IMAGENET_NORM)
    state = {f"module.{key}".replace("fc.", "linear."): value for key, value in original.state_dict().items()}
    torch.save({"state_dict": state, "best_prec1": 91.7}, tmp_path / "resnet20.th")
    model = load_model(f"resnet20@{tmp_path / 'resnet20.th'}")
    assert close(model, original, images())
    assert model.card is not None
    assert model.card.options["shortcut"] == "A"


@pytest.mark.parametrize(("counters", "flat", "keys"), [(True, False, 1154), (False, False, 989), (True, True, 1154)])
def test_the_official_layout_gives_the_same_logits(tmp_path: Path, counters: bool, flat: bool, keys: int) -> None:
    original = network("aig110", norm=CIFAR10_NORM)
    state = official(original, counters=counters, flat=flat)
    assert len(state) == keys
    torch.save({"epoch": 349, "state_dict": state}, tmp_path / "aig.pth.tar")
    card = import_checkpoint("aig110", tmp_path / "aig.pth.tar", tmp_path / "imported")
    assert card.source == "aig.pth.tar"
    assert close(load_model(f"aig110@{tmp_path / 'imported'}"), original, images(count=2))
    with pytest.raises(UserError, match="holds a checkpoint already"):
        import_checkpoint("aig110", tmp_path / "aig.pth.tar", tmp_path / "imported")


@pytest.mark.parametrize(("counters", "keys"), [(True, 464), (False, 395)])
def test_the_official_imagenet_layout_gives_the_same_logits(tmp_path: Path, counters: bool, keys: int) -> None:
    original = network("aig50", norm=IMAGENET_NORM)
    state = official(original, counters=counters, flat=not counters)
    assert len(state) == keys
    torch.save({"epoch": 99, "state_dict": state}, tmp_path / "aig.pth.tar")
    assert close(load_model(f"aig50@{tmp_path / 'aig.pth.tar'}"), original, images(64, count=2))


def test_skipnet_resnets_have_projections_under_torchvisions_names(tmp_path: Path) -> None:
    original = network("resnet38", norm=CIFAR10_NORM)
    state = {f"module.{key}": value for key, value in original.state_dict().items()}
    assert "module.layer2.0.downsample.1.weight" in state
    torch.save({"iter": 64000, "arch": "cifar10_resnet_38", "state_dict": state}, tmp_path / "skipnet.pth.tar")
    model = load_model(f"resnet38@{tmp_path / 'skipnet.pth.tar'}")
    assert close(model, original, images())
    assert model.card is not None
    assert model.card.options["norm"] == [list(part) for part in CIFAR10_NORM]


def test_the_state_of_one_of_our_networks_loads_from_a_plain_file(tmp_path: Path) -> None:
    original = network("aig20", norm=CIFAR10_NORM)
    torch.save(original.state_dict(), tmp_path / "mine.pth")
    assert close(load_model(f"aig20@{tmp_path / 'mine.pth'}"), original, images())


def test_torchvision_states_load_by_file_and_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        theirs = resnet18().eval()
    cache = tmp_path / "hub" / "checkpoints"
    cache.mkdir(parents=True)
    torch.save(theirs.state_dict(), cache / "resnet18-f37072fd.pth")  # where torchvision keeps what it downloaded
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    whole = nn.Sequential(Normalize(*IMAGENET_NORM), theirs)
    for specification in ("torchvision:resnet18", f"resnet18@{cache / 'resnet18-f37072fd.pth'}"):
        assert close(load_model(specification), whole, images(64, count=2))


def test_torchvision_weights_that_cannot_be_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    with pytest.raises(Prerequisite, match="cannot be downloaded"):
        load_model("torchvision:resnet18")


@pytest.mark.data
@pytest.mark.slow
def test_the_public_resnet20_is_as_good_as_published(public_resnet20: Path, cifar10_dir: Path) -> None:
    model = load_model(f"resnet20@{public_resnet20}")
    data = load_dataset("cifar10", data_dir=cifar10_dir)
    accuracy, _ = evaluate(model.network, data, device=torch.device("cpu"))
    assert accuracy == 0.9173


class Marker:
    """Unpickling it would leave a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[[Path], None], tuple[Path]]:
        return Path.touch, (self.path,)


def test_a_pickle_with_code_is_refused_and_not_run(tmp_path: Path) -> None:
    file, mark = tmp_path / "evil.pth", tmp_path / "mark"
    file.write_bytes(pickle.dumps({"state_dict": Marker(mark)}))
    with pytest.raises(UserError, match="run code"):
        load_model(f"resnet20@{file}")
    torch.save({"state_dict": Marker(mark)}, file)
    with pytest.raises(UserError, match="run code"):
        load_model(f"resnet20@{file}")
    assert not mark.exists()


def saved(tmp_path: Path, change: Callable[[dict[str, Tensor]], object]) -> Path:
    state = dict(network("resnet20").state_dict())
    change(state)
    torch.save(state, tmp_path / "file.pth")
    return tmp_path / "file.pth"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("layer2.1.conv2.weight"), r"lacks layer2\.1\.conv2\.weight"),
        (lambda state: state.update(extra=torch.zeros(1)), "unexpected extra"),
        (
            lambda state: state["layer1.0.bn1.bias"].fill_(float("nan")),
            r"NaN or infinite values in layer1\.0\.bn1\.bias",
        ),
        (lambda state: state.update({"conv1.weight": torch.zeros(8, 3, 3, 3)}), r"conv1\.weight has shape"),
        (lambda state: state.pop("fc.weight"), "no final linear layer"),
        (lambda state: state.clear(), "no state_dict"),
    ],
)
def test_foreign_files_that_do_not_fit_are_refused(
    tmp_path: Path, change: Callable[[dict[str, Tensor]], object], message: str
) -> None:
    with pytest.raises(UserError, match=message) as caught:
        load_model(f"resnet20@{saved(tmp_path, change)}")
    assert caught.value.exit_code == 1
    assert "\n" not in str(caught.value)


def test_another_architecture_is_refused(tmp_path: Path, checkpoint: Path) -> None:
    file = saved(tmp_path, lambda state: None)
    for wrong in (f"resnet32@{file}", f"aig20@{file}", f"resnet18@{file}", f"resnet20@{checkpoint}"):
        with pytest.raises(UserError):
            load_model(wrong)


def test_truncated_files_are_refused(tmp_path: Path, checkpoint: Path) -> None:
    file = saved(tmp_path, lambda state: None)
    file.write_bytes(file.read_bytes()[:5000])
    with pytest.raises(UserError, match=r"cannot be read|damaged"):
        load_model(f"resnet20@{file}")
    weights = checkpoint / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:5000])
    with pytest.raises(UserError, match="truncated or replaced"):
        load_model(f"aig20@{checkpoint}")


@pytest.mark.parametrize("path", ["nowhere", "nowhere/weights.safetensors", "nowhere.pth"])
def test_missing_checkpoints(tmp_path: Path, path: str) -> None:
    with pytest.raises(Prerequisite, match="no checkpoint at"):
        load_model(f"resnet20@{tmp_path / path}")


@pytest.mark.parametrize(
    ("specification", "message"),
    [
        ("resnet21", "unknown model"),
        ("resnet20", "without weights"),
        ("aig21@file", "did you mean aig"),
        ("torchvision:resnet17", "did you mean resnet1"),
    ],
)
def test_unknown_names(specification: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        load_model(specification)


def test_a_lone_file_must_say_what_it_holds(tmp_path: Path) -> None:
    file = saved(tmp_path, lambda state: None)
    with pytest.raises(UsageError, match="ARCHITECTURE@"):
        load_model(str(file))


FACTORY = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, finish):
        super().__init__()
        self.finish = finish
    def forward(self, images):
        return self.finish(images.flatten(1)[:, :10] + {shift})

def logits(): return Net(lambda x: x)
def maps(): return Net(lambda x: x[:, :, None, None])
def pair(): return Net(lambda x: (x, x))
def probabilities(): return Net(lambda x: x.softmax(1))
def broken(): return Net(lambda x: x / 0)
def eleven(): return Net(lambda x: torch.cat([x, x[:, :1]], 1))
def choosy(): return nn.Linear(7, 10)
def fails(): raise OSError("no such disk")
def nothing(): return None
"""


@pytest.fixture
def factory(tmp_path: Path) -> Path:
    (tmp_path / "nets.py").write_text(FACTORY.replace("{shift}", "0"))
    return tmp_path / "nets.py"


def test_a_factory_gives_a_model_that_its_code_identifies(factory: Path) -> None:
    first = load_model(f"{factory}:logits")
    check(first, images(8, 1), 10)
    assert first.layout is None
    factory.write_text(FACTORY.replace("{shift}", "1"))
    assert load_model(f"{factory}:logits").weights_hash != first.weights_hash


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("maps", r"must return logits of shape \(4, classes\), not \(4, 10, 1, 1\)"),
        ("pair", "returns 2 sets of logits"),
        ("probabilities", "returns probabilities"),
        ("broken", "NaN or infinite"),
        ("eleven", "11 classes, the data set 10"),
        ("choosy", "cannot take images of 1x8x8"),
    ],
)
def test_models_that_break_the_contract_are_refused(factory: Path, function: str, message: str) -> None:
    model = load_model(f"{factory}:{function}")
    with pytest.raises(UserError, match=message) as caught:
        check(model, images(8, 1) - 0.5 * (function == "broken"), 10)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("specification", "error", "message"),
    [
        ("nets.py:fails", UserError, "raised OSError: no such disk"),
        ("nets.py:nothing", UserError, "returns a torch module"),
        ("nets.py:absent", UserError, "no function 'absent'"),
        ("nets.py:", UsageError, "name of a function"),
        ("other.py:logits", Prerequisite, "no file"),
    ],
)
def test_factories_that_give_no_model(factory: Path, specification: str, error: type[UserError], message: str) -> None:
    with pytest.raises(error, match=message):
        load_model(str(factory.parent / specification))
