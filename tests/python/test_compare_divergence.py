"""Divergence of distributions: against a twin that takes one number at a time, and against closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest

from dgemma.compare import Estimate, divergence
from dgemma.compare.divergence import _BLOCK


def twin(reference: np.ndarray, candidate: np.ndarray) -> list[tuple[float, bool, float, float]]:
    """The same, slow and obvious, with exactly rounded sums."""
    rows = []
    for z_p, z_q in zip(reference.tolist(), candidate.tolist(), strict=True):
        log_p, log_q = log_softmax(z_p), log_softmax(z_q)
        kl = math.fsum(math.exp(a) * (a - b) for a, b in zip(log_p, log_q, strict=True))
        same = z_p.index(max(z_p)) == z_q.index(max(z_q))
        rows.append((kl, same, entropy(log_p), entropy(log_q)))
    return rows


def log_softmax(z: list[float]) -> list[float]:
    total = math.log(math.fsum(math.exp(value - max(z)) for value in z))
    return [value - max(z) - total for value in z]


def entropy(log_p: list[float]) -> float:
    return -math.fsum(math.exp(value) * value for value in log_p)


def log_of(*rows: list[float]) -> np.ndarray:
    return np.log(np.array(rows)).astype(np.float32)


@pytest.mark.parametrize("spread", [0.01, 1.0, 30.0])
@pytest.mark.parametrize("noise", [1e-4, 0.1, 5.0])
def test_against_the_twin(spread: float, noise: float) -> None:
    rng = np.random.default_rng(3)
    reference = (spread * rng.standard_normal((5, 300))).astype(np.float32)
    candidate = (reference + noise * rng.standard_normal((5, 300))).astype(np.float32)
    found = divergence(reference, candidate)
    for index, expected in enumerate(twin(reference, candidate)):
        row = [values[index] for values in found]
        assert row == pytest.approx(expected, rel=1e-10, abs=1e-14)


def test_rows_in_several_blocks() -> None:
    n_vocab = _BLOCK // 2
    rng = np.random.default_rng(0)
    reference = rng.standard_normal((5, n_vocab), dtype=np.float32)
    candidate = rng.standard_normal((5, n_vocab), dtype=np.float32)
    whole = divergence(reference, candidate)
    for index in range(5):
        alone = divergence(reference[index : index + 1], candidate[index : index + 1])
        assert [values[index] for values in whole] == [values[0] for values in alone]


def test_two_outcomes() -> None:
    found = divergence(log_of([0.5, 0.5]), log_of([0.9, 0.1]))
    assert found.kl[0] == pytest.approx(0.5 * math.log(0.5 / 0.9) + 0.5 * math.log(0.5 / 0.1), rel=1e-6)
    assert found.reference_entropy[0] == pytest.approx(math.log(2))
    assert found.entropy[0] == pytest.approx(-0.9 * math.log(0.9) - 0.1 * math.log(0.1), rel=1e-6)


def test_it_is_the_reference_that_weighs() -> None:
    sharp, flat = log_of([0.98, 0.01, 0.01]), log_of([1 / 3, 1 / 3, 1 / 3])
    assert divergence(sharp, flat).kl[0] == pytest.approx(math.log(3) - divergence(sharp, sharp).entropy[0], rel=1e-6)
    assert divergence(flat, sharp).kl[0] == pytest.approx(math.log(1 / 3) - math.log(0.98 * 0.01 * 0.01) / 3, rel=1e-6)


def test_a_certain_token() -> None:
    """Everything on one token of which the other gives a quarter: log 4, and nothing overflows."""
    certain = np.array([[60, -60, -60, -60]], np.float32)
    found = divergence(certain, np.zeros((1, 4), np.float32))
    assert found.kl[0] == pytest.approx(math.log(4))
    assert (found.reference_entropy[0], found.entropy[0]) == (pytest.approx(0, abs=1e-40), pytest.approx(math.log(4)))
    assert divergence(np.zeros((1, 4), np.float32), certain).kl[0] == pytest.approx(90 - math.log(4))


def test_equal_logits_and_shifted_ones() -> None:
    z = np.random.default_rng(1).standard_normal((4, 100)).astype(np.float32) * 10
    assert (divergence(z, z.copy()).kl == 0).all()
    moved = divergence(z, z + np.float32(8))
    assert moved.kl.max() < 1e-10
    assert (moved.kl >= 0).all()
    assert moved.same.all()


def test_the_first_of_equals_counts() -> None:
    a = np.array([[1, 1, 0], [0, 1, 1]], np.float32)
    b = np.array([[1, 0, 0], [0, 0, 1]], np.float32)
    assert divergence(a, b).same.tolist() == [True, False]


def test_a_mapped_file(tmp_path: object) -> None:
    rng = np.random.default_rng(2)
    a, b = rng.standard_normal((2, 3, 50)).astype(np.float32)
    np.save(f"{tmp_path}/a.npy", a)
    mapped = np.load(f"{tmp_path}/a.npy", mmap_mode="r")
    assert (divergence(mapped, b).kl == divergence(a, b).kl).all()


def test_standard_errors() -> None:
    values = [0.5, 1.5, 4.0, 2.0]
    estimate = Estimate.over(values)
    assert estimate.mean == 2.0
    variance = sum((value - 2.0) ** 2 for value in values) / 3
    assert estimate.error == pytest.approx(math.sqrt(variance / 4))
    assert Estimate.over([3.0]) == Estimate(3.0, None)
