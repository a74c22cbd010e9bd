"""The metadata of a GGUF file as it is stored, and the header made of it.

magic "GGUF" | u32 version | u64 tensors | u64 keys | key … key | tensor infos | zeros up to 32 | data
key          = u64 length, name | u32 type | value
tensor info  = u64 length, name | u32 dimensions | u64 size … size, columns first | u32 type | u64 place in data
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import gguf
from gguf import GGUFValueType
from gguf.gguf_writer import WriterState

if TYPE_CHECKING:
    from .plan import PlannedTensor

_FORMATS = {
    GGUFValueType.UINT16: "<H",
    GGUFValueType.INT32: "<i",
    GGUFValueType.UINT32: "<I",
}


@dataclass(frozen=True)
class Keys:
    """``count`` metadata entries, one after the other, as they are stored."""

    data: bytes
    count: int

    def __add__(self, other: Keys) -> Keys:
        return Keys(self.data + other.data, self.count + other.count)


def number(name: str, value: int, type: GGUFValueType = GGUFValueType.UINT32) -> Keys:
    """One whole number."""
    return Keys(_text(name) + struct.pack("<I", type) + struct.pack(_FORMATS[type], value), 1)


def from_writer(writer: gguf.GGUFWriter) -> Keys:
    """The entries that a writer of the gguf package was given."""
    memory = io.BytesIO()  # the writer would open files itself, under their final names
    writer.fout, writer.state = [io.BufferedWriter(memory)], WriterState.HEADER
    writer.write_kv_data_to_file()
    return Keys(memory.getvalue(), len(writer.kv_data[0]))


def header(keys: Keys, tensors: Sequence[PlannedTensor]) -> bytes:
    """A file's bytes up to the first tensor's data. The data follows tensor by tensor, each padded."""
    data = b"GGUF" + struct.pack("<IQQ", gguf.GGUF_VERSION, len(tensors), keys.count) + keys.data
    data += b"".join(_infos(tensors))
    return data + padding(len(data))


def padding(size: int) -> bytes:
    """Zeros after ``size`` bytes, up to the next place where a tensor may begin."""
    return bytes(-size % gguf.GGUF_DEFAULT_ALIGNMENT)


def _infos(tensors: Sequence[PlannedTensor]) -> Iterable[bytes]:
    place = 0
    for tensor in tensors:
        sizes = tuple(reversed(tensor.shape))
        yield _text(tensor.name) + struct.pack(f"<I{len(sizes)}QIQ", len(sizes), *sizes, tensor.kind, place)
        place += tensor.bytes + len(padding(tensor.bytes))


def _text(text: str) -> bytes:
    data = text.encode("utf-8")
    return struct.pack("<Q", len(data)) + data
