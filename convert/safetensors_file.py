"""Reads safetensors files: the header, checked as if it were hostile, and the data, a few megabytes at a time.

The format: 8 bytes of header length (little-endian), that many bytes of JSON (name -> dtype, shape and byte range
within the data), then the data, without holes. Plain reads rather than a map, since the pages of a map that were read
count as resident memory.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NoReturn, TypeGuard

import numpy as np
import numpy.typing as npt
from gguf import GGMLQuantizationType

from ..errors import CheckpointError, FileError, ModelFileError

MAX_HEADER_BYTES = 100_000_000  # the safetensors library's own limit
CHUNK_BYTES = 1 << 20

DTYPE_BYTES = {
    "BOOL": 1, "U8": 1, "I8": 1, "F8_E4M3": 1, "F8_E5M2": 1, "F8_E8M0": 1,
    "U16": 2, "I16": 2, "F16": 2, "BF16": 2,
    "U32": 4, "I32": 4, "F32": 4,
    "U64": 8, "I64": 8, "F64": 8, "C64": 8,
}  # fmt: skip


@dataclass(frozen=True)
class StoredTensor:
    """A tensor as it lies in a file. ``shape``: PyTorch order. ``begin``: byte position in the file.

    ``dtype``: safetensors' name of the type, or for a tensor of a GGUF file ggml's.
    """

    name: str
    file: str
    dtype: str
    shape: tuple[int, ...]
    begin: int
    bytes: int

    @property
    def kind(self) -> GGMLQuantizationType:
        """ggml's type, for a dtype that ggml has."""
        return GGMLQuantizationType[self.dtype]

    def refusal(self, problem: str) -> FileError:
        """What to raise when the data cannot be used."""
        error = CheckpointError if self.file.endswith(".safetensors") else ModelFileError
        return error(f"{self.file}: tensor {self.name!r}: {problem}")

    @property
    def rows(self) -> int:
        return math.prod(self.shape[:-1])

    @property
    def row_bytes(self) -> int:
        return self.bytes // self.rows


def read_header(path: Path) -> dict[str, StoredTensor]:
    """The tensors of a safetensors file, by name.

    Raises CheckpointError where the file is no safetensors file, or its header and its data do not fit together.
    """
    try:
        with path.open("rb") as file:
            size = path.stat().st_size
            prefix = file.read(8)
            length = int.from_bytes(prefix, "little")
            if len(prefix) < 8 or length > min(size - 8, MAX_HEADER_BYTES):
                _refuse_length(path, size, length)
            text = file.read(length)
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such file; perhaps an incomplete download") from None
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror or error}") from None
    entries = _parse(path, text)
    found = {name: _stored(path, name, entry, 8 + length) for name, entry in entries.items()}
    _check_layout(path, list(found.values()), 8 + length, size)
    return found


def _refuse_length(path: Path, size: int, length: int) -> NoReturn:
    if size < 8:
        problem = f"has only {size} bytes: perhaps an incomplete download"
    elif length > MAX_HEADER_BYTES:
        problem = f"claims a header of {length} bytes, more than any has: this is not a safetensors file"
    else:
        problem = f"claims a header of {length} bytes, but has only {size}: perhaps an incomplete download"
    raise CheckpointError(f"{path}: {problem}")


def _parse(path: Path, text: bytes) -> dict[str, object]:
    def object_without_repeats(pairs: list[tuple[str, object]]) -> dict[str, object]:
        entries = dict(pairs)
        if len(entries) < len(pairs):
            raise ValueError("a name appears twice")
        return entries

    try:
        entries = json.loads(text.decode("utf-8"), object_pairs_hook=object_without_repeats)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: the header is not valid JSON ({error}): not a safetensors file") from None
    if not isinstance(entries, dict):
        raise CheckpointError(f"{path}: the header is not a JSON object: not a safetensors file")
    entries.pop("__metadata__", None)
    return entries


