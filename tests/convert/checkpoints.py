"""Checkpoints for the converter's tests, and ways to spoil them."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from safetensors.numpy import load_file, save_file

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "examples"))

from random_checkpoint import CheckpointConfig, write_checkpoint

# Odd counts on purpose; every row divides into Q8_0's blocks of 32 but those of the experts' down projection (20).
SMALL = CheckpointConfig(
    layers=3, full_every=3, hidden=32, heads=4, kv_heads=2, head_dim=16, head_dim_full=32,
    ffn=64, experts=3, experts_used=2, expert_ffn=20,
)  # fmt: skip

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"

__all__ = [
    "INDEX", "SMALL", "WEIGHTS", "Values", "edit_json", "edit_weights", "forge", "leftovers", "load_file", "read_gguf",
    "save_file", "write_checkpoint",
]  # fmt: skip

Values = dict[str, np.ndarray[Any, Any]]


def edit_json(path: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    """Change a JSON file in place: ``edit`` gets its object."""
    content = json.loads(path.read_text(encoding="utf-8"))
    edit(content)
    path.write_text(json.dumps(content), encoding="utf-8")


def edit_weights(folder: Path, edit: Callable[[Values], object]) -> None:
    """Change a single-file checkpoint's tensors in place: ``edit`` gets them by name."""
    values = load_file(folder / WEIGHTS)
    edit(values)
    save_file(values, folder / WEIGHTS)


def forge(path: Path, header: object, data: bytes = b"") -> Path:
    """Write a safetensors file with any header: bytes as they are, anything else as JSON."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return path


def read_gguf(path: Path) -> tuple[dict[str, Any], dict[str, gguf.ReaderTensor]]:
    """Metadata and tensors of a file, by gguf's own reader."""
    reader = gguf.GGUFReader(path)
    return (
        {name: field.contents() for name, field in reader.fields.items()},
        {tensor.name: tensor for tensor in reader.tensors},
    )


def leftovers(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())
