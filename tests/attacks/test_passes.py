"""How many passes attacks spend, and what the active set saves without changing a verdict."""

import torch

import attacks


def test_an_fgsm_sweep_costs_one_gradient(plain):
    target = plain.target()
    attacks.make("fgsm")(target, plain.images, plain.labels, [k / 255 for k in range(1, 10)])
    assert (target.passes.forwards == 1).all()
    assert (target.passes.backwards == 1).all()


def test_noise_and_identity_cost_nothing(plain):
    target = plain.target()
    for name in ("identity", "noise"):
        attacks.make(name)(target, plain.images, plain.labels, [0.1])
    assert (target.passes.forwards == 0).all()


def test_textbook_pgd_costs_its_steps(plain):
    target = plain.target()
    attacks.make("pgd:steps=7,stop=false")(target, plain.images, plain.labels, [0.01, 0.02])
    assert (target.passes.forwards == 14).all()
    assert (target.passes.backwards == 14).all()


def test_a_survivor_costs_every_step_and_two_verdicts(plain):
    target = plain.target()
    (images,) = attacks.make("pgd:steps=7")(target, plain.images, plain.labels, [24 / 255])
    survived = ~plain.broken(images)
    assert survived.any()
    assert (target.passes.forwards[survived] == 9).all()
    assert (target.passes.backwards[survived] == 7).all()
    assert target.passes.backwards[~survived].float().mean() < 7


def test_leaving_early_changes_no_verdict(plain):
    """The full loop, judged at every iterate by hand."""
    spec, budget = "pgd:loss=ce,steps={},stop={}", [24 / 255]
    (early,) = attacks.make(spec.format(8, "true"))(plain.target(), plain.images, plain.labels, budget)
    ever = plain.broken(plain.images)
    for steps in range(1, 9):  # the step size does not depend on the number of steps
        (last,) = attacks.make(spec.format(steps, "false"))(plain.target(), plain.images, plain.labels, budget)
        ever |= plain.broken(last)
    assert torch.equal(plain.broken(early), ever)


def test_where_a_success_decides_nothing_no_image_leaves(plain):
    target = plain.target(transfer=True)
    (images,) = attacks.make("pgd:steps=7")(target, plain.images, plain.labels, [24 / 255])
    assert (target.passes.backwards == 7).all()
    assert (plain.broken(images) | ~plain.broken(plain.images)).all()


def test_a_random_target_is_judged_on_draws_that_its_gradient_never_saw(gated, monkeypatch):
    target = gated.target("stochastic", draws=2)
    seen: set[tuple[str, int]] = set()
    view = type(target)._view

    def spy(self, images, draws, stage, gradient, *rest, differentiable):
        seen.update((stage if not differentiable else "gradient", draw) for draw in draws)
        assert not differentiable or stage == "craft"
        return view(self, images, draws, stage, gradient, *rest, differentiable=differentiable)

    monkeypatch.setattr(type(target), "_view", spy)
    attacks.make("pgd:steps=3")(target, gated.images, gated.labels, [24 / 255])
    assert {draw for stage, draw in seen if stage == "gradient"} == set(range(6))
    assert {stage for stage, _ in seen} == {"gradient", "select"}
    assert {draw for stage, draw in seen if stage == "select"} >= set(range(8))
