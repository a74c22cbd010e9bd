"""Writes GGUF files in one pass: each tensor is read, encoded on all cores and written in order, a piece at a time.

    main thread   read  read  read … write  read  write  read …
    workers             encode  encode  encode …

Pieces are small and few are under way at once, so memory does not grow with the model, and an interruption is heard
soon. What is computed for a row depends on nothing but the row: the bytes are the same on any number of threads.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Generator, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import numpy as np
import numpy.typing as npt
from gguf import GGMLQuantizationType, GGUFValueType, LlamaFileType

from ..errors import RequestError
from .encode import Rows, ValueLostError
from .keys import Keys, header, number, padding
from .model import Model
from .output import atomic_outputs, check_output
from .plan import Plan, PlannedTensor
from .safetensors_file import StoredTensor, read_rows

Importance = Mapping[str, npt.NDArray[np.float32]]  # tensor name -> [n_cols], or [matrices, n_cols] for experts


class Progress(Protocol):
    def __call__(self, done: int, total: int, name: str, /) -> object:
        """Bytes of tensors written so far, bytes in all, name of the tensor at hand."""


class Encoder(Protocol):
    def __call__(
        self,
        rows: Rows,
        source: GGMLQuantizationType,
        target: GGMLQuantizationType,
        importance: npt.NDArray[np.float32] | None,
        /,
    ) -> Rows:
        """Rows of one type as rows of another; called on any thread. importance: [n_cols]. Raises ValueLostError."""


@dataclass(frozen=True)
class Output:
    """Where and how to write. ``split_bytes``: the most that one file may have; a larger model becomes a split set."""

    path: Path
    force: bool = False
    split_bytes: int | None = None
    threads: int | None = None
    progress: Progress | None = None


@dataclass(frozen=True)
class Report:
    """What was written. ``bytes``: of all files. ``plan``: the tensors, and what stayed behind."""

    paths: tuple[Path, ...]  # one file, or a split set in order
    bytes: int
    plan: Plan

    @property
    def path(self) -> Path:
        """The file to open: of a split set, the first."""
        return self.paths[0]


def write(
    model: Model,
    plan: Plan,
    file_type: LlamaFileType,
    output: Output,
    encoder: Encoder,
    importance: Importance | None = None,
) -> Report:
    """Write ``plan``. Nothing is left where it fails: FileError, CheckpointError, or whatever progress() raises."""
    inputs = model.inputs()
    check_output(output.path, inputs, force=output.force)  # before the vocabulary, which takes a second
    parts = _split(plan.tensors, output.split_bytes)
    paths = _paths(output.path, len(parts))
    for path in paths:
        check_output(path, inputs, force=output.force)
    keys = model.keys(file_type)
    headers = [header(_part_keys(keys, i, parts), part) for i, part in enumerate(parts)]
    size = sum(map(len, headers)) + sum(tensor.bytes + len(padding(tensor.bytes)) for tensor in plan.tensors)
    meter = _Meter(plan.bytes, output.progress)
    pieces = _encoded(plan.tensors, encoder, importance or {}, output.threads or usable_cores())
    with closing(pieces), atomic_outputs(paths, size) as partials:
        for partial, head, part in zip(partials, headers, parts, strict=True):
            with partial.open("wb", buffering=0) as file:
                _write_all(file, memoryview(head))
                _write_tensors(file, part, pieces, meter)
    return Report(tuple(paths), size, plan)


def usable_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


# ------------------------------------------------------------------------------------------------ split sets


def _split(tensors: Sequence[PlannedTensor], limit: int | None) -> list[Sequence[PlannedTensor]]:
    """The tensors of each file, in order: as many as ``limit`` bytes hold, and at least one."""
    parts: list[list[PlannedTensor]] = [[]]
    room = limit
    for tensor in tensors:
        if limit is not None and room is not None:
            if parts[-1] and tensor.bytes > room:
                parts.append([])
                room = limit
            room -= tensor.bytes
        parts[-1].append(tensor)
    return list(parts)


def _paths(path: Path, count: int) -> list[Path]:
    """The names by which loaders know a split set: model.gguf becomes model-00001-of-00003.gguf and so on."""
    if count == 1:
        return [path]
    if path.suffix != ".gguf":
        raise RequestError(f"{path}: the name of a split set must end in .gguf")
    return [path.with_name(f"{path.stem}-{i:05d}-of-{count:05d}.gguf") for i in range(1, count + 1)]


def _part_keys(keys: Keys, index: int, parts: Sequence[Sequence[PlannedTensor]]) -> Keys:
    """The first file has all metadata; each has its place in the set."""
    if len(parts) == 1:
        return keys
    place = (
        number("split.no", index, GGUFValueType.UINT16)
        + number("split.count", len(parts), GGUFValueType.UINT16)
        + number("split.tensors.count", sum(map(len, parts)), GGUFValueType.INT32)
    )
    return keys + place if index == 0 else place


# ------------------------------------------------------------------------------------------------ tensors


class _Meter:
    """Counts what is written and tells the caller."""

    def __init__(self, total: int, progress: Progress | None) -> None:
        self._done, self._total, self._progress = 0, total, progress

    def add(self, count: int, name: str) -> None:
        self._done += count
        if self._progress is not None:
            self._progress(self._done, self._total, name)


def _write_tensors(file: BinaryIO, part: Sequence[PlannedTensor], pieces: Iterator[memoryview], meter: _Meter) -> None:
    for tensor in part:
        meter.add(0, tensor.name)
        left = tensor.bytes
        while left:
            piece = next(pieces)
            _write_all(file, piece)
            left -= len(piece)
            meter.add(len(piece), tensor.name)
        _write_all(file, memoryview(padding(tensor.bytes)))


def _encoded(
    tensors: Sequence[PlannedTensor], encoder: Encoder, importance: Importance, threads: int
) -> Generator[memoryview, None, None]:
    """The data of all tensors in order. Twice as many pieces as threads are under way, so that none waits for its turn
    to be written."""
    pending: deque[Future[memoryview]] = deque()
    pool = ThreadPoolExecutor(threads)
    try:
        for tensor in tensors:
            for job in _jobs(tensor, encoder, importance):
                pending.append(pool.submit(job))
                if len(pending) >= 2 * threads:
                    yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


@dataclass(frozen=True)
class _Job:
    """One piece of one tensor: rows from ``first`` on, all of one matrix."""

    tensor: PlannedTensor
    source: StoredTensor
    first: int
    rows: Rows
    encoder: Encoder
    importance: npt.NDArray[np.float32] | None

    def __call__(self) -> memoryview:
        try:
            encoded = self.encoder(self.rows, self.source.kind, self.tensor.kind, self.importance)
        except ValueLostError as error:
            place = np.unravel_index(self.first + error.row, self.source.shape[:-1] or (1,))
            at = ", ".join(map(str, (*place[-len(self.source.shape) + 1 :], error.col)))
            raise self.source.refusal(f"the value at [{at}] {error}") from None
        return encoded.data.cast("B")


def _jobs(tensor: PlannedTensor, encoder: Encoder, importance: Importance) -> Iterator[Any]:
    source = tensor.source
    if isinstance(source, bytes):
        yield lambda: memoryview(source)
        return
    per_matrix = source.shape[-2] if len(source.shape) > 1 else 1
    columns = importance[tensor.name].reshape(-1, source.shape[-1]) if tensor.name in importance else None
    for first, rows in read_rows(source):
        # One row of importance serves all matrices, or there is one for each.
        mine = None if columns is None else columns[first // per_matrix if len(columns) > 1 else 0]
        yield _Job(tensor, source, first, rows, encoder, mine)


def _write_all(file: BinaryIO, view: memoryview) -> None:
    while view:
        view = view[file.write(view) :]
