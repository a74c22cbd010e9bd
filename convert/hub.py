"""Checkpoints on the Hugging Face hub: fetched into the hub library's cache, with its progress bar and its token."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import huggingface_hub

from ..errors import CheckpointError
from .safetensors_file import DTYPE_BYTES, StoredTensor

REPO_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")

SMALL_FILES = [
    "config.json", "generation_config.json", "model.safetensors.index.json", "README.md",
    "tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "chat_template.json",
]  # fmt: skip

T = TypeVar("T")


def is_repo_id(text: str) -> bool:
    return REPO_ID.fullmatch(text) is not None


def fetch_small_files(repo_id: str, revision: str | None) -> Path:
    """Everything but the weights. Returns the snapshot's folder, whose name is the commit."""
    return _fetch(repo_id, revision, SMALL_FILES)


def fetch_weights(repo_id: str, snapshot: Path, names: Sequence[str]) -> None:
    """The named weight files of that same commit, into that same folder."""
    _fetch(repo_id, snapshot.name, names)


def fetch_header(repo_id: str, snapshot: Path, name: str) -> dict[str, StoredTensor]:
    """The header of a weight file, without the weights."""
    api = huggingface_hub.HfApi()
    header = _asked(repo_id, lambda: api.parse_safetensors_file_metadata(repo_id, name, revision=snapshot.name))
    source = f"{repo_id}/{name}"
    found = {}
    for tensor, info in header.tensors.items():
        if info.dtype not in DTYPE_BYTES:
            raise CheckpointError(f"{source}: tensor {tensor!r}: unknown dtype {info.dtype!r}")
        begin, end = info.data_offsets
        found[tensor] = StoredTensor(tensor, source, info.dtype, tuple(info.shape), begin, end - begin)
    return found


def _fetch(repo_id: str, revision: str | None, names: Sequence[str]) -> Path:
    fetch = huggingface_hub.snapshot_download
    return Path(_asked(repo_id, lambda: fetch(repo_id, revision=revision, allow_patterns=list(names))))


def _asked(repo_id: str, question: Callable[[], T]) -> T:
    """The hub's answer, with any refusal as one sentence."""
    try:
        return question()
    except Exception as error:  # a broken line raises what the HTTP library at hand raises, and that varies
        reason = str(error).strip().partition("\n")[0]
        raise CheckpointError(f"{repo_id}: no such folder here, and the hub's answer was: {reason}") from None
