"""Where an answer is seen while it comes: text on stdout and, if it is wanted, the live canvas."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING

from rich.console import Console
from rich.style import Style

from ..chat import ToolCall
from ..visual import CanvasView
from .options import Thinking

if TYPE_CHECKING:
    from ..chat import Piece
    from ..engine import Engine
    from ..events import BlockEvent, Event
    from ..tokenizer import Tokenizer
    from .settings import Settings

_DIM = Style(dim=True)


class Display:
    """Shows one answer; a context manager, which gives the terminal back as it was.

    Text goes to stdout as it is. Thoughts are dimmed on a terminal, and in a pipe left out unless they were asked for.
    The canvas is drawn on stdout or else on stderr, whichever is a terminal.
    """

    def __init__(self, tokenizer: Tokenizer, settings: Settings, engine: Engine, heading: str = "") -> None:
        no_color = None if settings.color else True  # None: as the environment's NO_COLOR says
        out, err = (Console(file=file, no_color=no_color, highlight=False) for file in (sys.stdout, sys.stderr))
        shown_on_terminal = out.is_terminal and settings.thinking is not Thinking.hide
        self._thoughts = settings.thinking is Thinking.show or shown_on_terminal
        self._silent = settings.as_json
        steps = (settings.config(engine) or engine.config).max_denoising_steps if settings.visual else None
        view = partial(CanvasView, tokenizer=tokenizer, interval=settings.visual_interval, max_steps=steps)
        self._text = view(out, heading=heading, print_block=self._write_pieces)
        self._canvas: CanvasView | None = None
        if settings.visual:
            beside = self._silent or not out.is_terminal
            self._canvas = view(err, print_block=_print_nothing) if beside else self._text
        self._pieces: Sequence[Piece] = ()
        self._kind = "text"
        self._at_line_start = True

    def __enter__(self) -> Display:
        if self._canvas:
            self._canvas.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._canvas:
            self._canvas.__exit__(kind, error, traceback)

    def show(self, event: Event | None, pieces: Sequence[Piece]) -> None:
        """The next event, and what became readable by it; None when no more come."""
        self._pieces = pieces
        if self._canvas and event is not None:
            self._canvas.show(event)
        self._write_pieces()
        if event is None:
            self._end_line()

    def _write_pieces(self, block: BlockEvent | None = None) -> None:
        """What became readable, once: the canvas asks for it where its text has to change without a flicker."""
        pieces, self._pieces = self._pieces, ()
        for piece in () if self._silent else pieces:
            self._write(piece)

    def _write(self, piece: Piece) -> None:
        if isinstance(piece, ToolCall):
            self._end_line()
            self._put(f"tool call: {piece.name} {piece.arguments_json}\n")
        elif piece.kind == "text" or self._thoughts:
            if piece.kind != self._kind:
                self._end_line()
                self._kind = piece.kind
            self._put(piece.text, None if piece.kind == "text" else _DIM)

    def _end_line(self) -> None:
        if not self._at_line_start:
            self._put("\n")

    def _put(self, text: str, style: Style | None = None) -> None:
        if text:
            self._text.write(text, style)
            self._at_line_start = text.endswith("\n")


def _print_nothing(block: BlockEvent) -> None:
    """The canvas is on stderr; the text goes to stdout."""
