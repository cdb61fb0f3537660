"""Layouts against brute force: routes, what they reach, how they differ, and which are next to which."""

from itertools import product

import numpy as np
import pytest
import torch
from torch import Tensor

from robustbench_aig.contracts.enumeration import route_number
from robustbench_aig.contracts.policy import Deterministic
from robustbench_aig.contracts.trace import Costs
from robustbench_aig.contracts.units import USUAL_CONFIDENCE, Exit, Layout, Router, Switch
from tests.fixtures.toys import LAYOUTS, canonical, everything

Route = tuple[int, ...]


@pytest.fixture(params=LAYOUTS.values(), ids=LAYOUTS)
def layout(request: pytest.FixtureRequest) -> Layout:
    return Layout(request.param)


def rows(routes: Tensor) -> list[Route]:
    return [tuple(int(bit) for bit in route) for route in routes]


def tensor(routes: list[Route]) -> Tensor:
    return torch.tensor(routes, dtype=torch.float64)


def test_routes_are_those_that_walking_finds_each_once_and_numbered(layout: Layout) -> None:
    found = rows(layout.routes())
    assert len(found) == len(set(found)) == layout.count
    assert set(found) == everything(layout)
    assert route_number(layout, layout.routes()).tolist() == list(range(layout.count))


def test_routes_of_switches_alone_count_in_binary() -> None:
    layout = Layout(LAYOUTS["switches"])
    assert rows(layout.routes()) == [tuple(number >> unit & 1 for unit in range(3)) for number in range(8)]


@pytest.mark.parametrize(
    ("name", "count", "running", "runs"),
    [
        ("switches", 8, 3, ((slice(0, 3), 0),)),
        ("exits", 3, 2, ((slice(0, 2), 0),)),
        ("router", 3, 1, ((slice(0, 3), 1),)),
        ("mixed", 2 * (1 + 6 * (1 + 2)), 6, ((slice(0, 2), 0), (slice(2, 6), 2), (slice(6, 8), 0))),
        ("router first", 3 * 2 * (1 + 2), 5, ((slice(0, 3), 2), (slice(3, 5), 0), (slice(5, 7), 1))),
    ],
)
def test_counts_of_known_layouts(name: str, count: int, running: int, runs: object) -> None:
    layout = Layout(LAYOUTS[name])
    assert (layout.count, layout.running, layout.runs) == (count, running, runs)
    assert max(sum(route) for route in everything(layout)) == running


def test_what_lies_behind_a_taken_exit_is_not_reached(layout: Layout) -> None:
    for route in everything(layout):
        expected, reached = [], True
        for decision, span in zip(layout.decisions, layout.spans, strict=True):
            expected += [reached] * len(decision.names)
            reached = reached and not (isinstance(decision, Exit) and not route[span.start])
        assert layout.reached(tensor([route]))[0].tolist() == expected
        assert layout.reached(np.array([route], bool))[0].tolist() == expected


def test_digits_are_refused_where_no_image_can_follow_them(layout: Layout) -> None:
    for bits in product((0, 1), repeat=len(layout)):
        wrong = layout.refusal(bits)
        assert (wrong is None) == (canonical(layout, bits) is not None), bits
        if wrong is None:
            assert rows(layout.settled(tensor([bits]))) == [canonical(layout, bits)]
    assert "digits" in (layout.refusal((0,) * (len(layout) + 1)) or "")


def test_changes_are_counted_by_decision_where_both_images_were_asked(layout: Layout) -> None:
    every = sorted(everything(layout))
    before, after = (np.array(part, bool) for part in zip(*product(every, every), strict=True))
    moved, both = layout.changes(before, after)
    units = layout.unit_changes(before, after)
    for row, (one, other) in enumerate(product(every, every)):
        asked = True
        for number, (decision, span) in enumerate(zip(layout.decisions, layout.spans, strict=True)):
            differ = [a != b for a, b in zip(one[span], other[span], strict=True)]
            share = sum(differ) / (2 * decision.chosen if isinstance(decision, Router) else 1)
            assert bool(both[row, number]) == asked
            assert moved[row, number] == (share if asked else 0)
            assert units[row, span].tolist() == [asked and differs for differs in differ]
            if isinstance(decision, Exit):
                asked = asked and bool(one[span.start]) and bool(other[span.start])


