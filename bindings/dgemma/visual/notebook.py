"""A canvas for a notebook."""

from __future__ import annotations

from html import escape

from ..events import StepEvent
from ..tokenizer import Tokenizer
from .cells import Cell, Look, canvas_cells

# On the elements themselves: notebooks strip style sheets. The colours are legible on white and on black.
_CSS = {
    Look.FRESH: "color:#1a9850;font-weight:bold",
    Look.SURE: "",
    Look.LIKELY: "color:#2b8cbe",
    Look.GUESS: "color:#b8860b;font-style:italic",
    Look.NOISE: "color:#888",
    Look.LOST: "color:#c51b8a",
    Look.MARKER: "color:#6a6acd",
    Look.PADDING: "color:#aaa",
    Look.PAST: "",
}


class CanvasHTML:
    """An HTML fragment that notebooks show; ``str`` gives its source."""

    def __init__(self, source: str) -> None:
        self._source = source

    def __str__(self) -> str:
        return self._source

    def _repr_html_(self) -> str:
        return self._source


def canvas_html(event: StepEvent, tokenizer: Tokenizer, before: StepEvent | None = None) -> CanvasHTML:
    """One step's canvas, each position a ``span`` whose title says what it is. ``before``: the step shown last.

    In a notebook: ``display(canvas_html(event, tokenizer), display_id="canvas")``, then ``update_display``.
    """
    cells = canvas_cells(event, tokenizer, before)
    body = "".join(_span(cell, entropy) for cell, entropy in zip(cells, event.entropy.tolist(), strict=True))
    title = (
        f"block {event.block + 1}, step {event.step}, temperature {event.temperature:.2f}, "
        f"mean entropy {event.entropy.mean():.3f} nats, {event.accepted.mean():.0%} accepted"
    )
    return CanvasHTML(
        '<div dir="ltr" style="font-family:monospace">'
        f'<div style="opacity:.7">{escape(title)}</div>'
        f'<div style="white-space:pre-wrap;overflow-wrap:anywhere">{body}</div></div>'
    )


def _span(cell: Cell, entropy: float) -> str:
    text = escape("".join(glyph.text for glyph in cell.glyphs))
    if any(glyph.rtl for glyph in cell.glyphs):
        text = f"<bdi>{text}</bdi>"
    return f'<span style="{_CSS[cell.look]}" title="{cell.look.value}, {entropy:.3f} nats">{text}</span>'
