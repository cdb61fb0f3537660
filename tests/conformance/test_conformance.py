"""The contract's own tests: sound networks pass all of them, and each broken one is caught by those that it breaks."""

from collections.abc import Callable

import pytest
import torch
from torch import nn
from torchvision.models import resnet18

from robustbench_aig.conformance import REQUIREMENTS, Finding, examine
from robustbench_aig.errors import UserError
from robustbench_aig.models.architectures import build
from robustbench_aig.models.classifier import Classifier
from robustbench_aig.models.resolve import load_model
from tests.fixtures import broken_networks as broken
from tests.fixtures import user_networks as sound

Make = Callable[[], nn.Module]


def prepared(make: Make) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return make().eval().requires_grad_(False)


def findings(make: Make) -> list[Finding]:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return list(examine(prepared(make), sound.images(), sound.CLASSES))


def by_verdict(found: list[Finding], verdict: str) -> dict[str, str]:
    return {finding.test: finding.measured for finding in found if finding.verdict == verdict}


STEPPED = "enumeration"


@pytest.mark.parametrize(
    "make",
    [*sound.SOUND, lambda: sound.Routed(2), lambda: sound.Routed(3), lambda: sound.SteppedExits(sound.EarlyExits())],
)
def test_sound_networks_pass(make: Make) -> None:
    found = findings(make)
    assert by_verdict(found, "FAIL") == {}
    assert set(by_verdict(found, "n.a.")) <= {STEPPED}
    dynamic = any(finding.part == "dynamic" for finding in found)
    assert dynamic is not isinstance(prepared(make), sound.Plain)
    assert len(found) == sum(requirement.part == "plain" or dynamic for requirement in REQUIREMENTS)


@pytest.mark.parametrize("name", ["resnet20-cifar10", "aig20-cifar10"])
def test_the_zoo_passes(name: str) -> None:
    images = torch.rand((6, 3, 32, 32), generator=torch.Generator().manual_seed(0))
    found = list(examine(load_model(name).network, images, 10))
    assert by_verdict(found, "FAIL") == {}
    assert set(by_verdict(found, "n.a.")) <= {STEPPED}


@pytest.mark.parametrize("name", ["skipnet20", "exit20", "moe20"])
def test_the_other_families_pass(name: str) -> None:
    def make() -> nn.Module:
        return build(name, classes=sound.CLASSES)

    found = findings(make)
    assert by_verdict(found, "FAIL") == {}
    assert set(by_verdict(found, "n.a.")) <= {STEPPED}


def test_torchvision_networks_pass() -> None:
    images = torch.rand((4, 3, 64, 64), generator=torch.Generator().manual_seed(0))
    assert by_verdict(list(examine(prepared(resnet18), images)), "FAIL") == {}


