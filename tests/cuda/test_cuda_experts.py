"""The experts' kernels against plain arithmetic: routing, order, every type, odd numbers of tokens."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from expert_problems import ExpertProblem, tiles_of

from dgemma import BackendError, RequestError
from dgemma._core import cuda_unavailable, run_experts_on_card

TYPES = ["Q4_K", "Q5_K", "IQ4_XS", "Q8_0", "Q5_0", "Q5_1", "Q4_0", "Q4_1", "IQ4_NL"]
KERNELS = ["choose_experts", "order_pairs", "round_groups", "gate_up_tile", "down_tile", "combine_vectors"]
BF16_KERNELS = [name.replace("_tile", "_bf16") for name in KERNELS]
WEIGHT_ROUNDING = 4e-6  # of a routing weight: F32 exponentials and sums
# Of the whole result, by its length: activations of 8 bits, twice, where the values of a group differ in size. The
# twin loses as much.
INT8_ROUNDING = 0.03
# Beside the twin: F32 sums. Where two sums round to different steps of 8 bits, that row differs by about a step of one
# value in `used` times `ffn`; few rows do.
TWIN_ROUNDING, TWIN_STEP = 2e-6, 2e-3


BF16 = pytest.mark.parametrize("is_bf16", [False, True], ids=["int8", "bf16"])


@pytest.fixture
def card_experts(card_experts):
    """Without what a card has too little shared memory for: BF16 is for those that have more (product_rows.h)."""

    def solve(**arguments: Any) -> dict[str, Any]:
        try:
            return card_experts(**arguments)
        except BackendError as error:
            if arguments["is_bf16"] and "shared memory" in str(error):
                pytest.skip(str(error))
            raise

    return solve


def check_routing(problem: ExpertProblem, found: dict[str, Any]) -> None:
    """Exact but for what lies within rounding: the order of the probabilities is that of the logits."""
    order = np.argsort(-problem.logits, axis=1, kind="stable")[:, : problem.n_used]
    np.testing.assert_array_equal(found["experts"], order)
    p = np.take_along_axis(problem.probabilities, order, axis=1)
    weights = p / p.sum(axis=1, keepdims=True) * problem.expert_scale[order]
    np.testing.assert_allclose(found["weights"], weights, rtol=WEIGHT_ROUNDING)
    pairs, tiles = tiles_of(order, problem.logits.shape[1])
    np.testing.assert_array_equal(found["pairs"], pairs)
    np.testing.assert_array_equal(found["tiles"], tiles)


def distances(found: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """The rows' relative errors."""
    exact = expected.astype(np.float64)
    return np.linalg.norm(found - exact, axis=1) / np.linalg.norm(exact, axis=1)


def check_twin(problem: ExpertProblem, found: dict[str, Any]) -> None:
    """Nothing but F32 sums between the two."""
    apart = distances(found["sums"], problem.twin["sums"])
    assert np.median(apart) < TWIN_ROUNDING
    assert apart.max() < TWIN_STEP


def check(problem: ExpertProblem, found: dict[str, Any]) -> None:
    check_routing(problem, found)

    def distance(expected: np.ndarray) -> float:
        return float(np.linalg.norm(found["sums"] - expected) / np.linalg.norm(expected))

    exact = np.einsum("nk,nkh->nh", found["weights"], problem.products(found["experts"]))
    if problem.is_bf16:
        assert distance(exact) < problem.bf16_rounding(activations=True)
        assert distance(problem.twin["sums"]) < problem.bf16_rounding(activations=False)
    else:
        assert distance(exact) < INT8_ROUNDING
        check_twin(problem, found)


@BF16
@pytest.mark.parametrize("type", TYPES)
@pytest.mark.parametrize("n", [1, 7, 33])
def test_gate_and_up_of_every_type(card_experts, is_bf16: bool, type: str, n: int) -> None:
    problem = ExpertProblem.random(n, 5, 3, 256, 64, gate_up_type=type, is_bf16=is_bf16)
    check(problem, problem.solved_by(card_experts))


@BF16
@pytest.mark.parametrize("type", TYPES)
@pytest.mark.parametrize("n", [1, 7, 33])
def test_down_of_every_type(card_experts, is_bf16: bool, type: str, n: int) -> None:
    problem = ExpertProblem.random(n, 5, 3, 64, 256, down_type=type, is_bf16=is_bf16)
    check(problem, problem.solved_by(card_experts))


