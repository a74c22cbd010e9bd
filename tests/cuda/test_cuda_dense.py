"""The products of dense weights against plain arithmetic, by rows of 8 bits and of BF16: every type, odd numbers of
rows, tokens and columns."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from dense_problems import DenseProblem, bf16_weights, scales_and_minima
from emulation import Card
from expert_problems import dequantized

from dgemma import BackendError, RequestError
from dgemma._core import cuda_unavailable, run_dense_on_card

BLOCKS_OF_32 = ["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "IQ4_NL"]
BLOCKS_OF_256 = ["Q4_K", "Q5_K", "Q6_K", "IQ4_XS"]
TYPES = BLOCKS_OF_32 + BLOCKS_OF_256


@pytest.fixture(params=[False, True], ids=["int8", "bf16"])
def is_bf16(request: pytest.FixtureRequest) -> bool:
    return request.param


@pytest.mark.parametrize("type", TYPES)
@pytest.mark.parametrize(("n", "rows"), [(1, 125), (9, 130), (67, 3), (97, 104)])
def test_every_type(card_dense: Card, is_bf16: bool, type: str, n: int, rows: int) -> None:
    """One token and more than a tile of them, by less and more than half; a tile of rows, one and a bit, and less than
    one."""
    DenseProblem.random(n, 512, (type, rows), is_bf16=is_bf16).check(card_dense)


@pytest.mark.parametrize("type", BLOCKS_OF_32)
@pytest.mark.parametrize("k", [32, 96, 160, 352])
def test_rows_at_any_even_address(card_dense: Card, is_bf16: bool, type: str, k: int) -> None:
    """Widths that are no whole number of strips, and rows that begin between two vectors of 16 bytes."""
    DenseProblem.random(9, k, (type, 73), is_bf16=is_bf16).check(card_dense)


@pytest.mark.parametrize("type", BLOCKS_OF_32)
def test_nothing_is_read_past_the_end(card_dense: Card, is_bf16: bool, type: str) -> None:
    """Rows, their scales and weights that end where the card's memory does, in the middle of a strip."""
    DenseProblem.random(32, 160, (type, 64), is_bf16=is_bf16).check(card_dense)


@pytest.mark.parametrize("type", BLOCKS_OF_256)
@pytest.mark.parametrize("k", [256, 768])
def test_an_odd_number_of_blocks(card_dense: Card, is_bf16: bool, type: str, k: int) -> None:
    DenseProblem.random(5, k, (type, 17), is_bf16=is_bf16).check(card_dense)


@pytest.mark.parametrize(
    ("type", "k"),
    [
        ("Q4_0", 2112),
        ("Q5_0", 2112),
        ("Q8_0", 2112),
        ("Q4_K", 1024),
        ("Q6_K", 4096),
        ("Q6_K", 2048),
        ("IQ4_XS", 1024),
        ("Q5_1", 704),  # the first ends in the middle of a strip
        ("Q5_1", 96),
    ],
)
def test_columns_that_are_shared_out(card_dense: Card, is_bf16: bool, type: str, k: int) -> None:
    """By halves that are none of the whole; some have none that begin like a row."""
    DenseProblem.random(70, k, (type, 70), is_bf16=is_bf16).check(card_dense, is_shared=True)


def test_a_half_is_summed_apart(card_dense: Card) -> None:
    problem = DenseProblem.random(3, 512, ("Q8_0", 40))
    (whole,), (shared,) = (problem.solved_by(card_dense, is_shared=is_shared) for is_shared in (False, True))
    assert (whole != shared).any()


def test_products_of_the_same_rows(card_dense: Card, is_bf16: bool) -> None:
    """Of types and sizes of their own, more of one type than are launched together, and not side by side."""
    weights = [("Q4_K", 130), ("Q8_0", 32), ("Q6_K", 40), ("Q4_K", 1), ("Q4_K", 64), ("Q4_K", 65), ("Q8_0", 5)]
    DenseProblem.random(20, 256, *weights, ("Q4_K", 3), is_bf16=is_bf16).check(card_dense)


