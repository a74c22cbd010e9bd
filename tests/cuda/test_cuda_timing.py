"""What ``make gpu-check`` times of dense products: that it is the same products, by ggml and by both of ours."""

from __future__ import annotations

import pytest
from dense_problems import DenseProblem
from emulation import Emulation

from dgemma import BackendError
from dgemma._core import cuda_unavailable, time_dense


@pytest.mark.parametrize(
    ("weights", "is_gated"),
    [([("Q4_K", 40)], False), ([("Q8_0", 40), ("Q6_K", 24)], False), ([("Q5_0", 64), ("Q5_0", 64)], True)],
)
def test_what_is_timed_is_the_same_product(
    emulation: Emulation, weights: list[tuple[str, int]], is_gated: bool
) -> None:
    """ggml's own products round to 8 bits too, in other groups, and its GELU on the CPU goes through a table."""
    problem = DenseProblem.random(9, 256, *weights)
    times = emulation.call("dense_times", x=problem.x, weights=problem.weights, is_gated=is_gated)
    assert times["device"] == "CPU"
    for kind in ("ggml", "int8", "bf16"):
        assert len(times[kind]) == 5
        assert min(times[kind]) > 0
    assert 0 < times["bf16_distance"] < 0.03
    assert 0 < times["int8_distance"] < 0.03
    assert times["int8_distance"] != times["bf16_distance"]


@pytest.mark.skipif(not cuda_unavailable(), reason="a card is there")
def test_without_a_card() -> None:
    problem = DenseProblem.random(2, 32, ("Q4_0", 4))
    with pytest.raises(BackendError, match=r"CUDA|NVIDIA"):
        time_dense(x=problem.x, weights=problem.weights, is_gated=False, n_runs=1)