@pytest.mark.parametrize("type", TYPES)
@pytest.mark.parametrize("n", [9, 30, 60])
def test_weights_that_bf16_has(card_experts, type: str, n: int) -> None:
    """To the last bits of F32: no value of theirs is lost, so no sign, shift, scale or minimum is another's."""
    whole = type.endswith("K") or type == "IQ4_XS"
    problem = ExpertProblem.random(n, 4, 2, 256 if whole else 448, 256 if whole else 96, type, type, is_bf16=True)
    problem = problem.with_bf16_weights()
    check_twin(problem, problem.solved_by(card_experts))


@pytest.mark.parametrize("type", ["Q4_K", "Q8_0"])
@pytest.mark.parametrize("exponent", [-24, 15])
def test_the_smallest_and_largest_scales(card_experts, type: str, exponent: int) -> None:
    """Of F16, subnormal ones too: on the way to BF16 they are made larger, and the weights smaller."""
    problem = ExpertProblem.random(9, 4, 2, 256, 256, type, type, is_bf16=True)
    problem = problem.with_bf16_weights((exponent, exponent + 1))
    found = problem.solved_by(card_experts)
    assert np.isfinite(found["sums"]).all()
    check_twin(problem, found)


@BF16
@pytest.mark.parametrize("type", ["Q8_0", "Q5_0", "Q5_1", "Q4_0", "Q4_1", "IQ4_NL"])
@pytest.mark.parametrize("width", [32, 96, 160, 352])
def test_rows_at_any_even_address(card_experts, is_bf16: bool, type: str, width: int) -> None:
    """Widths that are no whole number of stages, and rows that begin between two vectors of 16 bytes."""
    problem = ExpertProblem.random(9, 3, 2, 192, width, gate_up_type=type, down_type=type, is_bf16=is_bf16)
    check(problem, problem.solved_by(card_experts))


@BF16
@pytest.mark.parametrize(
    ("gate_up", "down"), [("Q4_K", "Q8_0"), ("Q4_K", "Q5_0"), ("Q5_K", "Q5_1"), ("IQ4_XS", "IQ4_NL")]
)
def test_the_released_models_widths(card_experts, is_bf16: bool, gate_up: str, down: str) -> None:
    problem = ExpertProblem.random(3, 2, 1, 2816, 704, gate_up, down, is_bf16)
    check(problem, problem.solved_by(card_experts))


@pytest.mark.parametrize(("experts", "used"), [(1, 1), (4, 4), (33, 2), (128, 8), (256, 32)])
def test_how_many_experts(card_experts, experts: int, used: int) -> None:
    problem = ExpertProblem.random(5, experts, used, 64, 32)
    check(problem, problem.solved_by(card_experts))


@BF16
def test_crowded_and_empty_experts(card_experts, is_bf16: bool) -> None:
    """Three tiles for one expert, the last of them short; one that is just full; some with nothing to do."""
    problem = ExpertProblem.random(70, 9, 2, 64, 32, is_bf16=is_bf16)
    logits = np.zeros((70, 9))
    logits[:, 4] = 9
    logits[:32, 8] = 5
    logits[32:, 1] = 5
    problem = problem.with_logits(logits)
    found = problem.solved_by(card_experts)
    assert [tuple(tile) for tile in found["tiles"]] == [
        (1, 0, 32), (1, 32, 6), (4, 38, 32), (4, 70, 32), (4, 102, 6), (8, 108, 32),
    ]  # fmt: skip
    check(problem, found)


@BF16
def test_a_chunk_of_a_prompt(card_experts, is_bf16: bool) -> None:
    """More pairs than the 256 threads that sort them."""
    problem = ExpertProblem.random(300, 16, 4, 64, 32, is_bf16=is_bf16)
    check(problem, problem.solved_by(card_experts))


