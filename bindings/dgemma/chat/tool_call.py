"""Gemma's notation of a tool call: ``call:name{key:<|"|>text<|"|>,n:1,flag:true,list:[…],object:{…}}``.

The quote is a token of its own, so that a string may hold anything at all, spelled quotes and braces included. What
stands between quotes is therefore kept apart: the notation is read with a placeholder for each string.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Sequence
from typing import Any

from .message import ToolCall

_STRING = "\0"  # stands for a quoted string
_DEEPEST = 64  # nesting, far below Python's own limit

_HEAD = re.compile(r'\s*call:\s*([^\s\0{}\[\](),"]+)\s*(?={)')
_SPACE = re.compile(r"\s*")
_NAME = re.compile(r'[^\0{}\[\],:"]+')
_JSON_STRING = re.compile(r'"(?:[^"\\\0]|\\[^\0])*"', re.DOTALL)
_BARE = re.compile(r"[^\0{}\[\],]+")  # in a value's place even a colon is text: 12:30, https://…
_NUMBER = re.compile(r"-?\d+(\.\d+)?([eE][+-]?\d+)?")
_WORDS = {"true": True, "false": False, "null": None, "None": None}


class _Malformed(Exception):
    """The text is no call. Never leaves this file."""


def parse_call(chunks: Sequence[str]) -> ToolCall | None:
    """The call whose text is ``chunks``, cut at every quote token: each second one is a string's content.

    None where it is no call: a quote that never closes, unbalanced braces, a value that is missing.
    """
    notation, strings = chunks[::2], chunks[1::2]
    if len(chunks) % 2 == 0 or any(_STRING in chunk for chunk in notation):
        return None
    try:
        return _Reader(_STRING.join(notation), iter(strings)).call()
    except _Malformed:
        return None


class _Reader:
    """Recursive descent over the notation; ``strings`` are taken in the order of their placeholders."""

    def __init__(self, text: str, strings: Iterator[str]) -> None:
        self._text = text
        self._strings = strings
        self._at = 0

    def call(self) -> ToolCall:
        name = self._match(_HEAD)[1]
        arguments = self._object(depth=0)
        if self._at != len(self._text):
            raise _Malformed
        return ToolCall(name, arguments)

    def _value(self, depth: int) -> Any:
        if depth > _DEEPEST:
            raise _Malformed
        following = self._peek()
        if following == "{":
            return self._object(depth)
        if following == "[":
            return self._list(depth)
        if following in (_STRING, '"'):
            return self._string()
        return _bare_value(self._match(_BARE)[0].strip())

    def _object(self, depth: int) -> dict[str, Any]:
        found: dict[str, Any] = {}
        self._take("{")
        while not self._ends("}", empty=not found):
            key = self._string() if self._peek() in (_STRING, '"') else self._match(_NAME)[0].strip()
            self._take(":")
            found[key] = self._value(depth + 1)
        return found

    def _list(self, depth: int) -> list[Any]:
        found: list[Any] = []
        self._take("[")
        while not self._ends("]", empty=not found):
            found.append(self._value(depth + 1))
        return found

    def _ends(self, bracket: str, empty: bool) -> bool:
        """Whether the bracket closes here; otherwise a comma before all members but the first."""
        if self._peek() == bracket:
            self._take(bracket)
            return True
        if not empty:
            self._take(",")
        return False

    def _string(self) -> str:
        if self._peek() == _STRING:
            self._take(_STRING)
            return next(self._strings)
        try:
            text = str(json.loads(self._match(_JSON_STRING)[0], strict=False))
            text.encode()  # half of a surrogate pair, spelled as an escape, is no text
            return text
        except ValueError:
            raise _Malformed from None

    def _peek(self) -> str:
        self._skip_space()
        return self._text[self._at : self._at + 1]

    def _take(self, char: str) -> None:
        if self._peek() != char:
            raise _Malformed
        self._at += 1
        self._skip_space()

    def _match(self, pattern: re.Pattern[str]) -> re.Match[str]:
        match = pattern.match(self._text, self._at)
        if match is None:
            raise _Malformed
        self._at = match.end()
        return match

    def _skip_space(self) -> None:
        space = _SPACE.match(self._text, self._at)
        self._at = space.end() if space else self._at


def _bare_value(text: str) -> Any:
    """What stands unquoted: a word of JSON, a number, else a string whose quotes were forgotten."""
    if not text:
        raise _Malformed
    if text in _WORDS:
        return _WORDS[text]
    if _NUMBER.fullmatch(text):
        try:
            number = json.loads(text)
        except ValueError:  # leading zeros, or more digits than Python reads
            return text
        return text if isinstance(number, float) and math.isinf(number) else number
    return text
