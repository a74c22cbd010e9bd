"""One picture of a canvas: the status line, the canvas below it, and above it the text so far."""

from __future__ import annotations

import re
from collections.abc import Sequence

from rich.segment import Segment
from rich.style import Style

from .cells import Cell, Look
from .glyphs import Glyph, split_glyphs
from .layout import Placed, spans, wrap
from .status import Progress, status_line

Line = list[Segment]
_SPACE = Glyph(" ", 1, False)

STATUS = Style(reverse=True)
# The sixteen colours that every terminal has and its user chose. Without colour, weight and the static still tell.
STYLES: dict[Look, Style] = {
    Look.FRESH: Style(bold=True, color="bright_green"),
    Look.SURE: Style(),
    Look.LIKELY: Style(color="cyan"),
    Look.GUESS: Style(color="yellow", italic=True),
    Look.NOISE: Style(color="bright_black"),
    Look.LOST: Style(color="magenta"),
    Look.MARKER: Style(color="blue", dim=True),
    Look.PADDING: Style(color="bright_black", dim=True),
    Look.PAST: Style(dim=True),
}


def draw_frame(cells: Sequence[Cell], progress: Progress, columns: int, rows: int, past: str = "") -> list[Line]:
    """At most ``rows`` lines of at most ``columns`` cells.

    Where the canvas is longer, the part at work is shown; where it is shorter, the end of ``past``, the text so far,
    stands above.
    """
    return _frame(wrap(cells, columns), progress, columns, rows, past)


def draw_grid(
    cells: Sequence[Cell], progress: Progress, columns: int, rows: int, past: str = "", *, row_length: int
) -> list[Line]:
    """As ``draw_frame``, for a canvas that is a grid: ``row_length`` positions of one character to a line, the line end
    that is the last of them left out. Each is drawn in the same place at every step, whatever it holds."""
    lines = []
    for start in range(0, len(cells), row_length):
        signs = [Cell((_SPACE, *cell.glyphs[-1:]), cell.look) for cell in cells[start : start + row_length - 1]]
        lines += wrap(signs, columns)
    return _frame(lines, progress, columns, rows, past)


def _frame(lines: list[list[Placed]], progress: Progress, columns: int, rows: int, past: str) -> list[Line]:
    """The lines of a canvas below the status line, and above it what there is room for."""
    first, last = _window(lines, rows - 1)
    note = "" if last - first == len(lines) else f"lines {first + 1}-{last} of {len(lines)}"
    status = Segment(status_line(progress, columns, note), STATUS)
    above = _past_lines(past, columns, rows - 1 - (last - first))
    return [*map(_segments, above), [status], *map(_segments, lines[first:last])]


def _past_lines(text: str, columns: int, rows: int) -> list[list[Placed]]:
    """The last ``rows`` lines of text."""
    if rows < 1 or not text:
        return []
    # No line holds more characters than this unless most are accents.
    kept = text.removesuffix("\n")[-2 * rows * columns :].split("\n")[-rows:]
    words = [[word.encode() for word in re.findall(r" ?[^ ]+| +", line)] for line in kept]
    return [
        folded for line in words for folded in wrap([Cell(glyphs, Look.PAST) for glyphs in split_glyphs(line)], columns)
    ][-rows:]


def _window(lines: Sequence[Sequence[Placed]], rows: int) -> tuple[int, int]:
    """Which lines to show: from the one before the first that holds static, and the last ones where none does."""
    if len(lines) <= rows:
        return 0, len(lines)
    busy = (index for index, line in enumerate(lines) if any(look in (Look.NOISE, Look.LOST) for _, look in line))
    first = max(0, min(next(busy, len(lines)) - 1, len(lines) - rows))
    return first, first + max(rows, 0)


def _segments(line: Sequence[Placed]) -> Line:
    return [Segment(text, STYLES[look]) for text, look in spans(line)]
