"""Rows of weights from type to type, by ggml's quantisers: the writer's encoder, and the same for arrays in memory."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from gguf import GGML_QUANT_SIZES
from gguf import GGMLQuantizationType as Kind

from .._native import core
from ..convert.encode import INFINITE, Rows, ValueLostError

Floats = npt.NDArray[np.float32]


def encode(rows: Rows, source: Kind, target: Kind, importance: Floats | None = None, threads: int = 1) -> Rows:
    """``rows`` [n, bytes] of source values as rows of target values. importance: [n_cols]. Raises ValueLostError."""
    block, block_bytes = GGML_QUANT_SIZES[source]
    columns = rows.shape[1] // block_bytes * block
    encoded, bad = core.convert_rows(rows, source.name, target.name, columns, importance, threads)
    if bad is not None:
        row, column, value = bad
        problem = f"{abs(value):.7g}, beyond what {target.name} holds" if math.isfinite(value) else INFINITE
        raise ValueLostError(f"is {problem}", row, column)
    return encoded


def quantize_rows(values: Floats, kind: Kind, importance: Floats | None = None, threads: int = 1) -> Rows:
    """float32 [n, n_cols] as rows [n, bytes] of a type. Raises ValueLostError, and RequestError for a misfit type."""
    return encode(np.ascontiguousarray(values).view(np.uint8), Kind.F32, kind, importance, threads)


def dequantize_rows(rows: Rows, kind: Kind, threads: int = 1) -> Floats:
    """Rows [n, bytes] of a type as float32 [n, n_cols]."""
    return encode(rows, kind, Kind.F32, None, threads).view(np.float32)
