"""The sections in their order, and the report as JSON and Markdown."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from . import experts, parity, products, proofs, step, whole
from .section import ENVIRONMENT, TIMED, Found, Section, run_apart


def _section(name: str, title: str, module: Any, stem: str, seconds: int, env: dict[str, str] = ENVIRONMENT) -> Section:
    problem = getattr(module, f"{stem}_problem", whole.nothing_wrong)
    return Section(name, title, getattr(module, name), getattr(module, f"{stem}_lines"), problem, seconds, env)


SECTIONS = (
    _section("kernels", "Kernels against their twins", proofs, "kernel", 150),
    _section("parity", "Logits against the reference", parity, "parity", 120),
    _section("answers", "Answers of the card against the CPU's", proofs, "answer", 60),
    _section("experts", "One layer's experts, ours beside ggml's", experts, "expert", 120, TIMED),
    _section("products", "Dense products, ours beside ggml's", products, "product", 60, TIMED),
    _section("full_size", "The file", whole, "full_size", 180, TIMED),
    _section("memory", "Memory", whole, "memory", 120, TIMED),
    _section("bench", "Times", whole, "bench", 180, TIMED),
    _section("own_layers", "Times with the layers in our kernels", whole, "own_layers", 150, TIMED),
    _section("step", "A whole step beside its prediction", step, "step", 30, TIMED),
    _section("checkers", "NVIDIA's checkers over the kernels' tests", proofs, "checker", 200),
)


def make_report(
    folder: Path,
    card: dict[str, str],
    sections: Sequence[Section] = SECTIONS,
    run: Callable[[Section, Path], Found] = run_apart,
    within: float = math.inf,
) -> dict[str, Any]:
    """Every section, whatever became of those before it; FOLDER/gpu-check.json and .md are written after each. A
    section may take its own seconds or what is left of ``within``, and is not begun where that is nothing."""
    end = time.monotonic() + within
    date = datetime.now(timezone.utc).isoformat(timespec="minutes")
    report: dict[str, Any] = {"date": date, "device": card, "sections": {}}
    for section in sections:
        left = end - time.monotonic()
        late = {"problem": f"{section.name} was not begun: the {within:.0f} s of --within were over"}
        bounded = replace(section, seconds=min(section.seconds, left))
        report["sections"][section.name] = run(bounded, folder) if left > 0 else late
        (folder / "gpu-check.json").write_text(json.dumps(report, indent=1) + "\n")
        (folder / "gpu-check.md").write_text(markdown(report, sections))
    return report


def problems(report: dict[str, Any]) -> list[str]:
    return [found["problem"] for found in report["sections"].values() if found["problem"]]


def markdown(report: dict[str, Any], sections: Sequence[Section] = SECTIONS) -> str:
    card, wrong = report["device"], problems(report)
    lines = [
        f"# gpu-check: {card['name']}",
        "",
        f"{report['date']}, driver {card['driver_version']}, {card['memory.total']}, compute capability "
        f"{card['compute_cap']}.",
        "",
        f"{len(report['sections'])} of {len(sections)} sections ran; "
        + ("what is wrong:" if wrong else "nothing is wrong."),
        *(f"- {sentence}" for sentence in wrong),
    ]
    for section in sections:
        found = report["sections"].get(section.name)
        if found is None:
            continue
        lines += ["", f"## {section.title}"]
        lines += [f"**{found['problem']}**", ""] if found["problem"] else []
        if len(found) > 1:  # more than its problem: it was measured
            lines += section.lines(found)
    return "\n".join(lines) + "\n"
