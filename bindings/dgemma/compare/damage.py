"""From single positions and answers to the figures of one candidate."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from .divergence import Divergence
from .model_run import Answer
from .report import Candidate, Estimate, LevelDamage, ModelSummary, RunDamage

Row = tuple[float, ...]


def level_row(found: Divergence) -> Row:
    """Means over one canvas: KL, agreement, the reference's entropy, entropy shift."""
    shift = found.entropy - found.reference_entropy
    return tuple(float(values.mean()) for values in (found.kl, found.same, found.reference_entropy, shift))


def answers_row(pairs: Sequence[tuple[Answer, Answer]], max_steps: int) -> Row:
    """Means over the answers (the reference's, the candidate's) to one prompt, in the order of ``RunDamage``."""
    rows = []
    for reference, candidate in pairs:
        steps, unfinished = zip(*(_steps(answer, max_steps) for answer in (candidate, reference)), strict=True)
        same = (same_share(reference.tokens, candidate.tokens), float(reference.blocks[0] == candidate.blocks[0]))
        rows.append((*steps, *unfinished, *same))
    return tuple(np.mean(rows, axis=0).tolist())


def same_share(a: Sequence[int], b: Sequence[int]) -> float:
    """Share of places with the same token, of the longer sequence; two empty ones are the same."""
    longer = max(len(a), len(b))
    return sum(x == y for x, y in zip(a, b, strict=False)) / longer if longer else 1.0


def candidate_damage(
    model: ModelSummary,
    levels: Sequence[float],
    temperatures: Sequence[float],
    level_rows: Sequence[Sequence[Row]],
    answer_rows: Sequence[Row],
) -> Candidate:
    """level_rows: a ``level_row`` for each of P passages and L levels. answer_rows: an ``answers_row`` for each
    passage, or none at all."""
    table: NDArray[np.float64] = np.array(level_rows)  # [P, L, 4]
    kl, agreement, _, shift = (Estimate.over(column) for column in table.mean(axis=1).T)
    by_level = tuple(
        LevelDamage(level, temperature, *(Estimate.over(column) for column in table[:, index].T))
        for index, (level, temperature) in enumerate(zip(levels, temperatures, strict=True))
    )
    runs = RunDamage(*(Estimate.over(column) for column in np.array(answer_rows).T)) if answer_rows else None
    return Candidate(model, kl, agreement, shift, by_level, runs)


def _steps(answer: Answer, max_steps: int) -> tuple[float, float]:
    """Steps a canvas, and the share of canvases that took all there are."""
    steps = np.array(answer.steps)
    return float(steps.mean()), float((steps >= max_steps).mean())
