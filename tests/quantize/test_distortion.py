"""The measure itself, on values whose answers are plain."""

from __future__ import annotations

import numpy as np
import pytest
from distortion import Distortion


def test_no_error() -> None:
    x = np.array([[1.0, -2.0], [0.0, 4.0]], np.float32)
    assert Distortion.between(x, x.copy()) == Distortion(0, 0, exact=4, sign_flips=0, rounded_to_zero=0, count=4)


def test_counts() -> None:
    found = Distortion.between(np.array([1.0, -1.0, 2.0, 0.0, 3.0]), np.array([-1.0, 0.0, 2.0, 5.0, 3.0]))
    assert (found.exact, found.sign_flips, found.rounded_to_zero, found.count) == (2, 1, 1, 5)


def test_errors_are_relative_to_the_root_mean_square() -> None:
    x = np.full(100, 2.0)
    found = Distortion.between(x, x + 0.1)
    assert (found.rms, found.largest) == (pytest.approx(0.05), pytest.approx(0.05))
    x[0] += 0.0
    y = x.copy()
    y[7] += 1.0
    found = Distortion.between(x, y)
    assert (found.rms, found.largest) == (pytest.approx(0.05), pytest.approx(0.5))


def test_rounding_to_a_grid_has_the_textbook_error() -> None:
    """A uniform error of a step's width: step / sqrt(12)."""
    x = np.random.default_rng(0).uniform(-1, 1, 100_000)
    found = Distortion.between(x, np.round(x * 32) / 32)
    assert found.rms * np.sqrt((x**2).mean()) == pytest.approx(1 / 32 / np.sqrt(12), rel=0.01)


def test_zeros_have_no_scale() -> None:
    assert Distortion.between(np.zeros(4), np.full(4, 0.5)).rms == 0.5


@pytest.mark.parametrize("restored", [np.zeros(3), np.array([0, np.nan]), np.array([np.inf, 0])])
def test_what_cannot_be_compared(restored: np.ndarray) -> None:
    with pytest.raises(ValueError, match="too many, too few, or no numbers"):
        Distortion.between(np.zeros(2), restored)
