"""Layers and head by ggml: read from ggml-cuda 0.25.3."""

from __future__ import annotations

from .passing import Passing, Shapes, rounded, total

_PRODUCT = 3  # launches: round the columns, multiply, add up tiles that were shared out
_BY_EXPERT = 1 + _PRODUCT  # before it, the tokens of each expert are listed


class GgmlStep:
    """The launches of each part, and what passes between them."""

    def __init__(self, shapes: Shapes) -> None:
        self._shapes = shapes
        self._hidden = shapes.hidden

    def attention(self, layer: str) -> Passing:
        q, k = (self._shapes.rows(f"{layer}attn_{name}") for name in "qk")
        products = [*self._shapes.projections(layer), f"{layer}attn_output"]
        rotated = total(_map(q, q), _map(k, k), _map(k, k))  # queries, keys; the values' norm
        cached = total(_map(k, k / 2), _map(k, k / 2))
        scores = Passing(3, (q, q))  # which keys the mask hides; scores and mixing; joining of shared out keys
        return total(self._norm(), *map(self._product, products), rotated, cached, scores, self._norm(added=True))

    def dense_ffn(self, layer: str) -> Passing:
        return total(self._norm(), self._ffn(f"{layer}ffn_"))

    def router(self, layer: str) -> Passing:
        """Norm, scale, product; then softmax, sort, the experts' own scales, two look-ups, a sum and a division."""
        scores = self._shapes.rows(f"{layer}ffn_gate_inp")
        product = Passing(1, (self._hidden, scores))  # of F32 weights, which rounds nothing
        return total(self._norm(), _map(self._hidden, self._hidden), product, Passing(7, (scores,) * 8))

    def experts(self, layer: str) -> Passing:
        gate_up, gated, down = self._shapes.experts(layer)
        spread = self._shapes.used * rounded(self._hidden)  # each token's row, once for each of its experts
        return total(
            self._norm(),
            Passing(_BY_EXPERT, (self._hidden, spread, spread, gate_up)),
            _map(gate_up, gated),
            Passing(_BY_EXPERT, (gated, rounded(gated), rounded(gated), down)),
            _map(down, self._hidden),
            # Norms of both branches and their sum, its norm and the residual, the layer's scalar.
            *(self._norm(), self._norm(added=True), self._norm(added=True), _map(self._hidden, self._hidden)),
        )

    def embedding(self) -> Passing:
        """The tokens' rows; their sum with self-conditioning, and its norm."""
        joined = Passing(1, (self._hidden,) * 3)
        return total(Passing(1, (self._hidden,)), self._norm(), self._ffn("self_cond_"), joined, self._norm())

    def head(self) -> Passing:
        return total(self._norm(), self._product("token_embd"))

    def _norm(self, added: bool = False) -> Passing:
        """With its weight, and the sum with another tensor, in one kernel."""
        return Passing(1, (self._hidden,) * (3 if added else 2))

    def _product(self, name: str) -> Passing:
        columns, rows = self._shapes.columns(name), self._shapes.rows(name)
        return Passing(_PRODUCT, (columns, rounded(columns), rounded(columns), rows))

    def _ffn(self, name: str) -> Passing:
        gated = self._shapes.rows(name + "up")
        return total(*(self._product(name + part) for part in ("gate", "up", "down")), Passing(1, (gated,) * 3))


def _map(read: float, written: float) -> Passing:
    return Passing(1, (read, written))
