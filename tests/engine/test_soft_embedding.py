"""Self-conditioning's soft embedding against plain arithmetic, on sharp, flat and mixed rows, at odd sizes."""

from __future__ import annotations

import numpy as np
import pytest
from gguf import GGMLQuantizationType as Kind

from dgemma._core import multiply_soft
from dgemma.quantize.rows import dequantize_rows, quantize_rows

# What the F32 sums of a few thousand terms may round away, of the sum of the terms' sizes.
ROUNDING = 2e-6
GROUP = 32  # tokens that share a scale in the product in 8 bits
HEAVY = 1 / 64  # tokens with at least as much of a row are added in F32


def soft(z: np.ndarray) -> np.ndarray:
    e = np.exp(z.astype(np.float64) - z.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def rows_of(kind: str, n: int, vocab: int, random: np.random.Generator) -> np.ndarray:
    """[n, vocab]: a standard normal is flat, a hundred times as much sharp; mixed has some of both and between."""
    spread = {"flat": np.ones(n), "sharp": np.full(n, 100.0), "mixed": 10.0 ** random.uniform(-1, 2, n)}[kind]
    return (random.standard_normal((n, vocab)) * spread[:, None]).astype(np.float32)


def rounding_to_8_bits(p: np.ndarray, values: np.ndarray) -> np.ndarray:
    """[n, hidden]: the bound in cpp/src/session/soft_embedding.h, without the factor sqrt(hidden)."""
    light = np.where(p < HEAVY * (1 + 1e-4), p, 0)
    missing = -len(values) % GROUP
    groups = np.pad(light, ((0, 0), (0, missing))).reshape(len(p), -1, GROUP)
    largest = np.pad(np.abs(values), ((0, missing), (0, 0))).reshape(groups.shape[1], GROUP, -1).max(axis=1)
    return 1.001 * (GROUP * groups.max(axis=2) / 510 + groups.sum(axis=2) / 254) @ largest


@pytest.mark.parametrize("kind", ["sharp", "flat", "mixed"])
@pytest.mark.parametrize("type", ["Q4_0", "Q4_K", "Q5_0", "Q6_K", "Q8_0", "BF16", "F16", "F32"])
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
        if type != "F32":
            allowed += rounding_to_8_bits(p, values)
    assert (np.abs(found / np.sqrt(512) - p @ values) <= allowed).all()


@pytest.mark.parametrize("kind", ["sharp", "flat", "mixed"])
@pytest.mark.parametrize("type", ["Q6_K", "BF16"])
def test_8_bits_cost_less_than_a_hundredth(kind: str, type: str) -> None:
    """The bound above is for roundings that all lean to one side; these do not. Rows that are sharp lose far less."""
    random = np.random.default_rng(3)
    z = rows_of(kind, 40, 3001, random)
    embedding = quantize_rows(random.standard_normal((3001, 512), dtype=np.float32), Kind[type])
    exact = multiply_soft(z, embedding, type, 512, 0.0, 2)
    errors = np.linalg.norm(multiply_soft(z, embedding, type, 512, 1e-6, 2) - exact, axis=1)
    relative = errors / np.linalg.norm(exact, axis=1)
    assert (relative < (0.001 if kind == "sharp" else 0.01)).all()


@pytest.mark.parametrize("hidden", [32, 96, 320])
@pytest.mark.parametrize("type", ["F32", "Q8_0"])
def test_widths_that_a_task_does_not_divide(hidden: int, type: str) -> None:
    random = np.random.default_rng(hidden)
    z = rows_of("mixed", 5, 200, random)
    embedding = quantize_rows(random.standard_normal((200, hidden), dtype=np.float32), Kind[type])
    expected = soft(z) @ dequantize_rows(embedding, Kind[type]) * np.sqrt(hidden)
    for dropped, bound in ((0.0, 1e-5), (1e-4, 2e-2)):
        found = multiply_soft(z, embedding, type, hidden, dropped, 1)
        np.testing.assert_allclose(found, expected, atol=bound * np.sqrt(hidden))


def test_what_is_left_out_is_less_than_said() -> None:
    """A row whose small half lies just below the cut loses that half; with 0 it is there."""
    z = np.zeros((1, 1000), np.float32)
    z[0, 500:] = np.log(1e-6)  # 500 ones and 500 millionths: below 1e-3 / 1000 of the whole
    values = np.zeros((1000, 32), np.float32)
    values[500:] = 1
    exact = multiply_soft(z, values.view(np.uint8), "F32", 32, 0.0, 1)
    assert exact[0, 0] == pytest.approx(1e-6 * np.sqrt(32), rel=1e-4)
    assert multiply_soft(z, values.view(np.uint8), "F32", 32, 1e-3, 1)[0, 0] == 0


@pytest.mark.parametrize("type", ["F32", "Q8_0"])
@pytest.mark.parametrize("dropped", [0.0, 1e-4])
def test_the_number_of_threads_does_not_matter(dropped: float, type: str) -> None:
    random = np.random.default_rng(0)
    z = rows_of("mixed", 37, 1300, random)
    values = quantize_rows(random.standard_normal((1300, 544), dtype=np.float32), Kind[type])
    results = [multiply_soft(z, values, type, 544, dropped, threads) for threads in (1, 2, 5)]
    for other in results[1:]:
        np.testing.assert_array_equal(results[0], other)


@pytest.mark.parametrize("dropped", [0.0, 1e-4])
def test_a_row_does_not_depend_on_the_others(dropped: float) -> None:
    random = np.random.default_rng(1)
    z = rows_of("mixed", 9, 1300, random)
    values = quantize_rows(random.standard_normal((1300, 96), dtype=np.float32), Kind.Q8_0)
    together = multiply_soft(z, values, "Q8_0", 96, dropped, 2)
    for row in range(9):
        alone = multiply_soft(z[row : row + 1], values, "Q8_0", 96, dropped, 2)
        np.testing.assert_array_equal(together[row], alone[0])


@pytest.mark.parametrize("kind", ["sharp", "flat", "mixed"])
@pytest.mark.parametrize("dropped", [0.0, 1e-4])
def test_a_row_that_is_no_number_stays_none(kind: str, dropped: float) -> None:
    random = np.random.default_rng(2)
    z = rows_of(kind, 7, 333, random)
    values = quantize_rows(random.standard_normal((333, 96), dtype=np.float32), Kind.Q8_0)
    sound = multiply_soft(z, values, "Q8_0", 96, dropped, 2)
    z[3, 100] = np.nan
    found = multiply_soft(z, values, "Q8_0", 96, dropped, 2)
    assert np.isnan(found[3]).all()
    np.testing.assert_array_equal(np.delete(found, 3, axis=0), np.delete(sound, 3, axis=0))


@pytest.mark.parametrize("damage", [np.nan, np.inf])
@pytest.mark.parametrize("share", [1e-3, 0.5])
def test_a_damaged_token_shows_in_the_rows_that_use_it(damage: float, share: float) -> None:
    z = np.zeros((2, 333), np.float32)
    z[0, 100] = np.log(share * 332 / (1 - share))
    z[1, 300] = 100.0  # sure of another token
    values = quantize_rows(np.random.default_rng(4).standard_normal((333, 96), dtype=np.float32), Kind.Q8_0)
    values[100, 34:36] = np.array([damage], np.float16).view(np.uint8)  # the scale of columns 32 to 63
    for dropped in (0.0, 1e-4):
        found = multiply_soft(z, values, "Q8_0", 96, dropped, 1)
        assert not np.isfinite(found[0, 32:64]).any()
        assert np.isfinite(np.delete(found[0], np.s_[32:64])).all()
        if dropped:
            assert np.isfinite(found[1]).all()
