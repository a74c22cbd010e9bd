"""A layer's queries, keys and values between the products and attention on a card, beside numpy in F64: the heads'
norms, rotary positions and the cache."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from dgemma import RequestError

EPS = 1e-6
ROUNDING = 2e-6  # of an F32 value, by the largest of its head
ANGLE = 2.0**-23  # of an angle, twice: it is a product of two F32 values, of which the frequency is rounded
HALF = 2.0**-11  # of an F16 value
UNTOUCHED = 0x7BFF  # in cells of the cache that no token of the pass is for


def rms(x: np.ndarray) -> np.ndarray:
    return x / np.sqrt((x**2).mean(axis=-1, keepdims=True) + EPS)


class Problem:
    """Tokens from `position` on, [n, heads, head_dim] of F32 that F64 arithmetic reads."""

    def __init__(self, n: int, heads: int, kv_heads: int, head_dim: int, position: int = 0, cells: int = 600) -> None:
        random = np.random.default_rng(n * head_dim + position)
        self.q = random.normal(size=(n, heads, head_dim)).astype(np.float32)
        self.k, self.v = random.normal(size=(2, n, kv_heads, head_dim)).astype(np.float32)
        self.q_norm, self.k_norm = (1 + random.normal(size=(2, head_dim))).astype(np.float32)
        self.position, self.cells, self.base = position, cells, 1e6
        self.factors = (1 + random.random(head_dim // 2)).astype(np.float32)

    def solved_by(self, card: Any) -> dict[str, np.ndarray]:
        """Queries as they came, and the cache [cells, kv_heads, head_dim] as bits."""
        cache = np.full((self.cells, *self.k.shape[1:]), UNTOUCHED, np.uint16)
        norms = {"q_norm": self.q_norm, "k_norm": self.k_norm}
        found = card(
            **{"q": self.q, "k": self.k, "v": self.v, **norms, "keys": cache, "values": cache},
            position=self.position,
            base=self.base,
            factors=self.factors.tolist(),
            eps=EPS,
        )
        shapes = {"q": self.q.shape, "keys": cache.shape, "values": cache.shape}
        return {name: found[name].reshape(shape) for name, shape in shapes.items()}

    def angles(self) -> np.ndarray:
        """[n, 1, head_dim / 2]"""
        n, _, head_dim = self.q.shape
        frequencies = self.base ** (-2 * np.arange(head_dim // 2) / head_dim) / self.factors.astype(float)
        return ((self.position + np.arange(n))[:, None] * frequencies)[:, None, :]

    def rotated(self, x: np.ndarray) -> np.ndarray:
        first, second = np.split(x, 2, axis=-1)
        cos, sin = np.cos(self.angles()), np.sin(self.angles())
        return np.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)

    def bound(self, expected: np.ndarray) -> np.ndarray:
        angle = 2 * ANGLE * np.concatenate([self.angles()] * 2, axis=-1)
        return (ROUNDING + angle) * np.abs(expected).max(axis=-1, keepdims=True)

    def where(self) -> np.ndarray:
        return (self.position + np.arange(len(self.q))) % self.cells


def check(problem: Problem, found: dict[str, np.ndarray]) -> None:
    q = problem.rotated(rms(problem.q.astype(float)) * problem.q_norm)
    assert (np.abs(found["q"] - q) <= problem.bound(q)).all()
    keys = problem.rotated(rms(problem.k.astype(float)) * problem.k_norm)
    for name, expected in (("keys", keys), ("values", rms(problem.v.astype(float)))):
        written = found[name][problem.where()].view(np.float16).astype(float)
        assert (np.abs(written - expected) <= problem.bound(expected) + HALF * np.abs(expected) + 2.0**-24).all()
        others = np.delete(found[name], problem.where(), axis=0)
        assert (others == UNTOUCHED).all()


@pytest.mark.parametrize(
    ("n", "heads", "kv_heads", "head_dim"),
    [(1, 1, 1, 2), (3, 4, 2, 16), (5, 3, 1, 34), (2, 16, 8, 256), (2, 16, 2, 512), (257, 2, 1, 32)],
)
def test_heads_of_every_size(card_heads: Any, n: int, heads: int, kv_heads: int, head_dim: int) -> None:
    problem = Problem(n, heads, kv_heads, head_dim)
    check(problem, problem.solved_by(card_heads))


def test_late_positions(card_heads: Any) -> None:
    problem = Problem(4, 2, 1, 64, position=100_000)
    check(problem, problem.solved_by(card_heads))


def test_a_ring_goes_on_at_its_first_cell(card_heads: Any) -> None:
    problem = Problem(5, 2, 1, 16, position=14, cells=8)
    assert problem.where().tolist() == [6, 7, 0, 1, 2]
    check(problem, problem.solved_by(card_heads))


def test_keys_that_are_the_values_too(card_heads: Any) -> None:
    problem = Problem(3, 2, 2, 16)
    problem.v = problem.k
    check(problem, problem.solved_by(card_heads))


def test_without_factors(card_heads: Any) -> None:
    problem = Problem(3, 2, 1, 16)
    problem.factors = np.ones(8, np.float32)
    found = problem.solved_by(card_heads)
    problem.factors = np.ones(0, np.float32)
    np.testing.assert_array_equal(problem.solved_by(card_heads)["q"], found["q"])


def test_a_token_alone_is_the_same(card_heads: Any) -> None:
    problem = Problem(6, 2, 1, 32)
    together = problem.solved_by(card_heads)["q"]
    problem.q, problem.k, problem.v, problem.position = problem.q[4:5], problem.k[4:5], problem.v[4:5], 4
    np.testing.assert_array_equal(problem.solved_by(card_heads)["q"][0], together[4])


@pytest.mark.parametrize("head_dim", [15, 514])
def test_bounds_of_the_heads(card_heads: Any, head_dim: int) -> None:
    with pytest.raises(RequestError, match="no kernel for heads of"):
        Problem(1, 1, 1, head_dim).solved_by(card_heads)
