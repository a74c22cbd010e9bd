"""One layer's experts at the released model's shape, by our kernels in 8 bits and in BF16 and by ggml's, for each pair
of types."""

from __future__ import annotations

import statistics
import sys
from pathlib import Path

import numpy as np

from .section import ROOT, Found

CANVAS, N_EXPERTS = 256, 128
EXPERT = {"gate_up": (2 * 704, 2816), "down": (2816, 704)}
TYPES = [
    ("Q4_K", "Q5_0"),
    ("Q4_K", "Q8_0"),
    ("Q5_K", "Q5_1"),
    ("Q5_K", "Q8_0"),
    ("Q8_0", "Q8_0"),
    ("Q4_0", "Q4_0"),
    ("IQ4_XS", "IQ4_NL"),
    ("IQ4_XS", "Q5_0"),
]
FARTHEST = 0.05  # |ours - ggml's| / |ggml's|: both round activations to 8 bits, each in its own way


def experts(folder: Path) -> Found:
    from dgemma import BackendError
    from dgemma._core import time_experts

    sys.path[:0] = [str(ROOT / "tests" / "cuda"), str(ROOT / "tests")]
    from expert_problems import quantized

    random = np.random.default_rng(0)
    one = {name: random.normal(0, shape[1] ** -0.5, shape).astype(np.float32) for name, shape in EXPERT.items()}
    rows = []
    for gate_up, down in TYPES:
        # One expert's weights for all: as many bytes to read, in a fraction of the time to make.
        weights = {
            name: np.repeat(quantized(one[name][None], kind), N_EXPERTS, axis=0)
            for name, kind in (("gate_up", gate_up), ("down", down))
        }
        n_bytes = sum(rows.nbytes for rows in weights.values())
        layer = {
            "logits": random.standard_normal((CANVAS, N_EXPERTS), dtype=np.float32),
            "n_used": 8,
            "expert_scale": np.ones(N_EXPERTS, np.float32),
            "x": random.standard_normal((CANVAS, one["gate_up"].shape[1]), dtype=np.float32),
            **weights,
            "gate_up_type": gate_up,
            "down_type": down,
        }
        for is_bf16 in (False, True):
            try:
                times = time_experts(**layer, n_runs=50, is_bf16=is_bf16)
            except BackendError as error:
                if is_bf16 and "shared memory" in str(error):
                    continue  # of Q8_0: such cards have 8 bits
                raise
            rows.append({"gate_up": gate_up, "down": down, "is_bf16": is_bf16, "bytes": n_bytes, **times})
    return {"layers": rows}


def label(row: Found) -> str:
    return f"{row['gate_up']}, {row['down']}, {'BF16' if row['is_bf16'] else '8 bits'}"


def expert_lines(result: Found) -> list[str]:
    found = result["layers"]
    lines = [
        f"{CANVAS} tokens, 8 of {N_EXPERTS} experts; median of {len(found[0]['ours'])} batches, GB/s of "
        "the weights, and how far apart the two results are:",
        "",
        "| gate·up, down, our rows | MB | ours, ms | GB/s | ggml, ms | GB/s | apart |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for row in found:
        ms = {name: statistics.median(row[name]) for name in ("ours", "ggml")}
        columns = " | ".join(f"{ms[name]:.3f} | {row['bytes'] / ms[name] / 1e6:.0f}" for name in ms)
        lines.append(f"| {label(row)} | {row['bytes'] / 1e6:.0f} | {columns} | {row['distance']:.4f} |")
    names = list(found[0]["kernels"])
    lines += ["", "Each of our kernels alone, ms:", "", f"| gate·up, down, our rows | {' | '.join(names)} |"]
    lines.append("|---|" + "---:|" * len(names))
    for row in found:
        columns = " | ".join(f"{statistics.median(row['kernels'][name]):.4f}" for name in names)
        lines.append(f"| {label(row)} | {columns} |")
    return lines


def expert_problem(found: Found) -> str:
    bad = [label(row) for row in found["layers"] if not row["distance"] < FARTHEST]
    return f"our experts and ggml's are farther apart than {FARTHEST}: {'; '.join(bad)}" if bad else ""
