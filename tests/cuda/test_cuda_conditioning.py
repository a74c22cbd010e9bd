"""Self-conditioning's kernels against plain arithmetic: types, sparse and flat rows, widths that no tile divides."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from problems import Problem, rows_of

from dgemma import RequestError
from dgemma._core import multiply_soft

ROUNDING = 6e-6  # of the sum of the terms' sizes: F32 probabilities and sums
BF16_ROUNDING = 1.01 * 2**-7  # both factors


def problem(kind: str, n: int, vocab: int, type: str, n_cols: int, **fields: Any) -> Problem:
    logits = rows_of(kind, n, vocab, np.random.default_rng([n, vocab]))
    return Problem(logits, **fields).with_embedding(type, n_cols)


def flat_rows(problem: Problem) -> np.ndarray:
    cut = problem.dropped_mass / problem.logits.shape[1]
    return (problem.softmax >= cut).sum(axis=1) > problem.max_kept


def check(problem: Problem, found: dict[str, Any]) -> None:
    p, values, flat = problem.softmax, problem.values, flat_rows(problem)
    assert found["n_flat"] == flat.sum()
    sizes = p @ np.abs(values)
    allowed = (ROUNDING + BF16_ROUNDING * flat[:, None]) * sizes + problem.dropped_mass * np.abs(values).max()
    assert (np.abs(found["soft"] / np.sqrt(problem.n_cols) - p @ values) <= allowed).all()


@pytest.mark.parametrize("kind", ["sharp", "flat", "mixed"])
@pytest.mark.parametrize("type", ["Q6_K", "Q5_K", "Q4_K", "Q3_K", "IQ4_XS", "IQ4_NL", "Q8_0", "BF16", "F16", "F32"])
@pytest.mark.parametrize("max_kept", [4096, 12])
def test_it_is_the_mean_of_the_rows(card, kind: str, type: str, max_kept: int) -> None:
    step = problem(kind, 7, 500, type, 512, max_kept=max_kept)
    check(step, step.solved_by(card))


@pytest.mark.parametrize(("n", "vocab"), [(1, 1), (3, 63), (5, 4100), (2, 16400), (3, 69700)])
@pytest.mark.parametrize("max_kept", [4096, 100])
def test_sizes(card, n: int, vocab: int, max_kept: int) -> None:
    """Chunks of 4096 tokens, of which a row's eight blocks take every eighth, slabs of 16384."""
    step = problem("mixed", n, vocab, "F32", 40, max_kept=max_kept)
    check(step, step.solved_by(card))


@pytest.mark.parametrize("n_cols", [1, 32, 65, 300])
@pytest.mark.parametrize("max_kept", [4096, 5])
def test_widths(card, n_cols: int, max_kept: int) -> None:
    step = problem("mixed", 4, 200, "F32", n_cols, max_kept=max_kept)
    check(step, step.solved_by(card))


def test_more_flat_rows_than_a_tile_holds(card) -> None:
    step = problem("mixed", 300, 40, "F32", 70, max_kept=20)
    assert 128 < flat_rows(step).sum() < 300
    check(step, step.solved_by(card))


def test_a_sparse_row_is_the_cpus(card) -> None:
    """The same tokens in the same order, in F32."""
    step = problem("mixed", 9, 700, "F32", 96)
    twin = multiply_soft(step.z.astype(np.float32), step.embedding, "F32", 96, step.dropped_mass, 1)
    np.testing.assert_allclose(step.solved_by(card)["soft"], twin, rtol=1e-5, atol=1e-5)


def test_what_is_left_out(card) -> None:
    """A row whose small half lies just below the cut loses that half, sparse or flat."""
    logits = np.zeros((1, 1000), np.float32)
    logits[0, 500:] = np.log(1e-6)  # 500 ones and 500 millionths: below 1e-3 / 1000 of the whole
    values = np.zeros((1000, 32), np.float32)
    values[500:] = 1
    for max_kept in (4096, 10):
        fields = {"embedding": values.view(np.uint8), "n_cols": 32, "temperature": 1.0, "max_kept": max_kept}
        assert Problem(logits, dropped_mass=1e-3, **fields).solved_by(card)["soft"][0, 0] == 0
        kept = Problem(logits, dropped_mass=1e-6, **fields).solved_by(card)["soft"][0, 0]
        assert kept == pytest.approx(1e-6 * np.sqrt(32), rel=1e-2)


def test_a_type_without_a_kernel(card) -> None:
    step = Problem(np.zeros((2, 3), np.float32), embedding=np.zeros((3, 18), np.uint8), type="Q4_0", n_cols=32)
    with pytest.raises(RequestError, match="no kernel reads an embedding of type Q4_0"):
        step.solved_by(card)
