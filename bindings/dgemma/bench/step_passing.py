"""What one denoising step makes a card do beside reading weights: the kernels that it launches, and the values that
pass between them, by part; all layers on one card (docs/cuda.md).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .passing import Passing, Shapes, total
from .passing_ggml import GgmlStep
from .passing_own import OwnStep

if TYPE_CHECKING:
    from .._core import GgufInfo


def step_passing(info: GgufInfo, *, own_layers: bool = False) -> dict[str, Passing]:
    """By part, the parts of ``step_work``. ``own_layers``: by our kernels in place of ggml's. Self-conditioning is
    that of rows which are sure of their token."""
    shapes, n_layer = step_shapes(info)
    step = OwnStep(shapes) if own_layers else GgmlStep(shapes)
    parts = {"attention": step.attention, "dense_ffn": step.dense_ffn, "router": step.router, "experts": step.experts}
    inside = {name: total(*(part(f"blk.{i}.") for i in range(n_layer))) for name, part in parts.items()}
    return inside | {
        "embedding": step.embedding(),
        "head": step.head(),
        # summarise_chunks, finish_rows, accept_positions; that the logits are read is in step_work.
        "sampler": Passing(3),
        "self_conditioning": Passing(4, (shapes.hidden,)),  # count_chunks, place_rows, list_chunks, sum_rows
    }


def step_shapes(info: GgufInfo) -> tuple[Shapes, int]:
    """And the number of layers."""
    canvas, used = (_number(info, key) for key in ("diffusion.canvas_length", "diffusion-gemma.expert_used_count"))
    shapes = Shapes({tensor.name: tensor for tensor in info.tensors}, canvas, used)
    return shapes, _number(info, "diffusion-gemma.block_count")


def _number(info: GgufInfo, key: str) -> int:
    value = info.metadata[key]
    assert isinstance(value, int)
    return value
