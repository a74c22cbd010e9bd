"""What a conversion will write, worked out from the config and the headers of the weights alone."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from gguf import GGMLQuantizationType

from ..errors import CheckpointError, RequestError
from .checkpoint import Checkpoint, open_checkpoint
from .config import ModelConfig, read_config
from .encode import SOURCES, TARGETS, row_bytes, stored_type
from .safetensors_file import StoredTensor
from .table import Tensor, expand

DECODER, ENCODER = "model.decoder.", "model.encoder.language_model."
VISION = ("model.encoder.vision_tower.", "model.encoder.embed_vision.")
LM_HEAD, EMBEDDINGS = "lm_head.weight", "model.decoder.embed_tokens.weight"


@dataclass(frozen=True)
class PlannedTensor:
    """One tensor of the file. ``shape``: PyTorch order (GGUF lists it reversed). ``type``: ggml's name, F32 for one."""

    name: str
    shape: tuple[int, ...]
    type: str
    bytes: int
    source: StoredTensor | None = field(repr=False)  # None: made by the converter

    @property
    def kind(self) -> GGMLQuantizationType:
        return GGMLQuantizationType[self.type]


@dataclass(frozen=True)
class Plan:
    """Every tensor in file order, and what stays behind: the vision tower, and duplicates of tied weights."""

    type: str  # f32, f16, bf16 or q8_0
    tensors: tuple[PlannedTensor, ...]
    vision_tensors: int
    vision_bytes: int
    duplicates: int
    config: ModelConfig = field(repr=False)
    folder: Path = field(repr=False)

    @property
    def bytes(self) -> int:
        """Bytes of all tensors; the file adds the metadata, some 20 MB with the real vocabulary."""
        return sum(tensor.bytes for tensor in self.tensors)


def plan(src: str | os.PathLike[str], type: str = "bf16", *, revision: str | None = None) -> Plan:
    """What ``convert`` would write, from headers only; of a hub repository the weights are not fetched.

    Raises CheckpointError where the checkpoint is damaged or unsupported, RequestError for an unknown type.
    """
    target = target_name(type)
    return make_plan(open_checkpoint(src, revision, weights=False), target)


def target_name(type: str) -> str:
    if type.lower() not in TARGETS:
        raise RequestError(f"type {type!r} is unknown; choose one of {', '.join(TARGETS)}")
    return type.lower()


def make_plan(checkpoint: Checkpoint, target: str) -> Plan:
    config = read_config(checkpoint.folder / "config.json")
    wanted = expand(config.sliding, config.sizes)
    unclaimed = dict(checkpoint.tensors)
    tensors = tuple(_claim(tensor, unclaimed, target, checkpoint.folder) for tensor in wanted)
    vision = [unclaimed.pop(name) for name in list(unclaimed) if name.startswith(VISION)]
    duplicates = _drop_duplicates(unclaimed, checkpoint.tensors)
    if unclaimed:
        extra = min(unclaimed.values(), key=lambda tensor: tensor.name)
        raise CheckpointError(
            f"{extra.file}: tensor {extra.name!r} is unknown{_and_more(len(unclaimed))}: "
            "a checkpoint of another model, or one with parts that dgemma does not compute"
        )
    return Plan(
        type=target,
        tensors=tensors,
        vision_tensors=len(vision),
        vision_bytes=sum(tensor.bytes for tensor in vision),
        duplicates=duplicates,
        config=config,
        folder=checkpoint.folder,
    )


def _claim(tensor: Tensor, unclaimed: dict[str, StoredTensor], target: str, folder: Path) -> PlannedTensor:
    """Take the tensor's source out of ``unclaimed``, checked for shape and type."""
    kind = stored_type(TARGETS[target], tensor.shape[-1], tensor.keeps_f32)
    size = tensor.size // tensor.shape[-1] * row_bytes(tensor.shape[-1], kind)
    if tensor.hf is None:
        return PlannedTensor(tensor.gguf, tensor.shape, kind.name, size, source=None)
    source = unclaimed.pop(tensor.hf, None)
    if source is None:
        raise CheckpointError(f"{folder}: tensor {tensor.hf!r} is missing: an incomplete checkpoint or another model")
    if source.shape != tensor.shape:
        raise CheckpointError(
            f"{source.file}: tensor {source.name!r} has shape {list(source.shape)}, "
            f"but config.json makes it {list(tensor.shape)}"
        )
    if source.dtype not in SOURCES:
        raise CheckpointError(
            f"{source.file}: tensor {source.name!r} has dtype {source.dtype}, but only {', '.join(SOURCES)} "
            "can be converted; perhaps an already quantised checkpoint"
        )
    return PlannedTensor(tensor.gguf, tensor.shape, kind.name, size, source)


def _drop_duplicates(unclaimed: dict[str, StoredTensor], everything: Mapping[str, StoredTensor]) -> int:
    """Drop what is tied to a tensor of the decoder: the same weights under the encoder's name, or as the LM head."""
    count = 0
    for name, tensor in list(unclaimed.items()):
        twin = EMBEDDINGS if name == LM_HEAD else DECODER + name.removeprefix(ENCODER)
        if (name == LM_HEAD or name.startswith(ENCODER)) and twin in everything:
            if everything[twin].shape != tensor.shape:
                raise CheckpointError(
                    f"{tensor.file}: tensor {name!r} has shape {list(tensor.shape)}, but {twin!r}, "
                    f"to which it is tied, has {list(everything[twin].shape)}"
                )
            del unclaimed[name]
            count += 1
    return count


def _and_more(count: int) -> str:
    return f" (and {count - 1} more)" if count > 1 else ""
