"""Our kernels' products by the instructions of their machine code, which bound them where memory does not."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

from .passing import Shapes

if TYPE_CHECKING:
    from .._core import GgufInfo, GgufTensor

# Instructions a clock and multiprocessor: all of the cards here issue four, of which these kernels reach so many
# (assumed).
_ISSUED = 4 * 0.63
_WARPS = 8  # of a block


@dataclass(frozen=True)
class Launch:
    """``instructions``: of all warps of a block."""

    blocks: float
    instructions: float

    def seconds(self, multiprocessors: int, clock: float) -> float:
        """A multiprocessor computes whole blocks."""
        return math.ceil(self.blocks / multiprocessors) * self.instructions / _ISSUED / clock


@dataclass(frozen=True)
class Tile:
    """What a block multiplies: so many rows of weights by so many tokens (experts: pairs). ``turn``: the instructions
    of a warp for so many columns, by the weights' type; ``ends``: before and after."""

    rows: int
    tokens: int
    columns: int
    turn: Mapping[str, float]
    ends: float

    def launch(self, tiles: float, k: int, type: str, shares: int = 1) -> Launch:
        """Of products of k columns, which are shared out among so many blocks."""
        turns = math.ceil(k / self.columns / shares)
        return Launch(tiles * shares, _WARPS * (turns * self.turn[type.lower()] + self.ends))


@dataclass(frozen=True)
class Tiles:
    dense: tuple[Tile, ...]  # of which the one that needs the least time is taken
    gated: Tile
    experts: Tile
    shares: int  # of the columns of products whose sums another kernel reads anyway


_TYPES = ("q4_k", "q5_k", "q8_0", "q5_0", "q5_1", "q4_0", "q4_1", "iq4_xs", "iq4_nl", "q6_k")  # experts: not the last


def _turns(*of_types: float) -> dict[str, float]:
    return dict(zip(_TYPES, of_types, strict=True))


def _expert_turns(*of_types: float) -> dict[str, float]:
    return dict(zip(_TYPES[:-1], of_types, strict=True))


# Counted in sm_90's machine code (docs/count_instructions.py): a loop's instructions, less the branches that are not
# taken. Of the experts' with 2.5 of a tile's four octets of pairs in use, which 16 pairs for each expert come to.
_DENSE = Tile(64, 64, 128, _turns(416, 474, 403, 493, 477, 412, 408, 517, 506, 593), ends=370)
INT8 = Tiles(
    dense=(_DENSE,),
    gated=_DENSE,
    experts=Tile(64, 32, 128, _expert_turns(170, 200, 205, 258, 243, 208, 203, 224, 253), ends=700),
    shares=2,
)
_DENSE_128 = Tile(128, 64, 128, _turns(359, 420, 364, 421, 383, 332, 306, 491, 456, 529), ends=1000)
_DENSE_96 = Tile(96, 64, 128, _turns(316, 361, 307, 350, 322, 283, 264, 421, 371, 447), ends=900)
BF16 = Tiles(
    dense=(_DENSE_128, _DENSE_96),
    gated=_DENSE_128,
    experts=Tile(128, 32, 256, _expert_turns(348, 434, 430, 582, 512, 388, 360, 703, 636), ends=450),
    shares=1,
)


def has_products(info: GgufInfo) -> bool:
    """Whether our kernels multiply by all of a file's quantised weights."""
    for tensor in info.tensors:
        tile = INT8.experts if len(tensor.shape) == 3 else INT8.gated
        is_weight = len(tensor.shape) > 1 and "ffn_gate_inp" not in tensor.name
        if is_weight and tensor.type.lower() not in tile.turn:
            return False
    return True


def product_launches(shapes: Shapes, layers: int, tiles: Tiles, multiprocessors: int) -> dict[str, list[Launch]]:
    """By part, of all layers."""
    step = _Products(shapes, tiles, multiprocessors)
    found: dict[str, list[Launch]] = {part: [] for part in ("attention", "dense_ffn", "experts")}
    for i in range(layers):
        layer = f"blk.{i}."
        found["attention"] += [*step.projections(layer), step.shared(f"{layer}attn_output")]
        found["dense_ffn"] += step.ffn(f"{layer}ffn_")
        found["experts"] += [step.experts(f"{layer}ffn_{name}_exps") for name in ("gate_up", "down")]
    return found | {"embedding": step.ffn("self_cond_"), "head": [step.dense(["token_embd"])]}


class _Products:
    def __init__(self, shapes: Shapes, tiles: Tiles, multiprocessors: int) -> None:
        self._shapes = shapes
        self._tiles = tiles
        self._multiprocessors = multiprocessors

    def projections(self, layer: str) -> Iterator[Launch]:
        """Those by weights of one type are one launch."""

        def type_of(name: str) -> str:
            return self._weight(name).type

        for _, names in groupby(sorted(self._shapes.projections(layer), key=type_of), type_of):
            yield self.dense(list(names))

    def ffn(self, prefix: str) -> list[Launch]:
        return [self._launch([prefix + "gate", prefix + "up"], self._tiles.gated), self.shared(prefix + "down")]

    def dense(self, names: list[str]) -> Launch:
        return self._quickest([self._launch(names, tile) for tile in self._tiles.dense])

    def shared(self, name: str) -> Launch:
        return self._quickest([self._launch([name], tile, self._tiles.shares) for tile in self._tiles.dense])

    def experts(self, name: str) -> Launch:
        weight, tile = self._weight(name), self._tiles.experts
        k, rows, experts = weight.shape
        pairs = self._shapes.canvas * self._shapes.used / experts
        tiles_of_one = max(1.0, pairs / tile.tokens)  # of an expert; all of them are in use
        return tile.launch(rows / tile.rows * experts * tiles_of_one, k, weight.type)

    def _quickest(self, launches: list[Launch]) -> Launch:
        return min(launches, key=lambda launch: launch.seconds(self._multiprocessors, 1.0))

    def _launch(self, names: list[str], tile: Tile, shares: int = 1) -> Launch:
        weights = [self._weight(name) for name in names]
        row_tiles = sum(math.ceil(weight.shape[1] / tile.rows) for weight in weights)
        token_tiles = math.ceil(self._shapes.canvas / tile.tokens)
        return tile.launch(row_tiles * token_tiles, weights[0].shape[0], weights[0].type, shares)

    def _weight(self, name: str) -> GgufTensor:
        return self._shapes.tensors[f"{name}.weight"]
