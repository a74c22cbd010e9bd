"""Where a prompt comes from: -p, then a file, then a pipe, joined by blank lines."""

from __future__ import annotations

import sys
from pathlib import Path

import typer

from ..errors import RequestError


def read_prompt(prompt: str | None, file: Path | None, chat: bool) -> str | None:
    """All that was given, as in ``cat notes.txt | dgemma run -p "Summarise:"``.

    A chat reads its turns from the pipe and may begin without a prompt: None.
    """
    parts = [prompt, None if file is None else file_text(file), None if chat else _piped_text()]
    given = [part for part in parts if part is not None]
    if not given and not chat:
        raise typer.BadParameter("give a prompt with -p or -f, or pipe one in")
    text = "\n\n".join(part for part in given if part.strip())
    if given and not text:
        raise RequestError("the prompt is empty")
    return text or None


def file_text(path: Path) -> str:
    from ..passages import read_text

    return read_text(path).removesuffix("\n")  # the line end that editors put there


def _piped_text() -> str | None:
    """What stands on stdin, if that is not a terminal."""
    if sys.stdin is None or sys.stdin.isatty():
        return None
    try:
        text = sys.stdin.buffer.read().decode()
    except UnicodeDecodeError as error:
        raise RequestError(f"the prompt on stdin is not UTF-8: byte {error.start} is no part of it") from None
    return text.removesuffix("\n")  # the line end that echo puts there