@pytest.mark.parametrize("type", TYPES)
@pytest.mark.parametrize("n", [3, 66])
def test_gate_and_up(card_dense: Card, is_bf16: bool, type: str, n: int) -> None:
    """Rows for the next product are of x's arithmetic, or of the other."""
    k = 384 if type in BLOCKS_OF_32 else 256  # of strips an odd number: the result overwrites the last one
    problem = DenseProblem.random(n, k, (type, 96), (type, 96), is_bf16=is_bf16)
    problem.check_gated(card_dense, gated_is_bf16=is_bf16 == (n > 3))


@pytest.mark.parametrize(("type", "k"), [("Q4_K", 2816), ("Q5_0", 2112)])
def test_the_released_models_widths(card_dense: Card, is_bf16: bool, type: str, k: int) -> None:
    DenseProblem.random(3, k, (type, 8), is_bf16=is_bf16).check(card_dense)


def test_a_token_alone_is_the_same(card_dense: Card, is_bf16: bool) -> None:
    """Bit for bit, in every run: no sum depends on which other tokens there are."""
    problem = DenseProblem.random(70, 256, ("Q4_K", 70), ("Q5_0", 9), ("Q6_K", 9), is_bf16=is_bf16)
    together = problem.solved_by(card_dense)
    for one, again in zip(together, problem.solved_by(card_dense), strict=True):
        np.testing.assert_array_equal(one, again)
    for token in (0, 37, 69):
        alone = replace(problem, x=problem.x[[token]]).solved_by(card_dense)
        for one, all_of_them in zip(alone, together, strict=True):
            np.testing.assert_array_equal(one[0], all_of_them[token])


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_a_number_stays_in_its_row(card_dense: Card, is_bf16: bool, value: float) -> None:
    problem = DenseProblem.random(12, 256, ("Q4_K", 20), ("Q6_K", 20), is_bf16=is_bf16)
    clean = problem.solved_by(card_dense)
    problem.x[3, 17] = value
    others = np.arange(12) != 3
    for found, before in zip(problem.solved_by(card_dense), clean, strict=True):
        assert not np.isfinite(found[3]).any()
        np.testing.assert_array_equal(found[others], before[others])


@pytest.mark.parametrize("type", TYPES)
def test_what_bf16_weights_cost(type: str) -> None:
    """Three roundings to eight bits, each by 2^-8 of what it rounds at most: of scale, minimum and the value."""
    ((rows, _),) = DenseProblem.random(1, 512, (type, 40)).weights
    _, minimum = scales_and_minima(rows, type)
    weights = dequantized(rows, type)
    unrounded = np.abs(weights + minimum) + np.abs(minimum)  # scale q and the minimum, which may all but cancel
    apart = np.abs(bf16_weights(rows, type) - weights)
    before = 2**-8 * unrounded  # of scale and minimum
    assert (apart <= before + 2**-8 * (np.abs(weights) + before) + 1e-6 * unrounded).all()
    assert (apart > 2**-9 * unrounded).any()


def test_bounds_of_dense_products(card_dense: Card, is_bf16: bool) -> None:
    for n, kind in ((8193, "Q4_0"), (2, "MXFP4")):
        with pytest.raises(RequestError, match=rf"CUDA: no kernel multiplies {kind.lower()} \[4, 32\] by {n} rows"):
            DenseProblem.random(n, 32, (kind, 4), is_bf16=is_bf16).solved_by(card_dense)
    for gate, up in ((("Q4_0", 48), ("Q4_0", 48)), (("Q4_0", 32), ("Q8_0", 32)), (("Q4_0", 32), ("Q4_0", 64))):
        with pytest.raises(RequestError, match="CUDA: no kernel multiplies a gate and up"):
            DenseProblem.random(2, 32, gate, up, is_bf16=is_bf16).solved_by(card_dense, is_gated=True)


@pytest.mark.skipif(not cuda_unavailable(), reason="a card is there")
def test_dense_products_without_a_card() -> None:
    with pytest.raises(BackendError, match=r"CUDA|NVIDIA"):
        DenseProblem.random(2, 32, ("Q4_0", 4)).solved_by(run_dense_on_card)
