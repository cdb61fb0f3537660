"""The public ResNet-20 on CIFAR-10: the libraries' FGSM, image for image."""

import warnings
from pathlib import Path

import pandas as pd
import pytest
import torch

import attacks
from robustbench_aig.audit.runner import sweep
from robustbench_aig.contracts.epsilons import parse_epsilons
from robustbench_aig.data import load_dataset
from robustbench_aig.engine.plan import Settings
from robustbench_aig.engine.store import RunFolder
from robustbench_aig.models.resolve import load_model

pytestmark = pytest.mark.data

EPSILONS = "0,1/255,2/255,4/255,8/255,12/255,16/255"


def test_fgsm_fools_the_images_that_the_libraries_fool(
    cifar10_dir: Path, public_resnet20: Path, tmp_path: Path
) -> None:
    model = load_model(f"resnet20@{public_resnet20}")
    data = load_dataset("cifar10", data_dir=cifar10_dir, limit=256)
    epsilons = parse_epsilons([EPSILONS])
    sweep(Settings([model], data, [attacks.make("fgsm")], epsilons, attackers=("static",)), tmp_path)
    folder = RunFolder(tmp_path)
    summary = pd.read_csv(tmp_path / "summary.csv")
    samples = folder.samples(summary[summary.attack == "fgsm"].cell.iloc[0])
    images = data.images(torch.arange(len(data))).to(memory_format=torch.channels_last)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import foolbox
        import torchattacks
    budgets = [epsilon.value for epsilon in epsilons[1:]]
    wrapped = foolbox.PyTorchModel(model.network, bounds=(0, 1), device="cpu")
    _, by_foolbox, _ = foolbox.attacks.LinfFastGradientAttack()(wrapped, images, data.labels, epsilons=budgets)
    for budget, foolbox_images in zip(budgets, by_foolbox, strict=True):
        ours = torch.from_numpy(samples.query(f"eps == {budget}").correct.to_numpy() == 0)
        torchattacks_images = torchattacks.FGSM(model.network, eps=budget)(images, data.labels)
        for adversarial in (torchattacks_images, foolbox_images):
            with torch.no_grad():
                fooled = model.network(adversarial).argmax(1) != data.labels
            assert torch.equal(ours, fooled)
