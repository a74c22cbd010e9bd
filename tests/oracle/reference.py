"""The network in plain numpy: MODEL.md sections 3 and 4 as something that runs.

Slow, obvious, and the judge of everything faster. Sizes in the comments, PyTorch order (rows first): T tokens
C canvas · K keys · V vocabulary · H hidden · A heads · G key/value heads · D head size · E experts
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import safetensors

Array = np.ndarray
Tokens = Sequence[int] | Array


@dataclass(frozen=True)
class LayerShape:
    sliding: bool
    head_dim: int
    kv_heads: int


@dataclass(frozen=True)
class Config:
    """config.json, in either of its two spellings."""

    hidden: int
    heads: int
    experts_used: int
    window: int
    eps: float
    soft_cap: float
    rope: dict[str, dict[str, Any]]
    layers: tuple[LayerShape, ...]
    canvas: int

    @classmethod
    def read(cls, folder: Path) -> Config:
        root = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        text = root["text_config"]
        return cls(
            hidden=text["hidden_size"],
            heads=text["num_attention_heads"],
            experts_used=text["top_k_experts"],
            window=text["sliding_window"],
            eps=text["rms_norm_eps"],
            # transformers saves the cap only where it was given
            soft_cap=text.get("final_logit_softcapping", 30.0),
            rope=text["rope_parameters"],
            layers=tuple(_layer_shapes(text)),
            canvas=root["canvas_length"],
        )


def _layer_shapes(text: dict[str, Any]) -> list[LayerShape]:
    """Head size and key/value heads of each layer: the general ones, unless its own are given."""
    own = {int(i): sizes for i, sizes in text.get("per_layer_config", {}).items()}
    if not own:
        full = {"head_dim": text["global_head_dim"], "num_key_value_heads": text["num_global_key_value_heads"]}
        own = {i: full for i, kind in enumerate(text["layer_types"]) if kind == "full_attention"}
    shapes = []
    for i, kind in enumerate(text["layer_types"]):
        sizes = text | own.get(i, {})
        shapes.append(LayerShape(kind == "sliding_attention", sizes["head_dim"], sizes["num_key_value_heads"]))
    return shapes


def read_weights(folder: Path, dtype: type) -> dict[str, Array]:
    """Every text tensor of every shard, by its name, converted to ``dtype``."""
    weights = {}
    for shard in sorted(folder.glob("*.safetensors")):
        for name, entry in safetensors.deserialize(shard.read_bytes()):
            if "vision" in name:
                continue
            if entry["dtype"] == "BF16":  # the upper half of a float32
                values = (np.frombuffer(entry["data"], "<u2").astype(np.uint32) << 16).view(np.float32)
            else:
                values = np.frombuffer(entry["data"], "<f4")
            weights[name] = values.reshape(entry["shape"]).astype(dtype)
    return weights


# --- pieces ---------------------------------------------------------------------------------------------------------


def rms(x: Array, weight: Array | None = None, eps: float = 1e-6) -> Array:
    """x / sqrt(mean x²) over the last axis, times the weight as it is stored."""
    normed = x / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + x.dtype.type(eps))
    return normed if weight is None else normed * weight


def gelu(x: Array) -> Array:
    """The tanh form."""
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi).astype(x.dtype) * (x + 0.044715 * x * x * x)))


def softmax(x: Array) -> Array:
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def gated(x: Array, gate: Array, up: Array, down: Array) -> Array:
    """down(gelu(gate x) · up x), matrices as stored: [out, in]."""
    return (gelu(x @ gate.T) * (x @ up.T)) @ down.T


def rope_frequencies(rope: dict[str, Any], head_dim: int) -> Array:
    """One frequency for each pair of dimensions [D/2]; a proportional rope turns the first part of them only.

    float32 whatever the rest is computed in, like the angles: at position 1500 their rounding is 1e-4 of a radian, so
    it is part of what the reference defines.
    """
    exponent = np.arange(0, head_dim, 2, dtype=np.float32) / np.float32(head_dim)
    frequencies = np.float32(1) / np.float32(rope["rope_theta"]) ** exponent
    turning = int(rope.get("partial_rotary_factor", 1.0) * head_dim // 2)
    frequencies[turning:] = 0
    return frequencies


def rotate(x: Array, positions: Array, frequencies: Array) -> Array:
    """Rotary position embedding of x [T, heads, D]: dimension i turns with i + D/2."""
    angles = positions.astype(np.float32)[:, None] * frequencies  # [T, D/2]
    cos, sin = (f(angles)[:, None, :].astype(x.dtype) for f in (np.cos, np.sin))  # [T, 1, D/2]
    a, b = np.split(x, 2, axis=-1)
    return np.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1)


def attend(q: Array, k: Array, v: Array, mask: Array | None) -> Array:
    """q [T, A, D], k and v [K, G, D], mask [T, K] (True: seen) -> [T, A·D]. Scale 1; A/G heads share a key."""
    group = q.shape[1] // k.shape[1]
    q = q.transpose(1, 0, 2)  # [A, T, D]
    k, v = (np.repeat(x.transpose(1, 0, 2), group, axis=0) for x in (k, v))  # [A, K, D]
    scores = q @ k.transpose(0, 2, 1)  # [A, T, K]
    if mask is not None:
        scores = np.where(mask, scores, -np.inf)
    return (softmax(scores) @ v).transpose(1, 0, 2).reshape(q.shape[1], -1)


# --- the network ----------------------------------------------------------------------------------------------------


@dataclass
class Cache:
    """Keys and values of every encoded position, by layer: [n, G, D]. Who may see what is decided on reading."""

    keys: list[Array] = field(default_factory=list)
    values: list[Array] = field(default_factory=list)
    length: int = 0

    def append(self, layer: int, k: Array, v: Array) -> None:
        if layer == len(self.keys):
            self.keys.append(k)
            self.values.append(v)
        else:
            self.keys[layer] = np.concatenate([self.keys[layer], k])
            self.values[layer] = np.concatenate([self.values[layer], v])


class Reference:
    """One checkpoint. ``encode`` fills a cache; ``decode`` reads it and gives logits for a canvas."""

    def __init__(self, folder: Path, dtype: type = np.float32) -> None:
        self.config = Config.read(folder)
        self.weights = read_weights(folder, dtype)
        self.dtype = dtype
        self.embeddings = self.weights["model.decoder.embed_tokens.weight"]  # [V, H]
        self.router_margin = np.inf  # smallest gap seen between the last expert taken and the first left out

    def encode(self, tokens: Tokens, cache: Cache) -> None:
        """Append tokens to the cache. The encoder is causal, so the pieces in which they come make no difference."""
        positions = cache.length + np.arange(len(tokens))
        x = self._embed(tokens)  # [T, H]
        for i in range(len(self.config.layers)):
            x = self._layer(i, x, lambda n, i=i: self._encoder_attention(i, n, positions, cache), "encoder")
        cache.length += len(tokens)

    def decode(self, canvas: Tokens, cache: Cache, previous: Array | None = None) -> Array:
        """Logits [C, V] after the soft-cap, before any temperature.

        previous: what the step before was sampled from, logits divided by temperature [C, V]; None on a first step.
        """
        positions = cache.length + np.arange(len(canvas))
        x = rms(self._embed(canvas) + self._self_conditioning(previous), eps=self.config.eps)  # [C, H]
        for i in range(len(self.config.layers)):
            x = self._layer(i, x, lambda n, i=i: self._decoder_attention(i, n, positions, cache), "decoder")
        logits = rms(x, self.weights["model.decoder.norm.weight"], self.config.eps) @ self.embeddings.T
        cap = self.dtype(self.config.soft_cap)
        return cap * np.tanh(logits / cap)

    def _embed(self, tokens: Tokens) -> Array:
        return self.embeddings[np.asarray(tokens)] * self.dtype(np.sqrt(self.config.hidden))  # [T, H]

    def _self_conditioning(self, previous: Array | None) -> Array:
        """What the step before believed, as a vector for each position [C, H]."""
        if previous is None:
            return self.dtype(0)
        soft = softmax(previous.astype(self.dtype)) @ self.embeddings * self.dtype(np.sqrt(self.config.hidden))
        w = {name: self.weights[f"model.decoder.self_conditioning.{name}.weight"] for name in
             ("pre_norm", "gate_proj", "up_proj", "down_proj")}  # fmt: skip
        return gated(rms(soft, w["pre_norm"], self.config.eps), w["gate_proj"], w["up_proj"], w["down_proj"])

    def _layer(self, i: int, x: Array, attention: Callable[[Array], Array], side: str) -> Array:
        """x [T, H] -> [T, H]. Encoder and decoder differ in the attention and in the scalar at the end."""
        norm = lambda x, name: rms(x, self._weight(i, name + ".weight"), self.config.eps)  # noqa: E731

        h = x + norm(attention(norm(x, "input_layernorm")), "post_attention_layernorm")

        mlp = (self._weight(i, f"mlp.{name}_proj.weight") for name in ("gate", "up", "down"))
        dense = norm(gated(norm(h, "pre_feedforward_layernorm"), *mlp), "post_feedforward_layernorm_1")

        experts, shares = self._route(i, h)  # on h itself, not on the normalised input of the experts
        moe = self._experts(i, norm(h, "pre_feedforward_layernorm_2"), experts, shares)
        moe = norm(moe, "post_feedforward_layernorm_2")

        return (h + norm(dense + moe, "post_feedforward_layernorm")) * self._scalar(i, side)

    def _route(self, i: int, h: Array) -> tuple[Array, Array]:
        """The experts of each token [T, k], and the weight of each one's answer [T, k]."""
        r = rms(h, eps=self.config.eps) * self._weight(i, "router.scale") * self.dtype(self.config.hidden**-0.5)
        p = softmax(r @ self._weight(i, "router.proj.weight").T)  # [T, E]
        order = np.argsort(-p, axis=-1, kind="stable")
        used = self.config.experts_used
        taken, ranked = order[:, :used], np.take_along_axis(p, order, axis=-1)
        if used < p.shape[-1]:
            self.router_margin = min(self.router_margin, float((ranked[:, used - 1] - ranked[:, used]).min()))
        shares = ranked[:, :used] / ranked[:, :used].sum(axis=-1, keepdims=True)
        return taken, shares * self._weight(i, "router.per_expert_scale")[taken]

    def _experts(self, i: int, m: Array, experts: Array, shares: Array) -> Array:
        """Σ over each token's experts of share · expert(m): [T, H]."""
        gate_up, down = self._weight(i, "experts.gate_up_proj"), self._weight(i, "experts.down_proj")
        total = np.zeros_like(m)
        for expert in np.unique(experts):
            token, place = np.nonzero(experts == expert)
            gate, up = np.split(gate_up[expert], 2)  # gate rows first
            total[token] += gated(m[token], gate, up, down[expert]) * shares[token, place, None]
        return total

    def _heads(self, i: int, n: Array, positions: Array) -> tuple[Array, Array, Array]:
        """q [T, A, D], k and v [T, G, D] of one layer."""
        shape = self.config.layers[i]
        frequencies = rope_frequencies(
            self.config.rope["sliding_attention" if shape.sliding else "full_attention"], shape.head_dim
        )

        def project(name: str) -> Array:
            return (n @ self._weight(i, f"self_attn.{name}_proj.weight").T).reshape(len(n), -1, shape.head_dim)

        q, k = project("q"), project("k")
        v = project("v") if shape.sliding else k  # full layers have no value matrix: the raw keys serve
        q, k = (
            rms(x, self._weight(i, f"self_attn.{name}_norm.weight"), self.config.eps)
            for name, x in zip("qk", (q, k), strict=True)
        )
        return rotate(q, positions, frequencies), rotate(k, positions, frequencies), rms(v, eps=self.config.eps)

    def _encoder_attention(self, i: int, n: Array, positions: Array, cache: Cache) -> Array:
        """Each position sees itself and what came before it, in sliding layers no further than the window."""
        q, k, v = self._heads(i, n, positions)
        cache.append(i, k, v)
        distance = positions[:, None] - np.arange(len(cache.keys[i]))  # [T, K]
        mask = distance >= 0
        if self.config.layers[i].sliding:
            mask &= distance < self.config.window
        return attend(q, cache.keys[i], cache.values[i], mask) @ self._weight(i, "self_attn.o_proj.weight").T

    def _decoder_attention(self, i: int, n: Array, positions: Array, cache: Cache) -> Array:
        """Each sees the whole canvas and the cache, in sliding layers only the last window - 1 positions of it."""
        q, k, v = self._heads(i, n, positions)
        first = max(0, cache.length - (self.config.window - 1)) if self.config.layers[i].sliding else 0
        k = np.concatenate([cache.keys[i][first:], k])  # [K, G, D]
        v = np.concatenate([cache.values[i][first:], v])
        return attend(q, k, v, None) @ self._weight(i, "self_attn.o_proj.weight").T

    def _weight(self, i: int, name: str) -> Array:
        return self.weights[f"model.decoder.layers.{i}.{name}"]

    def _scalar(self, i: int, side: str) -> Array:
        where = "encoder.language_model" if side == "encoder" else "decoder"
        return self.weights[f"model.{where}.layers.{i}.layer_scalar"]


def replay(model: Reference, case: Any, pieces: Sequence[int] | None = None) -> Array:
    """Logits [B, S, R, V] of a network case (arrays: see cases.py), its prompt encoded in pieces or at once."""
    cache = Cache()
    for piece in np.split(case.prompt, np.cumsum(pieces)[:-1]) if pieces is not None else [case.prompt]:
        model.encode(piece, cache)
    logits = []
    for block, canvases in enumerate(case.canvas):
        previous = None
        for canvas, temperature in zip(canvases, case.temperature, strict=True):
            full = model.decode(canvas, cache, previous)
            previous = full / model.dtype(temperature)
            logits.append(full[case.rows])
        if block < len(case.finished):
            model.encode(case.finished[block], cache)
    return np.stack(logits).reshape(*case.canvas.shape[:2], len(case.rows), -1)
