"""What one denoising step must do, from the shapes in the file's header: operations and bytes of weights, by part."""

from __future__ import annotations

import math
from collections.abc import Iterator
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
    """One multiplication and one addition are two operations."""

    operations: float = 0.0
    bytes: float = 0.0

    def __add__(self, other: Work) -> Work:
        return Work(self.operations + other.operations, self.bytes + other.bytes)


def step_work(info: GgufInfo, n_past: int) -> dict[str, Work]:
    """A step over one canvas after ``n_past`` tokens. Self-conditioning is counted as the dense product: where rows are
    sharp, the engine does a small part of it. The cache is counted at 16 bits."""
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
            add("self_conditioning", Work(2.0 * values * canvas, tensor.n_bytes))
            add("head", Work(2.0 * values * canvas, tensor.n_bytes))
            # The sampler reads each logit once at the least.
            add("sampler", Work(0.0, 4.0 * canvas * tensor.shape[1]))
        part = _part(tensor)
        if part == "experts" and len(tensor.shape) == 3:
            add(part, Work(2.0 * values * canvas * share, tensor.n_bytes * touched))
        elif part is not None:
            add(part, Work(2.0 * values * canvas, tensor.n_bytes))
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
        yield Work(4.0 * keys * canvas * width, 4.0 * keys * widths[layer + "attn_k.weight"])


def _number(metadata: dict[str, object], key: str) -> int:
    value = metadata[key]
    assert isinstance(value, int)
    return value
