"""Models by specification: our checkpoints, other projects' files, factories; and what is refused, in one sentence."""

import argparse
import json
import pickle
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torchvision.models import resnet18

from robustbench_aig.contracts.network import frozen
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
        ("choosy", "cannot take 4 images of 1x8x8"),
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
        ("nets.py:nothing", UserError, "returns a torch module, but NoneType"),
        ("nets.py:Net", UserError, r"Net raised TypeError: .*finish"),
        ("nets.py:absent", UserError, "no function 'absent'"),
        ("nets.py:", UsageError, "name of a function"),
        ("other.py:logits", Prerequisite, "no file"),
    ],
)
def test_factories_that_give_no_model(factory: Path, specification: str, error: type[UserError], message: str) -> None:
    with pytest.raises(error, match=message):
        load_model(str(factory.parent / specification))


def resnet_state(**options: object) -> tuple[nn.Module, dict[str, Tensor]]:
    model = network("resnet20", shortcut="A", **options)
    return model, dict(model.state_dict())


def under(prefix: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {prefix + key: value for key, value in state.items()}


OTHER = {"epoch": 3, "optimizer_state_dict": {"state": {0: {"exp_avg": torch.zeros(2)}}, "param_groups": [{"lr": 0.1}]}}


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: {"model_state_dict": state, "loss": 0.5, **OTHER},
        lambda state: {"model_ema": state, **OTHER},
        lambda state: {"ema": {"params": state}},
        lambda state: {"checkpoint": {"state_dict": under("module.", state), "args": argparse.Namespace(lr=0.1)}},
        lambda state: {"state_dict": under("model.", state), "pytorch-lightning_version": "2.0", "callbacks": {}},
        lambda state: {"net": under("module.model.", state), "acc": np.float64(91.5)},
        lambda state: under("_orig_mod.", state),
        lambda state: under("model._orig_mod.module.", state),
        lambda state: {**state, "epoch": 3},
        lambda state: {"model": under("net.", state), "model_ema": {key: value * 0 for key, value in state.items()}},
    ],
)
def test_weights_are_found_wherever_they_lie(tmp_path: Path, wrap: Callable[[dict[str, Tensor]], object]) -> None:
    original, state = resnet_state(norm=IMAGENET_NORM)
    torch.save(wrap(state), tmp_path / "file.pth")
    model = load_model(f"resnet20@{tmp_path / 'file.pth'}")
    assert close(model, original, images())


def test_which_of_several_sets_was_read_is_recorded(tmp_path: Path) -> None:
    _, state = resnet_state()
    torch.save({"model": state, "model_ema": state}, tmp_path / "file.pth")
    assert load_model(f"resnet20@{tmp_path / 'file.pth'}").card.source == "file.pth:model"  # type: ignore[union-attr]
    torch.save({"student": state, "teacher": state}, tmp_path / "file.pth")
    with pytest.raises(UserError, match=r"several sets of weights \(student, teacher\)"):
        load_model(f"resnet20@{tmp_path / 'file.pth'}")


@pytest.mark.parametrize(
    ("keys", "prefix", "shape"),
    [(("mean", "std"), "", (3,)), (("0.mean", "0.std"), "1.", (1, 3, 1, 1)), (("mu", "sigma"), "model.", (3, 1, 1))],
)
def test_a_normalisation_in_the_file_takes_the_place_of_the_usual_one(
    tmp_path: Path, keys: tuple[str, str], prefix: str, shape: tuple[int, ...]
) -> None:
    norm = ((0.5, 0.25, 0.125), (0.5, 0.75, 0.25))
    original, state = resnet_state(norm=norm)
    constants = {key: torch.tensor(values).view(shape) for key, values in zip(keys, norm, strict=True)}
    torch.save({"state_dict": {**constants, **under(prefix, state)}}, tmp_path / "file.pth")
    assert close(load_model(f"resnet20@{tmp_path / 'file.pth'}"), original, images())
    constants[keys[0]] = constants[keys[0]] * 255
    torch.save({**constants, **under(prefix, state)}, tmp_path / "file.pth")
    with pytest.raises(UserError, match=r"normalises by mean \[127\.5, .*none of pixels in \[0, 1\]"):
        load_model(f"resnet20@{tmp_path / 'file.pth'}")


def test_a_normalisation_that_nobody_states_is_not_guessed(tmp_path: Path) -> None:
    torch.save(network("resnet20", channels=1, norm=((0.3,), (0.4,))).state_dict(), tmp_path / "file.pth")
    with pytest.raises(UserError, match="1 channels and does not say how they are normalised"):
        load_model(f"resnet20@{tmp_path / 'file.pth'}")


def test_stochastic_depth_networks_load_from_plain_files(tmp_path: Path) -> None:
    original = network("stochastic-depth-resnet20")
    torch.save(original.state_dict(), tmp_path / "file.pth")
    assert close(load_model(f"stochastic-depth-resnet20@{tmp_path / 'file.pth'}"), original, images())


