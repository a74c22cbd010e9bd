"""Writes the GGUF file: metadata first, then each tensor, read, converted and written a few rows at a time."""

from __future__ import annotations

import io
import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import gguf
import numpy as np
from gguf.gguf_writer import WriterState

from ..errors import CheckpointError
from .checkpoint import open_checkpoint
from .config import ModelConfig
from .encode import SOURCES, Rows, ValueLostError, encode
from .generation import read_end_tokens, read_sampler
from .metadata import ARCHITECTURE, add_general, add_generation, add_network
from .output import atomic_output, check_output
from .plan import Plan, PlannedTensor, make_plan, target_name
from .safetensors_file import read_rows
from .tokenizer import read_vocabulary

# Bytes of tensors written so far, bytes in all, name of the tensor at hand.
Progress = Callable[[int, int, str], None]

# Each worker holds one piece of 16 MB and its converted forms, about 100 MB.
WORKERS = min(4, os.cpu_count() or 1)

NOT_ROTATING = 1e30  # divides a frequency down to nothing

FILE_TYPES = {
    "f32": gguf.LlamaFileType.ALL_F32,
    "f16": gguf.LlamaFileType.MOSTLY_F16,
    "bf16": gguf.LlamaFileType.MOSTLY_BF16,
    "q8_0": gguf.LlamaFileType.MOSTLY_Q8_0,
}


@dataclass(frozen=True)
class Report:
    """What was written. ``bytes``: size of the file. ``plan``: its tensors, and what stayed behind."""

    path: Path
    bytes: int
    plan: Plan


def convert(
    src: str | os.PathLike[str],
    dst: str | os.PathLike[str],
    type: str = "bf16",
    *,
    revision: str | None = None,
    force: bool = False,
    progress: Progress | None = None,
) -> Report:
    """Convert a DiffusionGemma checkpoint to a GGUF file.

    src: a folder, or a hub repository ``owner/name`` (at ``revision``). dst: the file to write; one that exists is
    refused unless ``force``. type: f32, f16, bf16 or q8_0, for the matrices; norms, scales and the router stay F32,
    and with q8_0, rows that are no multiple of 32 values become F16. progress: called after each piece written.

    The same checkpoint gives the same bytes. Raises CheckpointError for a checkpoint that is damaged or unsupported,
    FileError for an output that cannot be written, RequestError for a bad argument; ``dst`` is then as it was before.
    """
    target, path = target_name(type), Path(dst)
    checkpoint = open_checkpoint(src, revision, weights=True)
    plan = make_plan(checkpoint, target)
    check_output(path, checkpoint.folder, force=force)
    metadata = _metadata(plan)
    size = len(metadata) + sum(tensor.bytes + _padding(tensor.bytes) for tensor in plan.tensors)
    with atomic_output(path, size) as partial, partial.open("wb", buffering=0) as file:
        _write_all(file, memoryview(metadata))
        del metadata
        _write_tensors(plan, file, progress or (lambda done, total, name: None))
    return Report(path, size, plan)


def _metadata(plan: Plan) -> bytes:
    """The file up to the first tensor's data: header, keys, the tensors' names, shapes, types and places."""
    writer = gguf.GGUFWriter(None, ARCHITECTURE)
    for tensor in plan.tensors:
        writer.add_tensor_info(tensor.name, tensor.shape, np.dtype(np.float32), tensor.bytes, raw_dtype=tensor.kind)
    add_general(writer, plan.folder, FILE_TYPES[plan.type])
    add_network(writer, plan.config)
    end_tokens = read_end_tokens(plan.folder, plan.config.vocab)
    vocabulary = read_vocabulary(plan.folder, plan.config.vocab, end_tokens)
    add_generation(writer, read_sampler(plan.folder), vocabulary, end_tokens)
    memory = io.BytesIO()  # the writer would open files itself, under their final names
    writer.fout, writer.state = [io.BufferedWriter(memory)], WriterState.EMPTY
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    return memory.getvalue() + bytes(_padding(len(memory.getvalue())))


def _write_tensors(plan: Plan, file: BinaryIO, progress: Progress) -> None:
    done, total = 0, plan.bytes
    with ThreadPoolExecutor(WORKERS) as pool:
        for tensor in plan.tensors:
            progress(done, total, tensor.name)
            for rows in _encoded(tensor, plan.config, pool):
                _write_all(file, rows.data.cast("B"))
                done += rows.nbytes
                progress(done, total, tensor.name)
            _write_all(file, memoryview(bytes(_padding(tensor.bytes))))


def _encoded(tensor: PlannedTensor, config: ModelConfig, pool: ThreadPoolExecutor) -> Iterator[Rows]:
    """The tensor's data in its new type, in order; a few pieces are converted at a time."""
    if tensor.source is None:
        yield _rope_factors(config).view(np.uint8)
        return
    source = SOURCES[tensor.source.dtype]
    pending: deque[Future[Rows]] = deque()
    try:
        for rows in read_rows(tensor.source):
            pending.append(pool.submit(encode, rows, source, tensor.kind))
            if len(pending) == WORKERS:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    except ValueLostError as error:
        raise CheckpointError(f"{tensor.source.file}: tensor {tensor.source.name!r}: a value {error}") from None


def _rope_factors(config: ModelConfig) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    """Divisors of the full layers' RoPE frequencies: [pairs], 1 for the pairs that rotate."""
    factors = np.full(config.rope_pairs, NOT_ROTATING, dtype=np.float32)
    factors[: config.rotating_pairs] = 1
    return factors


def _write_all(file: BinaryIO, view: memoryview) -> None:
    while view:
        view = view[file.write(view) :]


def _padding(size: int) -> int:
    """Zeros after ``size`` bytes, up to the next place where a tensor may begin."""
    return -size % gguf.GGUF_DEFAULT_ALIGNMENT
