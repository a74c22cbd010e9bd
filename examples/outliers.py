#!/usr/bin/env python3
"""Makes random weights less alike: a few columns of some matrices become much larger, as trained networks have them.

    python examples/random_checkpoint.py /tmp/tiny
    python examples/outliers.py /tmp/tiny        # changes the files in place

Every third matrix, by its name, has one column in 64 ten times as large. Its blocks then need wider steps, so the same
type costs it more than it costs the others.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from dgemma.convert.checkpoint import weight_files
from dgemma.convert.safetensors_file import StoredTensor, read_header
from random_weights import as_bfloat16

EVERY, COLUMN_STEP, FACTOR = 3, 64, np.float32(10)
_ROWS = 1 << 12  # changed at a time


def chosen(tensors: Iterable[StoredTensor]) -> list[StoredTensor]:
    """Those that get outliers: every third of the matrices with rows of 64 values or more."""
    matrices = [tensor for tensor in tensors if len(tensor.shape) > 1 and tensor.shape[-1] >= COLUMN_STEP]
    return sorted(matrices, key=lambda tensor: tensor.name)[::EVERY]


def add_outliers(folder: Path) -> list[str]:
    """Change the checkpoint in place; the names of the tensors changed."""
    stored = [tensor for file in weight_files(folder) for tensor in read_header(folder / file).values()]
    changed = chosen(stored)
    for tensor in changed:
        dtype = {"BF16": "<u2", "F32": "<f4"}[tensor.dtype]
        shape = (tensor.rows, tensor.shape[-1])
        values = np.memmap(tensor.file, dtype, "r+", tensor.begin, shape)
        for first in range(0, tensor.rows, _ROWS):
            columns = values[first : first + _ROWS, COLUMN_STEP // 2 :: COLUMN_STEP]
            if tensor.dtype == "BF16":
                columns[:] = as_bfloat16((columns.astype(np.uint32) << 16).view(np.float32) * FACTOR)
            else:
                columns *= FACTOR
    return [tensor.name for tensor in changed]


if __name__ == "__main__":
    print(f"{len(add_outliers(Path(sys.argv[1])))} matrices have outliers now")
