"""The whole step as measured beside the prediction of examples/predict_step.py for this card."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from .card import device
from .section import Found
from .whole import MODEL, PREFIX


def step(folder: Path) -> Found:
    """Of the bench before it in the report."""
    from dgemma._native import core
    from dgemma.bench.prediction import CARDS, predict_step

    report = json.loads((folder / "gpu-check.json").read_text())["sections"]
    bench = report.get("bench", {})
    if "parts" not in bench:
        raise SystemExit("there are no times to set beside the prediction: the bench failed")
    name = device()["name"]
    card = next((card for known, card in CARDS.items() if known in name), None)
    predicted = {}
    if card is not None:
        parts = predict_step(core.read_gguf(str(MODEL)), PREFIX, card)
        predicted = {part: {"floor": 1e3 * p.floor, "expected": 1e3 * p.expected} for part, p in parts.items()}
    return {"card": card and card.name, "predicted": predicted, **measured(bench)}


def measured(bench: dict[str, Any]) -> Found:
    """Of the sharp rows, which are what most are after the first steps."""
    parts = {name: part["ms"] for name, part in bench["parts"]["sharp"].items()}
    whole = bench["step_ms"]["sharp"]["median"]
    return {"parts": parts, "step_ms": whole, "share": sum(parts.values()) / whole}


def step_lines(found: Found) -> list[str]:
    whole, names = found["step_ms"], dict.fromkeys([*found["parts"], *found["predicted"]])
    lines = ["| part | measured, ms | floor | expected |", "|---|---:|---:|---:|"]
    for name in names:
        here, there = found["parts"].get(name), found["predicted"].get(name)
        prediction = "| |" if there is None else f"{there['floor']:.2f} | {there['expected']:.2f} |"
        off = " **off by more than a third**" if is_off(here, there) else ""
        lines.append(f"| {name.replace('_', ' ')}{off} | {'' if here is None else f'{here:.2f}'} | {prediction}")
    totals = [sum(part[kind] for part in found["predicted"].values()) for kind in ("floor", "expected")]
    lines.append(f"| **a step, sharp rows** | {whole:.2f} | {totals[0]:.2f} | {totals[1]:.2f} |")
    if found["card"] is None:
        lines += ["", "There is no prediction for this card."]
    return [
        *lines,
        "",
        f"The parts add up to {100 * found['share']:.0f} % of the step's wall time. That is not the share of the time "
        "in which a kernel runs: parts are timed in steps of their own, with a wait after each, so that gaps between "
        "kernels inside a part count as work and the waits make the sum larger; over 100 % is no error. What the wall "
        "time has beyond the parts is the host's.",
    ]


def is_off(measured_ms: float | None, predicted: dict[str, float] | None) -> bool:
    if measured_ms is None or predicted is None:
        return False
    return abs(measured_ms - predicted["expected"]) > predicted["expected"] / 3