def _stored(path: Path, name: str, entry: object, data: int) -> StoredTensor:
    """One entry of the header, whose byte range is relative to ``data``; its size must follow from type and shape."""

    def fail(problem: str) -> NoReturn:
        raise CheckpointError(f"{path}: tensor {name!r}: {problem}")

    if not isinstance(entry, Mapping):
        fail("the header's entry is not an object")
    dtype, shape, offsets = entry.get("dtype"), entry.get("shape"), entry.get("data_offsets")
    if not isinstance(dtype, str) or dtype not in DTYPE_BYTES:
        fail(f"unknown dtype {dtype!r}")
    if not _counts(shape):
        fail(f"shape {shape!r} is not a list of sizes")
    if not _counts(offsets) or len(offsets) != 2:
        fail(f"data_offsets {offsets!r} are not two byte positions")
    begin, end = offsets
    expected = math.prod(shape) * DTYPE_BYTES[dtype]
    if end - begin != expected:
        fail(f"data_offsets span {end - begin} bytes, but {dtype} of shape {list(shape)} takes {expected}")
    return StoredTensor(name, str(path), dtype, tuple(shape), data + begin, expected)


def _counts(value: object) -> TypeGuard[list[int]]:
    """Whether this is a list of whole numbers, none negative."""
    return isinstance(value, list) and all(type(item) is int and item >= 0 for item in value)


def _check_layout(path: Path, tensors: list[StoredTensor], data: int, size: int) -> None:
    """The byte ranges must cover the data, each byte once, up to the end of the file."""
    position, before = data, "the header"
    for tensor in sorted(tensors, key=lambda tensor: (tensor.begin, tensor.bytes)):
        if tensor.begin != position:
            fault = "overlaps" if tensor.begin < position else "leaves a hole after"
            raise CheckpointError(f"{path}: tensor {tensor.name!r}: data_offsets: {fault} {before}: a damaged header")
        position, before = tensor.begin + tensor.bytes, repr(tensor.name)
        if position > size:
            raise CheckpointError(
                f"{path}: tensor {tensor.name!r} ends at byte {position}, but the file has only {size}: "
                "perhaps an incomplete download"
            )
    if position != size:
        raise CheckpointError(f"{path}: {size - position} bytes follow the last tensor: the file is damaged")


def chunk_rows(tensor: StoredTensor) -> int:
    """How many rows (of the last dimension) are read at a time: as many as CHUNK_BYTES hold, at least one."""
    return max(1, CHUNK_BYTES // max(1, tensor.row_bytes))


def read_rows(tensor: StoredTensor) -> Iterator[tuple[int, npt.NDArray[np.uint8]]]:
    """The tensor's bytes in order, some rows at a time, never of two matrices: the first row's index, [rows, bytes].

    Raises CheckpointError where the file cannot be read, or has become shorter since its header was.
    """
    matrix, step = tensor.shape[-2] if len(tensor.shape) > 1 else 1, chunk_rows(tensor)
    try:
        with open(tensor.file, "rb", buffering=0) as file:
            file.seek(tensor.begin)
            for start in range(0, tensor.rows, matrix):
                for first in range(start, start + matrix, step):
                    chunk = np.empty((min(step, start + matrix - first), tensor.row_bytes), dtype=np.uint8)
                    _read_exactly(file, chunk, tensor)
                    yield first, chunk
    except OSError as error:
        raise CheckpointError(f"{tensor.file}: cannot be read: {error.strerror or error}") from None


def read_row(tensor: StoredTensor, row: int) -> npt.NDArray[np.uint8]:
    """One row's bytes. Raises as ``read_rows`` does."""
    data = np.empty(tensor.row_bytes, dtype=np.uint8)
    try:
        with open(tensor.file, "rb", buffering=0) as file:
            file.seek(tensor.begin + row * tensor.row_bytes)
            _read_exactly(file, data, tensor)
    except OSError as error:
        raise CheckpointError(f"{tensor.file}: cannot be read: {error.strerror or error}") from None
    return data


def _read_exactly(file: BinaryIO, chunk: npt.NDArray[np.uint8], tensor: StoredTensor) -> None:
    view = chunk.data.cast("B")
    while view:
        count = file.readinto(view)  # type: ignore[attr-defined]  # a raw file has it, BinaryIO does not say so
        if not count:
            raise tensor.refusal("the file ended while it was read")
        view = view[count:]
