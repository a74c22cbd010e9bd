"""The products of dense weights against plain arithmetic: every type, odd numbers of rows, tokens and columns."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
from conftest import Card
from expert_problems import dequantized, quantized

from dgemma import BackendError, RequestError
from dgemma._core import cuda_unavailable, run_dense_on_card

BLOCKS_OF_32 = ["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0"]
BLOCKS_OF_256 = ["Q4_K", "Q5_K", "Q6_K"]
TYPES = BLOCKS_OF_32 + BLOCKS_OF_256
F32_ROUNDING = 2e-7  # of the length of x times that of the weights
GROUP = 32


def rounded(x: np.ndarray) -> np.ndarray:
    """x as 8 bits and back."""
    groups = x.astype(np.float32).reshape(x.shape[0], -1, GROUP)
    most = np.abs(groups).max(axis=2, keepdims=True)
    q = np.rint(groups * (np.float32(127) / most))
    return (q.astype(np.float64) * (most / np.float32(127))).reshape(x.shape)


def gelu(x: np.ndarray) -> np.ndarray:
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


@dataclass(frozen=True)
class DenseProblem:
    x: np.ndarray
    weights: list[tuple[np.ndarray, str]]

    @staticmethod
    def random(n: int, k: int, *weights: tuple[str, int]) -> DenseProblem:
        """Weights (type, rows), of sizes that differ by row, so that a scale of the wrong row shows."""
        random = np.random.default_rng([n, k, *(rows for _, rows in weights)])

        def normal(*shape: int) -> np.ndarray:
            return random.standard_normal(shape, dtype=np.float32)

        def sized(rows: int) -> np.ndarray:
            return normal(rows, k) * np.exp(normal(rows, 1) / 2 + normal(1, k) / 2) / np.float32(np.sqrt(k))

        x = normal(n, k) * np.exp(normal(n, 1) / 2 + normal(1, k) / 2)
        return DenseProblem(x, [(quantized(sized(rows), kind), kind) for kind, rows in weights])

    def solved_by(self, card: Card, is_gated: bool = False) -> list[np.ndarray]:
        return card(x=self.x, weights=self.weights, is_gated=is_gated)

    def expected(self) -> list[np.ndarray]:
        return [rounded(self.x) @ dequantized(*weight).T for weight in self.weights]

    def check(self, card: Card) -> None:
        for found, expected, weight in zip(self.solved_by(card), self.expected(), self.weights, strict=True):
            sizes = np.outer(np.linalg.norm(self.x, axis=1), np.linalg.norm(dequantized(*weight), axis=1))
            assert (np.abs(found - expected) < F32_ROUNDING * sizes).all()

    def check_gated(self, card: Card) -> None:
        (found,) = self.solved_by(card, is_gated=True)
        gate, up = self.expected()
        expected = (gelu(gate) * up).reshape(len(found), -1, GROUP)
        step = np.abs(expected).max(axis=2, keepdims=True) / 127
        apart = np.abs(found.reshape(expected.shape) - expected)
        assert (apart < 0.5001 * step).all()
        assert apart.max() > 0


@pytest.mark.parametrize("type", TYPES)
@pytest.mark.parametrize(("n", "rows"), [(1, 64), (9, 70), (67, 3)])
def test_every_type(card_dense: Card, type: str, n: int, rows: int) -> None:
    """One token and more than a tile of them; a tile of rows, one and a bit, and less than one."""
    DenseProblem.random(n, 512, (type, rows)).check(card_dense)


@pytest.mark.parametrize("type", BLOCKS_OF_32)
@pytest.mark.parametrize("k", [32, 96, 160, 352])
def test_rows_at_any_even_address(card_dense: Card, type: str, k: int) -> None:
    """Widths that are no whole number of strips, and rows that begin between two vectors of 16 bytes."""
    DenseProblem.random(9, k, (type, 65)).check(card_dense)


@pytest.mark.parametrize("type", BLOCKS_OF_32)
def test_nothing_is_read_past_the_end(card_dense: Card, type: str) -> None:
    """Rows, their scales and weights that end where the card's memory does, in the middle of a strip."""
    DenseProblem.random(32, 160, (type, 64)).check(card_dense)


@pytest.mark.parametrize("type", BLOCKS_OF_256)
def test_an_odd_number_of_blocks(card_dense: Card, type: str) -> None:
    DenseProblem.random(5, 768, (type, 17)).check(card_dense)


def test_queries_keys_and_values(card_dense: Card) -> None:
    """Three products of the same rows, of types and sizes of their own."""
    DenseProblem.random(20, 256, ("Q4_K", 96), ("Q8_0", 32), ("Q6_K", 40)).check(card_dense)


@pytest.mark.parametrize("type", TYPES)
@pytest.mark.parametrize("n", [3, 66])
def test_gate_and_up(card_dense: Card, type: str, n: int) -> None:
    k = 384 if type in BLOCKS_OF_32 else 256  # of strips an odd number: the result overwrites the last one
    DenseProblem.random(n, k, (type, 64), (type, 64)).check_gated(card_dense)


@pytest.mark.parametrize(("type", "k"), [("Q4_K", 2816), ("Q5_0", 2112)])
def test_the_released_models_widths(card_dense: Card, type: str, k: int) -> None:
    DenseProblem.random(3, k, (type, 8)).check(card_dense)


def test_a_token_alone_is_the_same(card_dense: Card) -> None:
    """Bit for bit: no sum depends on which other tokens there are."""
    problem = DenseProblem.random(70, 256, ("Q4_K", 70), ("Q5_0", 9), ("Q6_K", 9))
    together = problem.solved_by(card_dense)
    for token in (0, 37, 69):
        alone = replace(problem, x=problem.x[[token]]).solved_by(card_dense)
        for one, all_of_them in zip(alone, together, strict=True):
            np.testing.assert_array_equal(one[0], all_of_them[token])


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_a_number_stays_in_its_row(card_dense: Card, value: float) -> None:
    problem = DenseProblem.random(12, 256, ("Q4_K", 20), ("Q6_K", 20))
    clean = problem.solved_by(card_dense)
    problem.x[3, 17] = value
    others = np.arange(12) != 3
    for found, before in zip(problem.solved_by(card_dense), clean, strict=True):
        assert np.isnan(found[3]).all()
        np.testing.assert_array_equal(found[others], before[others])


def test_bounds_of_dense_products(card_dense: Card) -> None:
    for n, kind in ((513, "Q4_0"), (2, "IQ4_NL")):
        with pytest.raises(RequestError, match=rf"CUDA: no kernel multiplies {kind.lower()} \[4, 32\] by {n} rows"):
            DenseProblem.random(n, 32, (kind, 4)).solved_by(card_dense)
    for gate, up in ((("Q4_0", 48), ("Q4_0", 48)), (("Q4_0", 32), ("Q8_0", 32)), (("Q4_0", 32), ("Q4_0", 64))):
        with pytest.raises(RequestError, match="CUDA: no kernel multiplies a gate and up"):
            DenseProblem.random(2, 32, gate, up).solved_by(card_dense, is_gated=True)


@pytest.mark.skipif(not cuda_unavailable(), reason="a card is there")
def test_dense_products_without_a_card() -> None:
    with pytest.raises(BackendError, match=r"CUDA|NVIDIA"):
        DenseProblem.random(2, 32, ("Q4_0", 4)).solved_by(run_dense_on_card)