def test_a_renamed_safetensors_file_is_read_as_what_it_is(tmp_path: Path) -> None:
    original, state = resnet_state(norm=IMAGENET_NORM)
    for name in ("file.pth", "file.safetensors"):
        save_file(state, tmp_path / name)
        assert close(load_model(f"resnet20@{tmp_path / name}"), original, images())
    torch.save(state, tmp_path / "pickle.safetensors")
    assert close(load_model(f"resnet20@{tmp_path / 'pickle.safetensors'}"), original, images())


def test_files_that_hold_something_else_say_so(tmp_path: Path) -> None:
    file = tmp_path / "file.pth"
    file.touch()
    with pytest.raises(UserError, match="is empty; fetch it again"):
        load_model(f"resnet20@{file}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(nn.Linear(2, 2)), file)
    with pytest.raises(UserError, match="is a TorchScript program; load it in a factory"):
        load_model(f"resnet20@{file}")
    file.write_text("<!DOCTYPE html>")
    with pytest.raises(UserError, match="damaged"):
        load_model(f"resnet20@{file}")


SCRIPTS = """
import argparse
import sys

import torch
from torch import nn

import layers

class Net(layers.Base):
    def train(self, mode=True):  # returns nothing
        super().train(mode)

def plain(): return Net()
def talking():
    print("building")
    return Net()
def quantised(): return torch.ao.quantization.quantize_dynamic(Net(), {nn.Linear}, dtype=torch.qint8)
def scripted(): return torch.jit.script(layers.Base())
def frozen(): return torch.jit.freeze(torch.jit.script(layers.Base().eval()))
def parsing():
    parser = argparse.ArgumentParser()
    parser.add_argument("--needed", required=True)
    return parser.parse_args()
def exits(): sys.exit(3)
def unsaid(): raise AssertionError
class Odd(BaseException): pass
def odd(): raise Odd("no\\nsense")
class NoState(Net):
    def state_dict(self, *args, **kwargs): raise NotImplementedError
def stateless(): return NoState()
"""

LAYERS = """
import torch
from torch import nn

class Base(nn.Module):
    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed({seed})
        self.conv = nn.Conv2d(1, 4, 3, padding=1)
        self.out = nn.Linear(4 * 64, 10)
        for parameter in self.parameters():
            parameter.data = torch.randn(parameter.shape, generator=generator)
    def forward(self, images):
        assert images.shape[2] == 8, "takes 8 x 8"
        return self.out(torch.relu(self.conv(images)).view(images.shape[0], -1))
"""


@pytest.fixture
def script(tmp_path: Path) -> Path:
    for name, seed in (("one", 1), ("other", 2)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "nets.py").write_text(SCRIPTS)
        (tmp_path / name / "layers.py").write_text(LAYERS.replace("{seed}", str(seed)))
    return tmp_path / "one" / "nets.py"


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
@pytest.mark.parametrize("function", ["plain", "talking", "quantised", "scripted", "frozen"])
def test_models_that_are_fine_elsewhere_are_fine_here(
    script: Path, capsys: pytest.CaptureFixture[str], function: str
) -> None:
    path, modules = list(sys.path), set(sys.modules)
    model = load_model(f"{script}:{function}")
    check(model, images(8, 1), 10)
    with frozen(model.network):
        alone, together = model.network(images(8, 1)[:1]), model.network(images(8, 1))
    slack = 0.5 if function == "quantised" else 1e-4  # quantised layers take their scale from the batch
    assert torch.allclose(alone, together[:1], rtol=1e-4, atol=slack)
    assert load_model(f"{script}:{function}").weights_hash == model.weights_hash
    assert load_model(f"{script.parents[1] / 'other' / 'nets.py'}:{function}").weights_hash != model.weights_hash
    assert capsys.readouterr().out == ""
    assert sys.path == path
    assert set(sys.modules) - modules <= {"layers", "nets"} | {name for name in sys.modules if "torch" in name}


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (
            "parsing",
            r"nets\.py:parsing ends the program \(SystemExit: 2\), as a script does that reads the command line",
        ),
        ("exits", r"ends the program \(SystemExit: 3\)"),
        ("unsaid", r"raised AssertionError; fix the factory"),
        ("odd", r"raised Odd: no; fix the factory"),
        ("stateless", r"model 'nets:stateless' cannot be prepared \(NotImplementedError\)"),
        ("absent", r"no function 'absent' .*it has: Net, plain, talking"),
    ],
)
def test_factories_that_fail_are_one_sentence(script: Path, function: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        load_model(f"{script}:{function}")
    assert "\n" not in str(caught.value)


def test_two_factories_with_helpers_of_one_name_get_their_own(script: Path) -> None:
    other = script.parents[1] / "other" / "nets.py"
    one, two = (load_model(f"{path}:plain") for path in (script, other))
    assert not torch.equal(one.network(images(8, 1)), two.network(images(8, 1)))
    again = load_model(f"{script}:plain")
    assert torch.equal(again.network(images(8, 1)), one.network(images(8, 1)))
    assert again.weights_hash == one.weights_hash
    (script.parent / "layers.py").write_text(LAYERS.replace("{seed}", "1").replace("torch.relu", "torch.tanh"))
    assert load_model(f"{script}:plain").weights_hash != one.weights_hash  # equal weights in other code


def test_a_users_module_may_be_called_as_one_of_this_suite(tmp_path: Path) -> None:
    import attacks

    (tmp_path / "attacks.py").write_text("SIZE = 64")
    (tmp_path / "nets.py").write_text(
        "from torch import nn\nimport attacks\n"
        "def net(): return nn.Sequential(nn.Flatten(), nn.Linear(attacks.SIZE, 10))"
    )
    check(load_model(f"{tmp_path / 'nets.py'}:net"), images(8, 1), 10)
    assert sys.modules["attacks"] is attacks
    assert attacks.make("fgsm").name == "fgsm"


class Flat(nn.Module):
    """A linear network of 8 x 8 images that does something with them first."""

    def __init__(self, look: Callable[[Tensor], Tensor], finish: Callable[[Tensor], Tensor] = lambda x: x) -> None:
        super().__init__()
        self.look, self.finish = look, finish
        self.out = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.finish(self.out(self.look(x).view(len(x), -1)))


def classifier(module: nn.Module) -> Classifier:
    return Classifier.of("mine", module, "mine", classes=10)


def test_foreign_networks_may_view_their_images_and_write_to_them() -> None:
    batch = images(8, 1)
    for look in (lambda x: x, lambda x: x.sub_(0.5).mul_(2), lambda x: x.permute(0, 2, 3, 1).contiguous()):
        model = Flat(look).eval()
        expected = model(batch.clone())
        mine = classifier(model)
        assert mine.memory_format == torch.contiguous_format
        for given in (
            batch,
            batch.contiguous(memory_format=torch.channels_last),
            batch.transpose(2, 3).transpose(2, 3),
        ):
            before = given.clone()
            check(mine, given, 10)
            assert torch.equal(mine.network(given), expected)
            assert torch.equal(given, before)
        (gradient,) = torch.autograd.grad(mine.network(leaf := batch.clone().requires_grad_()).sum(), leaf)
        assert gradient.isfinite().all()
        assert gradient.any()


def test_own_networks_are_laid_out_for_speed() -> None:
    mine = Classifier.of("mine", network("resnet20"), "resnet20", classes=10)
    assert mine.memory_format == torch.channels_last
    assert mine.network.conv1.weight.is_contiguous(memory_format=torch.channels_last)  # type: ignore[union-attr, operator]


def test_networks_that_squeeze_are_given_no_image_alone() -> None:
    model = Flat(lambda x: x, lambda x: x.squeeze()).eval()
    batch = images(8, 1)
    mine = classifier(model)
    assert torch.allclose(mine.network(batch[:1]), model(batch)[:1], atol=1e-6)
    lonely = Flat(lambda x: x.squeeze() if len(x) > 1 else x[:, :, 0, 0].squeeze()).eval()
    assert torch.allclose(classifier(lonely).network(batch[:1]), lonely(batch)[:1], atol=1e-6)
    before = torch.get_rng_state()
    classifier(model).network(batch[:1])
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize(
    ("finish", "message"),
    [
        (lambda x: x.argmax(1, keepdim=True).expand(-1, 10), "returns int64 in place of logits"),
        (lambda x: None, "not NoneType"),
        (lambda x: (_ for _ in ()).throw(KeyError("gone")), r"\(KeyError: 'gone'\)"),
        (lambda x: (_ for _ in ()).throw(AssertionError), r"cannot take 4 images of 1x8x8 \(AssertionError\)"),
        (lambda x: x.squeeze(0).sum(), r"not \(\)"),
    ],
)
def test_networks_that_fail_in_their_own_way_are_one_sentence(finish: Callable[[Tensor], Tensor], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        check(classifier(Flat(lambda x: x, finish)), images(8, 1), 10)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "change",
    [
        lambda card: [],
        lambda card: {**card, "architecture": ["aig20"]},
        lambda card: {**card, "architecture": "aig21"},
        lambda card: {**card, "classes": 10},
        lambda card: {**card, "classes": []},
        lambda card: {**card, "image_shape": [1, 8]},
        lambda card: {**card, "image_shape": "1x8x8"},
        lambda card: {**card, "options": {"norm": 5}},
        lambda card: {**card, "options": {"depth": 5}},
        lambda card: {**card, "options": ["norm"]},
        lambda card: {**card, "extra": 1},
        lambda card: {key: value for key, value in card.items() if key != "classes"},
    ],
)
def test_cards_that_describe_nothing_are_refused(
    checkpoint: Path, change: Callable[[dict[str, object]], object]
) -> None:
    file = checkpoint / "card.json"
    file.write_text(json.dumps(change(json.loads(file.read_text()))))
    with pytest.raises(UserError, match=r"card|architecture") as caught:
        load_model(f"aig20@{checkpoint}")
    assert "\n" not in str(caught.value)
