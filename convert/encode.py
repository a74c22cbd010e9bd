"""Values of a checkpoint's types as values of a GGUF file's types, a few rows at a time.

Every conversion rounds to nearest, ties to even; Q8_0 blocks are those of ggml's reference quantizer. No value is lost
in silence: infinities and NaNs are refused, and so is a value that the target type cannot hold.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType
from gguf.quants import quantize

Rows = npt.NDArray[np.uint8]  # [rows, bytes of a row]

F32, F16 = GGMLQuantizationType.F32, GGMLQuantizationType.F16
BF16, Q8_0 = GGMLQuantizationType.BF16, GGMLQuantizationType.Q8_0

# What --type may say, and the source types that can be read; the others are refused by name.
TARGETS = {"f32": F32, "f16": F16, "bf16": BF16, "q8_0": Q8_0}
SOURCES = {"F32": F32, "F16": F16, "BF16": BF16}

INFINITE = "infinite or not a number"


class ValueLostError(ValueError):
    """A value cannot be stored; the message says why, and ``row`` and ``col`` say where among the rows given."""

    def __init__(self, problem: str, row: int, col: int) -> None:
        super().__init__(problem)
        self.row, self.col = row, col


def stored_type(target: GGMLQuantizationType, row: int, fixed: GGMLQuantizationType | None) -> GGMLQuantizationType:
    """The type for a tensor with rows of ``row`` values.

    What the table keeps in F32 stays so, and rows that do not divide into Q8_0's blocks of 32 become F16.
    """
    if fixed is not None:
        return fixed
    return F16 if row % GGML_QUANT_SIZES[target][0] else target


def row_bytes(row: int, kind: GGMLQuantizationType) -> int:
    """Bytes of ``row`` values."""
    block, block_bytes = GGML_QUANT_SIZES[kind]
    return row // block * block_bytes


def encode(
    rows: Rows,
    source: GGMLQuantizationType,
    target: GGMLQuantizationType,
    importance: npt.NDArray[np.float32] | None = None,
) -> Rows:
    """``rows`` of source values as rows of target values; plain types take no ``importance``. Raises ValueLostError."""
    if source == BF16:
        bits = rows.view(np.uint16)
        _refuse_where((bits & 0x7F80) == 0x7F80, INFINITE)  # an exponent of ones: infinity or NaN
        if target == BF16:
            return rows
        values = (bits.astype(np.uint32) << 16).view(np.float32)
    else:
        stored = rows.view(np.float16 if source == F16 else np.float32)
        _refuse_where(~np.isfinite(stored), INFINITE)
        if target == source:
            return rows
        values = stored.astype(np.float32)
    return _FROM_FLOAT32[target](values)


def _as_f32(values: npt.NDArray[np.float32]) -> Rows:
    return values.view(np.uint8)


def _as_f16(values: npt.NDArray[np.float32]) -> Rows:
    with np.errstate(over="ignore", under="ignore"):
        halves = values.astype(np.float16)
    _refuse_where(~np.isfinite(halves), "beyond what F16 holds (65504); use bf16, f32 or q8_0", values)
    return halves.view(np.uint8)


def _as_bf16(values: npt.NDArray[np.float32]) -> Rows:
    bits = values.view(np.uint32)
    halves = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)
    _refuse_where((halves & 0x7F80) == 0x7F80, "beyond what BF16 holds; use f32", values)
    return halves.view(np.uint8)


def _as_q8_0(values: npt.NDArray[np.float32]) -> Rows:
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        blocks = quantize(values, Q8_0)
    scales = np.ascontiguousarray(blocks.reshape(-1, 34)[:, :2]).view(np.float16)
    lost = np.repeat(~np.isfinite(scales), 32) & (np.abs(values.ravel()) == np.abs(values).max())
    _refuse_where(lost.reshape(values.shape), "beyond what Q8_0's F16 scales hold; use bf16 or f32", values)
    return blocks


def _refuse_where(lost: npt.NDArray[np.bool_], problem: str, values: npt.NDArray[np.float32] | None = None) -> None:
    """Raise for the first value that is lost, if any."""
    if lost.any():
        row, col = np.unravel_index(int(lost.argmax()), lost.shape)
        size = "" if values is None else f"{abs(float(values[row, col])):.7g}, "
        raise ValueLostError(f"is {size}{problem}", int(row), int(col))


_FROM_FLOAT32 = {F32: _as_f32, F16: _as_f16, BF16: _as_bf16, Q8_0: _as_q8_0}
