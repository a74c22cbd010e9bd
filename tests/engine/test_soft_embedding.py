"""Self-conditioning's soft embedding against plain arithmetic, on sharp, flat and mixed rows, at odd sizes."""

from __future__ import annotations

import numpy as np
import pytest
from gguf import GGMLQuantizationType as Kind

from dgemma._core import multiply_soft
from dgemma.quantize.rows import dequantize_rows, quantize_rows

# What the F32 sums of a few thousand terms may round away, of the sum of the terms' sizes.
ROUNDING = 2e-6


def soft(z: np.ndarray) -> np.ndarray:
    e = np.exp(z.astype(np.float64) - z.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def rows_of(kind: str, n: int, vocab: int, random: np.random.Generator) -> np.ndarray:
    """[n, vocab]: a standard normal is flat, a hundred times as much sharp; mixed has some of both and between."""
    spread = {"flat": np.ones(n), "sharp": np.full(n, 100.0), "mixed": 10.0 ** random.uniform(-1, 2, n)}[kind]
    return (random.standard_normal((n, vocab)) * spread[:, None]).astype(np.float32)


@pytest.mark.parametrize("kind", ["sharp", "flat", "mixed"])
@pytest.mark.parametrize("type", ["Q6_K", "Q8_0", "Q4_K", "BF16", "F16", "F32"])
@pytest.mark.parametrize(("n", "vocab"), [(1, 63), (7, 500), (16, 1024), (33, 129)])
@pytest.mark.parametrize("dropped", [0.0, 1e-4])
def test_it_is_the_mean_of_the_rows(kind: str, type: str, n: int, vocab: int, dropped: float) -> None:
    random = np.random.default_rng([n, vocab])
    z = rows_of(kind, n, vocab, random)
    embedding = quantize_rows(random.standard_normal((vocab, 512), dtype=np.float32), Kind[type])
    values = dequantize_rows(embedding, Kind[type]).astype(np.float64)
    found = multiply_soft(z, embedding, type, 512, dropped, 2)
    p = soft(z)
    sizes = p @ np.abs(values)
    allowed = ROUNDING * sizes + 1e-6
    if dropped > 0:
        allowed += dropped * np.abs(values).max()
        if type != "F32":  # both factors in BF16
            allowed += 1.01 * 2**-7 * sizes
    assert (np.abs(found / np.sqrt(512) - p @ values) <= allowed).all()


@pytest.mark.parametrize("hidden", [32, 96, 320])
def test_widths_that_a_task_does_not_divide(hidden: int) -> None:
    random = np.random.default_rng(hidden)
    z, values = rows_of("mixed", 5, 200, random), random.standard_normal((200, hidden), dtype=np.float32)
    for dropped, bound in ((0.0, 1e-5), (1e-4, 2e-2)):
        found = multiply_soft(z, values.view(np.uint8), "F32", hidden, dropped, 1)
        np.testing.assert_allclose(found, soft(z) @ values * np.sqrt(hidden), atol=bound * np.sqrt(hidden))


def test_what_is_left_out_is_less_than_said() -> None:
    """A row whose small half lies just below the cut loses that half; with 0 it is there."""
    z = np.zeros((1, 1000), np.float32)
    z[0, 500:] = np.log(1e-6)  # 500 ones and 500 millionths: below 1e-3 / 1000 of the whole
    values = np.zeros((1000, 32), np.float32)
    values[500:] = 1
    exact = multiply_soft(z, values.view(np.uint8), "F32", 32, 0.0, 1)
    assert exact[0, 0] == pytest.approx(1e-6 * np.sqrt(32), rel=1e-4)
    assert multiply_soft(z, values.view(np.uint8), "F32", 32, 1e-3, 1)[0, 0] == 0


@pytest.mark.parametrize("dropped", [0.0, 1e-4])
def test_the_number_of_threads_does_not_matter(dropped: float) -> None:
    random = np.random.default_rng(0)
    z, values = rows_of("mixed", 9, 300, random), random.standard_normal((300, 544), dtype=np.float32).view(np.uint8)
    results = [multiply_soft(z, values, "F32", 544, dropped, threads) for threads in (1, 2, 5)]
    for other in results[1:]:
        np.testing.assert_array_equal(results[0], other)
