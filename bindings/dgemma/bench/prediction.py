"""How long a denoising step should take on a card: a floor from what the card can do, and what to expect of the kernels
as they are. Written down before a card was at hand, so that a report can prove it wrong (docs/cuda.md).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from .own_products import BF16, INT8, product_launches
from .passing import Passing
from .step_passing import step_passing, step_shapes
from .work import Work, step_work

if TYPE_CHECKING:
    from .._core import GgufInfo


@dataclass(frozen=True)
class Card:
    """What a card can do, per second: bytes copied (read and written ones), operations on its tensor cores (dense;
    ``f16`` with F32 sums) and in F32. ``cache``: bytes of its second level."""

    name: str
    copy: float
    int8: float
    f16: float
    f32: float
    cache: float
    multiprocessors: int
    clock: float
    fast_bf16: bool = False  # which our products then use, in place of 8 bits


CARDS = {
    card.name: card
    for card in (
        # Copy and f16 as measured (bf16 products); the rest, and the clock at which NVIDIA states the tensor cores'
        # rates, from its paper on the H100, whose chip the H200 has.
        Card("H200", 4.3e12, 1979e12, 790e12, 67e12, 50e6, 132, 1.83e9, fast_bf16=True),
        Card("H100", 3.0e12, 1979e12, 798e12, 67e12, 50e6, 132, 1.83e9, fast_bf16=True),
        # NVIDIA's papers on Ada and on Ampere GA102; copy is what the memory is rated at.
        Card("RTX 4090", 1.008e12, 660.6e12, 165.2e12, 82.6e12, 75.5e6, 128, 2.52e9),
        Card("RTX 3090", 0.936e12, 284e12, 71e12, 35.6e12, 6.29e6, 82, 1.695e9),
        Card("L4", 0.3e12, 242e12, 121e12, 30.3e12, 50.3e6, 58, 2.04e9),
    )
}


# ggml's products, int8 operations a clock and multiprocessor. What bounds them is not the tensor cores but the
# instructions around them, of which all of these cards issue four, so one figure serves them all.
# With 256 columns: llama-bench of Llama 3 8B (7.0 G weights in its layers) at a microbatch of 256, llama.cpp's pull
# requests 7860 and 8062. RTX 3090, Q6_K: 3459 tokens/s, so 48 Top/s, 347; RTX 4090, Q4_K: 8555, 370.
DENSE_RATE = 350.0
# By expert: what is left of Gemma 4 26B-A4B, the same layers in the same types, at a microbatch of 256 on an RTX 3090
# (2661 tokens/s, pull request 22298: 96.2 ms), when the other parts are taken off at the rates here.
EXPERT_RATE = 75.0
MATRIX_SHARE = 0.5  # of the f16 and f32 rates: assumed
COPY_SHARE = 0.9  # of the copy rate: assumed
LAUNCH_SECONDS = 2e-6  # between two kernels of a CUDA graph, one draining and one filling the card: assumed


@dataclass(frozen=True)
class Part:
    """Seconds of one part of a step. ``bound``: by "memory", "products" or "launches", whichever is most expected."""

    work: Work
    passing: Passing
    bytes: float
    floor: float
    expected: float
    bound: str


def predict_step(info: GgufInfo, n_past: int, card: Card, *, own_layers: bool = False) -> dict[str, Part]:
    """By part, for rows that are sure of their tokens, which most are after the first steps."""
    work = step_work(info, n_past) | {"self_conditioning": _sharp_rows(info)}
    passing = step_passing(info, own_layers=own_layers)
    assert work.keys() == passing.keys(), (work.keys(), passing.keys())
    own = _own_products(info, card) if own_layers else {}

    def int8_seconds(name: str) -> float:
        if name in own:
            return own[name]
        rate = EXPERT_RATE if name == "experts" else DENSE_RATE
        return work[name].int8 / rate / card.multiprocessors / card.clock

    return {name: _part(work[name], passing[name], card, int8_seconds(name)) for name in passing}


def _own_products(info: GgufInfo, card: Card) -> dict[str, float]:
    """Seconds of what their kernels issue, by part."""
    launches = product_launches(*step_shapes(info), BF16 if card.fast_bf16 else INT8, card.multiprocessors)
    return {
        part: sum(launch.seconds(card.multiprocessors, card.clock) for launch in some)
        for part, some in launches.items()
    }


def _sharp_rows(info: GgufInfo) -> Work:
    """One row of the embedding for each position."""
    embedding = next(tensor for tensor in info.tensors if tensor.name == "token_embd.weight")
    canvas = info.metadata["diffusion.canvas_length"]
    assert isinstance(canvas, int)
    return Work(f32=2.0 * embedding.shape[0] * canvas, bytes=embedding.n_bytes / embedding.shape[1] * canvas)


def _part(work: Work, passing: Passing, card: Card, int8_seconds: float) -> Part:
    """``int8_seconds``: expected of the products with quantised weights."""
    n_bytes = work.bytes + passing.bytes_beyond(card.cache)
    limits = {
        "int8_ops_per_second": card.int8,
        "bf16_ops_per_second": card.f16,
        "f32_ops_per_second": card.f32,
    }
    seconds = {
        "memory": n_bytes / card.copy / COPY_SHARE,
        "products": int8_seconds + (work.bf16 / card.f16 + work.f32 / card.f32) / MATRIX_SHARE,
        "launches": passing.launches * LAUNCH_SECONDS,
    }
    expected = max(seconds["memory"], seconds["products"]) + seconds["launches"]
    floor = max(n_bytes / card.copy, work.least_seconds(limits))
    return Part(work, passing, n_bytes, floor, expected, max(seconds, key=lambda what: seconds[what]))
