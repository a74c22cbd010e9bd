"""What the headers of the files say, and whether such models can be compared at all."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path

from .._native import core
from ..errors import ModelFileError, RequestError
from ..events import GenerationConfig
from ..metadata import Metadata
from .report import ModelSummary

_ARCHITECTURE = "diffusion-gemma"


@dataclass(frozen=True)
class Header:
    """What a comparison asks of a GGUF file before it is opened."""

    path: str
    tokens: list[str]
    canvas_length: int
    config: GenerationConfig
    n_bytes: int
    bits_per_weight: float

    def summary(self, file_type: str) -> ModelSummary:
        return ModelSummary(self.path, file_type, self.n_bytes, self.bits_per_weight)


def read_header(path: str | os.PathLike[str]) -> Header:
    """Raises ``ModelFileError`` for a file that is no DiffusionGemma."""
    file = os.fspath(Path(path).expanduser())
    info = core.read_gguf(file)
    metadata = Metadata(info.metadata, file)
    architecture = metadata.text("general.architecture")
    if architecture != _ARCHITECTURE:
        raise ModelFileError(f"{file}: general.architecture is {architecture!r:.80}, not {_ARCHITECTURE!r}")
    weights = sum(math.prod(tensor.shape) for tensor in info.tensors)
    bits = 8 * sum(tensor.n_bytes for tensor in info.tensors) / max(weights, 1)
    canvas_length = metadata.integer("diffusion.canvas_length")
    if canvas_length < 1:
        metadata.fail("diffusion.canvas_length", f"must be at least 1, not {canvas_length}")
    return Header(
        file,
        metadata.strings("tokenizer.ggml.tokens"),
        canvas_length,
        GenerationConfig.from_metadata(info.metadata, file),
        info.n_bytes,
        bits,
    )


def check_alike(reference: Header, candidate: Header) -> None:
    """Raises ``RequestError`` unless both write the same tokens on canvases of one length."""
    if candidate.canvas_length != reference.canvas_length:
        raise RequestError(
            f"{candidate.path} has a canvas of {candidate.canvas_length} tokens and {reference.path} one of "
            f"{reference.canvas_length}, so they cannot be compared"
        )
    if candidate.tokens != reference.tokens:
        raise RequestError(
            f"{candidate.path} and {reference.path} have different vocabularies, so they cannot be compared"
        )
