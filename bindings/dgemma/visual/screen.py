"""The only part that knows the codes of terminals: pictures on the alternate screen, text on the ordinary one.

A picture below the last line of text, as rich's ``Live`` draws it, was tried first and is lost when the window is made
narrower: the terminal folds the picture's lines before the program hears of it, and tmux pushes what no longer fits
into the scrollback, where no code reaches it. The alternate screen has no scrollback, and the terminal keeps the
ordinary one, cursor included, for when it comes back; so a picture can leave no trace.

A picture is one write, each line ends with "erase the rest" in place of clearing first, and terminals that can are
asked to show it at once: it does not flicker.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.segment import Segment, Segments
from rich.style import Style

_ENTER, _LEAVE = "\x1b[?1049h", "\x1b[?1049l"
_HOME, _ERASE_LINE, _ERASE_BELOW = "\x1b[H", "\x1b[K", "\x1b[J"
_HIDE_CURSOR, _SHOW_CURSOR = "\x1b[?25l", "\x1b[?25h"
_WRAP_OFF, _WRAP_ON = "\x1b[?7l", "\x1b[?7h"  # a line that is wider than it measures is cut, not folded
_BEGIN_UPDATE, _END_UPDATE = "\x1b[?2026h", "\x1b[?2026l"

# Text may hold anything that a model writes; these would be obeyed by the terminal.
_OBEYED = {code: "\ufffd" for code in [*range(0x20), *range(0x7F, 0xA0)] if chr(code) not in "\n\t"}
_LEAST_COLUMNS, _LEAST_ROWS = 10, 3


class Screen:
    """Pictures and text on one console; on one that is no terminal, text alone."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._entered = self._holding = False
        self._is_live = (
            console.is_terminal
            and not console.is_dumb_terminal
            and not console.legacy_windows
            and not console.is_jupyter
        )

    @property
    def room(self) -> tuple[int, int]:
        """Columns and rows for a picture, as the window is now; (0, 0) where there is none.

        The last column stays free: terminals differ in what "erase the rest" takes when the cursor is behind it.
        """
        width, height = self._console.size
        enough = width > _LEAST_COLUMNS and height >= _LEAST_ROWS
        return (width - 1, height) if self._is_live and enough else (0, 0)

    def paint(self, lines: Sequence[Sequence[Segment]]) -> None:
        """Show a picture that fits ``room`` in place of the one before."""
        drawn = (_ERASE_LINE + "\r\n").join(self._rendered(line) for line in lines)
        enter = "" if self._entered else _ENTER + _HIDE_CURSOR
        self._entered = True  # first, so that Ctrl-C in the middle of the write is put right too
        picture = f"{enter}{_WRAP_OFF}{_HOME}{drawn}{_ERASE_LINE}{_ERASE_BELOW}{_WRAP_ON}"
        self._send(picture)

    def write(self, text: str, style: Style | None = None) -> None:
        """Text that stays, as it is: the terminal folds it, so that a copy has the line ends of the text alone.

        Codes that a terminal would obey become U+FFFD; to a file or a pipe they go as they are.
        """
        self.leave()
        if self._console.is_terminal:
            text = self._spelled(text.translate(_OBEYED))
        self._console.print(Segments([Segment(text, style)]), end="", soft_wrap=True)
        self._console.file.flush()

    def leave(self) -> None:
        """Take the picture away: the terminal is as it was before."""
        if self._entered:
            # Emptied first: tmux, where the window was resized, moves lines of the screen that it leaves to scrollback.
            self._send(_WRAP_ON + _HOME + _ERASE_BELOW + _LEAVE + _SHOW_CURSOR)
            self._entered = False

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """All that is done inside appears together, where the terminal can do that."""
        if not self._entered:
            yield
            return
        try:
            self._holding = True
            self._send(_BEGIN_UPDATE)
            yield
        finally:
            self._send(_END_UPDATE)
            self._holding = False

    def _rendered(self, line: Sequence[Segment]) -> str:
        with self._console.capture() as capture:
            self._console.print(Segments(line), end="", soft_wrap=True)
        return capture.get()

    def _send(self, codes: str) -> None:
        if not self._holding:
            codes = _BEGIN_UPDATE + codes + _END_UPDATE
        self._console.file.write(self._spelled(codes))
        self._console.file.flush()

    def _spelled(self, text: str) -> str:
        """The text with "?" for what the terminal's encoding lacks: no character is worth an answer's end."""
        encoding = self._console.encoding
        return text.encode(encoding, "replace").decode(encoding)
