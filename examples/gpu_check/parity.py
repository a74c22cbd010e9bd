"""Logits of the engine with all layers on the card against those of ``transformers``, which the fixtures hold."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from .section import ROOT, Found

# Relative rms error of rounding a value to F16, which the card does in attention; it is also TF32's.
ROUNDING = 2.0**-11 / 3**0.5
FACTORS = 6  # such roundings a layer
MARGIN = 4.0  # over the estimate, as the CPU's own test allows (tests/engine/test_parity.py)


def parity(folder: Path) -> Found:
    sys.path.insert(0, str(ROOT / "tests"))
    from dgemma.convert import convert
    from oracle.cases import NETWORK_CASES, checkpoint_for, load_case

    rows = []
    with tempfile.TemporaryDirectory() as place:
        for name in (case.name for case in NETWORK_CASES):
            case, model = load_case(name), Path(place, f"{name}.gguf")
            convert(checkpoint_for(case, Path(place)), model, type="f32")
            rows += [compare(model, case, name, exact=exact, layers=-1) for exact in (True, False)]
    return {"cases": rows}


def compare(model: Path, case: Any, name: str, *, exact: bool, layers: int) -> Found:
    """Every pass of one fixture. ``rms``: of the median row, the largest of all passes; ``bound``: what it may be."""
    from dgemma import Engine

    n_ctx = len(case.prompt) + case.canvas.shape[0] * case.canvas.shape[2]
    rms, largest, is_finite = 0.0, 0.0, True
    with Engine(model, n_ctx=n_ctx, exact=exact, n_gpu_layers=layers) as engine:
        session = engine.session()
        session.prefill(case.prompt)
        for block, canvases in enumerate(case.canvas):
            # First steps only: conditioning carries an expert that flipped on to every row.
            error = session.denoise(canvases[0])[case.rows] - case.logits[block, 0]
            is_finite &= bool(np.isfinite(error).all())
            rms = max(rms, float(np.median(np.sqrt((error**2).mean(axis=1)))))
            largest = max(largest, float(np.abs(error).max()))
            if block < len(case.finished):
                session.prefill(case.finished[block])
        bound = MARGIN * ROUNDING * (FACTORS * engine.info.n_layer) ** 0.5 * float(case.logits[0, 0].std())
        on_cpu = {use: n for use, n in engine.memory.get("CPU", {}).items() if n}
    found = {"name": name, "exact": exact, "rms": rms, "bound": bound, "largest": largest}
    return {**found, "finite": is_finite, "cpu_bytes": on_cpu}


def failed(row: Found) -> bool:
    """Off by more than rounding, or with layers on the CPU."""
    return not row["finite"] or row["rms"] > row["bound"] or "kv" in row["cpu_bytes"]


def parity_lines(found: Found) -> list[str]:
    lines = [
        f"All layers on the card, F32 weights, first steps; rms error of the median row. The bound is {MARGIN:.0f} "
        f"times what {FACTORS} roundings to F16 a layer do. Bytes on the CPU say what the scheduler left there.",
        "",
        "| fixture | mode | rms error | bound | largest error | on the CPU |",
        "|---|---|---:|---:|---:|---|",
    ]
    for row in found["cases"]:
        mode = "exact" if row["exact"] else "normal"
        left = ", ".join(f"{use} {n}" for use, n in row["cpu_bytes"].items()) or "nothing"
        mark = " **failed**" if failed(row) else ""
        lines.append(
            f"| {row['name']}{mark} | {mode} | {row['rms']:.1e} | {row['bound']:.1e} | {row['largest']:.1e} | {left} |"
        )
    return lines


def parity_problem(found: Found) -> str:
    bad = list(dict.fromkeys(row["name"] for row in found["cases"] if failed(row)))
    return f"the card's logits are not the reference's in {', '.join(bad)}" if bad else ""
