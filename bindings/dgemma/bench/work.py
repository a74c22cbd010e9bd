"""What one denoising step must do, from the shapes in the file's header: operations and bytes of weights, by part."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .._core import GgufInfo, GgufTensor

_PARTS = (  # the first that a tensor's name contains
    ("_exps", "experts"),
    ("ffn_gate_inp", "router"),
    ("self_cond", "embedding"),
    (".attn_q.", "attention"),
    (".attn_k.", "attention"),
    (".attn_v.", "attention"),
    (".attn_output.", "attention"),
    (".ffn_gate.", "dense_ffn"),
    (".ffn_up.", "dense_ffn"),
    (".ffn_down.", "dense_ffn"),
)


@dataclass(frozen=True)
class Work:
    """Operations by what they multiply, of which machine.limits() has a rate each: quantised weights (int8), 16-bit
    values (bf16) or others (f32). One multiplication and one addition are two operations."""

    int8: float = 0.0
    bf16: float = 0.0
    f32: float = 0.0
    bytes: float = 0.0

    def __add__(self, other: Work) -> Work:
        return Work(self.int8 + other.int8, self.bf16 + other.bf16, self.f32 + other.f32, self.bytes + other.bytes)

    @property
    def operations(self) -> float:
        return self.int8 + self.bf16 + self.f32

    def least_seconds(self, limits: Mapping[str, float | None]) -> float:
        """What the operations take at the limits; without an int8 kernel, quantised weights are multiplied at the
        fastest of the others."""
        f32 = limits["f32_ops_per_second"]
        assert f32 is not None
        bf16 = limits["bf16_ops_per_second"] or f32
        assert f32 is not None
        int8 = limits["int8_ops_per_second"] or max(bf16, f32)
        return self.int8 / int8 + self.bf16 / bf16 + self.f32 / f32


def _product(type: str, operations: float, n_bytes: float) -> Work:
    """With weights of a type, by ggml's name of it."""
    kind = {"f32": "f32", "f16": "bf16", "bf16": "bf16"}.get(type, "int8")
    return Work(bytes=n_bytes, **{kind: operations})


def step_work(info: GgufInfo, n_past: int) -> dict[str, Work]:
    """A step over one canvas after ``n_past`` tokens. Self-conditioning is counted as the dense product, in 8 bits
    unless the embedding is F32: where rows are sharp, the engine does a small part of it. Attention's scores and mixing
    are counted at 16 bits, which is what the cache holds."""
    meta = {key.removeprefix("diffusion-gemma."): value for key, value in info.metadata.items()}
    canvas = _number(info.metadata, "diffusion.canvas_length")
    used, experts = _number(meta, "expert_used_count"), _number(meta, "expert_count")
    share = used / experts  # of the experts that one token goes to
    touched = 1 - (1 - share) ** canvas  # that any token of the canvas goes to, were routes random
    work: dict[str, Work] = {}

    def add(part: str, one: Work) -> None:
        work[part] = work.get(part, Work()) + one

    for tensor in info.tensors:
        values = math.prod(tensor.shape)
        if tensor.name == "token_embd.weight":
            soft = "f32" if tensor.type == "f32" else "q8_0"  # as the engine multiplies it
            add("self_conditioning", _product(soft, 2.0 * values * canvas, tensor.n_bytes))
            add("head", _product(tensor.type, 2.0 * values * canvas, tensor.n_bytes))
            # The sampler reads each logit once at the least.
            add("sampler", Work(bytes=4.0 * canvas * tensor.shape[1]))
        part = _part(tensor)
        if part == "experts" and len(tensor.shape) == 3:
            add(part, _product(tensor.type, 2.0 * values * canvas * share, tensor.n_bytes * touched))
        elif part is not None:
            add(part, _product(tensor.type, 2.0 * values * canvas, tensor.n_bytes))
    for layer in _attention(info, meta, canvas, n_past):
        add("attention", layer)
    return work


def _part(tensor: GgufTensor) -> str | None:
    if len(tensor.shape) < 2:
        return None
    return next((part for text, part in _PARTS if text in tensor.name), None)


def _attention(info: GgufInfo, meta: dict[str, object], canvas: int, n_past: int) -> Iterator[Work]:
    """Scores and mixing of each layer: its keys are all that is before the canvas, or the window, and the canvas."""
    window = _number(meta, "attention.sliding_window")
    widths = {tensor.name: tensor.shape[1] for tensor in info.tensors if len(tensor.shape) == 2}
    for name, width in widths.items():
        if not name.endswith(".attn_q.weight"):
            continue
        layer = name.removesuffix("attn_q.weight")
        sliding = layer + "attn_v.weight" in widths  # full layers have no values of their own
        keys = canvas + (min(n_past, window - 1) if sliding else n_past)
        yield Work(bf16=4.0 * keys * canvas * width, bytes=4.0 * keys * widths[layer + "attn_k.weight"])


def _number(metadata: dict[str, object], key: str) -> int:
    value = metadata[key]
    assert isinstance(value, int)
    return value
