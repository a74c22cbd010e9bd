"""A GGUF file, or a split set, as a model to be written again."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gguf import GGMLQuantizationType as Kind
from gguf import LlamaFileType

from ..convert import table
from ..convert.keys import Keys, number
from ..convert.metadata import ARCHITECTURE, QUANTIZATION_VERSION
from ..convert.model import Model, Sizes, Weight
from ..convert.safetensors_file import StoredTensor
from ..errors import ModelFileError
from ..metadata import Metadata

_LEFT_BEHIND = ("split.no", "split.count", "split.tensors.count", "general.alignment")
_OF_THE_QUANTISER = "quantize.imatrix."


def gguf_model(path: str | os.PathLike[str]) -> Model:
    """The model in a GGUF file, or in the split set that it belongs to. Raises ModelFileError."""
    from .._native import core

    info = core.read_gguf(path)
    places, tensors = core.gguf_places(path)
    files = [Path(file) for file in info.paths]
    metadata = Metadata(info.metadata, info.paths[0])
    architecture = metadata.text("general.architecture")
    if architecture != ARCHITECTURE:
        metadata.fail("general.architecture", f"is {architecture!r}, not {ARCHITECTURE!r}: a model that dgemma lacks")
    weights = [
        _weight(tensor, str(files[file]), begin) for tensor, (file, begin) in zip(info.tensors, tensors, strict=True)
    ]
    return Model(
        name=info.paths[0],
        weights=tuple(weights),
        sizes=_sizes(metadata),
        keys=lambda file_type: _keys(files[0], places, file_type),
        inputs=lambda: files,
    )


def _weight(tensor: Any, file: str, begin: int) -> Weight:
    """One tensor; what the table of tensors does not know is copied as it is."""
    if tensor.type.upper() not in Kind.__members__:
        raise ModelFileError(f"{file}: tensor {tensor.name!r} has the type {tensor.type}, which cannot be quantised")
    shape, kind = tuple(reversed(tensor.shape)), Kind[tensor.type.upper()]
    known = {row.gguf: row for row in table.rows()}.get(re.sub(r"^blk\.\d+\.", "blk.{i}.", tensor.name))
    fixed = kind if known is None else Kind.F32 if known.floor == "f32" else None
    return Weight(tensor.name, shape, fixed, StoredTensor(tensor.name, file, kind.name, shape, begin, tensor.n_bytes))


def _sizes(metadata: Metadata) -> Sizes:
    def integer(key: str) -> int:
        value = metadata.integer(f"{ARCHITECTURE}.{key}")
        if value < 1:
            metadata.fail(f"{ARCHITECTURE}.{key}", f"is {value}, but must be at least 1")
        return value

    key = f"{ARCHITECTURE}.attention.head_count_kv"
    per_layer = metadata.integers(key) if metadata.is_array(key) else [metadata.integer(key)]
    if len(per_layer) == 0 or per_layer[0] < 1:
        metadata.fail(key, "does not say how many key/value heads the first layer has")
    return Sizes(integer("block_count"), integer("expert_count"), integer("attention.head_count") // int(per_layer[0]))


def _keys(file: Path, places: Sequence[tuple[str, int, int]], file_type: LlamaFileType) -> Keys:
    """The metadata entries byte for byte, but for those that speak of the weights' type and of the files."""
    ours = {
        "general.file_type": number("general.file_type", file_type),
        "general.quantization_version": number("general.quantization_version", QUANTIZATION_VERSION),
    }
    parts: list[bytes] = []
    with file.open("rb") as opened:
        for name, begin, end in places:
            if name in _LEFT_BEHIND or name in ours or name.startswith(_OF_THE_QUANTISER):
                continue
            opened.seek(begin)
            parts.append(opened.read(end - begin))
    keys = Keys(b"".join(parts), len(parts))
    for entry in ours.values():
        keys += entry
    return keys
