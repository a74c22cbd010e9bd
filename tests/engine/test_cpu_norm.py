"""The CPU's own RMS norm against float64 arithmetic."""

from __future__ import annotations

import numpy as np
import pytest

from dgemma._core import norm_rows

EPS = 1e-6
# Sixteen sums of a width's 16th part each, then four halvings, a division, a root and two products.
WIDTHS = [1, 2, 15, 16, 17, 31, 33, 64, 257, 704, 2816]


def plain(x: np.ndarray, weight: np.ndarray, eps: float = EPS) -> np.ndarray:
    rows = x.astype(np.float64)
    return rows / np.sqrt(np.mean(rows**2, axis=1, keepdims=True) + np.float64(np.float32(eps))) * weight


def check(x: np.ndarray, weight: np.ndarray, eps: float = EPS) -> None:
    """To the rounding of F32: the squares are all positive, so nothing cancels and every value's error is relative."""
    found = norm_rows(x, weight, eps, 1)
    rounding = (x.shape[1] / 16 / 2 + 12) * 2**-24
    np.testing.assert_allclose(found, plain(x, weight, eps), rtol=rounding, atol=0)
    for threads in (2, 3, 64):
        np.testing.assert_array_equal(norm_rows(x, weight, eps, threads).view(np.uint32), found.view(np.uint32))


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("n", [1, 2, 7])
def test_against_float64(n: int, width: int) -> None:
    random = np.random.default_rng([n, width])
    check(random.standard_normal((n, width), np.float32), random.standard_normal(width, np.float32))


@pytest.mark.parametrize("scale", [1e-30, 1e-12, 1e-3, 1e6, 1e18])
@pytest.mark.parametrize("width", [17, 704])
def test_tiny_and_huge_values(width: int, scale: float) -> None:
    """Of tiny ones the squares vanish beside eps, or are no number of F32 at all."""
    random = np.random.default_rng(width)
    x = random.uniform(0.5, 2, (3, width)).astype(np.float32) * np.float32(scale) / np.float32(np.sqrt(width))
    check(x, random.standard_normal(width, np.float32))


def test_one_value_above_all_others() -> None:
    x = np.full((2, 100), 1e-10, np.float32)
    x[0, 37] = x[1, 99] = -1e15
    check(x, np.ones(100, np.float32))


def test_weights_of_zero_and_huge_ones() -> None:
    x = np.random.default_rng(1).standard_normal((3, 50), np.float32)
    weight = np.zeros(50, np.float32)
    assert (norm_rows(x, weight, EPS, 2) == 0).all()
    weight[::7] = 1e30
    check(x, weight)


def test_rows_of_zeros() -> None:
    assert (norm_rows(np.zeros((2, 33), np.float32), np.ones(33, np.float32), EPS, 1) == 0).all()


@pytest.mark.parametrize("eps", [1e-12, 1e-6, 0.5])
def test_eps_counts(eps: float) -> None:
    x = np.random.default_rng(2).standard_normal((2, 65), np.float32) * np.float32(1e-3)
    check(x, np.ones(65, np.float32), eps)


def test_squares_beyond_float32() -> None:
    """As the reference has it in float32: infinity under the root leaves 0."""
    x = np.random.default_rng(3).standard_normal((2, 40), np.float32)
    x[1] *= np.float32(1e25)
    found = norm_rows(x, np.ones(40, np.float32), EPS, 1)
    assert (found[0] != 0).all()
    assert (found[1] == 0).all()


def test_what_is_not_a_number_stays_in_its_row() -> None:
    x = np.random.default_rng(4).standard_normal((5, 40), np.float32)
    expected = norm_rows(x, np.ones(40, np.float32), EPS, 1)
    x[2, 3] = np.nan
    found = norm_rows(x, np.ones(40, np.float32), EPS, 2)
    assert np.isnan(found[2]).all()
    np.testing.assert_array_equal(np.delete(found, 2, axis=0), np.delete(expected, 2, axis=0))


def test_a_weight_of_another_width() -> None:
    with pytest.raises(ValueError, match="the weight does not have a value for each column"):
        norm_rows(np.ones((1, 4), np.float32), np.ones(3, np.float32), EPS, 1)
