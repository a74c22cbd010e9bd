"""Two reports of the same work beside each other."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Change:
    """One figure, before and now. ``speedup`` is over 1 where the newer is better, whatever the figure's direction."""

    figure: str
    old: float
    new: float
    speedup: float


def compare_reports(old: dict[str, Any], new: dict[str, Any]) -> list[Change]:
    """The figures that both have, in the order of the newer."""
    before = {name: value for name, value, _ in _figures(old)}
    changes = []
    for name, value, more_is_better in _figures(new):
        if name in before and before[name] > 0 and value > 0:
            ratio = value / before[name]
            changes.append(Change(name, before[name], value, ratio if more_is_better else 1 / ratio))
    return changes


def differences(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """What makes two reports measure different things; a comparison says so."""
    keys = ("model", "file_type", "n_params", "machine", "threads", "n_batch", "steps", "prompt_tokens")
    return [key for key in keys if old.get(key) != new.get(key)]


def _figures(report: dict[str, Any]) -> Iterator[tuple[str, float, bool]]:
    """(name, value, whether more is better)"""
    yield "load, s", report["load_seconds"], False
    if "cold" in report:
        yield "ready from the disk, s", report["cold"]["ready_seconds"], False
    for tokens, rate in report["encode_tokens_per_second"].items():
        yield f"encode {tokens}, tokens/s", rate["median"], True
    yield "commit, ms", report["commit_ms"]["median"], False
    for rows, step in report["step_ms"].items():
        yield f"{rows} step, ms", step["median"], False
    yield "answer, tokens/s", report["answer"]["tokens_per_second"], True
    if report["own_bytes"]:
        yield "own memory, MB", report["own_bytes"] / 1e6, False
