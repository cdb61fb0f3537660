"""What every network must do: be a fixed function of each image on its own, with a gradient."""

import torch

from robustbench_aig.conformance.case import (
    Broken,
    NotApplicable,
    Outcome,
    Subject,
    failed,
    far,
    guarded,
    passed,
    plain,
)
from robustbench_aig.contracts.margin import margin
from robustbench_aig.models.classifier import misfit


@plain("logits")
def logits(subject: Subject) -> Outcome:
    """Images in [0, 1], black and white ones too, give finite float32 logits (N, classes)."""
    images = torch.cat([subject.images, torch.zeros_like(subject.images[:1]), torch.ones_like(subject.images[:1])])
    with torch.no_grad():
        output = subject.call(images)
    found = misfit(output, len(images), subject.classes)
    if found is not None:
        return failed(f"the network {found.symptom}", found.remedy)
    if output.dtype != torch.float32:
        kind = str(output.dtype).removeprefix("torch.")
        return failed(f"the logits are {kind}", "return float32, because other types round small gradients away")
    low, high = output.min().item(), output.max().item()
    return passed(f"{len(images)} images give {tuple(output.shape)} from {low:.3g} to {high:.3g}")


@plain("passes repeat")
def repeats(subject: Subject) -> Outcome:
    """Two passes over the same images agree."""
    with torch.no_grad(), torch.random.fork_rng():
        torch.manual_seed(subject.seed)
        one, other = subject.logits(subject.images), subject.logits(subject.images)
        torch.manual_seed(subject.seed)
        again = subject.logits(subject.images)
    apart = far(one, other)
    if apart <= subject.slack:
        return passed(f"two passes differ by {apart:.1g}")
    if far(one, again) <= subject.slack:
        return failed(
            f"two passes differ by {apart:.2g}, and agree under one seed: the network draws random numbers",
            "turn them off in eval mode, or ask for a decision in their place",
        )
    return failed(f"two passes differ by {apart:.2g}", "find what the network keeps from one pass to the next")


@plain("images left alone")
def images_left_alone(subject: Subject) -> Outcome:
    """A pass does not write into its images."""
    images = subject.images.clone()
    with torch.no_grad():
        guarded(subject.network, images)
    moved = far(images, subject.images)
    if moved:
        return failed(f"a pass changes its images by {moved:.2g}", "leave out the operation in place (such as sub_)")
    return passed("a pass leaves its images as they were")


@plain("eval mode")
def eval_mode(subject: Subject) -> Outcome:
    """No module is in training mode after a pass in eval mode."""
    with torch.no_grad():
        subject.call(subject.images)
    training = [name or "the network" for name, module in subject.network.named_modules() if module.training]
    subject.network.eval()
    if training:
        return failed(f"a pass puts {training[0]} into training mode", "leave out calls of train() in the forward pass")
    return passed("all modules stay in eval mode")


@plain("weights and buffers")
def state(subject: Subject) -> Outcome:
    """A pass changes no parameter and no buffer."""
    parts = {**dict(subject.network.named_parameters()), **dict(subject.network.named_buffers())}
    before = {name: part.detach().clone() for name, part in parts.items()}
    with torch.no_grad():
        subject.call(subject.images)
    changed = [name for name, part in before.items() if not torch.equal(part, parts[name])]
    if changed:
        return failed(
            f"a pass changes '{changed[0]}'", "update statistics and counters only where self.training is set"
        )
    return passed(f"a pass leaves {len(parts)} of them as they were")


@plain("batch and position")
def batch(subject: Subject) -> Outcome:
    """Logits of an image depend neither on the other images of its batch nor on its place among them."""
    subject.require_steady()
    images, count = subject.images, len(subject.images)
    order = torch.randperm(count, generator=torch.Generator().manual_seed(subject.seed)).to(images.device)
    with torch.no_grad():
        found = {
            "in another order": subject.logits(images[order])[order.argsort()],
            "in two halves": torch.cat([subject.logits(part) for part in images.chunk(2)]),
            "one by one": torch.cat([subject.logits(image[None]) for image in images]),
        }
    apart = {how: far(part[subject.clear], subject.clean[subject.clear]) for how, part in found.items()}
    how = max(apart, key=lambda name: apart[name])
    if apart[how] > subject.slack:
        return failed(
            f"{how}, the images' logits differ by {apart[how]:.2g}",
            "leave out what looks at the whole batch, such as its mean or its first image",
        )
    return passed(f"in another order, in two halves and one by one they differ by {apart[how]:.1g} at most")


@plain("memory format")
def memory_format(subject: Subject) -> Outcome:
    """Contiguous images are taken, and channels-last ones give the same where they are taken too."""
    subject.require_steady()
    try:
        with torch.no_grad():
            other = subject.logits(subject.images.contiguous(memory_format=torch.channels_last))
    except Broken as error:
        return passed(f"contiguous images alone are taken; given channels-last ones, {error}")
    apart = far(other[subject.clear], subject.clean[subject.clear])
    if apart > subject.slack:
        return failed(
            f"contiguous and channels-last images give logits that differ by {apart:.2g}",
            "leave out what reads memory in its order, such as as_strided",
        )
    return passed(f"contiguous and channels-last images give logits that differ by {apart:.1g}")


@plain("gradient")
def gradient(subject: Subject) -> Outcome:
    """A finite gradient reaches the images, and is not zero on most of them."""
    remedy = "leave out detach, no_grad, rounding, argmax and numpy between images and logits"
    images = subject.images.clone().requires_grad_()
    with torch.enable_grad():
        output = subject.logits(images)
    if not output.requires_grad:
        return failed("the logits do not depend on the images for autograd", remedy)
    if output.shape[1] < 2:
        raise NotApplicable("one class has no margin to differentiate")
    (found,) = torch.autograd.grad(margin(output, output.argmax(1)).sum(), images, allow_unused=True)
    if found is None:
        return failed("the logits do not depend on the images for autograd", remedy)
    if not found.isfinite().all():
        return failed("some gradients are NaN or infinite", "look for sqrt, log or a division at 0")
    lively = int((found.flatten(1) != 0).any(1).sum())
    if 2 * lively <= len(images):
        return failed(f"{len(images) - lively} of {len(images)} images have a gradient of zero", remedy)
    return passed(f"it reaches {lively} of {len(images)} images")
