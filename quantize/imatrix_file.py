"""Importance matrices as files, in llama.cpp's layouts: GGUF (read and written) and the binary one before it (read).

    GGUF     general.type = "imatrix", imatrix.datasets, imatrix.chunk_count, imatrix.chunk_size, and for each weight
             NAME.in_sum2 F32 [matrices, columns], sums of squares, and NAME.counts F32 [matrices, 1], rows
    binary   i32 entries, each: i32 length, name, i32 calls, i32 values, f32 value …: mean square times calls
             then, perhaps, i32 chunks, i32 length, dataset

Files are read as hostile: every length is checked against what is left of the file.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Kind
from gguf import GGUFValueType as Type

from ..convert import keys
from ..convert.output import atomic_outputs, check_output
from ..convert.plan import PlannedTensor
from ..errors import FileError
from .imatrix import Imatrix, Inputs

_SQUARES, _ROWS = ".in_sum2", ".counts"
_RUN = "dgemma.imatrix.run"
_OLD_CHUNK = 512  # tokens of a call; the old layout does not say, this is llama-imatrix's default
_LARGEST = 1 << 31  # bytes; the 26B model's matrix has some 60 MB
_FORMATS = {
    Type.UINT8: "B", Type.INT8: "b", Type.UINT16: "H", Type.INT16: "h", Type.UINT32: "I", Type.INT32: "i",
    Type.FLOAT32: "f", Type.BOOL: "?", Type.UINT64: "Q", Type.INT64: "q", Type.FLOAT64: "d",
}  # fmt: skip


def read_imatrix(path: str | os.PathLike[str]) -> Imatrix:
    """An importance matrix of ours or of llama.cpp's. FileError for a file that is none, or damaged."""
    file = Path(path)
    try:
        size = file.stat().st_size
        data = file.read_bytes() if size <= _LARGEST else b""
    except OSError as error:
        raise FileError(f"{path}: cannot be read: {error.strerror}") from None
    reader = _Reader(data, str(path))
    if size > _LARGEST:
        reader.fail(f"has {size} bytes, too many for an importance matrix")
    imatrix = _read_gguf(reader) if data[:4] == b"GGUF" else _read_binary(reader)
    if not imatrix.entries:
        reader.fail("holds no values: nothing was collected")
    for name, inputs in imatrix.entries.items():
        if not all(np.isfinite(values).all() and (values >= 0).all() for values in (inputs.squares, inputs.rows)):
            reader.fail(f"{name} has values that are negative or no numbers; the file is damaged")
    return imatrix


def write_imatrix(imatrix: Imatrix, path: str | os.PathLike[str]) -> None:
    """Write the GGUF layout, whole or not at all, over a file of that name. FileError where it cannot be written."""
    file = Path(path)
    check_output(file, (), force=True)
    tensors = list(_tensors(imatrix))
    head = keys.header(_keys(imatrix), tensors)
    with (
        atomic_outputs([file], len(head) + sum(t.bytes + 32 for t in tensors)) as [partial],
        partial.open("wb") as out,
    ):
        out.write(head)
        for tensor in tensors:
            assert isinstance(tensor.source, bytes)
            out.write(tensor.source + keys.padding(tensor.bytes))


def _tensors(imatrix: Imatrix) -> Iterator[PlannedTensor]:
    for name in sorted(imatrix.entries):
        inputs = imatrix.entries[name]
        for suffix, values in ((_SQUARES, inputs.squares), (_ROWS, inputs.rows[:, None])):
            data = values.astype("<f4").tobytes()
            yield PlannedTensor(name + suffix, values.shape, Kind.F32.name, len(data), data)


def _keys(imatrix: Imatrix) -> keys.Keys:
    writer = gguf.GGUFWriter(path=None, arch="")
    writer.kv_data[0].clear()  # an importance matrix has no architecture
    writer.add_string(gguf.Keys.General.TYPE, gguf.GGUFType.IMATRIX)
    writer.add_array(gguf.Keys.IMatrix.DATASETS, list(imatrix.datasets) or [""])
    writer.add_uint32(gguf.Keys.IMatrix.CHUNK_COUNT, imatrix.chunk_count)
    writer.add_uint32(gguf.Keys.IMatrix.CHUNK_SIZE, imatrix.chunk_size)
    if imatrix.run:
        writer.add_string(_RUN, imatrix.run)
    return keys.from_writer(writer)


# ------------------------------------------------------------------------------------------------ reading


