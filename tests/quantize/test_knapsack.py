"""The knapsack against trying everything."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from dgemma.quantize.knapsack import SLOTS, Option, choose


def items_of(rng: np.random.Generator, largest: int) -> list[list[Option]]:
    count = int(rng.integers(1, 6))
    return [
        [Option(int(rng.integers(1, largest)), float(rng.random())) for _ in range(int(rng.integers(1, 5)))]
        for _ in range(count)
    ]


def room_for(items: list[list[Option]], share: float) -> int:
    """Between the smallest options and the largest ones."""
    least, most = (sum(pick(option.size for option in item) for item in items) for pick in (min, max))
    return least + int(share * (most - least))


def brute_force(items: list[list[Option]], room: int) -> float:
    choices = product(*items)
    return min(sum(o.harm for o in choice) for choice in choices if sum(o.size for o in choice) <= room)


def result(items: list[list[Option]], picks: list[int]) -> tuple[int, float]:
    options = [item[pick] for item, pick in zip(items, picks, strict=True)]
    return sum(option.size for option in options), sum(option.harm for option in options)


@pytest.mark.parametrize("seed", range(60))
def test_exact_where_bytes_can_be_counted(seed: int) -> None:
    rng = np.random.default_rng(seed)
    items = items_of(rng, 1000)
    room = room_for(items, rng.random())
    size, harm = result(items, choose(items, room))
    assert size <= room
    assert harm == pytest.approx(brute_force(items, room), abs=1e-12)


@pytest.mark.parametrize("seed", range(20))
def test_large_sizes_lose_a_unit_an_item_at_most(seed: int) -> None:
    rng = np.random.default_rng(seed)
    items = items_of(rng, 10**9)
    room = room_for(items, rng.random())
    unit = -(-(room - room_for(items, 0)) // SLOTS)
    size, harm = result(items, choose(items, room))
    assert size <= room
    tighter = max(room - unit * (len(items) + 1), room_for(items, 0))
    assert brute_force(items, room) - 1e-12 <= harm <= brute_force(items, tighter) + 1e-12


def test_a_known_choice_that_fills_the_room_to_the_byte() -> None:
    items = [[Option(1, 1.0), Option(10**9 + 7 * i, 0.0)] for i in range(1, 4)]
    room = sum(item[1].size for item in items)
    assert choose(items, room, [1, 1, 1]) == [1, 1, 1]
    assert choose(items, room - 1, [0, 1, 1]) in ([0, 1, 1], [1, 0, 1], [1, 1, 0])


def test_what_rounding_leaves_over_is_spent() -> None:
    small = [[Option(1, 1.0), Option(2, 0.5)] for _ in range(5)]
    assert choose([*small, [Option(1, 1.0), Option(10**9, 0.0)]], 10**9 + 10) == [1] * 6


def test_no_room_for_the_smallest_options() -> None:
    with pytest.raises(ValueError, match="4 bytes cannot hold the smallest options, 5"):
        choose([[Option(2, 0.0)], [Option(3, 0.0), Option(9, 0.0)]], 4)
    assert choose([], 0) == []
