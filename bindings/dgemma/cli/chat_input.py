"""Where the turns of a chat come from: a line editor on a terminal, or a pipe with a line for each turn."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol, TextIO

import typer

if TYPE_CHECKING:
    from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent

MARK, _CONTINUED = "> ", "  "


class LineReader(Protocol):
    greets: bool  # whether a person sits there

    def read(self) -> str:
        """The next turn, which may have several lines. Raises ``EOFError`` at the end."""


def line_reader(commands: Sequence[str]) -> LineReader:
    """The editor where stdin is a terminal, else its lines."""
    return Editor(commands) if sys.stdin is not None and sys.stdin.isatty() else Lines(sys.stdin)


class Lines:
    """A turn a line; a backslash at its end joins the next one to it."""

    greets = False

    def __init__(self, file: TextIO) -> None:
        self._file = file

    def read(self) -> str:
        turn = ""
        for line in self._file:
            turn += line.removesuffix("\n")
            if not turn.endswith("\\"):
                return turn
            turn = turn[:-1] + "\n"
        if not turn:
            raise EOFError
        return turn


class Editor:
    """A line editor with history, completion of commands and turns of several lines."""

    greets = True

    def __init__(self, commands: Sequence[str]) -> None:
        from prompt_toolkit import PromptSession
        from prompt_toolkit.completion import WordCompleter
        from prompt_toolkit.output import create_output

        self._session: PromptSession[str] = PromptSession(
            completer=WordCompleter(list(commands), sentence=True),
            complete_while_typing=False,
            multiline=True,
            key_bindings=_keys(),
            prompt_continuation=_CONTINUED,
            # With the answers going to a file, the line still has to be seen where it is typed.
            output=create_output(always_prefer_tty=True),
        )

    def read(self) -> str:
        while True:
            try:
                return self._session.prompt(MARK)
            except KeyboardInterrupt:  # takes back what was typed
                if not self._session.default_buffer.text:
                    typer.secho("Ctrl-D or /exit leaves", err=True, dim=True)


@contextmanager
def unechoed_keys() -> Iterator[None]:
    """What is typed during an answer stays out of it, and waits for the next turn."""
    if os.name != "posix" or sys.stdin is None or not sys.stdin.isatty():
        yield
        return
    import termios

    before = termios.tcgetattr(sys.stdin)
    during = termios.tcgetattr(sys.stdin)
    during[3] &= ~(termios.ECHO | termios.ICANON)
    termios.tcsetattr(sys.stdin, termios.TCSADRAIN, during)
    try:
        yield
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)


def _keys() -> KeyBindings:
    from prompt_toolkit.key_binding import KeyBindings

    keys = KeyBindings()

    @keys.add("enter")
    def send(event: KeyPressEvent) -> None:
        buffer = event.current_buffer
        if buffer.document.text_before_cursor.endswith("\\") and buffer.document.is_cursor_at_the_end:
            buffer.delete_before_cursor()
            buffer.newline(copy_margin=False)
        else:
            buffer.validate_and_handle()

    @keys.add("escape", "enter")
    def begin_line(event: KeyPressEvent) -> None:
        event.current_buffer.newline(copy_margin=False)

    return keys
