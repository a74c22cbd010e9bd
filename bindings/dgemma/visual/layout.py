"""Cells to lines: line breaks, and right-to-left text that keeps to its place."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

from .cells import Cell, Look
from .glyphs import SUBSTITUTE, Glyph

Placed = tuple[Glyph, Look]
Span = tuple[str, Look]

# What lies between these is ordered by itself: a terminal that reorders Hebrew or Arabic leaves the rest alone.
_ISOLATE, _POP = "\u2067", "\u2069"


def wrap(cells: Sequence[Cell], width: int) -> list[list[Placed]]:
    """Lines at most ``width`` cells wide. They break between tokens, and inside only those wider than a line.

    Nothing else breaks a line, not even a line end in the text: it is drawn as a sign, so that a draft in which line
    ends come and go does not jump.
    """
    lines: list[list[Placed]] = [[]]
    column = 0
    for cell in cells:
        glyphs = cell.glyphs
        if column and column + cell.width > width >= cell.width:
            lines.append([])
            column = 0
            glyphs = glyphs[1:] if len(glyphs) > 1 and glyphs[0].text == " " else glyphs
        for glyph in glyphs:
            drawn = glyph if glyph.width <= width else Glyph(SUBSTITUTE, 1, False)
            if column + drawn.width > width:
                lines.append([])
                column = 0
            lines[-1].append((drawn, cell.look))
            column += drawn.width
    return lines


def line_width(line: Sequence[Placed]) -> int:
    return sum(glyph.width for glyph, _ in line)


def spans(line: Sequence[Placed]) -> list[Span]:
    """The line as runs of text of one look, right-to-left stretches isolated."""
    pieces = _isolated(line)
    return [("".join(text for text, _ in run), look) for look, run in groupby(pieces, key=lambda piece: piece[1])]


def _isolated(line: Sequence[Placed]) -> Iterator[Span]:
    """A stretch begins with a right-to-left character and ends with the last that only spaces part from it."""
    inside = False
    for index, (glyph, look) in enumerate(line):
        before = _ISOLATE if glyph.rtl and not inside else ""
        inside = inside or glyph.rtl
        ends = inside and not _goes_on(line, index + 1) and glyph.rtl
        inside = inside and not ends
        yield before + glyph.text + (_POP if ends else ""), look


def _goes_on(line: Sequence[Placed], start: int) -> bool:
    """Whether the next thing after spaces is written from right to left."""
    for glyph, _ in line[start:]:
        if glyph.text != " ":
            return glyph.rtl
    return False
