"""Forged GGUF files: a real one taken apart into header fields, metadata and tensors, each of which may then lie.

forged = Forged.read(model)
forged.set("diffusion.canvas_length", U32, -1)
forged.tensor("output_norm.weight").shape = [63]
forged.write(path)
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass, field
from pathlib import Path

import gguf

U8, I8, U16, I16, U32, I32, F32, BOOL, STRING, ARRAY, U64, I64, F64 = range(13)

_FORMATS = {U8: "B", I8: "b", U16: "H", I16: "h", U32: "I", I32: "i", F32: "f", BOOL: "?", U64: "Q", I64: "q", F64: "d"}


@dataclass
class Tensor:
    name: bytes
    shape: list[int]  # GGUF order: columns first
    type: int
    data: bytes
    offset: int | None = None  # None: where the data really is


@dataclass
class Forged:
    """The parts of a GGUF file. ``counts`` overrides the header's numbers of tensors and of metadata values."""

    metadata: dict[bytes, bytes]  # key -> type and value as they lie in the file
    tensors: list[Tensor]
    version: int = 3
    counts: tuple[int | None, int | None] = (None, None)
    alignment: int = 32
    repeated: list[bytes] = field(default_factory=list)  # keys that the file holds twice

    @classmethod
    def read(cls, path: Path) -> Forged:
        reader = _Reader(path.read_bytes())
        magic, version, n_tensors, n_metadata = reader.unpack("4sIQQ")
        assert magic == b"GGUF"
        metadata = {reader.string(): reader.value() for _ in range(n_metadata)}
        tensors = []
        for _ in range(n_tensors):
            name, n_dims = reader.string(), reader.unpack("I")[0]
            shape = list(reader.unpack(f"{n_dims}Q"))
            type, offset = reader.unpack("IQ")
            tensors.append(Tensor(name, shape, type, b"", offset))
        start = _padded(reader.at, 32)
        for tensor in tensors:
            block, size = gguf.GGML_QUANT_SIZES[tensor.type]
            at = start + tensor.offset
            tensor.data, tensor.offset = reader.data[at : at + math.prod(tensor.shape) // block * size], None
        return cls(metadata, tensors, version)

    def copy(self) -> Forged:
        """Another with lists of its own: what is done to it does not show here."""
        tensors = [Tensor(t.name, list(t.shape), t.type, t.data, t.offset) for t in self.tensors]
        return Forged(dict(self.metadata), tensors, self.version, self.counts, self.alignment)

    def set(self, key: str, type: int, value: object) -> None:
        self.metadata[key.encode()] = _value(type, value)

    def set_array(self, key: str, type: int, values: list[object], count: int | None = None) -> None:
        """``count``: the length that the header claims."""
        n = len(values) if count is None else count
        self.metadata[key.encode()] = struct.pack("<IIQ", ARRAY, type, n) + b"".join(_payload(type, v) for v in values)

    def remove(self, key: str) -> None:
        del self.metadata[key.encode()]

    def type_of(self, key: str) -> int:
        return struct.unpack_from("<I", self.metadata[key.encode()])[0]

    def tensor(self, name: str) -> Tensor:
        return next(tensor for tensor in self.tensors if tensor.name == name.encode())

    def header(self) -> bytes:
        """All before the tensors' data, unpadded."""
        n_tensors, n_metadata = self.counts
        pairs = [*self.metadata.items(), *((key, self.metadata[key]) for key in self.repeated)]
        head = b"GGUF" + struct.pack(
            "<IQQ",
            self.version,
            len(self.tensors) if n_tensors is None else n_tensors,
            len(pairs) if n_metadata is None else n_metadata,
        )
        parts = [head, *(_string(key) + value for key, value in pairs)]
        offset = 0
        for tensor in self.tensors:
            parts.append(
                _string(tensor.name) + struct.pack(f"<I{len(tensor.shape)}Q", len(tensor.shape), *tensor.shape)
            )
            parts.append(struct.pack("<IQ", tensor.type, offset if tensor.offset is None else tensor.offset))
            offset += _padded(len(tensor.data), self.alignment)
        return b"".join(parts)

    def data(self) -> bytes:
        """From the first tensor to the end of the file."""
        return b"".join(t.data.ljust(_padded(len(t.data), self.alignment), b"\0") for t in self.tensors)

    def to_bytes(self) -> bytes:
        header = self.header()
        return header.ljust(_padded(len(header), self.alignment), b"\0") + self.data()

    def write(self, path: Path) -> Path:
        path.write_bytes(self.to_bytes())
        return path


class _Reader:
    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0

    def unpack(self, format: str) -> tuple:
        values = struct.unpack_from("<" + format, self.data, self.at)
        self.at += struct.calcsize("<" + format)
        return values

    def string(self) -> bytes:
        (length,) = self.unpack("Q")
        self.at += length
        return self.data[self.at - length : self.at]

    def value(self) -> bytes:
        """A metadata value as it lies there, its type included."""
        start = self.at
        (type,) = self.unpack("I")
        item, count = self.unpack("IQ") if type == ARRAY else (type, 1)
        if item == STRING:
            for _ in range(count):
                self.string()
        else:
            self.at += count * struct.calcsize(_FORMATS[item])
        return self.data[start : self.at]


def _value(type: int, value: object) -> bytes:
    return struct.pack("<I", type) + _payload(type, value)


def _payload(type: int, value: object) -> bytes:
    if type == STRING:
        return _string(value if isinstance(value, bytes) else str(value).encode())
    return struct.pack("<" + _FORMATS[type], value)


def _string(text: bytes) -> bytes:
    return struct.pack("<Q", len(text)) + text


def _padded(size: int, alignment: int) -> int:
    return -(-size // alignment) * alignment
