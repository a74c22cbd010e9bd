"""Steps made by hand, a console that only remembers, and a way to read what was drawn on it."""

from __future__ import annotations

import io
import re
from typing import Any

import numpy as np
from rich.console import Console

from dgemma import StepEvent
from dgemma.visual.cells import Cell
from dgemma.visual.demo import toy_ids, toy_tokenizer
from dgemma.visual.status import Progress

ENTER, LEAVE = "\x1b[?1049h", "\x1b[?1049l"
TOKENIZER = toy_tokenizer()
EOS = 1
PROGRESS = Progress(0, 12, 48, 0.7, 1.234, 0.63, 45.1, 8.3)


def step(
    ids: list[int],
    accepted: list[bool] | None = None,
    entropy: list[float] | None = None,
    number: int = 1,
    block: int = 0,
    noise: int = 40,
) -> StepEvent:
    """A step whose draft is ``ids``; everything is accepted and certain unless given."""
    draft = np.array(ids, dtype=np.int32)
    kept = np.ones(len(ids), bool) if accepted is None else np.array(accepted, bool)
    nats = np.zeros(len(ids), np.float32) if entropy is None else np.array(entropy, np.float32)
    return StepEvent(block, number, 0.7, np.where(kept, draft, noise).astype(np.int32), kept, nats, draft)


def ids(text: str) -> list[int]:
    return toy_ids(TOKENIZER, text)


def drawn(cells: list[Cell]) -> list[str]:
    return ["".join(glyph.text for glyph in cell.glyphs) for cell in cells]


def console(width: int = 80, height: int = 24, **options: Any) -> Console:
    settings: dict[str, Any] = {"force_terminal": True, "color_system": "standard", "legacy_windows": False}
    return Console(file=io.StringIO(), width=width, height=height, _environ={}, **{**settings, **options})


def output(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def plain(codes: str) -> str:
    return re.sub(r"\x1b\[[?0-9;]*[A-Za-z]", "", codes)


def frames(codes: str) -> list[list[str]]:
    """The lines of each picture, without codes."""
    pictures = re.findall(r"\x1b\[\?7l\x1b\[H(.*?)\x1b\[J\x1b\[\?7h", codes, re.S)
    return [plain(picture).split("\r\n") for picture in pictures]


def ordinary(codes: str) -> str:
    """What went to the ordinary screen."""
    return plain(re.sub(r"\x1b\[\?1049h.*?\x1b\[\?1049l", "", codes, flags=re.S))
