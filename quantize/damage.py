"""What a type costs a tensor, measured on a sample of its rows.

The error of a type is sum w (x - x')^2 / sum w x^2 over the sampled values x and what is left of them, x': the energy
of the error relative to that of the weights. w is the importance of the column, where there is an importance matrix.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import numpy.typing as npt
from gguf import GGMLQuantizationType as Kind

from ..convert.encode import INFINITE, Rows, ValueLostError
from ..convert.model import Weight
from ..convert.safetensors_file import StoredTensor, read_row
from ..convert.writer import Importance, Progress, usable_cores
from .rows import Floats, dequantize_rows, encode, quantize_rows

Errors = dict[Kind, float]  # by type; without those that cannot hold the tensor's values

SAMPLED_ROWS = 64  # of each tensor; of one with more matrices (experts), one of each
_GOLDEN = (math.sqrt(5) - 1) / 2


def measure(
    kinds: Mapping[Weight, Sequence[Kind]],
    importance: Importance | None = None,
    threads: int | None = None,
    progress: Progress | None = None,
) -> dict[str, Errors]:
    """By tensor: the error of each of the types asked for. Memory does not grow with the model.

    progress: tensors done, tensors in all, the name of the one at hand. FileError where a sampled value is no number.
    """
    threads = threads or usable_cores()
    errors: dict[str, Errors] = {}
    pending: deque[tuple[str, Future[Errors]]] = deque()

    def collect() -> None:
        name, result = pending.popleft()
        errors[name] = result.result()
        if progress is not None:
            progress(len(errors), len(kinds), name)

    pool = ThreadPoolExecutor(threads)
    try:
        for weight, wanted in kinds.items():
            pending.append((weight.name, pool.submit(_errors, weight, wanted, (importance or {}).get(weight.name))))
            if len(pending) >= 2 * threads:
                collect()
        while pending:
            collect()
    finally:
        pool.shutdown(cancel_futures=True)
    return errors


def sample_places(rows: int, matrices: int) -> list[int]:
    """Which of a tensor's rows are sampled: spread evenly, as many of each matrix, off any period of the layout.

    rows: of all matrices together. The same for every tensor of the same shape.
    """
    per_matrix = rows // matrices
    count = min(per_matrix, max(1, SAMPLED_ROWS // matrices)) * matrices
    return [int((i + (i * _GOLDEN) % 1) * rows / count) for i in range(count)]


def _errors(weight: Weight, kinds: Sequence[Kind], importance: Floats | None) -> Errors:
    source = weight.source
    assert isinstance(source, StoredTensor)  # what the converter makes itself has a fixed type
    matrices = weight.shape[0] if len(weight.shape) == 3 else 1
    places = sample_places(source.rows, matrices)
    stored = np.stack([read_row(source, place) for place in places])
    try:
        values = encode(stored, source.kind, Kind.F32).view(np.float32)
    except ValueLostError as error:
        raise source.refusal(f"a value in row {places[error.row]} is {INFINITE}") from None
    pieces = list(_pieces(values, importance))
    energy = sum(_energy(x, w) for x, w in pieces)
    if energy == 0:  # nothing there, or nothing that matters by the matrix
        pieces = [(values, None)]
        energy = _energy(values, None) or 1.0
    found: Errors = {}
    for kind in kinds:
        try:
            copied = kind == source.kind
            found[kind] = 0.0 if copied else sum(_energy(_restored(x, kind, w) - x, w) for x, w in pieces) / energy
        except ValueLostError:
            continue  # its scales do not reach that far
    return found


def _pieces(values: Floats, importance: Floats | None) -> Iterator[tuple[Floats, Floats | None]]:
    """The sampled rows with what their columns matter: one row of importance for all matrices, or one for each."""
    if importance is None:
        yield values, None
        return
    columns = importance.reshape(-1, values.shape[1])
    each = len(values) // len(columns)
    for i, row in enumerate(columns):
        yield values[i * each : (i + 1) * each], row


def _restored(values: Floats, kind: Kind, importance: Floats | None) -> Floats:
    rows: Rows = quantize_rows(values, kind, importance)
    return dequantize_rows(rows, kind)


def _energy(values: Floats, importance: Floats | None) -> float:
    squares: npt.NDArray[np.float64] = np.square(values, dtype=np.float64)
    if importance is not None:
        squares *= importance
    return float(squares.sum())
