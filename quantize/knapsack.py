"""One option for each item, so that all fit and the harm is least: the multiple-choice knapsack."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

SLOTS = 1 << 17  # sizes are counted in this many parts of the room; what rounding leaves over is spent afterwards


class Option(NamedTuple):
    size: int
    harm: float


def choose(items: Sequence[Sequence[Option]], room: int, known: Sequence[int] | None = None) -> list[int]:
    """For each item the index of its option: their sizes add up to ``room`` at most, the sum of harms is least.

    Dynamic programming over the bytes beyond every item's smallest option: exact where there are fewer than SLOTS of
    them. Where there are more, an option counts up to the next unit, and what that leaves over goes, a step at a time,
    to whatever it helps most. known: a choice that fits; the result is never worse. There must be room for the smallest
    options.
    """
    smallest = [min(option.size for option in item) for item in items]
    spare = room - sum(smallest)
    if spare < 0:
        raise ValueError(f"{room} bytes cannot hold the smallest options, {sum(smallest)}")
    unit = max(1, -(-spare // SLOTS))
    costs = [[-((least - option.size) // unit) for option in item] for item, least in zip(items, smallest, strict=True)]
    picks = _walk_back(costs, _decisions(items, costs, spare // unit + 1))
    found = [_spend(items, picks, room)]
    if known is not None:  # that one may fill the room to the byte, which rounding up does not see
        found.append(_spend(items, known, room))
    return min(found, key=lambda picks: sum(item[pick].harm for item, pick in zip(items, picks, strict=True)))


def _decisions(items: Sequence[Sequence[Option]], costs: list[list[int]], slots: int) -> list[npt.NDArray[np.uint8]]:
    """By item: the best option, where this item and those before it may take s units, for every s below ``slots``."""
    harm = np.zeros(slots)
    decisions = []
    for item, cost in zip(items, costs, strict=True):
        table = np.full((len(item), slots), np.inf)
        for row, option, units in zip(table, item, cost, strict=True):
            if units < slots:
                row[units:] = harm[: slots - units] + option.harm
        decisions.append(table.argmin(axis=0).astype(np.uint8))
        harm = table.min(axis=0)
    return decisions


def _walk_back(costs: list[list[int]], decisions: list[npt.NDArray[np.uint8]]) -> list[int]:
    left, picks = len(decisions[0]) - 1 if decisions else 0, []
    for cost, decision in zip(reversed(costs), reversed(decisions), strict=True):
        picks.append(int(decision[left]))
        left -= cost[picks[-1]]
    return picks[::-1]


def _spend(items: Sequence[Sequence[Option]], start: Sequence[int], room: int) -> list[int]:
    """Better options for what is left, the one that helps most first."""
    picks = list(start)
    left = room - sum(item[pick].size for item, pick in zip(items, picks, strict=True))
    while True:
        steps = [
            (item[pick].harm - option.harm, i, j)
            for i, (item, pick) in enumerate(zip(items, picks, strict=True))
            for j, option in enumerate(item)
            if option.size - item[pick].size <= left
        ]
        gain, i, better = max(steps, key=lambda step: step[0], default=(0.0, 0, 0))
        if gain <= 0:
            return picks
        left -= items[i][better].size - items[i][picks[i]].size
        picks[i] = better
