"""The line above the canvas: where the denoising is and how it goes."""

from __future__ import annotations

from dataclasses import dataclass

from rich.cells import cell_len, set_cell_size

_BAR_WIDTH = 20


@dataclass(frozen=True)
class Progress:
    """The numbers of one step."""

    block: int  # from 0, as in the event
    step: int
    max_steps: int | None  # None where the caller did not say
    temperature: float
    entropy: float  # mean over the canvas, nats
    accepted: float  # share of the canvas, 0 … 1
    tokens_per_second: float  # that can be read so far, finished blocks included
    steps_per_second: float


def status_line(progress: Progress, width: int, note: str = "") -> str:
    """As much as fits in ``width`` cells, in the longest of three wordings that does; padded to the full width."""
    wordings = [_long(progress, note), _medium(progress, note), _short(progress)]
    line = next((wording for wording in wordings if cell_len(wording) <= width), wordings[-1])
    return set_cell_size(line, width)


def _long(p: Progress, note: str) -> str:
    filled = round(p.accepted * _BAR_WIDTH)
    parts = [
        f"block {p.block + 1}",
        f"step {_steps(p)}",
        f"temperature {p.temperature:.2f}",
        f"mean entropy {p.entropy:.3f} nats",
        f"{'⣿' * filled}{'⣀' * (_BAR_WIDTH - filled)} {p.accepted:.0%} accepted",
        f"{_rate(p.tokens_per_second)} tokens/s",
        f"{_rate(p.steps_per_second)} steps/s",
        note,
    ]
    return "   ".join(filter(None, parts))


def _medium(p: Progress, note: str) -> str:
    parts = [
        f"block {p.block + 1}",
        f"step {_steps(p)}",
        f"T {p.temperature:.2f}",
        f"entropy {p.entropy:.2f}",
        f"{p.accepted:.0%} accepted",
        f"{_rate(p.tokens_per_second)} tok/s",
        note,
    ]
    return "  ".join(filter(None, parts))


def _short(p: Progress) -> str:
    rate = f"{_rate(p.tokens_per_second)}t/s"
    return f"{p.block + 1}:{_steps(p)} T{p.temperature:.2f} H{p.entropy:.2f} {p.accepted:.0%} {rate}"


def _steps(p: Progress) -> str:
    return f"{p.step}" if p.max_steps is None else f"{p.step}/{p.max_steps}"


def _rate(value: float) -> str:
    return f"{value:.1f}" if value < 100 else f"{value:.0f}"
