"""Records: what belongs together is joined, cut and chosen from together, wherever its axis of images is."""

from dataclasses import dataclass

import numpy as np
import pytest

from robustbench_aig.contracts.columns import Columns
from robustbench_aig.contracts.records import Bools, Record
from robustbench_aig.contracts.scores import Scores

S, E, N, L = 3, 2, 5, 4


@dataclass(frozen=True)
class Outer(Record):
    scores: Scores
    size: Bools
    maybe: Scores | None = None


def scores(seed: int, images: int = N) -> Scores:
    generator = np.random.default_rng(seed)
    return Scores(
        generator.random((S, images)) < 0.5,
        generator.integers(0, 9, images).astype(np.int16),
        generator.integers(0, S, images).astype(np.uint16),
        generator.random((S, images, L)) < 0.5,
        generator.random((images, L)).astype(np.float32),
        generator.random(images),
    )


def equal(one: Scores, other: Scores) -> bool:
    return all(
        np.array_equal(mine, theirs) for mine, theirs in zip(vars(one).values(), vars(other).values(), strict=True)
    )


def test_batches_are_joined_and_cut_again() -> None:
    parts = [scores(0, 2), scores(1, 3)]
    whole = Scores.join(parts)
    assert (whole.correct.shape, whole.open.shape, whole.prob.shape) == ((S, N), (S, N, L), (N, L))
    assert equal(whole.take(slice(0, 2)), parts[0])
    assert equal(whole.take(slice(2, None)), parts[1])


def test_epsilons_are_stacked_before_the_images() -> None:
    by_epsilon = [scores(0), scores(1)]
    stacked = Scores.stack(by_epsilon)
    assert (stacked.correct.shape, stacked.open.shape, stacked.macs.shape) == ((S, E, N), (S, E, N, L), (E, N))
    assert all(equal(stacked.at(number), own) for number, own in enumerate(by_epsilon))
    halves = [stacked.take(slice(0, 2)), stacked.take(slice(2, N))]
    assert equal(Scores.join(halves), stacked)
    assert stacked.count.tolist() == [own.count.tolist() for own in by_epsilon]


@pytest.mark.parametrize("nested", [False, True])
def test_one_mask_chooses_everything_about_an_image(nested: bool) -> None:
    def outer(seed: int) -> Outer:
        inner = Scores.stack([scores(seed), scores(seed + 1)])
        return Outer(inner, inner.macs > 0.5, inner if nested else None)

    one, other = outer(0), outer(2)
    mask = np.random.default_rng(9).random((E, N)) < 0.5
    chosen = one.where(mask, other)
    for number in range(E):
        for image in range(N):
            rows = slice(image, image + 1)
            wanted = (other if mask[number, image] else one).at(number).take(rows)
            found = chosen.at(number).take(rows)
            assert equal(found.scores, wanted.scores)
            assert found.size == wanted.size
            assert (found.maybe is None) == (not nested)
            assert found.maybe is None or wanted.maybe is None or equal(found.maybe, wanted.maybe)


def test_a_function_is_a_column_with_its_documentation_and_place() -> None:
    table: Columns[float] = Columns()

    @table("twice", section="short")
    def double(number: float) -> float:
        """Twice
        the number."""
        return 2 * number

    @table("half", names="half_clean, half_adv, lo, hi", needs=lambda number: number > 1)
    def half(number: float) -> dict[str, float]:
        """Half of it."""
        return {"half_clean": number / 2, "half_adv": number / 2, "lo": 0.0, "hi": number}

    assert table.values(3.0) == {"double": 6.0, "half_clean": 1.5, "half_adv": 1.5, "lo": 0.0, "hi": 3.0}
    assert table.values(1.0)["half_adv"] is None
    assert [(column.name, column.before) for column in table.shown()] == [("double", None), ("half_adv", "half_clean")]
    assert [column.heading for column in table.shown("short")] == ["twice"]
    assert table.markdown().splitlines()[2:] == [
        "| `double` | Twice the number. |",
        "| `half_clean, half_adv, lo, hi` | Half of it. |",
    ]
