"""The dense products of a layer and the head at the released model's shapes, by our kernels in 8 bits and in BF16 and
by ggml's, for the types that mixes have there."""

from __future__ import annotations

import statistics
import sys
from pathlib import Path

import numpy as np

from .section import ROOT, Found

CANVAS = 256
# (name, columns, (type, rows) of each weight, whether they are gate and up)
PRODUCTS = [
    ("queries, keys, values", 2816, [("Q4_K", 4096), ("Q4_K", 2048), ("Q4_K", 2048)], False),
    ("queries, keys, values", 2816, [("Q4_K", 4096), ("Q4_K", 2048), ("Q6_K", 2048)], False),
    ("attention's output", 4096, [("Q4_K", 2816)], False),
    ("attention's output", 4096, [("IQ4_XS", 2816)], False),
    ("gate and up", 2816, [("Q4_K", 2112), ("Q4_K", 2112)], True),
    ("down", 2112, [("Q5_0", 2816)], False),
    ("down", 2112, [("Q8_0", 2816)], False),
    ("head", 2816, [("Q6_K", 262144)], False),
]
FARTHEST = 0.05  # |ours - ggml's| / |ggml's|: both round activations, each in its own way


def products(folder: Path) -> Found:
    from dgemma._core import time_dense

    sys.path[:0] = [str(ROOT / "tests" / "cuda"), str(ROOT / "tests")]
    from expert_problems import quantized

    random = np.random.default_rng(0)
    rows = []
    for name, k, weights, is_gated in PRODUCTS:
        few = random.normal(0, k**-0.5, (64, k)).astype(np.float32)  # again and again: as many bytes, sooner made
        given = [(np.tile(quantized(few, kind), (n // 64, 1)), kind) for kind, n in weights]
        x = random.standard_normal((CANVAS, k), dtype=np.float32)
        times = time_dense(x=x, weights=given, is_gated=is_gated, n_runs=50)
        operations = 2 * CANVAS * k * sum(n for _, n in weights)
        types = ", ".join(kind for kind, _ in weights)
        n_bytes = sum(weight.nbytes for weight, _ in given)
        rows.append({"name": name, "types": types, "bytes": n_bytes, "operations": operations, **times})
    return {"products": rows}


def product_lines(found: Found) -> list[str]:
    lines = [
        f"{CANVAS} tokens, what one layer or the head multiplies; median of the batches in ms and Top/s, and how far "
        "our results are from ggml's. A layer's weights stay in a large cache from run to run, and rounding the rows "
        "is in ggml's time but not in ours:",
        "",
        "| product | types | MB | ggml, ms | Top/s | 8 bits, ms | Top/s | apart | BF16, ms | Top/s | apart |",
        "|---|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for row in found["products"]:
        ms = {kind: statistics.median(row[kind]) for kind in ("ggml", "int8", "bf16")}
        rates = {kind: f"{one:.4f} | {row['operations'] / one / 1e9:.0f}" for kind, one in ms.items()}
        lines.append(
            f"| {row['name']} | {row['types']} | {row['bytes'] / 1e6:.1f} | {rates['ggml']} | {rates['int8']} | "
            f"{row['int8_distance']:.4f} | {rates['bf16']} | {row['bf16_distance']:.4f} |"
        )
    return lines


def product_problem(found: Found) -> str:
    far = [
        f"{row['name']} ({row['types']}) in {kind}"
        for row in found["products"]
        for kind, apart in (("8 bits", row["int8_distance"]), ("BF16", row["bf16_distance"]))
        if not apart < FARTHEST
    ]
    return f"our dense products and ggml's are farther apart than {FARTHEST}: {'; '.join(far)}" if far else ""
