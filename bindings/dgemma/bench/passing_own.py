"""Layers and head by our kernels, all but how attention mixes values (cuda/card_layers.cpp)."""

from __future__ import annotations

from .passing import Passing, Shapes, rounded, total

_QUEUES = 2  # from our queue to ggml's and back, each counted as a launch


class OwnStep:
    """The launches of each part, and what passes between them."""

    def __init__(self, shapes: Shapes) -> None:
        self._shapes = shapes
        self._hidden = shapes.hidden
        self._row = rounded(shapes.hidden)  # what products read

    def attention(self, layer: str) -> Passing:
        """Projections; place_heads; ggml's three, as in ``GgmlStep``; round_rows, the output's product, end_attention,
        which writes the residual, the router's rows, and those of the dense feed-forward and of the experts."""
        q, k = (self._shapes.rows(f"{layer}attn_{name}") for name in "qk")
        names = self._shapes.projections(layer)
        projections = total(*(Passing(0, (self._row, self._shapes.rows(name))) for name in names))
        types = {self._shapes.tensors[f"{name}.weight"].type for name in names}  # a launch each
        return total(
            projections,
            Passing(len(types) + 1, (q, q, k, k / 2, k, k / 2)),
            Passing(_QUEUES + 3, (q, q)),
            Passing(2, (q, rounded(q), rounded(q), self._hidden)),
            Passing(1, (self._hidden,) * 4 + (self._row,) * 2),
        )

    def dense_ffn(self, layer: str) -> Passing:
        return self._ffn(f"{layer}ffn_")

    def router(self, layer: str) -> Passing:
        """multiply_router, choose_experts, order_pairs."""
        scores = self._shapes.rows(f"{layer}ffn_gate_inp")
        return Passing(3, (self._hidden, scores, scores))

    def experts(self, layer: str) -> Passing:
        """gate_up_tile, down_tile, end_layer, which writes the residual and the next layer's rows."""
        _, gated, down = self._shapes.experts(layer)
        products = (self._row * self._shapes.used, rounded(gated), rounded(gated), down)
        return Passing(3, (*products, down, self._hidden, self._hidden, self._hidden, self._row))

    def embedding(self) -> Passing:
        """The tokens' rows; two masks; norm_rows, the feed-forward, begin_decoder."""
        rows, norm = Passing(3, (self._hidden,)), Passing(1, (self._hidden, self._row))
        return total(rows, norm, self._ffn("self_cond_"), Passing(1, (self._hidden,) * 3 + (self._row,)))

    def head(self) -> Passing:
        return Passing(1, (self._row, self._shapes.rows("token_embd")))

    def _ffn(self, name: str) -> Passing:
        """gated_tile and dense_tile."""
        gated = rounded(self._shapes.rows(name + "up"))
        return Passing(2, (self._row, gated, gated, self._hidden))