FAILURES: list[tuple[Make, set[str], str]] = [
    (broken.Probabilities, {"logits"}, "returns probabilities"),
    (broken.ListOfLogits, {"logits"}, "returns 3 sets of logits, as a network with early exits"),
    (broken.Half, {"logits"}, "bfloat16"),
    (broken.Overflows, {"logits"}, "NaN or infinite"),
    (broken.Noisy, {"passes repeat"}, "draws random numbers"),
    (broken.Drifting, {"passes repeat"}, "two passes differ by 0.1"),
    (broken.WritesImages, {"images left alone"}, "changes its images by 0.25"),
    (broken.SwitchesMode, {"eval mode"}, "puts head into training mode"),
    (broken.Counts, {"weights and buffers"}, "changes 'passes'"),
    (broken.Centred, {"batch and position"}, "one by one, the images' logits differ"),
    (broken.ReadsMemory, {"memory format"}, "contiguous and channels-last images give logits that differ"),
    (broken.Detached, {"gradient"}, "8 of 8 images have a gradient of zero"),
    (broken.Rounds, {"gradient"}, "8 of 8 images have a gradient of zero"),
    (broken.AsksLess, {"decisions asked"}, "asks for 1 of its 2 decisions; 'block 2' is the next"),
    (broken.AsksMore, {"decisions asked"}, "asks for more than its 2 decisions"),
    (broken.AsksOther, {"decisions asked"}, "'block 2' is declared as Exit, and asked for as Switch"),
    (broken.TwoScores, {"decisions asked"}, "asked for with values (n, 2) for n images, not (n)"),
    (broken.Probable, {"log-odds"}, "output of a sigmoid"),
    (broken.ProbableExits, {"log-odds"}, "output of a softmax"),
    (broken.ProbableRoutes, {"log-odds"}, "output of a softmax"),
    (broken.OwnForward, {"plain calls"}, "a plain call and 'traced' differ"),
    (
        broken.Disobedient,
        {"other decisions forced", "margins and decisions", "sampling", "skipping and scaling", "expected gating"},
        "does not do what it is forced to",
    ),
    (
        broken.BackToFront,
        {"own decisions forced", "other decisions forced", "skipping and scaling"},
        "decisions change when they are forced to be what they are",
    ),
    (broken.Reversed, {"margins and decisions", "sampling", "expected gating"}, "decides against its margin"),
    (broken.Transposed, {"decisions asked"}, "'margin' is not (N, 2) for N images"),
    (broken.DriftingGates, {"passes repeat", "decisions repeat"}, "decisions change from pass to pass"),
    (broken.BatchGates, {"batch and position", "draws stand alone"}, "decisions differ under the same noise"),
    (broken.TrainingGates, {"training flag"}, "decisions change with the training flag"),
    (broken.KeepsState, {"sampling", "draws stand alone", "enumeration"}, "must match the size"),
    (broken.MasksOnly, {"skipping and scaling", "expected gating"}, "given decisions that carry a gradient"),
    (broken.RoundsDecisions, {"skipping and scaling"}, "no gradient goes from the logits to the decision on 'block 1'"),
    (broken.ScalesTwice, {"skipping and scaling"}, "skipping units and multiplying them"),
    (broken.DetachedGates, {"gradient of margins"}, "the margin of 'block 2' has no gradient"),
    (broken.NeedsBits, {"expected gating"}, "NaN or infinite where units are scaled"),
    (broken.AlwaysRuns, {"costs of skipped units"}, "'block 1' takes as many multiply-adds whether it runs or not"),
    (broken.RunsAllExperts, {"costs of skipped units"}, "'expert 1' takes as many multiply-adds"),
    (broken.WrongCosts, {"costs of skipped units"}, "another decision on 'block 2' saves 20,736"),
    (broken.LowFloor, {"costs of skipped units"}, "a pass takes"),
    (broken.OtherCosts, {"costs of skipped units"}, "'costs' speaks of 3 units, and the network has 2"),
    (broken.NegativeCosts, {"costs of skipped units", "costs in bounds"}, "with a floor of"),
]


@pytest.mark.parametrize(("make", "tests", "symptom"), FAILURES, ids=[str(make.__name__) for make, _, _ in FAILURES])
def test_broken_networks_are_caught(make: Make, tests: set[str], symptom: str) -> None:
    found = findings(make)
    failed = by_verdict(found, "FAIL")
    assert set(failed) == tests
    assert any(symptom in measured for measured in failed.values())
    assert all(finding.remedy for finding in found if finding.verdict == "FAIL")
    assert not any("\n" in finding.measured + finding.remedy for finding in found)


def test_every_requirement_can_fail() -> None:
    caught = set().union(*(tests for _, tests, _ in FAILURES))
    assert caught == {requirement.title for requirement in REQUIREMENTS}


@pytest.mark.parametrize(
    ("make", "test", "reason"),
    [
        (broken.StatesCosts, "costs of skipped units", "'costs' states what each is worth"),
        (broken.RefusesExpected, "expected gating", "blocks run or do not run"),
    ],
)
def test_what_a_network_refuses_with_a_reason_is_no_failure(make: Make, test: str, reason: str) -> None:
    found = findings(make)
    assert by_verdict(found, "FAIL") == {}
    assert reason in by_verdict(found, "n.a.")[test]


def test_a_network_may_take_contiguous_images_alone() -> None:
    found = findings(broken.ViewsImages)
    assert by_verdict(found, "FAIL") == {}
    assert "contiguous images alone are taken; given channels-last" in by_verdict(found, "PASS")["memory format"]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (broken.NoCosts, "looks dynamic, as it has 'layout' and 'traced', but lacks 'costs'; derive it from"),
        (broken.NamesForLayout, "its 'layout' is a list; derive it from robustbench_aig.DynamicNetwork"),
        (broken.DecidesNothing, "its 'layout' is empty; list its decisions"),
        (broken.wrapped, "a plain network around a dynamic one, '1', and hides its decisions"),
    ],
)
def test_what_only_looks_dynamic_is_refused(make: Make, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        Classifier.of("mine", make(), "mine")
    assert "docs/guides/dynamic-network.md" in str(caught.value)
