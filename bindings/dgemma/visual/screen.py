"""The part of a terminal below the text: a frame is painted there again and again, and leaves no trace.

rich's ``Live`` keeps the cursor below its frame and climbs back up by the number of lines it drew. When the window is
made narrower the terminal folds those lines, the number is wrong, and what was above is overwritten or left as litter.
Here the cursor rests where the text ended: everything after it is the frame's, however it was folded, and the terminal
itself moves the cursor along when it folds the text. So nothing has to be known about where on the screen we are, and
text that ends in the middle of a line is continued there.

A frame is one write, ends each line with "erase the rest" instead of clearing first, and asks terminals that can to
show it at once; so it does not flicker.
"""

from __future__ import annotations

from collections.abc import Sequence

from rich.cells import get_character_cell_size
from rich.console import Console
from rich.segment import Segment, Segments
from rich.style import Style

_INDEX = "\x1bD"  # down by one line, scrolling at the bottom, in the same column (a line feed would go to the first)
_SAVE, _RESTORE = "\x1b7", "\x1b8"
_ERASE_LINE, _ERASE_BELOW = "\x1b[K", "\x1b[J"
_HIDE_CURSOR, _SHOW_CURSOR = "\x1b[?25l", "\x1b[?25h"
_WRAP_OFF, _WRAP_ON = "\x1b[?7l", "\x1b[?7h"  # a line that is wider than it measures is cut, not folded
_BEGIN_UPDATE, _END_UPDATE = "\x1b[?2026h", "\x1b[?2026l"

# Text may hold anything that a model writes; these would be obeyed by the terminal.
_OBEYED = {code: "�" for code in [*range(0x20), *range(0x7F, 0xA0)] if chr(code) not in "\n\t"}
_TAB = 8
_LEAST_COLUMNS, _LEAST_ROWS = 10, 3


class Screen:
    """Text, and a frame below it, on one console."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._last_line = ""  # of the text written so far: what the cursor stands behind
        self._used = self._shown = self._painting = False
        self.is_live = (
            console.is_terminal
            and not console.is_dumb_terminal
            and not console.legacy_windows
            and not console.is_jupyter
        )

    @property
    def room(self) -> tuple[int, int]:
        """Columns and rows for a frame, as the window is now; (0, 0) where it is too small for one.

        The last column stays free: characters at the margin are where terminals differ, in what "erase the rest of the
        line" takes with it and in how wide lines are folded.
        """
        width, height = self._console.size
        rows = height - 1 if self._last_line else height
        return (width - 1, rows) if self.is_live and width > _LEAST_COLUMNS and rows >= _LEAST_ROWS else (0, 0)

    def paint(self, lines: Sequence[Sequence[Segment]]) -> None:
        """Show a frame in place of the one before; it must fit ``room``."""
        below = len(lines) if self._last_line else len(lines) - 1
        room = _INDEX * below + (f"\x1b[{below}A" if below else "")  # scrolls the text up where there is none yet
        drawn = (_ERASE_LINE + "\r\n").join(self._rendered(line) for line in lines)
        start = "\r\n" if self._last_line else ""
        frame = f"{room}{_SAVE}{_WRAP_OFF}{start}{drawn}{_ERASE_LINE}{_ERASE_BELOW}{_WRAP_ON}{_RESTORE}"
        self._painting = self._used = True
        self._send(_BEGIN_UPDATE + _HIDE_CURSOR + self._off_the_margin() + frame + _END_UPDATE)
        self._painting, self._shown = False, True

    def erase(self) -> None:
        """Take the frame away; the text goes on where it ended."""
        if self._shown or self._painting:
            back = _RESTORE + _WRAP_ON + _END_UPDATE if self._painting else ""  # cut short by Ctrl-C
            self._send(back + _ERASE_BELOW)
            self._shown = self._painting = False

    def write(self, text: str, style: Style | None = None) -> None:
        """Text that stays, as it is: the terminal folds it, so that a copy has the line ends of the text alone.

        Codes that a terminal would obey become U+FFFD; to a file or a pipe they go as they are.
        """
        self.erase()
        if self._console.is_terminal:
            text = text.translate(_OBEYED)
        self._console.print(Segments([Segment(text, style)]), end="", soft_wrap=True)
        self._console.file.flush()
        _, line_end, tail = text.rpartition("\n")
        self._last_line = tail if line_end else self._last_line + tail

    def close(self) -> None:
        """Give the terminal back as it was."""
        try:
            self.erase()
        finally:
            if self._used:
                self._send(_SHOW_CURSOR)

    def _off_the_margin(self) -> str:
        """Where the text fills its line exactly, terminals wait behind the last column, and forget that when the cursor
        moves. A space taken back makes them go to the next line at once."""
        return " \b" if not self._shown and _end_column(self._last_line, self._console.width) == 0 else ""

    def _rendered(self, line: Sequence[Segment]) -> str:
        with self._console.capture() as capture:
            self._console.print(Segments(line), end="", soft_wrap=True)
        return capture.get()

    def _send(self, codes: str) -> None:
        file, encoding = self._console.file, self._console.encoding
        file.write(codes.encode(encoding, "replace").decode(encoding))
        file.flush()


def _end_column(line: str, width: int) -> int | None:
    """The column behind a line that the terminal folds at ``width``: 0 where its last row is full, None if empty."""
    if not line:
        return None
    column = 0
    for char in line:
        to_tab_stop = max(0, min(_TAB - column % _TAB, width - 1 - column))
        cells = to_tab_stop if char == "\t" else get_character_cell_size(char)
        column = cells if column + cells > width else column + cells
    return column % width
