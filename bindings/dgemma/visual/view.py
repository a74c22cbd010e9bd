"""When to draw a canvas: not at every step, not too often, and never after it is finished."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from types import TracebackType

from rich.console import Console
from rich.style import Style

from ..errors import RequestError
from ..events import BlockEvent, Event, StepEvent
from ..tokenizer import TextStream, Tokenizer
from .cells import Cell, canvas_cells, readable_tokens
from .frame import draw_frame, draw_grid
from .screen import Screen
from .status import Progress


class CanvasView:
    """Draws the events of one answer on a console; a context manager, which restores the terminal at its end.

    While an answer is made, the terminal shows the canvas below the last lines of what was written; each finished block
    is written to the ordinary screen behind that, which comes back with all of the text when the answer ends.

    interval: draw each ``interval``-th step; a block's last one always. max_frames_per_second: steps that come faster
    are left out. max_steps: what the status line gives as the limit. heading: what to show above the text, the question
    for instance; it is not written. print_block: called for each finished block in place of writing the block's text;
    it should use ``write``, which remembers what to show above the canvas. row_length: the canvas is a grid, as
    ``draw_grid`` says. clock: seconds, for tests.
    Speeds are counted from ``__enter__``.

    Where the console is no terminal nothing is drawn: the text of the finished blocks is all that is written.
    """

    def __init__(
        self,
        console: Console,
        tokenizer: Tokenizer,
        *,
        interval: int = 1,
        max_frames_per_second: float = 30,
        max_steps: int | None = None,
        heading: str = "",
        print_block: Callable[[BlockEvent], None] | None = None,
        row_length: int | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if interval < 1:
            raise RequestError(f"interval must be at least 1, not {interval}")
        if not max_frames_per_second > 0:
            raise RequestError(f"max_frames_per_second must be above 0, not {max_frames_per_second}")
        self._screen = Screen(console)
        self._tokenizer = tokenizer
        self._text = TextStream(tokenizer)
        self._past = heading and heading.removesuffix("\n") + "\n"
        self._interval = interval
        self._least_gap = 1 / max_frames_per_second
        self._max_steps = max_steps
        self._print_block = print_block or self._write_block
        self._picture = partial(draw_grid, row_length=row_length) if row_length else draw_frame
        self._clock = clock
        self._begun = clock()
        self._tokens = self._steps = 0
        self._painted_at = float("-inf")
        self._drawn: StepEvent | None = None  # the step on the screen
        self._waiting: StepEvent | None = None  # a later one that was left out

    def __enter__(self) -> CanvasView:
        self._begun = self._clock()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._screen.leave()

    def show(self, event: Event) -> None:
        """Take in the next event of the answer."""
        if isinstance(event, StepEvent):
            self._step(event)
            return
        if self._waiting:
            self._paint(self._waiting)
        if isinstance(event, BlockEvent):
            self._block(event)
        else:
            self._screen.leave()
            if rest := self._text.finish():
                self.write(rest)

    def write(self, text: str, style: Style | None = None) -> None:
        """Write text that stays. The canvas goes away for it, until the next step or the end of ``print_block``."""
        self._screen.write(text, style)
        self._past += text

    def _block(self, event: BlockEvent) -> None:
        """The finished block goes to the ordinary screen, and comes back as text above an empty canvas."""
        self._tokens += len(event.tokens)
        with self._screen.at_once():
            self._screen.leave()
            self._print_block(event)
            if self._drawn:
                self._draw(self._drawn, [])
        self._drawn = None

    def _write_block(self, event: BlockEvent) -> None:
        self.write(self._text.feed(event.tokens))

    def _step(self, event: StepEvent) -> None:
        self._steps += 1
        due = self._clock() - self._painted_at >= self._least_gap
        if due and (event.step - 1) % self._interval == 0:
            self._paint(event)
        else:
            self._waiting = event

    def _paint(self, event: StepEvent) -> None:
        self._waiting = None
        # Compared with what was drawn last, not with the step before: nothing new is missed for having been left out.
        self._draw(event, canvas_cells(event, self._tokenizer, self._drawn))
        self._drawn = event
        self._painted_at = self._clock()

    def _draw(self, event: StepEvent, cells: list[Cell]) -> None:
        columns, rows = self._screen.room
        if rows:
            progress = self._progress(event, readable_tokens(cells))
            self._screen.paint(self._picture(cells, progress, columns, rows, self._past))

    def _progress(self, event: StepEvent, readable: int) -> Progress:
        seconds = max(self._clock() - self._begun, 1e-9)
        return Progress(
            block=event.block,
            step=event.step,
            max_steps=self._max_steps,
            temperature=event.temperature,
            entropy=float(event.entropy.mean()),
            accepted=float(event.accepted.mean()),
            tokens_per_second=(self._tokens + readable) / seconds,
            steps_per_second=self._steps / seconds,
        )
