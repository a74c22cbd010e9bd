"""An answer's tokens to its parts: text, thoughts and tool calls, as they come.

The markers are special tokens, so they are told by their ids: text that merely spells ``<|channel>`` is text.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from ..tokenizer import TextStream, Tokenizer
from .markers import THOUGHT, Markers
from .message import Delta, Message, Piece, ToolCall, append
from .tool_call import parse_call


class MessageParser:
    """One answer. ``feed`` it blocks of tokens, then ``finish``; how they are cut makes no difference to the message.

    Nothing raises but an id outside the vocabulary, and no text is lost:

    - A channel is a thought; its first line, ``thought``, is not part of it. One that never closes, where nothing else
      was said, is the answer after all.
    - A tool call that cannot be read is text, as the model wrote it, in a delta marked ``malformed_call``. With
      ``tool_calls=False`` all calls are text.
    - Control tokens, markers that close nothing, and line breaks right after a marker are dropped.
    - An end token, or the beginning of a tool's response, ends the answer: what follows is noise.
    """

    def __init__(self, tokenizer: Tokenizer, tool_calls: bool = True) -> None:
        self._tokenizer = tokenizer
        self._markers = markers = Markers.of(tokenizer)
        self._ends = {*tokenizer.eos_ids, markers.response}
        self._closers = {markers.channel_end, markers.response_end}
        self._openers = {markers.channel}
        if tool_calls:
            self._openers.add(markers.call)
            self._closers.add(markers.call_end)
        self._part: Literal["text", "thought"] = "text"
        self._call: list[int] | None = None  # the ids of a call that has begun, its marker included
        self._stream = TextStream(tokenizer)
        self._after_marker = True  # the prompt ends with one
        self._content = ""
        self._ids: list[int] = []
        self._calls: list[ToolCall] = []
        self._malformed = False
        self._thoughts: list[_Thought] = []
        self._ended = False
        self._out: list[Piece] = []

    @property
    def message(self) -> Message:
        """The answer so far."""
        thought = "".join(thought.text for thought in self._thoughts)
        return Message(self._content, thought, tuple(self._calls), tuple(self._ids), self._malformed)

    def feed(self, ids: Iterable[int]) -> list[Piece]:
        """What became readable by these tokens, in order."""
        for id in ids:
            if self._ended:
                break
            if id in self._ends:
                self._end()
            elif id in self._openers or id in self._closers:
                self._marker(id)
            else:
                self._ordinary(id)
        return self._taken()

    def finish(self) -> list[Piece]:
        """What was still waiting: a cut character, a call that never closed, a thought that was the answer."""
        if not self._ended:
            self._end()
        return self._taken()

    def _marker(self, id: int) -> None:
        if self._call is not None:
            self._end_call(closed_by=id)
        self._flush()
        self._after_marker = True
        if id == self._markers.channel:
            self._part = "thought"
            self._thoughts.append(_Thought(first=not self._thoughts))
        elif id == self._markers.channel_end:
            self._part = "text"
        elif id == self._markers.call:
            self._call = [id]

    def _ordinary(self, id: int) -> None:
        spelled = self._tokenizer.decode_bytes([id], skip_special=True)
        if not spelled:
            return
        if self._call is not None:
            self._call.append(id)
        elif self._part == "thought":
            self._emit("thought", self._thoughts[-1].feed(self._stream.feed([id])))
        elif not self._after_marker or spelled.strip(b"\n"):
            self._after_marker = False
            self._ids.append(id)
            self._emit("text", self._stream.feed([id]))

    def _end(self) -> None:
        if self._call is not None:
            self._end_call(closed_by=None)
        self._flush()
        self._ended = True
        if self._part == "thought" and not self._calls and not self._content.strip():
            answer = self._thoughts.pop().text.lstrip("\n")
            # Its tokens came after a marker that is gone: nothing in a cache has them at this place.
            self._ids += self._tokenizer.encode(answer, add_bos=False, parse_special=False)
            self._emit("text", answer)

    def _end_call(self, closed_by: int | None) -> None:
        """Reads the call that has begun, whether its own marker, another or the answer's end closes it."""
        assert self._call is not None
        ids, self._call = self._call, None
        call = parse_call(self._between_quotes(ids[1:]))
        end = self._markers.call_end
        if end is not None and (closed_by == end or call is not None):
            ids.append(end)
        self._ids += ids
        if call is not None:
            self._calls.append(call)
            append(self._out, call)
            return
        self._malformed = True
        self._emit("text", self._tokenizer.decode(ids), malformed_call=True)

    def _between_quotes(self, ids: list[int]) -> list[str]:
        chunks: list[list[int]] = [[]]
        for id in ids:
            if id == self._markers.quote:
                chunks.append([])
            else:
                chunks[-1].append(id)
        return [self._tokenizer.decode(chunk) for chunk in chunks]

    def _flush(self) -> None:
        """The end of a part: no character goes on beyond a marker."""
        rest = self._stream.finish()
        if self._part == "thought":
            thought = self._thoughts[-1]
            self._emit("thought", thought.feed(rest) + thought.finish())
        else:
            self._emit("text", rest)

    def _emit(self, kind: Literal["text", "thought"], text: str, malformed_call: bool = False) -> None:
        if kind == "text":
            self._content += text
        append(self._out, Delta(kind, text, malformed_call))

    def _taken(self) -> list[Piece]:
        taken, self._out = self._out, []
        return taken


class _Thought:
    """One channel: text without its first line ``thought`` and without the white space around it."""

    def __init__(self, first: bool) -> None:
        self.text = ""
        self._head: str | None = ""  # what may still turn out to be the first line; None: that is decided
        self._gap = ""  # white space that goes with the text after it, if any comes
        self._prefix = "" if first else "\n\n"

    def feed(self, text: str) -> str:
        if self._head is not None:
            text = self._past_head(self._head + text)
        body = (self._gap + text).rstrip()
        self._gap = (self._gap + text)[len(body) :]
        if not self.text:
            body = body.lstrip("\n")
            body = self._prefix + body if body else ""
        self.text += body
        return body

    def finish(self) -> str:
        """A first line that never ended is text, unless it is the word itself."""
        head, self._head = self._head, None
        return self.feed(head) if head and head.strip() != THOUGHT.strip() else ""

    def _past_head(self, text: str) -> str:
        start = text.lstrip()
        if start.startswith(THOUGHT):
            self._head = None
            return start[len(THOUGHT) :]
        if THOUGHT.startswith(start):
            self._head = text
            return ""
        self._head = None
        return text
