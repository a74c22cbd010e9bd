"""A model that is about to be written: its tensors before their types are chosen, and what makes its metadata.

A checkpoint becomes one (``checkpoint_model``), and so does a GGUF file (``dgemma.quantize``); from there on there is
one way to plan and to write.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import gguf
import numpy as np
from gguf import GGMLQuantizationType, LlamaFileType

from ..errors import CheckpointError
from .checkpoint import Checkpoint
from .config import ModelConfig, read_config
from .encode import SOURCES
from .generation import read_end_tokens, read_sampler
from .keys import Keys, from_writer
from .metadata import ARCHITECTURE, add_general, add_generation, add_network
from .safetensors_file import StoredTensor
from .table import Tensor, expand
from .tokenizer import read_vocabulary

DECODER, ENCODER = "model.decoder.", "model.encoder.language_model."
VISION = ("model.encoder.vision_tower.", "model.encoder.embed_vision.")
LM_HEAD, EMBEDDINGS = "lm_head.weight", "model.decoder.embed_tokens.weight"

Made = bytes  # the data of a tensor that no checkpoint has, as float32

NOT_ROTATING = 1e30  # divides a frequency down to nothing


@dataclass(frozen=True)
class Weight:
    """One tensor of the file to be. ``shape``: PyTorch order (GGUF lists it reversed), the last is the row."""

    name: str  # in GGUF
    shape: tuple[int, ...]
    fixed: GGMLQuantizationType | None  # the type that it must have; None: any
    source: StoredTensor | Made

    @property
    def size(self) -> int:
        """Number of values."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class Sizes:
    """What a choice of types may ask about the network."""

    layers: int
    experts: int
    heads_per_kv: int  # query heads for each key/value head, in the first layer


@dataclass(frozen=True)
class Model:
    """``inputs``: the files that are read, which no output may overwrite; called when the output is checked."""

    name: str  # for messages: the folder, or the first file
    weights: tuple[Weight, ...]
    sizes: Sizes
    keys: Callable[[LlamaFileType], Keys] = field(repr=False)
    inputs: Callable[[], list[Path]] = field(repr=False)
    vision_tensors: int = 0
    vision_bytes: int = 0
    duplicates: int = 0


def checkpoint_model(checkpoint: Checkpoint) -> Model:
    """A checkpoint as a model to be written. Raises CheckpointError where tensors are missing, unknown or misshapen."""
    folder = checkpoint.folder
    config = read_config(folder / "config.json")
    unclaimed = dict(checkpoint.tensors)
    weights = tuple(_claim(tensor, unclaimed, folder, config) for tensor in expand(config.sliding, config.sizes))
    vision = [unclaimed.pop(name) for name in list(unclaimed) if name.startswith(VISION)]
    duplicates = _drop_duplicates(unclaimed, checkpoint.tensors)
    if unclaimed:
        extra = min(unclaimed.values(), key=lambda tensor: tensor.name)
        raise CheckpointError(
            f"{extra.file}: tensor {extra.name!r} is unknown{_and_more(len(unclaimed))}: "
            "a checkpoint of another model, or one with parts that dgemma does not compute"
        )
    return Model(
        name=str(folder),
        weights=weights,
        sizes=Sizes(config.layers, config.experts, config.heads // config.kv_heads[0]),
        keys=lambda file_type: _keys(folder, config, weights, file_type),
        inputs=lambda: [file for file in folder.iterdir() if file.is_file() and file.suffix != ".gguf"],
        vision_tensors=len(vision),
        vision_bytes=sum(tensor.bytes for tensor in vision),
        duplicates=duplicates,
    )


def _claim(tensor: Tensor, unclaimed: dict[str, StoredTensor], folder: Path, config: ModelConfig) -> Weight:
    """Take the tensor's source out of ``unclaimed``, checked for shape and type."""
    fixed = GGMLQuantizationType.F32 if tensor.keeps_f32 else None
    if tensor.hf is None:
        return Weight(tensor.gguf, tensor.shape, fixed, _rope_factors(config))
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
    return Weight(tensor.gguf, tensor.shape, fixed, source)


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


def _keys(folder: Path, config: ModelConfig, weights: tuple[Weight, ...], file_type: LlamaFileType) -> Keys:
    """The metadata of a checkpoint's file. The writer is told of the tensors because it counts parameters."""
    writer = gguf.GGUFWriter(None, ARCHITECTURE)
    for weight in weights:
        writer.add_tensor_info(weight.name, weight.shape, np.dtype(np.float32), 4 * weight.size)
    add_general(writer, folder, file_type)
    add_network(writer, config)
    end_tokens = read_end_tokens(folder, config.vocab)
    vocabulary = read_vocabulary(folder, config.vocab, end_tokens)
    add_generation(writer, read_sampler(folder), vocabulary, end_tokens)
    return from_writer(writer)


def _rope_factors(config: ModelConfig) -> Made:
    """Divisors of the full layers' RoPE frequencies: [pairs], 1 for the pairs that rotate."""
    factors = np.full(config.rope_pairs, NOT_ROTATING, dtype="<f4")
    factors[: config.rotating_pairs] = 1
    return factors.tobytes()


def _and_more(count: int) -> str:
    return f" (and {count - 1} more)" if count > 1 else ""
