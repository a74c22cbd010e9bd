"""What a device reaches, measured with ggml's CPU device; and which device a report's limits are of."""

from __future__ import annotations

import numpy as np
import pytest

from dgemma import RequestError
from dgemma._core import time_copy, time_product
from dgemma.bench.card import device_limits, layers_device


def test_every_rate_is_there() -> None:
    limits = device_limits("CPU", copy_bytes=1 << 20, side=64)
    assert limits.keys() == {
        "copy_bytes_per_second",
        "f32_ops_per_second",
        "bf16_ops_per_second",
        "int8_ops_per_second",
    }
    assert all(rate is not None and np.isfinite(rate) and rate > 0 for rate in limits.values())


def test_a_product_without_its_rows_is_refused() -> None:
    columns = np.zeros((4, 64), np.float32)
    assert len(time_product("CPU", columns.view(np.uint8), "f32", columns, 2)) > 1
    with pytest.raises(ValueError, match="as many values as the columns"):
        time_product("CPU", columns.view(np.uint8), "q8_0", columns, 2)


def test_a_device_that_is_not_there() -> None:
    with pytest.raises(RequestError, match="there is no device CUDA9"):
        time_copy("CUDA9", 1024, 1)


def test_limits_are_those_of_the_one_card_that_holds_the_layers() -> None:
    cpu = {"weights": 5, "kv": 7}
    assert layers_device({"CPU": cpu}) is None
    assert layers_device({"CUDA0": {"kv": 7}, "CPU": {"weights": 5, "kv": 0}}) == "CUDA0"
    assert layers_device({"CUDA0": {"kv": 7}, "CPU": cpu}) is None
    assert layers_device({"CUDA0": {"kv": 7}, "CPU": {"weights": 5, "compute": 3}}) is None  # experts there
    assert layers_device({"CUDA0": {"kv": 7}, "CUDA1": {"kv": 7}, "CPU": {}}) is None
