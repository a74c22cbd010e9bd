"""An answer as the command line collects it: events in, readable pieces and a summary out."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from ..chat import Delta, Message, MessageParser
from ..events import DoneEvent, StepEvent
from ..tokenizer import TextStream

if TYPE_CHECKING:
    from ..chat import Piece
    from ..events import Event
    from ..tokenizer import Tokenizer

_WHY = {
    "length": "stopped at the token limit (-n)",
    "context": "stopped because the context is full (-c)",
    "cancelled": "interrupted",
}


class Answer:
    """Everything received of one answer so far; without a ``DoneEvent`` it counts as cancelled.

    ``raw``: the prompt did not come from the chat template, so the text is not parsed as a message.
    """

    def __init__(self, tokenizer: Tokenizer, prompt_tokens: int, raw: bool = False) -> None:
        self.tokens: list[int] = []
        self._parser = _PlainText(tokenizer) if raw else MessageParser(tokenizer)
        self._prompt_tokens = prompt_tokens
        self._steps = 0
        self._blocks = 0
        self._done: DoneEvent | None = None

    def add(self, event: Event) -> list[Piece]:
        """Take in one event; returns what became readable by it."""
        if isinstance(event, StepEvent):
            self._steps += 1
            return []
        if isinstance(event, DoneEvent):
            self._done = event
            return []
        self.tokens += event.tokens
        self._blocks += 1
        return self._parser.feed(event.tokens)

    def finish(self) -> list[Piece]:
        """No more events: returns what waited for the rest of a character or of a tool call."""
        return self._parser.finish()

    @property
    def message(self) -> Message:
        return self._parser.message

    @property
    def reason(self) -> str:
        return self._done.reason if self._done else "cancelled"

    def stats(self) -> dict[str, float]:
        """The ``GenerationStats`` with its rates; of an interrupted answer only the counts, which are all it has."""
        if self._done is None:
            counts = {"prompt_tokens": self._prompt_tokens, "new_tokens": len(self.tokens)}
            return {**counts, "blocks": self._blocks, "steps": self._steps}
        stats = self._done.stats
        rates = {"ms_per_step": stats.ms_per_step, "tokens_per_second": stats.tokens_per_second}
        return {**asdict(stats), **rates}

    def summary(self) -> str:
        """One line: tokens received, steps and, where known, speed up to the end token and why it stopped."""
        stats = self.stats()
        parts = [_count(stats["new_tokens"], "token"), _count(stats["steps"], "step")]
        if self._done is not None:
            parts += [f"{stats['ms_per_step']:.1f} ms a step", f"{stats['tokens_per_second']:.2f} tokens/s"]
        if self.reason in _WHY:
            parts.append(_WHY[self.reason])
        return ", ".join(parts)

    def as_object(self) -> dict[str, Any]:
        """The answer for a program."""
        calls = [{"name": call.name, "arguments": call.arguments} for call in self.message.tool_calls]
        parts = {"text": self.message.content, "thought": self.message.thought, "tool_calls": calls}
        return {**parts, "tokens": self.tokens, "reason": self.reason, "stats": self.stats()}


class _PlainText:
    """Does as ``MessageParser`` does, but all ids are text."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._stream = TextStream(tokenizer)
        self.message = Message()

    def feed(self, ids: Iterable[int]) -> list[Piece]:
        return self._grown(self._stream.feed(ids))

    def finish(self) -> list[Piece]:
        return self._grown(self._stream.finish())

    def _grown(self, text: str) -> list[Piece]:
        self.message = replace(self.message, content=self.message.content + text)
        return [Delta("text", text)]


def _count(number: float, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
