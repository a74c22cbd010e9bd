"""Random weights in the official tensor layout, written tensor by tensor.

Which tensors there are, and their shapes, comes from the project's table of tensors (convert/tensors.json).
A value depends only on the seed, the tensor's name and its place in the tensor: it is made from the raw bits of a
Philox counter, whose stream numpy promises to keep, and from exact float32 operations. So a checkpoint is the same
on every machine and numpy, and a fixture need not store it.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from random_checkpoint import CheckpointConfig

TABLE = Path(__file__).resolve().parent.parent / "convert" / "tensors.json"
CHUNK = 1 << 21  # values drawn at a time: about 50 MB with everything made from them
BYTES = {"float32": 4, "bfloat16": 2}
SAFETENSORS_NAME = {"float32": "F32", "bfloat16": "BF16"}


@dataclass(frozen=True)
class RandomTensor:
    """A tensor to be written: values spread around ``center`` with standard deviation ``std``."""

    name: str
    shape: tuple[int, ...]
    center: float
    std: float

    @property
    def count(self) -> int:
        return math.prod(self.shape)


def plan(config: CheckpointConfig, *, vision: bool = True) -> list[RandomTensor]:
    """Every tensor of the checkpoint, in the order of the table."""
    rows = [row for row in json.loads(TABLE.read_text())["tensors"] if row["hf"]]
    tensors = [_tensor(row, config, None) for row in rows if row["layers"] == "model"]
    for layer in range(config.layers):
        for row in rows:
            if row["layers"] == "all" or (row["layers"] == "sliding" and config.is_sliding(layer)):
                tensors.append(_tensor(row, config, layer))
    return tensors + (_vision(config) if vision else [])


def _tensor(row: dict[str, str], config: CheckpointConfig, layer: int | None) -> RandomTensor:
    sizes = config.sizes(layer)
    shape = tuple(
        math.prod(int(factor) if factor.isdigit() else sizes[factor] for factor in size.split("*"))
        for size in row["shape"]
    )
    name = row["hf"].replace("{i}", str(layer))
    return RandomTensor(name, shape, *_spread(name, shape, config))


def _spread(name: str, shape: tuple[int, ...], config: CheckpointConfig) -> tuple[float, float]:
    """(center, std) that keep every part of the network at work: nothing saturates, nothing vanishes."""
    gain = 1.0
    if name.endswith("embed_tokens.weight"):
        # the final norm leaves rows of length sqrt(hidden), so logits spread by std * sqrt(hidden)
        return 0.0, config.logit_spread / math.sqrt(config.hidden)
    if name.endswith("router.proj.weight"):
        return 0.0, 2.0  # the router's input has length 1: scores spread by 2, so that the experts' shares differ
    if len(shape) > 1:
        return 0.0, 1.0 / math.sqrt(shape[-1])
    if name.endswith("layer_scalar"):
        return (0.85, 0.1) if ".encoder." in name else (1.0, 0.1)
    if name.endswith(("q_norm.weight", "k_norm.weight")):
        # attention runs at scale 1, so scores would spread by sqrt(head dim): bring them to about 2
        gain = math.sqrt(2.0 / math.sqrt(shape[0]))
    elif "layers." in name and "post_" in name:
        gain = config.branch_gain
    return gain, 0.15 * gain


def _vision(config: CheckpointConfig) -> list[RandomTensor]:
    """A few tensors of the vision tower that the official checkpoint carries and a text converter leaves out."""
    width = config.VISION_HIDDEN
    return [
        RandomTensor("model.encoder.embed_vision.embedding_projection.weight", (config.hidden, width), 0.0, 0.1),
        RandomTensor("model.encoder.vision_tower.patch_embedder.input_proj.weight", (width, 12), 0.0, 0.1),
        RandomTensor("model.encoder.vision_tower.encoder.layers.0.input_layernorm.weight", (width,), 1.0, 0.1),
    ]


def values(tensor: RandomTensor, seed: int) -> Iterator[np.ndarray]:
    """The tensor's float32 values in order, some millions at a time.

    Each comes from 64 random bits: the sum of four 16-bit numbers, which is nearly normal (kurtosis 2.7).
    """
    key = hashlib.sha256(f"{seed}:{tensor.name}".encode()).digest()[:16]
    bits = np.random.Philox(key=int.from_bytes(key, "little"))
    scale = np.float32(tensor.std / (65536 * math.sqrt(4 / 12)))  # four uniform numbers: variance 4 · 65536² / 12
    for start in range(0, tensor.count, CHUNK):
        raw = bits.random_raw(min(CHUNK, tensor.count - start)).astype("<u8", copy=False).view("<u2").reshape(-1, 4)
        total = raw[:, 0].astype(np.int32)
        for column in range(1, 4):
            total += raw[:, column]
        yield (total - 2 * 65535).astype(np.float32) * scale + np.float32(tensor.center)


def as_bfloat16(x: np.ndarray) -> np.ndarray:
    """float32 -> the upper 16 bits, rounded to nearest even."""
    u = x.view(np.uint32)
    return ((u + 0x7FFF + ((u >> 16) & 1)) >> 16).astype("<u2")


def write_shard(path: Path, tensors: list[RandomTensor], seed: int, dtype: str) -> None:
    """One safetensors file: u64 length of the header, header (JSON), data."""
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for tensor in tensors:
        end = offset + tensor.count * BYTES[dtype]
        header[tensor.name] = {
            "dtype": SAFETENSORS_NAME[dtype],
            "shape": list(tensor.shape),
            "data_offsets": [offset, end],
        }
        offset = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the format asks for data aligned to 8 bytes
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for tensor in tensors:
            for chunk in values(tensor, seed):
                file.write((as_bfloat16(chunk) if dtype == "bfloat16" else chunk.astype("<f4", copy=False)).tobytes())


def write_weights(folder: Path, tensors: list[RandomTensor], *, seed: int, dtype: str, shards: int) -> None:
    """model.safetensors, or ``shards`` files of about equal size with model.safetensors.index.json."""
    if shards == 1:
        write_shard(folder / "model.safetensors", tensors, seed, dtype)
        return
    total = sum(tensor.count for tensor in tensors)
    parts: list[list[RandomTensor]] = [[] for _ in range(shards)]
    done = 0
    for tensor in tensors:
        parts[done * shards // total].append(tensor)
        done += tensor.count
    parts = [part for part in parts if part]  # one tensor may be larger than a share
    weight_map: dict[str, str] = {}
    for number, part in enumerate(parts, start=1):
        name = f"model-{number:05d}-of-{len(parts):05d}.safetensors"
        write_shard(folder / name, part, seed, dtype)
        weight_map |= {tensor.name: name for tensor in part}
    index = {"metadata": {"total_size": total * BYTES[dtype]}, "weight_map": dict(sorted(weight_map.items()))}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n")
