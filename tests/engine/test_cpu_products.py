"""The CPU's own product of quantised rows against plain arithmetic on what it says it computes: every kernel that this
processor can run."""

from __future__ import annotations

import numpy as np
import pytest
from gguf import GGMLQuantizationType as Kind
from panel_twin import BYTES, GROUP, multiply, take_apart

from dgemma import Engine, RequestError
from dgemma._core import has_own_product, multiply_rows, product_kernels
from dgemma.quantize.rows import dequantize_rows, quantize_rows

TYPES = ["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "IQ4_NL", "Q4_K", "Q5_K", "Q6_K"]
pytestmark = pytest.mark.skipif(not has_own_product("Q8_0"), reason="no kernel of ours for this processor")


@pytest.fixture(params=product_kernels())
def kernel(request: pytest.FixtureRequest) -> str:
    return request.param


def rounded(columns: np.ndarray) -> np.ndarray:
    """Columns as the product sees them: 8 bits in groups of 32, a scale each."""
    groups = columns.reshape(-1, 32)
    scale = np.abs(groups).max(axis=1, keepdims=True) / np.float32(127)
    inverse = np.divide(np.float32(1), scale, out=np.zeros_like(scale), where=scale > 0)
    return (np.rint(groups * inverse) * scale).reshape(columns.shape).astype(np.float64)


def problem(name: str, k: int, n: int, rows: int = 64) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    random = np.random.default_rng([k, n])
    weights = quantize_rows(random.standard_normal((rows, k), dtype=np.float32), Kind[name])
    columns = random.standard_normal((n, k), dtype=np.float32) * np.float32(0.1)
    return weights, dequantize_rows(weights, Kind[name]).astype(np.float64), columns


@pytest.mark.parametrize("name", TYPES)
@pytest.mark.parametrize(("k", "n"), [(256, 1), (512, 2), (768, 3), (256, 4), (2816, 21)])
def test_it_is_the_product_with_rounded_columns(kernel: str, name: str, k: int, n: int) -> None:
    weights, values, columns = problem(name, k, n)
    found = multiply_rows(weights, name, columns, kernel)
    # Sums of k products in float32, and a column's value that lies on the border of two integers may go to either.
    tolerance = 1e-5 * np.sqrt(k) + np.abs(columns).max() / 127 * np.abs(values).max() * 1e-3
    np.testing.assert_allclose(found, rounded(columns) @ values.T, atol=tolerance, rtol=1e-5)


@pytest.mark.parametrize("name", TYPES[:6])
@pytest.mark.parametrize("k", [32, 96, 704])
def test_rows_that_256_does_not_divide(kernel: str, name: str, k: int) -> None:
    weights, values, columns = problem(name, k, 5, rows=32)
    found = multiply_rows(weights, name, columns, kernel)
    np.testing.assert_allclose(found, rounded(columns) @ values.T, atol=2e-3, rtol=1e-4)


def any_blocks(name: str, k: int, rows: int) -> np.ndarray:
    """Every value that a type can have, and not only those that a quantiser writes: random bytes, finite halves."""
    random = np.random.default_rng([k, len(name)])
    block = quantize_rows(random.standard_normal((rows, k), dtype=np.float32), Kind[name])
    return with_halves(name, random.integers(0, 256, block.shape, dtype=np.uint8), random)


def with_halves(name: str, blocks: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Rows of bytes whose scales and minima in F16 are replaced by finite ones."""
    bytes_ = blocks.reshape(len(blocks), -1, BYTES[name])
    halves = (208,) if name == "Q6_K" else (0, 2) if name in ("Q4_1", "Q5_1", "Q4_K", "Q5_K") else (0,)
    for at in halves:
        value = random.uniform(-2, 2, (*bytes_.shape[:2], 1)).astype(np.float16)
        bytes_[..., at : at + 2] = value.view(np.uint8)
    return bytes_.reshape(blocks.shape)


@pytest.mark.parametrize("name", TYPES)
@pytest.mark.parametrize(("k", "n"), [(256, 1), (768, 2), (512, 3), (1024, 9), (2816, 4)])
def test_every_bit_is_that_of_plain_arithmetic(kernel: str, name: str, k: int, n: int) -> None:
    check_bits(kernel, name, k, n)


@pytest.mark.parametrize("name", TYPES[:6])
@pytest.mark.parametrize("k", [32, 64, 96, 160, 224, 288, 704])
def test_every_bit_where_256_does_not_divide(kernel: str, name: str, k: int) -> None:
    check_bits(kernel, name, k, 7)


def check_bits(kernel: str, name: str, k: int, n: int) -> None:
    random = np.random.default_rng(k)
    x = random.integers(-127, 128, (n, k))
    x[:, 5::GROUP] = 127
    check_integers(kernel, name, any_blocks(name, k, rows=96), x, random)


def check_integers(kernel: str, name: str, weights: np.ndarray, x: np.ndarray, random: np.random.Generator) -> None:
    """Columns that are integers times a power of two are rounded to themselves, where 127 is among each group."""
    n, k = x.shape
    d = np.exp2(random.integers(-6, 3, (n, k // GROUP))).astype(np.float32)
    columns = (x * np.repeat(d, GROUP, axis=1)).astype(np.float32)
    found = multiply_rows(weights, name, columns, kernel)
    np.testing.assert_array_equal(found, multiply(take_apart(weights, name), x, d))


@pytest.mark.parametrize("name", TYPES)
@pytest.mark.parametrize("byte", [0x00, 0xFF, 0x80, 0x7F, 0x0F, 0xF0])
def test_the_largest_sums_of_integers_fit(kernel: str, name: str, byte: int) -> None:
    """All weights at an end of what their bits can hold, all activations at an end of theirs."""
    random = np.random.default_rng(byte)
    rows = np.full((32, 512 // (256 if name.endswith("K") else 32) * BYTES[name]), byte, np.uint8)
    sign = np.ones((6, 512), np.int64)
    sign[1] = -1
    sign[2, ::2] = -1
    sign[3, 1::2] = -1
    sign[4, np.arange(512) % 4 < 2] = -1
    sign[5] = random.choice([-1, 1], 512)
    check_integers(kernel, name, with_halves(name, rows, random), 127 * sign, random)


@pytest.mark.parametrize("name", TYPES)
@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 6, 7, 8, 9, 16, 33])
def test_all_kernels_give_the_same_bits(kernel: str, name: str, n: int) -> None:
    weights = any_blocks(name, 768, rows=64)
    columns = np.random.default_rng(n).standard_normal((n, 768), dtype=np.float32)
    np.testing.assert_array_equal(multiply_rows(weights, name, columns, kernel), multiply_rows(weights, name, columns))


@pytest.mark.parametrize("name", TYPES)
def test_a_column_does_not_depend_on_its_neighbours(kernel: str, name: str) -> None:
    weights, _, columns = problem(name, 512, 11)
    together = multiply_rows(weights, name, columns, kernel)
    alone = np.concatenate([multiply_rows(weights, name, columns[i : i + 1], kernel) for i in range(11)])
    np.testing.assert_array_equal(together, alone)


@pytest.mark.parametrize("name", TYPES)
def test_extreme_columns(kernel: str, name: str) -> None:
    """Zero, a lone spike, and values of both ends of the integers: no sum overflows."""
    weights, values, _ = problem(name, 1024, 1)
    spike = np.zeros(1024, np.float32)
    spike[37] = -3
    columns = np.stack([np.zeros(1024, np.float32), spike, np.ones(1024, np.float32), -np.ones(1024, np.float32)])
    found = multiply_rows(weights, name, columns, kernel)
    assert (found[0] == 0).all()
    np.testing.assert_allclose(found, columns.astype(np.float64) @ values.T, atol=2e-3)


@pytest.mark.parametrize("name", TYPES)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_no_number_stays_none(kernel: str, name: str, value: float) -> None:
    """Damaged weights are found by it: nothing may turn a NaN into a number that looks like any other."""
    weights, _, columns = problem(name, 512, 3)
    columns[1, 77] = value
    finite = np.isfinite(multiply_rows(weights, name, columns, kernel))
    assert finite[[0, 2]].all()
    assert not finite[1].any()


def test_what_cannot_be_multiplied_is_refused() -> None:
    with pytest.raises(RequestError, match="no product of ours for Q2_K"):
        multiply_rows(np.zeros((32, 84), np.uint8), "Q2_K", np.zeros((1, 256), np.float32))
    with pytest.raises(RequestError, match="multiples of 32"):
        multiply_rows(np.zeros((20, 34), np.uint8), "Q8_0", np.zeros((1, 32), np.float32))
    with pytest.raises(RequestError, match="no kernel SSE here"):
        multiply_rows(np.zeros((32, 34), np.uint8), "Q8_0", np.zeros((1, 32), np.float32), "SSE")
    with pytest.raises(RequestError, match="no type Q9"):
        has_own_product("Q9")


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_the_number_of_threads_does_not_matter(model_path, threads: int) -> None:
    """A quantised model whose layers, experts and head all go through it."""
    path = model_path("hidden256", "q8_0")
    found = []
    for n in (threads, 5):
        with Engine(path, n_ctx=256, n_threads=n) as engine:
            session = engine.session()
            session.prefill(list(range(2, 70)))
            found.append(session.denoise(np.arange(engine.info.canvas_length) % 97))
    np.testing.assert_array_equal(found[0], found[1])
