"""Tokens' rows of the embedding as the kernel looks them up: every type, odd sizes, whoever chose the tokens."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from problems import Problem, rows_of

from dgemma import RequestError

TYPES = ["Q6_K", "Q5_K", "Q4_K", "Q3_K", "IQ4_XS", "IQ4_NL", "Q8_0", "BF16", "F16", "F32"]


def problem(vocab: int, type: str, n_cols: int, n: int = 5, **fields: Any) -> Problem:
    return Problem(rows_of("mixed", n, vocab, np.random.default_rng(vocab)), **fields).with_embedding(type, n_cols)


def check(problem: Problem, tokens: Any, found: dict[str, Any]) -> None:
    """To the last bit: a value is rounded once and its product with the scale once more, as on the CPU."""
    scale = np.float32(np.sqrt(np.float32(problem.n_cols)))
    np.testing.assert_array_equal(found["rows"], problem.values.astype(np.float32)[list(tokens)] * scale)


@pytest.mark.parametrize("type", TYPES)
@pytest.mark.parametrize("is_buffered", [False, True])
def test_rows_of_the_callers_tokens(card, type: str, is_buffered: bool) -> None:
    tokens = (499, 0, 7, 7, 255, 256, 1)  # more than the canvas has, one twice
    step = problem(500, type, 512, tokens=tokens, is_buffered=is_buffered)
    check(step, tokens, step.solved_by(card))


@pytest.mark.parametrize("type", TYPES)
@pytest.mark.parametrize("is_buffered", [False, True])
def test_rows_of_the_canvas_that_the_sampler_wrote(card, type: str, is_buffered: bool) -> None:
    step = problem(500, type, 256, n=9, is_buffered=is_buffered)
    found = step.solved_by(card)
    assert len(set(found["next_canvas"])) > 4
    check(step, found["next_canvas"], found)


@pytest.mark.parametrize("n_cols", [1, 32, 65, 300])
@pytest.mark.parametrize("n", [1, 33])
def test_sizes_of_rows(card, n: int, n_cols: int) -> None:
    step = problem(40, "F32", n_cols, n=n)
    found = step.solved_by(card)
    check(step, found["next_canvas"], found)


def test_the_buffer_changes_nothing(card) -> None:
    """Sparse and flat rows of the soft embedding too."""
    straight = problem(300, "Q8_0", 96, max_kept=20)
    buffered = replace(straight, is_buffered=True).solved_by(card)
    for name, value in straight.solved_by(card).items():
        np.testing.assert_array_equal(value, buffered[name])


@pytest.mark.parametrize("token", [-1, 500])
def test_tokens_outside_the_vocabulary(card, token: int) -> None:
    with pytest.raises(RequestError, match="a token is not in the vocabulary"):
        problem(500, "F32", 8, tokens=(3, token)).solved_by(card)
