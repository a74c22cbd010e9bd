"""The whole step as measured beside the prediction of examples/predict_step.py for this card."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from .card import device
from .section import Found
from .whole import MODEL, PREFIX, part_times


def step(folder: Path) -> Found:
    """Of the benches before it in the report: with ggml's layers, and with ours where that one ran."""
    sections = json.loads((folder / "gpu-check.json").read_text())["sections"]
    if "parts" not in sections.get("bench", {}):
        raise SystemExit("there are no times to set beside the prediction: the bench failed")
    from dgemma.bench.prediction import CARDS

    name = device()["name"]
    card = next((known for known in CARDS if known in name), None)
    layers = {whose: dict(times, predicted=predicted(card, whose)) for whose, times in measured(sections).items()}
    return {"card": card, "layers": layers}


def predicted(card: str | None, whose: str) -> dict[str, dict[str, float]]:
    """Milliseconds by part; nothing for a card that is not known."""
    from dgemma._native import core
    from dgemma.bench.prediction import CARDS, predict_step

    if card is None:
        return {}
    parts = predict_step(core.read_gguf(str(MODEL)), PREFIX, CARDS[card], own_layers=whose == "own")
    return {name: {"floor": 1e3 * part.floor, "expected": 1e3 * part.expected} for name, part in parts.items()}


def measured(sections: dict[str, Any]) -> dict[str, Found]:
    """By whose layers: the parts and the whole of a step with sharp rows, milliseconds."""
    bench, own = sections["bench"], sections.get("own_layers", {})
    found = {"ggml": {"parts": part_times(bench), "step_ms": bench["step_ms"]["sharp"]["median"]}}
    if own.get("card_layers") == "own":
        found["own"] = {"parts": own["parts_ms"]["own"], "step_ms": own["step_ms"]["own"]["sharp"]}
    return found


def step_lines(found: Found) -> list[str]:
    lines = [] if found["card"] else ["There is no prediction for this card.", ""]
    for whose, times in found["layers"].items():
        lines += [*times_lines("ours" if whose == "own" else "ggml's", times), ""]
    return [
        *lines,
        "What the parts add up to is not the share of the time in which a kernel runs: parts are timed in steps of "
        "their own, with a wait after each, so that gaps between kernels inside a part count as work and the waits "
        "make the sum larger; over 100 % is no error. What the wall time has beyond the parts is the host's.",
    ]


def times_lines(whose: str, times: Found) -> list[str]:
    parts, there, whole = times["parts"], times["predicted"], times["step_ms"]
    lines = [f"| part, the layers {whose} | measured, ms | floor | expected |", "|---|---:|---:|---:|"]
    for name in dict.fromkeys([*parts, *there]):
        ms, part = parts.get(name), there.get(name)
        prediction = "| |" if part is None else f"{part['floor']:.2f} | {part['expected']:.2f} |"
        off = " **off by more than a third**" if is_off(ms, part) else ""
        lines.append(f"| {name.replace('_', ' ')}{off} | {'' if ms is None else f'{ms:.2f}'} | {prediction}")
    totals = [sum(part[kind] for part in there.values()) for kind in ("floor", "expected")]
    lines.append(f"| **a step, sharp rows** | {whole:.2f} | {totals[0]:.2f} | {totals[1]:.2f} |")
    return [*lines, "", f"The parts add up to {100 * sum(parts.values()) / whole:.0f} % of the step's wall time."]


def is_off(measured_ms: float | None, predicted: dict[str, float] | None) -> bool:
    if measured_ms is None or predicted is None:
        return False
    return abs(measured_ms - predicted["expected"]) > predicted["expected"] / 3
