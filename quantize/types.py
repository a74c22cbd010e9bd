"""The names that people know: types of files (Q4_K_M, a mix) and of single tensors (q4_K)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches

from gguf import GGMLQuantizationType as Kind
from gguf import LlamaFileType

from ..errors import RequestError


@dataclass(frozen=True)
class FileType:
    """A type that a file can be of. ``kind``: that of most of its tensors. ``value``: its general.file_type."""

    name: str
    kind: Kind
    value: LlamaFileType


def _table() -> dict[str, FileType]:
    """Named after their kind, but for the mixes, of which there are several to a kind. From large to small."""
    kinds = """
        F32 F16 BF16 Q8_0 Q6_K Q5_K_M:Q5_K Q5_K_S:Q5_K Q5_1 Q5_0 Q4_K_M:Q4_K Q4_K_S:Q4_K Q4_1 Q4_0 IQ4_NL IQ4_XS
        MXFP4 NVFP4 Q3_K_L:Q3_K Q3_K_M:Q3_K Q3_K_S:Q3_K IQ3_M:IQ3_S IQ3_S IQ3_XS:IQ3_S IQ3_XXS Q2_K Q2_K_S:Q2_K
        IQ2_M:IQ2_S IQ2_S:IQ2_XS IQ2_XS IQ2_XXS IQ1_M IQ1_S TQ2_0 TQ1_0
    """
    values = {"F32": LlamaFileType.ALL_F32, "MXFP4": LlamaFileType.MOSTLY_MXFP4_MOE}
    table = {}
    for entry in kinds.split():
        name, _, kind = entry.partition(":")
        value = values[name] if name in values else LlamaFileType[f"MOSTLY_{name}"]
        table[name] = FileType(name, Kind[kind or name], value)
    return table


FILE_TYPES = _table()

ALIASES = {
    "FP32": "F32", "FP16": "F16", "Q8": "Q8_0", "Q3_K": "Q3_K_M", "Q4_K": "Q4_K_M", "Q5_K": "Q5_K_M",
    "MXFP4_MOE": "MXFP4",
}  # fmt: skip

# What one tensor can be told to have.
KINDS = {kind.name: kind for kind in dict.fromkeys(file_type.kind for file_type in FILE_TYPES.values())} | {
    "IQ2_S": Kind.IQ2_S
}


def file_type(name: str) -> FileType:
    """The type of a file by its name, in any case. Raises RequestError, with the nearest names."""
    found = _spelled(name)
    found = ALIASES.get(found, found)
    if found not in FILE_TYPES:
        raise RequestError(f"type {name!r} is unknown; {_suggestion(found, FILE_TYPES)}")
    return FILE_TYPES[found]


def tensor_type(name: str) -> Kind:
    """The type of a tensor by ggml's name, in any case. Raises RequestError, with the nearest names."""
    found = _spelled(name)
    if found not in KINDS:
        hint = "that is a mix of types for a whole file" if found in FILE_TYPES else _suggestion(found, KINDS)
        raise RequestError(f"no tensor has the type {name!r}: {hint}")
    return KINDS[found]


def _spelled(name: str) -> str:
    return name.strip().upper().replace("-", "_")


def _suggestion(name: str, known: Iterable[str]) -> str:
    names = list(known)
    near = get_close_matches(name, names, n=4, cutoff=0.6)
    return f"the nearest are {', '.join(near)}" if near else f"choose one of {', '.join(names)}"
