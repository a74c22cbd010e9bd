#!/usr/bin/env python3
"""Writes a GGUF file of the 26B model's shapes and types with random weights, in about the time that writing takes.

    python examples/full_size.py OUT.gguf [--type Q4_K_M] [--layers 30] [--processes N]

For timing and for memory, not for quality: no checkpoint is read. Of each kind of tensor a few thousand groups of 256
values are drawn and quantised once; a tensor is made of them by drawing groups, so that every row is another, experts
take different routes, and one token's row of the embedding is unlike all others. No vocabulary: token ids only.
The same arguments make the same file, on any number of processes.
"""

from __future__ import annotations

import argparse
import math
import os
import tempfile
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from gguf import GGML_QUANT_SIZES
from gguf import GGMLQuantizationType as Kind

from dgemma.convert.plan import PlannedTensor
from dgemma.convert.safetensors_file import StoredTensor
from dgemma.quantize.quantizer import plan_model
from dgemma.quantize.recipes import Recipe
from dgemma.quantize.rows import quantize_rows
from random_checkpoint import CheckpointConfig
from random_weights import RandomTensor, values
from random_weights import plan as random_tensors
from released import RELEASED, hollow_gguf, model_of

GROUP = 256  # values; a whole number of any type's blocks
GROUPS = 4096  # of one kind of tensor
PIECE = 1 << 17  # groups written at a time
ALIGNMENT = 32


@dataclass(frozen=True)
class Piece:
    """A stretch of one tensor: so many groups from ``first`` on, at a place in the file."""

    path: Path
    name: str
    kind: Kind
    center: float
    std: float
    first: int
    n_groups: int
    offset: int


_groups: dict[tuple[Kind, float, float], np.ndarray] = {}  # of this process


def groups(kind: Kind, center: float, std: float) -> np.ndarray:
    """uint8 [GROUPS, bytes of GROUP values]"""
    key = kind, center, std
    if key not in _groups:
        drawn = next(values(RandomTensor(f"groups of {kind.name}", (GROUPS, GROUP), center, std), seed=0))
        _groups[key] = quantize_rows(drawn.reshape(GROUPS, GROUP), kind)
    return _groups[key]


def write_piece(piece: Piece) -> None:
    random = np.random.Generator(np.random.SFC64([zlib.crc32(piece.name.encode()), piece.first]))
    chosen = random.integers(0, GROUPS, piece.n_groups)
    data = memoryview(groups(piece.kind, piece.center, piece.std)[chosen]).cast("B")
    with piece.path.open("r+b", buffering=0) as file:
        file.seek(piece.offset)
        while data:
            data = data[file.write(data) :]


def pieces(path: Path, tensor: PlannedTensor, spread: RandomTensor, offset: int) -> Iterator[Piece]:
    block, block_bytes = GGML_QUANT_SIZES[tensor.kind]
    group_bytes = GROUP // block * block_bytes
    n_groups = math.prod(tensor.shape) // GROUP
    for first in range(0, n_groups, PIECE):
        n, place = min(PIECE, n_groups - first), offset + first * group_bytes
        yield Piece(path, tensor.name, tensor.kind, spread.center, spread.std, first, n, place)


def small_data(tensor: PlannedTensor, spread: RandomTensor) -> bytes:
    """A tensor that is no whole number of groups, or of a size that need not be drawn from them."""
    drawn = np.concatenate(list(values(spread, seed=0))).reshape(-1, tensor.shape[-1])
    return quantize_rows(drawn, tensor.kind).tobytes()


def write_model(path: Path, type: str, config: CheckpointConfig = RELEASED, processes: int | None = None) -> None:
    """OSError where the disk is full."""
    hollow_gguf(path, type, config)
    with tempfile.TemporaryDirectory() as folder:
        tensors = plan_model(model_of(Path(folder, "model"), config), Recipe.named(type)).tensors
    spreads = {tensor.name: tensor for tensor in random_tensors(config)}
    data_bytes = sum(-(-tensor.bytes // ALIGNMENT) * ALIGNMENT for tensor in tensors)
    offset = path.stat().st_size - data_bytes
    todo: list[Piece] = []
    with path.open("r+b") as file:
        for tensor in tensors:
            file.seek(offset)
            if not isinstance(tensor.source, StoredTensor):
                file.write(tensor.source)
            elif (count := math.prod(tensor.shape)) % GROUP or count < GROUP * GROUP:
                file.write(small_data(tensor, spreads[tensor.source.name]))
            else:
                todo += pieces(path, tensor, spreads[tensor.source.name], offset)
            offset += -(-tensor.bytes // ALIGNMENT) * ALIGNMENT
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        for _ in pool.map(write_piece, todo, chunksize=8):
            pass


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, metavar="OUT.gguf")
    parser.add_argument("--type", default="Q4_K_M", help="a type of file (default Q4_K_M)")
    parser.add_argument("--layers", type=int, default=RELEASED.layers, metavar="N", help="fewer than 30, to try it")
    parser.add_argument("--processes", type=int, default=os.cpu_count(), metavar="N", help="all cores if absent")
    args = parser.parse_args(arguments)
    write_model(args.out, args.type, replace(RELEASED, layers=args.layers), args.processes)
    print(f"{args.out}: {args.out.stat().st_size / 1e9:.2f} GB")


if __name__ == "__main__":
    main()
