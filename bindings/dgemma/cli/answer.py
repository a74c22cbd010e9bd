"""An answer as the command line collects it: events in, readable text and a summary out."""

from __future__ import annotations

import dataclasses

from ..events import DoneEvent, Event, StepEvent
from ..tokenizer import TextStream, Tokenizer

_WHY = {
    "length": "stopped at the token limit (-n)",
    "context": "stopped because the context is full (-c)",
    "cancelled": "interrupted",
}


class Answer:
    """Everything received of one answer so far; without a ``DoneEvent`` it counts as cancelled."""

    def __init__(self, tokenizer: Tokenizer, prompt_tokens: int) -> None:
        self.tokens: list[int] = []
        self.text = ""
        self._stream = TextStream(tokenizer)
        self._prompt_tokens = prompt_tokens
        self._steps = 0
        self._blocks = 0
        self._done: DoneEvent | None = None

    def add(self, event: Event) -> str:
        """Take in one event; returns the text that became readable by it."""
        if isinstance(event, StepEvent):
            self._steps += 1
            return ""
        if isinstance(event, DoneEvent):
            self._done = event
            return ""
        self.tokens += event.tokens
        self._blocks += 1
        return self._grow(self._stream.feed(event.tokens))

    def finish(self) -> str:
        """No more events: returns the text that waited for the rest of a character."""
        return self._grow(self._stream.finish())

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
        return {**dataclasses.asdict(stats), **rates}

    def summary(self) -> str:
        """One line: tokens received, steps and, where known, speed up to the end token and why it stopped."""
        stats = self.stats()
        parts = [_count(stats["new_tokens"], "token"), _count(stats["steps"], "step")]
        if self._done is not None:
            parts += [f"{stats['ms_per_step']:.1f} ms a step", f"{stats['tokens_per_second']:.2f} tokens/s"]
        if self.reason in _WHY:
            parts.append(_WHY[self.reason])
        return ", ".join(parts)

    def _grow(self, text: str) -> str:
        self.text += text
        return text


def _count(number: float, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
