"""Converts a checkpoint: with numpy alone to the plain types, and through ``dgemma.quantize`` to all the others."""

from __future__ import annotations

import os
from pathlib import Path

import gguf

from .checkpoint import open_checkpoint
from .encode import TARGETS, encode
from .model import Model, checkpoint_model
from .plan import Plan, plain_plan
from .writer import Output, Progress, Report, write

FILE_TYPES = {
    "f32": gguf.LlamaFileType.ALL_F32,
    "f16": gguf.LlamaFileType.MOSTLY_F16,
    "bf16": gguf.LlamaFileType.MOSTLY_BF16,
    "q8_0": gguf.LlamaFileType.MOSTLY_Q8_0,
}


def convert(
    src: str | os.PathLike[str],
    dst: str | os.PathLike[str],
    type: str = "bf16",
    *,
    revision: str | None = None,
    force: bool = False,
    threads: int | None = None,
    progress: Progress | None = None,
) -> Report:
    """Convert a DiffusionGemma checkpoint to a GGUF file.

    src: a folder, or a hub repository ``owner/name`` (at ``revision``). dst: the file to write; one that exists is
    refused unless ``force``. type: f32, f16, bf16 or q8_0, for the matrices; norms, scales and the router stay F32,
    and with q8_0, rows that are no multiple of 32 values become F16. Any other type that ``dgemma.quantize`` knows
    (Q4_K_M) will do too, and needs the engine. threads: how many cores; all, if absent. progress: called after each
    piece written.

    The same checkpoint gives the same bytes. Raises CheckpointError for a checkpoint that is damaged or unsupported,
    FileError for an output that cannot be written, RequestError for a bad argument; ``dst`` is then as it was before.
    """
    output = Output(Path(dst), force=force, threads=threads, progress=progress)
    if type.lower() not in TARGETS:
        from ..quantize import Recipe, quantize_model  # the engine's types; known before anything is read

        recipe = Recipe.named(type)
        return quantize_model(_open(src, revision, weights=True), recipe, output)
    model = _open(src, revision, weights=True)
    return write(model, plain_plan(model, type.lower()), FILE_TYPES[type.lower()], output, encode)


def plan(src: str | os.PathLike[str], type: str = "bf16", *, revision: str | None = None) -> Plan:
    """What ``convert`` would write, from headers only; of a hub repository the weights are not fetched.

    Raises CheckpointError where the checkpoint is damaged or unsupported, RequestError for an unknown type.
    """
    if type.lower() not in TARGETS:
        from ..quantize import Recipe, plan_model

        recipe = Recipe.named(type)
        return plan_model(_open(src, revision, weights=False), recipe)
    return plain_plan(_open(src, revision, weights=False), type.lower())


def _open(src: str | os.PathLike[str], revision: str | None, *, weights: bool) -> Model:
    return checkpoint_model(open_checkpoint(src, revision, weights=weights))
