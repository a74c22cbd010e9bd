"""What each position of a canvas looks like after a step.

The text drawn is the draft (``argmax``), since that is the answer as it stands: a block's tokens are its last draft.
The canvas itself is what the model reads next, the accepted samples among random tokens. Those tokens mean nothing and
are drawn as static, which is new at each step because they are.

Accepted is not the same as sure. The sampler accepts positions, surest first, until their entropies add up to the
bound, so near the end many a settled token is noise to the model for a step although the draft knows it; drawing it as
noise would make readable text flicker. So a position is static where it was not accepted *and* its entropy is high.
One that was accepted a moment ago and is not any more has to be surer than others to stay text, because the loss of a
token is worth seeing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

import numpy as np
from numpy.typing import NDArray

from ..events import StepEvent
from ..tokenizer import Tokenizer
from .glyphs import Glyph, split_glyphs

# Upper bounds in nats. 0.1 is what the released sampler's bound leaves for a whole canvas: a token above it is
# accepted alone or not at all. 1 is a choice among e equally likely tokens.
SURE, LIKELY, GUESS = 0.01, 0.1, 1.0

END_MARK = Glyph("∎", 1, False)
PADDING = Glyph("⋅", 1, False)
# As wide as a token is on average, so that the lines hardly move when words come out of the static.
_STATIC_DOTS = 3
_BRAILLE, _BRAILLE_PATTERNS = 0x2801, 255


class Look(Enum):
    """How a position is drawn."""

    FRESH = "newly accepted"
    SURE = "sure"
    LIKELY = "likely"
    GUESS = "a guess"
    NOISE = "noise"
    LOST = "noise again"
    MARKER = "special token"
    PADDING = "after the end"
    PAST = "finished text above the canvas"


@dataclass(frozen=True)
class Cell:
    """One position: what to draw and how."""

    glyphs: tuple[Glyph, ...]  # may be empty: the rest of a character that began in the cell before
    look: Look

    @property
    def width(self) -> int:
        return sum(glyph.width for glyph in self.glyphs)


def canvas_cells(event: StepEvent, tokenizer: Tokenizer, before: StepEvent | None = None) -> list[Cell]:
    """The cells of a canvas, one for each position. ``before`` is the step that was drawn last, if any."""
    looks = _looks(event, before)
    end = _end(event, looks, tokenizer.eos_ids)
    texts = _texts(event.argmax[:end], looks, tokenizer)
    cells = []
    for position, (id, look) in enumerate(zip(event.argmax.tolist(), looks, strict=True)):
        if position > end:
            cells.append(Cell((PADDING,), Look.PADDING))
        elif position == end:
            cells.append(Cell((END_MARK,), look))
        elif look in (Look.NOISE, Look.LOST):
            cells.append(Cell(_static(int(event.canvas[position]), position), look))
        else:
            special = look is not Look.FRESH and not tokenizer.decode_bytes([id], skip_special=True)
            cells.append(Cell(texts[position], Look.MARKER if special else look))
    return cells


def readable_tokens(cells: Sequence[Cell]) -> int:
    """How many tokens of the answer can be read: neither static, nor the end, nor anything after it."""
    hidden = (Look.NOISE, Look.LOST, Look.PADDING)
    return sum(cell.look not in hidden and cell.glyphs != (END_MARK,) for cell in cells)


def _looks(event: StepEvent, before: StepEvent | None) -> list[Look]:
    same_canvas = before is not None and before.block == event.block and before.canvas.shape == event.canvas.shape
    had: NDArray[np.bool_] = before.accepted if before and same_canvas else np.zeros_like(event.accepted)
    return [
        _look(accepted, held, entropy)
        for accepted, held, entropy in zip(event.accepted.tolist(), had.tolist(), event.entropy.tolist(), strict=True)
    ]


def _look(accepted: bool, held: bool, entropy: float) -> Look:
    if accepted and not held:
        return Look.FRESH
    if not accepted and not entropy <= (LIKELY if held else GUESS):  # so put, a NaN is noise
        return Look.LOST if held else Look.NOISE
    if entropy <= SURE:
        return Look.SURE
    return Look.LIKELY if entropy <= LIKELY else Look.GUESS


def _end(event: StepEvent, looks: Sequence[Look], eos_ids: Sequence[int]) -> int:
    """The position of the first end token that is not mere noise; the canvas's length where there is none."""
    for position in np.flatnonzero(np.isin(event.argmax, eos_ids)).tolist():
        if looks[position] not in (Look.NOISE, Look.LOST):
            return int(position)
    return len(looks)


def _texts(draft: NDArray[np.int32], looks: Sequence[Look], tokenizer: Tokenizer) -> list[tuple[Glyph, ...]]:
    """The text at each position of the draft. Static parts it: no character is made of bytes from both sides."""
    texts: list[tuple[Glyph, ...]] = []
    run: list[bytes] = []
    for id, look in zip(draft.tolist(), looks, strict=False):
        if look in (Look.NOISE, Look.LOST):
            texts += split_glyphs(run)
            texts.append(())
            run = []
        else:
            run.append(tokenizer.decode_bytes([id]))
    return texts + split_glyphs(run)


def _static(id: int, position: int) -> tuple[Glyph, ...]:
    """Dots that look random and depend on the token and its place alone."""
    spread = (id * 256 + position + 1) * 0x9E3779B1  # a multiplier that mixes the middle bits well
    dots = ((spread >> (8 * n)) % _BRAILLE_PATTERNS for n in range(1, _STATIC_DOTS + 1))
    return (Glyph(" ", 1, False), *(Glyph(chr(_BRAILLE + dot), 1, False) for dot in dots))
