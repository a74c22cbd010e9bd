"""Logits of the engine with all layers on the card against those of ``transformers``, which the fixtures hold, and
against those of the engine on the CPU."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from .section import ON_CARD, ROOT, Found

# Relative rms error of rounding a value: to F16, which the card does in attention (it is TF32's too), or as a type of
# weights does. Q8_0 rounds to steps of max / 127, and the largest of 32 Gaussians lies near 2.2 sigma.
ATTENTION = 2.0**-11 / 3**0.5
WEIGHTS = {"f32": 0.0, "f16": 2.0**-11 / 3**0.5, "bf16": 2.0**-8 / 3**0.5, "q8_0": 2.2 / 127 / 12**0.5}
IN_ATTENTION = 6  # roundings a layer: keys, values, queries, the softmax's weights, and sums
PRODUCTS = 6  # in a row a layer, and the head
MARGIN = 4.0  # over the estimate, as the CPU's own tests allow (tests/engine/test_parity.py)
SMALLER = ("short", "long", "crossing", "heads256", "hidden256")  # whose rows are whole blocks of Q8_0

# Our layers leave attention to the card, and heads of 16 and 32 values may be none of its.
OWN_LAYERS = "heads256"

Placement = Mapping[str, Any]  # arguments of Engine
ON_CPU: Placement = {"n_gpu_layers": 0}


def bound(type: str, n_layer: int, spread: float) -> float:
    """What the rms error of a row's logits may be. Roundings are independent and add up in quadrature on logits that
    spread so far; a product rounds its activations like its weights, or finer."""
    attention = IN_ATTENTION * n_layer * ATTENTION**2
    products = 2 * (PRODUCTS * n_layer + 1) * WEIGHTS[type] ** 2
    return float(MARGIN * (attention + products) ** 0.5 * spread)


def parity(folder: Path, placement: Placement = ON_CARD) -> Found:
    sys.path.insert(0, str(ROOT / "tests"))
    from dgemma.convert import convert
    from oracle.cases import NETWORK_CASES, checkpoint_for, load_case

    rows = []
    with tempfile.TemporaryDirectory() as place:
        for name in (case.name for case in NETWORK_CASES):
            case = load_case(name)
            checkpoint = checkpoint_for(case, Path(place))
            for type in WEIGHTS if name in SMALLER else ("f32",):
                model = Path(place, f"{name}-{type}.gguf")
                convert(checkpoint, model, type=type)
                modes = (True, False) if type == "f32" else (False,)
                rows += [compare(model, case, name, type, exact, placement) for exact in modes]
                if type == "q8_0" and name == OWN_LAYERS and placement is ON_CARD:
                    rows.append(compare(model, case, name, type, False, {**placement, "card_layers": "own"}))
    return {"cases": rows}


def compare(model: Path, case: Any, name: str, type: str, exact: bool, placement: Placement) -> Found:
    """Every block of one fixture. ``rms``: of the median row against the reference, the largest of all blocks;
    ``bound``: what it may be; ``cpu_rms``: the CPU engine's; ``apart``: between the two engines."""
    logits, memory, n_layer, whose = first_steps(model, case, exact, placement)
    cpu_logits = first_steps(model, case, exact, ON_CPU)[0]
    reference = case.logits[:, 0]
    return {
        "name": name,
        "type": type,
        "exact": exact,
        "asked": placement.get("card_layers", "ggml"),
        "layers": whose,
        "rms": median_row(logits - reference),
        "bound": bound(type, n_layer, float(reference[0].std())),
        "largest": float(np.abs(logits - reference).max()),
        "cpu_rms": median_row(cpu_logits - reference),
        "apart": median_row(logits - cpu_logits),
        "finite": bool(np.isfinite(logits).all()),
        "cpu_bytes": {use: n for use, n in memory.get("CPU", {}).items() if n},
    }


def first_steps(model: Path, case: Any, exact: bool, placement: Placement) -> tuple[np.ndarray, Found, int, str]:
    """Logits [B, R, V] of each block's first step, memory, how many layers, and whose kernels. No later steps:
    conditioning carries an expert that flipped on to every row."""
    from dgemma import Engine

    n_ctx = len(case.prompt) + case.canvas.shape[0] * case.canvas.shape[2]
    logits = []
    with Engine(model, n_ctx=n_ctx, exact=exact, **placement) as engine:
        session = engine.session()
        session.prefill(case.prompt)
        for block, canvases in enumerate(case.canvas):
            logits.append(session.denoise(canvases[0])[case.rows])
            if block < len(case.finished):
                session.prefill(case.finished[block])
        return np.stack(logits), engine.memory, engine.info.n_layer, engine.card_layers


def median_row(error: np.ndarray) -> float:
    """Of [B, R, V]: the rms of the median row, the largest of all blocks. NaN where there is one in a median row."""
    return float(np.median(np.sqrt((error.astype(np.float64) ** 2).mean(axis=2)), axis=1).max())


def failed(row: Found) -> bool:
    """Off by more than rounding, with layers on the CPU, or by others' kernels than were asked for."""
    is_off = not row["finite"] or not row["rms"] <= row["bound"]
    return is_off or "kv" in row["cpu_bytes"] or row["layers"] != row["asked"]


def parity_lines(found: Found) -> list[str]:
    lines = [
        "All layers on the card, the first step of each block; rms error of the median row against transformers. The "
        f"bound is {MARGIN:.0f} times what {IN_ATTENTION} roundings to F16 a layer do, and for smaller weights "
        f"{PRODUCTS} products a layer that round both sides to their type. Apart: the card and the CPU's engine. "
        "Bytes on the CPU say what the scheduler left there.",
        "",
        "| fixture | weights | mode | rms error | bound | the CPU's | apart | largest error | on the CPU |",
        "|---|---|---|---:|---:|---:|---:|---:|---|",
    ]
    for row in found["cases"]:
        mark = " **failed**" if failed(row) else ""
        mode = "exact" if row["exact"] else "our layers" if row["layers"] == "own" else "normal"
        columns = [f"{row['name']}{mark}", row["type"].upper(), mode]
        columns += [f"{row[key]:.1e}" for key in ("rms", "bound", "cpu_rms", "apart", "largest")]
        columns.append(", ".join(f"{use} {n}" for use, n in row["cpu_bytes"].items()) or "nothing")
        lines.append(f"| {' | '.join(columns)} |")
    return lines


def parity_problem(found: Found) -> str:
    bad = list(dict.fromkeys(f"{row['name']} ({row['type'].upper()})" for row in found["cases"] if failed(row)))
    return f"the card's logits are not the reference's in {', '.join(bad)}" if bad else ""
