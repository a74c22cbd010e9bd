"""The one table of tensors (``tensors.json``, which the engine and the quantizer read too), worked out for a model."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal


@dataclass(frozen=True)
class TableRow:
    """One line of the table. ``shape``: PyTorch order, each size a product of names and numbers ("2*expert_ffn")."""

    gguf: str
    hf: str | None  # None: the converter makes it
    shape: tuple[str, ...]
    layers: Literal["model", "all", "sliding"]
    floor: Literal["f32", "any"]


@dataclass(frozen=True)
class Tensor:
    """One tensor of one model. ``shape``: PyTorch order, numbers."""

    gguf: str
    hf: str | None
    shape: tuple[int, ...]
    keeps_f32: bool

    @property
    def size(self) -> int:
        """Number of values."""
        return math.prod(self.shape)


@cache
def rows() -> tuple[TableRow, ...]:
    table = json.loads(Path(__file__).with_name("tensors.json").read_text(encoding="utf-8"))
    return tuple(TableRow(**{**row, "shape": tuple(row["shape"])}) for row in table["tensors"])


def expand(sliding: Sequence[bool], sizes: Callable[[int], Mapping[str, int]]) -> list[Tensor]:
    """Every tensor of a model: first those outside the layers, then layer by layer, in the table's order.

    sliding: for each layer, whether it is one. sizes: the names of the table's shapes, as numbers, for a layer.
    """
    model = [_tensor(row, 0, sizes(0)) for row in rows() if row.layers == "model"]
    layers = [
        _tensor(row, i, sizes(i))
        for i, is_sliding in enumerate(sliding)
        for row in rows()
        if row.layers == "all" or (row.layers == "sliding" and is_sliding)
    ]
    return model + layers


def _tensor(row: TableRow, layer: int, sizes: Mapping[str, int]) -> Tensor:
    shape = tuple(_product(size, sizes) for size in row.shape)
    hf = None if row.hf is None else row.hf.format(i=layer)
    return Tensor(row.gguf.format(i=layer), hf, shape, keeps_f32=row.floor == "f32")


def _product(size: str, names: Mapping[str, int]) -> int:
    return math.prod(int(factor) if factor.isdigit() else names[factor] for factor in size.split("*"))
