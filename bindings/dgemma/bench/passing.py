"""What passes between the kernels of a denoising step, and what they are launched with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import reduce
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .._core import GgufTensor

F32 = 4.0
INT8 = 1.125  # bytes a value, with the scale of every 32


@dataclass(frozen=True)
class Passing:
    """``moved``: bytes of a tensor between kernels, once for each time that one reads or writes it."""

    launches: int = 0
    moved: tuple[float, ...] = ()

    def __add__(self, other: Passing) -> Passing:
        return Passing(self.launches + other.launches, self.moved + other.moved)

    def bytes_beyond(self, cache: float) -> float:
        """Of the tensors that a cache of so many bytes cannot hold."""
        return sum(size for size in self.moved if size > cache)


def total(*parts: Passing) -> Passing:
    return reduce(Passing.__add__, parts, Passing())


class Shapes:
    """Bytes of what a file's tensors make of a canvas."""

    def __init__(self, tensors: Mapping[str, GgufTensor], canvas: int, used: int) -> None:
        self.tensors = tensors
        self.used = used
        self.canvas = canvas
        self.hidden = self.f32(tensors["token_embd.weight"].shape[0])

    def f32(self, rows: int) -> float:
        """Bytes of so many values for each position."""
        return F32 * rows * self.canvas

    def rows(self, name: str) -> float:
        """Of a product with this weight."""
        return self.f32(self.tensors[f"{name}.weight"].shape[1])

    def columns(self, name: str) -> float:
        """Of what it multiplies."""
        return self.f32(self.tensors[f"{name}.weight"].shape[0])

    def projections(self, layer: str) -> list[str]:
        """Queries, keys and, where they are not the keys, values."""
        has_v = f"{layer}attn_v.weight" in self.tensors
        return [f"{layer}attn_{name}" for name in ("q", "k", *(["v"] if has_v else []))]

    def experts(self, layer: str) -> tuple[float, float, float]:
        """Gate and up, their product, and down, for each token and each of its experts."""
        gate_up, down = (self.rows(f"{layer}ffn_{name}_exps") * self.used for name in ("gate_up", "down"))
        return gate_up, gate_up / 2, down


def rounded(size: float) -> float:
    """The same values, of F32, as rows of 8 bits."""
    return size * INT8 / F32