def test_of_equals_the_first(card_experts) -> None:
    problem = ExpertProblem.random(6, 70, 3, 64, 32)
    logits = np.zeros((6, 70))
    logits[1, [69, 40, 33, 1]] = 1
    logits[2, [5, 6]] = -np.inf  # experts that cannot be
    logits[3] = np.arange(70) // 4
    logits[4] = -1e4 * (np.arange(70) != 7)  # all others have probability 0
    found = problem.with_logits(logits).solved_by(card_experts)
    np.testing.assert_array_equal(
        found["experts"], [[0, 1, 2], [1, 33, 40], [0, 1, 2], [68, 69, 64], [7, 0, 1], [0, 1, 2]]
    )


@BF16
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_a_number_stays_where_it_is(card_experts, is_bf16: bool, value: float) -> None:
    """A token's own row, whichever of its inputs it was: neighbours in its tile are as they would be."""
    problem = ExpertProblem.random(12, 4, 2, 64, 32, is_bf16=is_bf16)
    clean = problem.solved_by(card_experts)["sums"]
    problem.x[3, 17] = value
    found = problem.solved_by(card_experts)
    logits = problem.logits.copy()
    logits[8, 2] = value
    routed = problem.with_logits(logits).solved_by(card_experts)
    for sums, tokens in ((found["sums"], [3]), (routed["sums"], [3, 8])):
        assert np.isnan(sums[tokens]).all()
        others = np.setdiff1d(np.arange(12), tokens)
        np.testing.assert_array_equal(sums[others], clean[others])
    assert (np.sort(routed["experts"], axis=1) < 4).all()
    assert (np.diff(np.sort(routed["experts"], axis=1)) > 0).all()


@BF16
def test_a_token_alone_is_the_same(card_experts, is_bf16: bool) -> None:
    """Bit for bit: no sum depends on which other tokens there are."""
    problem = ExpertProblem.random(40, 5, 3, 256, 96, "Q4_K", "Q5_0", is_bf16)
    together = problem.solved_by(card_experts)["sums"]
    for token in (0, 21, 39):
        alone = replace(problem, logits=problem.logits[[token]], x=problem.x[[token]])
        np.testing.assert_array_equal(alone.solved_by(card_experts)["sums"][0], together[token])


@BF16
def test_every_run_of_them_is_the_same(card_experts, is_bf16: bool) -> None:
    problem = ExpertProblem.random(45, 6, 4, 256, 96, "Q5_K", "Q8_0", is_bf16)
    first, *others = (problem.solved_by(card_experts) for _ in range(3))
    for other in others:
        for name, value in first.items():
            np.testing.assert_array_equal(value, other[name])


def test_bounds_of_the_experts(card_experts) -> None:
    for shape in ((2, 257, 2, 64, 32), (2, 40, 33, 64, 32), (2, 3, 2, 96, 32), (0, 3, 2, 64, 32)):
        with pytest.raises(RequestError, match=r"CUDA: no kernel for .* experts of q4_0"):
            ExpertProblem.random(*shape).solved_by(card_experts)
    with pytest.raises(RequestError, match="down of mxfp4"):
        ExpertProblem.random(2, 3, 2, 64, 32, down_type="MXFP4").solved_by(card_experts)


@BF16
@pytest.mark.parametrize(("gate_up", "down"), [("Q4_K", "Q5_0"), ("Q8_0", "Q8_0")])
def test_what_is_timed_is_the_same_layer(emulation, is_bf16: bool, gate_up: str, down: str) -> None:
    """ggml's own products round to 8 bits too, in other groups, and its GELU on the CPU goes through a table."""
    problem = ExpertProblem.random(9, 6, 2, 256, 96, gate_up, down, is_bf16)
    times = emulation.call("expert_times", **vars(problem))
    assert times["device"] == "CPU"
    assert min(times["ours"]) > 0 < min(times["ggml"])
    assert len(times["ours"]) == len(times["ggml"]) == 5
    assert list(times["kernels"]) == (BF16_KERNELS if is_bf16 else KERNELS)
    assert all(len(batches) == 5 and min(batches) > 0 for batches in times["kernels"].values())
    assert times["distance"] < 0.05


@pytest.mark.skipif(not cuda_unavailable(), reason="a card is there")
def test_experts_without_a_card() -> None:
    with pytest.raises(BackendError, match=r"CUDA|NVIDIA"):
        ExpertProblem.random(2, 3, 2, 64, 32).solved_by(run_experts_on_card)
