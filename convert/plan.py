"""What will be written: every tensor with its type and size, worked out from headers alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from gguf import GGMLQuantizationType

from .encode import TARGETS, row_bytes, stored_type
from .model import Made, Model, Weight
from .safetensors_file import StoredTensor


@dataclass(frozen=True)
class PlannedTensor:
    """One tensor of the file. ``shape``: PyTorch order (GGUF lists it reversed). ``type``: ggml's name, F32 for one."""

    name: str
    shape: tuple[int, ...]
    type: str
    bytes: int
    source: StoredTensor | Made = field(repr=False)
    needs_importance: bool = False  # whether it can be quantised so with an importance matrix only

    @property
    def kind(self) -> GGMLQuantizationType:
        return GGMLQuantizationType[self.type]


@dataclass(frozen=True)
class Plan:
    """Every tensor in file order, and what stays behind: the vision tower, and duplicates of tied weights."""

    type: str  # as it was asked for, spelled in one way: bf16, q8_0, Q4_K_M
    tensors: tuple[PlannedTensor, ...]
    vision_tensors: int = 0
    vision_bytes: int = 0
    duplicates: int = 0

    @property
    def bytes(self) -> int:
        """Bytes of all tensors; the file adds the metadata, some 20 MB with the real vocabulary."""
        return sum(tensor.bytes for tensor in self.tensors)


def make_plan(model: Model, type: str, tensors: Sequence[PlannedTensor]) -> Plan:
    return Plan(type, tuple(tensors), model.vision_tensors, model.vision_bytes, model.duplicates)


def planned(weight: Weight, kind: GGMLQuantizationType, *, needs_importance: bool = False) -> PlannedTensor:
    """A weight whose type is chosen."""
    size = weight.size // weight.shape[-1] * row_bytes(weight.shape[-1], kind)
    return PlannedTensor(weight.name, weight.shape, kind.name, size, weight.source, needs_importance)


def plain_plan(model: Model, type: str) -> Plan:
    """The plan for one of the types that need no engine. type: a key of TARGETS."""
    kinds = (stored_type(TARGETS[type], weight.shape[-1], weight.fixed) for weight in model.weights)
    return make_plan(model, type, [planned(weight, kind) for weight, kind in zip(model.weights, kinds, strict=True)])
