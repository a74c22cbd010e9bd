"""One answer on its way: events in, what the user receives out."""

from __future__ import annotations

import threading
import time
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from .chat import Delta, Piece, StopStrings, ToolCall
from .chat.message import append
from .errors import RequestError
from .events import BlockEvent, DoneEvent, Event, GenerationConfig, StepEvent
from .tokenizer import TextStream, Tokenizer

if TYPE_CHECKING:
    from .conversation import Conversation


class Reader(Protocol):
    """Tokens to pieces: a ``MessageParser``, or ``PlainText``."""

    def feed(self, ids: Sequence[int]) -> list[Piece]: ...
    def finish(self) -> list[Piece]: ...


class PlainText:
    """Every token is text."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._stream = TextStream(tokenizer)

    def feed(self, ids: Sequence[int]) -> list[Piece]:
        return _text(self._stream.feed(ids))

    def finish(self) -> list[Piece]:
        return _text(self._stream.finish())


@dataclass(frozen=True)
class Request:
    """An answer that is wanted, all of it checked."""

    prompt: list[int]
    max_tokens: int
    seed: int
    config: GenerationConfig
    stops: list[str] = field(default_factory=list)
    on_event: Callable[[Event], object] | None = None
    settled: int | None = None  # as for ``Conversation.answer``


class Answering:
    """Runs one request; after ``pieces`` is through, the attributes say what was received.

    Stop strings apply to text, not to thoughts and calls. Tokens are counted up to the one that completes the text
    which the user received: the stop string and what follows it do not count.
    """

    def __init__(self, conversation: Conversation, lock: threading.Lock, request: Request, reader: Reader) -> None:
        self.request = request
        self.text = ""
        self.calls: list[ToolCall] = []
        self.completion_tokens = 0
        self._conversation = conversation
        self._lock = lock
        self._reader = reader
        self._stop = StopStrings(request.stops)
        self._text_ends: list[int] = []  # for each token, how long the text was with it
        self._last_other = 0  # how many tokens there were with the last one that made a thought or a call
        self._text_length = 0  # of all text, stop string and what waits included
        self._blocks = self._steps = 0
        self._done: DoneEvent | None = None
        self._seconds = 0.0
        self._encoded = self._reused = 0

    def pieces(self) -> Iterator[list[Piece]]:
        """What becomes readable, block by block. Closing the iterator ends the answer."""
        if not self._lock.acquire(blocking=False):
            raise RequestError("another answer of this model is under way: read its stream to the end, or close it")
        start, stats = time.perf_counter(), self._conversation.stats
        encoded, reused = stats.encoded_tokens, stats.reused_tokens
        try:
            yield from self._received(self._events())
        finally:
            self._seconds = time.perf_counter() - start
            self._encoded, self._reused = stats.encoded_tokens - encoded, stats.reused_tokens - reused
            self._lock.release()

    @property
    def stopped_by_string(self) -> bool:
        return self._stop.found is not None

    @property
    def finish_reason(self) -> str:
        if not self.stopped_by_string and (self._done is None or self._done.reason != "stop"):
            return "length"
        return "tool_calls" if self.calls else "stop"

    def usage(self) -> dict[str, Any]:
        prompt, completion = len(self.request.prompt), self.completion_tokens
        return {
            "prompt_tokens": prompt,
            "completion_tokens": completion,
            "total_tokens": prompt + completion,
            "prompt_tokens_details": {"cached_tokens": self._reused},
        }

    def timings(self) -> dict[str, Any]:
        """Seconds from the call to the last token; ``ms_per_step`` is None where a stop string cut the answer short."""
        return {
            "wall_seconds": self._seconds,
            "tokens_per_second": self.completion_tokens / self._seconds if self._seconds > 0 else 0.0,
            "blocks": self._blocks,
            "steps": self._steps,
            "ms_per_step": self._done.stats.ms_per_step if self._done else None,
            "encoded_tokens": self._encoded,
        }

    def _events(self) -> Iterator[Event]:
        request = self.request
        return self._conversation.answer(
            request.prompt,
            max_new_tokens=request.max_tokens,
            seed=request.seed,
            config=request.config,
            settled=request.settled,
        )

    def _received(self, events: Iterator[Event]) -> Iterator[list[Piece]]:
        try:
            for event in events:
                if self.request.on_event is not None:
                    self.request.on_event(event)
                if isinstance(event, StepEvent):
                    self._steps += 1
                elif isinstance(event, DoneEvent):
                    self._done = event
                else:
                    yield self._block(event)
                if self.stopped_by_string:
                    return
        finally:
            if hasattr(events, "close"):
                events.close()  # ends the computation, too
        yield self._rest()

    def _block(self, block: BlockEvent) -> list[Piece]:
        self._blocks += 1
        received: list[Piece] = []
        for token in block.tokens:
            pieces = self._reader.feed([token])
            shown = self._past_stops(pieces)
            self._text_ends.append(self._text_length)
            if not all(isinstance(piece, Delta) and piece.kind == "text" for piece in shown):
                self._last_other = len(self._text_ends)
            for piece in shown:
                append(received, piece)
            if self.stopped_by_string:
                break
        self._count()
        return received

    def _rest(self) -> list[Piece]:
        received = self._past_stops(self._reader.finish())
        if not self.stopped_by_string:
            held = self._stop.finish()
            self.text += held
            received += _text(held)
        self._count()
        return received

    def _past_stops(self, pieces: list[Piece]) -> list[Piece]:
        """The pieces with their text cut before a stop string, or held back where it may be the beginning of one."""
        shown: list[Piece] = []
        for piece in pieces:
            if isinstance(piece, ToolCall):
                text = self._stop.finish()  # no stop string goes on beyond a call
                shown += [*_text(text), piece]
                self.calls.append(piece)
            elif piece.kind == "thought":
                text = ""
                shown.append(piece)
            else:
                self._text_length += len(piece.text)
                text = self._stop.feed(piece.text)
                shown += [Delta("text", text, piece.malformed_call)] if text else []
            self.text += text
            if self.stopped_by_string:
                break
        return shown

    def _count(self) -> None:
        """All tokens, or where a stop string was found those up to the one that completed the received text."""
        self.completion_tokens = len(self._text_ends)
        if self.stopped_by_string:
            length = len(self.text)
            with_text = bisect_left(self._text_ends, length) + 1 if length else bisect_right(self._text_ends, 0)
            self.completion_tokens = min(self.completion_tokens, max(self._last_other, with_text))


def _text(text: str) -> list[Piece]:
    return [Delta("text", text)] if text else []
