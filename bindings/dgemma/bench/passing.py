"""What one denoising step makes a card do beside reading weights: the kernels that it launches, and the values that
pass between them, by part. Read from ggml-cuda 0.25.3 and from our own kernels (docs/cuda.md), all layers on one card.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import reduce
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .._core import GgufInfo, GgufTensor

_F32 = 4.0
_INT8 = 1.125  # bytes a value, with the scale of every 32
_PRODUCT = 3  # launches: round the columns, multiply, add up tiles that were shared out
_BY_EXPERT = 1 + _PRODUCT  # before it, the tokens of each expert are listed


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


def step_passing(info: GgufInfo, *, own_experts: bool = False) -> dict[str, Passing]:
    """By part, the parts of ``step_work``. ``own_experts``: by our kernels in place of ggml's. Self-conditioning is
    that of rows which are sure of their token."""
    canvas, used = (_number(info, key) for key in ("diffusion.canvas_length", "diffusion-gemma.expert_used_count"))
    tensors = {tensor.name: tensor for tensor in info.tensors}
    step = _Step(tensors, canvas, used)
    layers = range(_number(info, "diffusion-gemma.block_count"))
    parts = {"attention": step.attention, "dense_ffn": step.dense_ffn, "router": step.router, "experts": step.experts}
    if own_experts:
        parts |= {"router": step.own_router, "experts": step.own_experts}
    inside = {name: _sum(*(part(f"blk.{i}.") for i in layers)) for name, part in parts.items()}
    return inside | step.outside()


class _Step:
    def __init__(self, tensors: Mapping[str, GgufTensor], canvas: int, used: int) -> None:
        self._tensors = tensors
        self._canvas = canvas
        self._used = used
        self._hidden = self._f32(tensors["token_embd.weight"].shape[0])

    def attention(self, layer: str) -> Passing:
        q, k = (self._f32(self._rows(f"{layer}attn_{name}")) for name in "qk")
        has_v = f"{layer}attn_v.weight" in self._tensors
        products = [f"{layer}attn_{name}" for name in ("q", "k", *(["v"] if has_v else []), "output")]
        rotated = _sum(_map(q, q), _map(k, k), _map(k, k))  # queries, keys; the values' norm
        cached = _sum(_map(k, k / 2), _map(k, k / 2))
        scores = Passing(3, (q, q))  # which keys the mask hides; scores and mixing; joining of shared out keys
        return _sum(self._norm(), *map(self._product, products), rotated, cached, scores, self._norm(added=True))

    def dense_ffn(self, layer: str) -> Passing:
        return _sum(self._norm(), self._ffn(f"{layer}ffn_"))

    def router(self, layer: str) -> Passing:
        """Norm, scale, product; then softmax, sort, the experts' own scales, two look-ups, a sum and a division."""
        return _sum(self._own_input(), self._scores(layer), Passing(7, (self._scores(layer).moved[-1],) * 8))

    def own_router(self, layer: str) -> Passing:
        """``choose_experts``, ``order_pairs``; and the change from ggml's queue to ours, counted as two launches."""
        return _sum(self._own_input(), self._scores(layer), Passing(2 + 2, self._scores(layer).moved[-1:]))

    def experts(self, layer: str) -> Passing:
        gate_up, gated, down = self._expert_values(layer)
        spread = self._used * self._hidden * _INT8 / _F32  # each token's row, once for each of its experts
        return _sum(
            self._norm(),
            Passing(_BY_EXPERT, (self._hidden, spread, spread, gate_up)),
            _map(gate_up, gated),
            Passing(_BY_EXPERT, (gated, gated * _INT8 / _F32, gated * _INT8 / _F32, down)),
            _map(down, self._hidden),
            self._joined(),
        )

    def own_experts(self, layer: str) -> Passing:
        """``round_groups``, ``gate_up_tile``, ``down_tile``, ``combine_vectors``; and the change of queue back."""
        _, gated, down = self._expert_values(layer)
        rounded, gated = self._hidden * _INT8 / _F32, gated * _INT8 / _F32
        kernels = Passing(4 + 2, (self._hidden, rounded, rounded, gated, gated, down, down, self._hidden))
        return _sum(self._norm(), kernels, self._joined())

    def outside(self) -> dict[str, Passing]:
        """Embedding, head and the vocabulary's side."""
        return {
            # The tokens' rows; their sum with self-conditioning, and its norm.
            "embedding": _sum(
                Passing(1, (self._hidden,)),
                self._norm(),
                self._ffn("self_cond_"),
                Passing(1, (self._hidden,) * 3),
                self._norm(),
            ),
            "head": _sum(self._norm(), self._product("token_embd")),
            # summarise_chunks, finish_rows, accept_positions; that the logits are read is in step_work.
            "sampler": Passing(3),
            "self_conditioning": Passing(4, (self._hidden,)),  # count_chunk, place_rows, list_chunk, sum_rows
        }

    def _f32(self, rows: int) -> float:
        """Bytes of so many values for each position."""
        return _F32 * rows * self._canvas

    def _rows(self, name: str) -> int:
        return self._tensors[f"{name}.weight"].shape[1]

    def _norm(self, added: bool = False) -> Passing:
        """With its weight, and the sum with another tensor, in one kernel."""
        return Passing(1, (self._hidden,) * (3 if added else 2))

    def _product(self, name: str) -> Passing:
        columns, rows = (self._f32(n) for n in self._tensors[f"{name}.weight"].shape)
        rounded = columns * _INT8 / _F32
        return Passing(_PRODUCT, (columns, rounded, rounded, rows))

    def _ffn(self, name: str) -> Passing:
        gated = self._f32(self._rows(name + "up"))
        return _sum(*(self._product(name + part) for part in ("gate", "up", "down")), Passing(1, (gated,) * 3))

    def _own_input(self) -> Passing:
        """The router's: a norm of its own, and a scale."""
        return _sum(self._norm(), _map(self._hidden, self._hidden))

    def _scores(self, layer: str) -> Passing:
        """A product of F32 weights, which rounds nothing."""
        return Passing(1, (self._hidden, self._f32(self._rows(f"{layer}ffn_gate_inp"))))

    def _expert_values(self, layer: str) -> tuple[float, float, float]:
        """Bytes of gate and up, of their product, and of down, for each token and each of its experts."""
        gate_up, down = (self._rows(f"{layer}ffn_{name}_exps") * self._used for name in ("gate_up", "down"))
        return self._f32(gate_up), self._f32(gate_up // 2), self._f32(down)

    def _joined(self) -> Passing:
        """What ends a layer: norms of both branches and their sum, its norm and the residual, the layer's scalar."""
        return _sum(self._norm(), self._norm(added=True), self._norm(added=True), _map(self._hidden, self._hidden))


def _map(read: float, written: float) -> Passing:
    return Passing(1, (read, written))


def _sum(*parts: Passing) -> Passing:
    return reduce(Passing.__add__, parts, Passing())


def _number(info: GgufInfo, key: str) -> int:
    value = info.metadata[key]
    assert isinstance(value, int)
    return value