def beside(layout: Layout, route: Route) -> set[Route]:
    """Routes that differ from one in a decision that it reaches; what is newly reached is closed, left, or the first
    units of a router."""
    found = set()
    for decision, span in zip(layout.decisions, layout.spans, strict=True):
        if isinstance(decision, Router):
            own = list(combos(decision))
            near = [bits for bits in own if sum(a != b for a, b in zip(bits, route[span], strict=True)) == 2]
        else:
            near = [(1 - route[span.start],)]
        for bits in near:
            changed = list(route)
            changed[span] = bits
            if isinstance(decision, Exit) and bits == (1,):
                for later, place in zip(layout.decisions, layout.spans, strict=True):
                    if place.start > span.start and isinstance(later, Router):
                        changed[place] = [int(unit < later.chosen) for unit in range(len(later.names))]
            walked = canonical(layout, tuple(changed))
            assert walked is not None
            found.add(walked)
        if isinstance(decision, Exit) and not route[span.start]:
            break
    return found


def combos(router: Router) -> list[Route]:
    return [bits for bits in product((0, 1), repeat=len(router.names)) if sum(bits) == router.chosen]


def test_neighbours_differ_in_one_decision(layout: Layout) -> None:
    every = sorted(everything(layout))
    near = layout.neighbours(tensor(every))
    for route, others in zip(every, near, strict=True):
        assert set(rows(others)) - {route} == beside(layout, route)


def test_the_opposite_route_decides_otherwise_wherever_it_can(layout: Layout) -> None:
    generator = torch.Generator().manual_seed(0)
    for route in everything(layout):
        often = tensor([route])
        margin = torch.randn(1, len(layout), generator=generator, dtype=torch.float64)
        (other,) = rows(layout.opposite(often, margin))
        assert other in everything(layout)
        for decision, span in zip(layout.decisions, layout.spans, strict=True):
            if isinstance(decision, Router):
                free = [unit for unit in range(span.start, span.stop) if not route[unit]]
                wanted = sorted(free, key=lambda unit: -margin[0, unit])[: decision.chosen]
                if len(wanted) == decision.chosen:  # else some must be chosen again
                    assert {unit for unit in range(span.start, span.stop) if other[unit]} == set(wanted)
                continue
            assert other[span.start] == 1 - route[span.start]
            if isinstance(decision, Exit):
                break  # one of the two images has left


def test_the_dearest_and_the_cheapest_route_are_those_among_all(layout: Layout) -> None:
    for seed in range(5):
        units = torch.rand(len(layout), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        costs = Costs(3.0, units)
        every = sorted(everything(layout))
        macs = costs.of(tensor(every))
        assert macs.tolist() == pytest.approx([3 + sum(c for c, bit in zip(units.tolist(), r) if bit) for r in every])  # noqa: B905
        for sign, value in ((1, macs.max()), (-1, macs.min())):
            assert rows(layout.most(units, sign)[None])[0] in every
            assert costs.extreme(layout, sign) == pytest.approx(float(value))


def test_the_middle_route_exists_and_runs_some_units_and_not_others(layout: Layout) -> None:
    (route,) = rows(layout.middle()[None])
    assert route in everything(layout)
    assert sum(route)
    if not layout.exits or len(layout) > len(layout.exits):
        assert sum(route) < len(layout)


@pytest.mark.parametrize("threshold", [None, 0.0, 0.2, 0.5, 0.8, 1.0])
def test_a_margin_is_ahead_of_its_shift_where_the_threshold_lets_a_unit_run(threshold: float | None) -> None:
    """Eq. 12 for a switch; an exit is taken once its confidence reaches the threshold."""
    layout = Layout((Switch("a"), Exit("b"), Router(("c", "d"))))
    margin = torch.linspace(-3, 3, 601)
    shift, policy = layout.shift(threshold), Deterministic(threshold)
    runs, stays = policy.switch(0, margin), policy.leave(1, margin)
    assert torch.equal(runs, margin > shift[0])
    assert torch.equal(stays, margin > shift[1])
    assert shift[2:].tolist() == [0, 0]
    wide, sure = 0.5 if threshold is None else threshold, USUAL_CONFIDENCE if threshold is None else threshold
    if 0 < wide < 1:
        clear = (torch.sigmoid(margin) - wide).abs() > 1e-6
        assert torch.equal(runs[clear], (torch.sigmoid(margin) > wide)[clear])
    else:
        assert runs.all() if wide == 0 else not runs.any()
    if 0 < sure < 1:
        clear = (torch.sigmoid(-margin) - sure).abs() > 1e-6
        assert torch.equal(stays[clear], (torch.sigmoid(-margin) < sure)[clear])
    else:
        assert stays.all() if sure == 1 else not stays.any()


@pytest.mark.parametrize("chosen", [0, 3, 4])
def test_a_router_leaves_a_choice(chosen: int) -> None:
    with pytest.raises(ValueError, match=f"chooses 1 to 2 of 3 units, not {chosen}"):
        Router(("a", "b", "c"), chosen)