class _Reader:
    """The bytes of a file, from front to back."""

    def __init__(self, data: bytes, name: str) -> None:
        self.data, self.name, self.place = data, name, 0

    def fail(self, problem: str) -> Any:
        raise FileError(f"{self.name}: {problem}")

    def take(self, count: int) -> bytes:
        if not 0 <= count <= len(self.data) - self.place:
            self.fail("is no importance matrix, or damaged: it ends in the middle")
        self.place += count
        return self.data[self.place - count : self.place]

    def number(self, format: str) -> Any:
        return struct.unpack("<" + format, self.take(struct.calcsize("<" + format)))[0]

    def text(self, length: str) -> str:
        """Its length as a number of format ``length``, then its bytes."""
        return self.take(self.number(length)).decode("utf-8", errors="replace")

    def floats(self, count: int) -> np.ndarray[Any, np.dtype[np.float64]]:
        return np.frombuffer(self.take(4 * count), "<f4").astype(np.float64)


def _read_binary(reader: _Reader) -> Imatrix:
    entries = {}
    for _ in range(reader.number("i")):
        name, calls = reader.text("i"), reader.number("i")
        values = reader.floats(reader.number("i"))
        if calls < 1 or not len(values):
            reader.fail("is no importance matrix, or damaged: an entry has no values")
        entries[name] = Inputs(values[None] * _OLD_CHUNK, np.array([calls * _OLD_CHUNK], np.float64))
    chunks, datasets = 0, []
    if reader.place < len(reader.data):
        chunks = reader.number("i")
        datasets = [reader.text("i")]
    return Imatrix(entries, tuple(datasets), max(0, chunks), _OLD_CHUNK, source=reader.name)


def _read_gguf(reader: _Reader) -> Imatrix:
    reader.take(4)
    if reader.number("I") not in (2, 3):
        reader.fail("is a GGUF file of another version or byte order than can be read")
    n_tensors, n_keys = reader.number("Q"), reader.number("Q")
    metadata = {}
    for _ in range(n_keys):
        name = reader.text("Q")
        metadata[name] = _value(reader, reader.number("I"))
    if metadata.get("general.type", "imatrix") != "imatrix" or "general.architecture" in metadata:
        reader.fail("is a GGUF file, but no importance matrix")
    datasets = metadata.get(gguf.Keys.IMatrix.DATASETS, [])
    run = metadata.get(_RUN, "")
    return Imatrix(
        _entries(reader, n_tensors, metadata.get("general.alignment", 32)),
        tuple(map(str, datasets)) if isinstance(datasets, list) else (),
        _count(metadata, gguf.Keys.IMatrix.CHUNK_COUNT),
        _count(metadata, gguf.Keys.IMatrix.CHUNK_SIZE),
        run if isinstance(run, str) else "",
        reader.name,
    )


def _count(metadata: dict[str, Any], key: str) -> int:
    value = metadata.get(key, 0)
    return value if isinstance(value, int) and 0 <= value < 1 << 32 else 0


def _value(reader: _Reader, kind: int) -> Any:
    if kind == Type.STRING:
        return reader.text("Q")
    if kind == Type.ARRAY:
        kind, count = reader.number("I"), reader.number("Q")
        if kind == Type.ARRAY:
            reader.fail("holds metadata of an unknown kind; it is damaged")
        return [_value(reader, kind) for _ in range(count)]
    format = next((format for type, format in _FORMATS.items() if type == kind), None)
    return reader.number(format) if format else reader.fail("holds metadata of an unknown kind; it is damaged")


def _entries(reader: _Reader, n_tensors: int, alignment: object) -> dict[str, Inputs]:
    """The tensors, which come in pairs."""
    places = {}
    for _ in range(n_tensors):
        name = reader.text("Q")
        shape = [reader.number("Q") for _ in range(reader.number("I"))]
        if reader.number("I") != Kind.F32:
            reader.fail(f"tensor {name!r} is not F32, as those of an importance matrix are")
        places[name] = (shape, reader.number("Q"))
    if not isinstance(alignment, int) or alignment < 1:
        reader.fail(f"general.alignment is {alignment!r}; it is damaged")
    data = reader.place + -reader.place % int(str(alignment))

    def values(name: str) -> Any:
        if name not in places:
            reader.fail(f"tensor {name!r} is missing; it is damaged")
        shape, offset = places[name]
        reader.place = data + offset
        count = int(np.prod(shape, dtype=object)) if shape else 1
        return reader.floats(count), shape

    entries = {}
    for name in [name.removesuffix(_SQUARES) for name in places if name.endswith(_SQUARES)]:
        (squares, shape), (rows, _) = values(name + _SQUARES), values(name + _ROWS)
        if not shape or shape[0] < 1 or len(squares) != shape[0] * len(rows) or not len(rows):
            reader.fail(f"{name} has {len(squares)} values and {len(rows)} counts, which do not belong together")
        entries[name] = Inputs(squares.reshape(len(rows), -1), rows)
    return entries
