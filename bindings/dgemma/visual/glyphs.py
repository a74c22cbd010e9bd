"""Text that came out of a model, made safe to draw in a terminal's cells.

A draft may hold anything: codes that a terminal would obey, half a character, accents with nothing below them, emoji
about whose width no two terminals agree. What is drawn here has a width that is known beforehand; whatever is in doubt
is drawn as something else. That is for the frame alone: finished text is printed as it is.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

from rich.cells import get_character_cell_size

# All that is drawn in place of something else has one width everywhere: none of these is "ambiguous" to Unicode, as
# many of the better known boxes, blocks and bullets are, which fonts for Chinese or Japanese draw twice as wide.
SUBSTITUTE = "▯"
_VISIBLE = {"\n": "⏎", "\t": "⇥", "\x7f": "␡"}
_CONTROL_PICTURES = 0x2400

_LETTER_A, _FLAG_A, _FLAG_Z = ord("A"), 0x1F1E6, 0x1F1FF
_SKIN_TONES = range(0x1F3FB, 0x1F400)
_JOINERS = frozenset(["\u200c", "\u200d", *map(chr, range(0xFE00, 0xFE10))])  # and the variation selectors
_MOST_MARKS = 4  # on one letter; piled higher they reach into the lines above


class Glyph(NamedTuple):
    """A character with its accents: what stays together when a line is broken."""

    text: str
    width: int  # 1 or 2 cells
    rtl: bool  # written from right to left


def split_glyphs(pieces: Sequence[bytes]) -> list[tuple[Glyph, ...]]:
    """What to draw for each piece of a text. A character or accent that reaches over pieces is drawn where it begins.

    Bytes that belong to no character are drawn as one substitute each.
    """
    found: list[list[Glyph]] = [[] for _ in pieces]
    marks = _MOST_MARKS  # nothing to put an accent on yet
    last = 0
    for piece, char in _characters(pieces):
        if _attaches(char) and found[last] and marks < _MOST_MARKS:
            marks += 1
            if not _is_dropped(char):
                base = found[last][-1]
                found[last][-1] = base._replace(text=base.text + char)
        elif not (_is_dropped(char) and found[last]):
            found[piece] += _draw(char)
            marks = 0 if found[piece][-1].text == char != " " else _MOST_MARKS
            last = piece
    return [tuple(glyphs) for glyphs in found]


def _characters(pieces: Sequence[bytes]) -> Iterator[tuple[int, str]]:
    """Each character of the joined pieces, with the piece in which it begins; a stray byte is a lone surrogate."""
    owner = [index for index, piece in enumerate(pieces) for _ in piece]
    offset = 0
    for char in b"".join(pieces).decode(errors="surrogateescape"):
        yield owner[offset], char
        offset += 1 if "\ud800" <= char <= "\udfff" else len(char.encode())


def _is_dropped(char: str) -> bool:
    """Whether the character only changes its neighbours, in ways that terminals measure differently.

    Without it a family becomes its members and a coloured hand a yellow one, each two cells wide wherever it is drawn.
    """
    return char in _JOINERS or ord(char) in _SKIN_TONES


@lru_cache(maxsize=4096)
def _attaches(char: str) -> bool:
    return _is_dropped(char) or (get_character_cell_size(char) == 0 and unicodedata.category(char)[0] in "ML")


@lru_cache(maxsize=4096)
def _draw(char: str) -> tuple[Glyph, ...]:
    """One character that stands by itself."""
    code = ord(char)
    if char in _VISIBLE:
        return (Glyph(_VISIBLE[char], 1, False),)
    if code < 0x20:
        return (Glyph(chr(_CONTROL_PICTURES + code), 1, False),)
    if _FLAG_A <= code <= _FLAG_Z:  # a flag is two of these; as letters they are legible and have a width
        return (Glyph(chr(_LETTER_A + code - _FLAG_A), 1, False),)
    width = get_character_cell_size(char)
    if unicodedata.category(char) == "Zs":
        return (Glyph(" ", 1, False),) * max(width, 1)
    if not char.isprintable() or width == 0:
        return (Glyph(SUBSTITUTE, 1, False),)
    return (Glyph(char, width, unicodedata.bidirectional(char) in ("R", "AL", "AN")),)
