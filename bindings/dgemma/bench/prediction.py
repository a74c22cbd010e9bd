"""How long a denoising step should take on a card: a floor from what the card can do, and what to expect of the kernels
as they are. Written down before a card was at hand, so that a report can prove it wrong (docs/cuda.md).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from .passing import Passing
from .step_passing import step_passing
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


CARDS = {
    card.name: card
    for card in (
        # Copy and f16 as measured (bf16 products); the rest, and the clock at which NVIDIA states the tensor cores'
        # rates, from its paper on the H100, whose chip the H200 has.
        Card("H200", 4.3e12, 1979e12, 790e12, 67e12, 50e6, 132, 1.83e9),
        Card("H100", 3.0e12, 1979e12, 798e12, 67e12, 50e6, 132, 1.83e9),
        # NVIDIA's papers on Ada and on Ampere GA102; copy is what the memory is rated at.
        Card("RTX 4090", 1.008e12, 660.6e12, 165.2e12, 82.6e12, 75.5e6, 128, 2.52e9),
        Card("RTX 3090", 0.936e12, 284e12, 71e12, 35.6e12, 6.29e6, 82, 1.695e9),
        Card("L4", 0.3e12, 242e12, 121e12, 30.3e12, 50.3e6, 58, 2.04e9),
    )
}


@dataclass(frozen=True)
class Rates:
    """Operations a clock and multiprocessor of products with quantised weights. What bounds these kernels is not the
    tensor cores but the instructions around them, of which all of these cards issue four a clock and multiprocessor,
    so one figure serves them all."""

    dense: float
    experts: float


# ggml's products with 256 columns: llama-bench of Llama 3 8B (7.0 G weights in its layers) at a microbatch of 256,
# llama.cpp's pull requests 7860 and 8062. RTX 3090, Q6_K: 3459 tokens/s, so 48 Top/s, 347; RTX 4090, Q4_K: 8555, 370.
# By expert: what is left of Gemma 4 26B-A4B, the same layers in the same types, at a microbatch of 256 on an RTX 3090
# (2661 tokens/s, pull request 22298: 96.2 ms), when the other parts are taken off at the rates here.
GGML = Rates(dense=350.0, experts=75.0)
# Our kernels of 8 bits: the instructions of their loops in sm_90's machine code, issued at 63 % of the rate (assumed).
# Dense, Q4_K: 411 for 16 rows, 32 tokens and 128 columns. Experts: 202 M a layer of the released model.
OWN = Rates(dense=800.0, experts=300.0)
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
    rates = OWN if own_layers else GGML
    return {
        name: _part(work[name], passing[name], card, rates.experts if name == "experts" else rates.dense)
        for name in passing
    }


def _sharp_rows(info: GgufInfo) -> Work:
    """One row of the embedding for each position."""
    embedding = next(tensor for tensor in info.tensors if tensor.name == "token_embd.weight")
    canvas = info.metadata["diffusion.canvas_length"]
    assert isinstance(canvas, int)
    return Work(f32=2.0 * embedding.shape[0] * canvas, bytes=embedding.n_bytes / embedding.shape[1] * canvas)


def _part(work: Work, passing: Passing, card: Card, int8_rate: float) -> Part:
    n_bytes = work.bytes + passing.bytes_beyond(card.cache)
    limits = {
        "int8_ops_per_second": card.int8,
        "bf16_ops_per_second": card.f16,
        "f32_ops_per_second": card.f32,
    }
    reached: dict[str, float | None] = {
        "int8_ops_per_second": int8_rate * card.multiprocessors * card.clock,
        "bf16_ops_per_second": MATRIX_SHARE * card.f16,
        "f32_ops_per_second": MATRIX_SHARE * card.f32,
    }
    seconds = {
        "memory": n_bytes / card.copy / COPY_SHARE,
        "products": work.least_seconds(reached),
        "launches": passing.launches * LAUNCH_SECONDS,
    }
    expected = max(seconds["memory"], seconds["products"]) + seconds["launches"]
    floor = max(n_bytes / card.copy, work.least_seconds(limits))
    return Part(work, passing, n_bytes, floor, expected, max(seconds, key=lambda what: seconds[what]))
