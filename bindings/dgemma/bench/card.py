"""What a device of ggml's reaches, measured with ggml alone: the limits that a report sets beside a card's parts."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

_COPY_BYTES = 1 << 30  # many times any card's cache
_COPIES = 8
_SIDE = 4096
_PRODUCTS = 8
_TYPES = {"f32_ops_per_second": "f32", "bf16_ops_per_second": "f16", "int8_ops_per_second": "q8_0"}


def device_limits(device: str, *, copy_bytes: int = _COPY_BYTES, side: int = _SIDE) -> dict[str, float | None]:
    """The figures of ``machine.limits`` for one device: the best of a few runs each.

    Bytes a second are those of ``ggml_cpy``, read and written ones. Operations are those of ``ggml_mul_mat`` of square
    matrices of random values: F32 (which cuBLAS may round to TF32), F16 in place of BF16, and Q8_0, where the kernel
    is ggml's own. So these are what ggml reaches, and a card's tensor cores may do more.
    """
    from .._native import core

    copied = min(core.time_copy(device, copy_bytes, _COPIES))
    limits: dict[str, float | None] = {"copy_bytes_per_second": 2 * copy_bytes / copied}
    for name, type in _TYPES.items():
        limits[name] = _product_rate(device, type, side)
    return limits


def _product_rate(device: str, type: str, side: int) -> float:
    from .._native import core

    values = np.random.default_rng(0).standard_normal((side, side), dtype=np.float32)
    weights = values.view(np.uint8)
    if type != "f32":
        weights, _ = core.convert_rows(weights, "f32", type, side, None, 1)
    return 2 * side**3 / min(core.time_product(device, weights, type, values, _PRODUCTS))


def layers_device(memory: Mapping[str, Mapping[str, int]]) -> str | None:
    """Of ``Engine.memory``: the one card that holds keys and values of all layers, where the CPU computes nothing;
    None where there is no such card."""
    holders = [device for device, uses in memory.items() if uses.get("kv")]
    works = memory.get("CPU", {}).get("compute", 0)
    return holders[0] if len(holders) == 1 and holders[0] != "CPU" and not works else None
