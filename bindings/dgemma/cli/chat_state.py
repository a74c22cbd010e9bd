"""A chat without its terminal: messages, cache, seeds, and one answer at a time."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from ..errors import Cancelled, FileError, RequestError
from .answer import Answer
from .options import Thinking
from .settings import Settings

if TYPE_CHECKING:
    from ..chat import Piece
    from ..conversation import Conversation
    from ..engine import Engine
    from ..events import Event
    from ..template import ChatTemplate
    from ..tokenizer import Tokenizer

    Message = dict[str, Any]
    Show = Callable[[Event | None, Sequence[Piece]], None]


@dataclass
class Totals:
    """What all answers of a chat took together."""

    answers: int = 0
    tokens: int = 0
    steps: int = 0
    timed_tokens: int = 0  # without those of interrupted answers, whose time is not known
    seconds: float = 0.0

    def add(self, answer: Answer) -> None:
        stats = answer.stats()
        self.answers += 1
        self.tokens += int(stats["new_tokens"])
        self.steps += int(stats["steps"])
        if "wall_seconds" in stats:
            self.timed_tokens += int(stats["new_tokens"])
            self.seconds += stats["wall_seconds"]

    @property
    def tokens_per_second(self) -> float:
        return self.timed_tokens / self.seconds if self.seconds else 0.0


@dataclass
class ChatState:
    """One conversation with a model.

    Whatever goes wrong in an answer (an error, Ctrl-C before anything came), the messages are as they were before it.
    """

    engine: Engine
    conversation: Conversation
    tokenizer: Tokenizer
    template: ChatTemplate
    settings: Settings
    messages: list[Message] = field(default_factory=list)  # without the system prompt
    totals: Totals = field(default_factory=Totals)
    seeds_used: int = 0
    last_seed: int | None = None
    interrupted: bool = False  # whether the last answer was

    def ask(self, text: str, show: Show) -> Answer:
        """The model's answer to ``text``; ``show`` is called with every event and what became readable by it."""
        return self._answer([*self.messages, {"role": "user", "content": text}], show)

    def regenerate(self, show: Show) -> Answer:
        """Another answer, with the next seed, in place of the last one."""
        question = _last_question(self.messages)
        if question is None:
            raise RequestError("there is no answer yet to make again")
        return self._answer(self.messages[: question + 1], show)

    def clear(self) -> None:
        """Forgets the messages; the system prompt stays."""
        self.messages = []

    def change(self, **settings: Any) -> None:
        """Other settings from the next answer on. A new seed begins its row of seeds."""
        self.settings = replace(self.settings, **settings)
        if "seed" in settings:
            self.seeds_used = 0

    def save(self, path: str | os.PathLike[str]) -> None:
        """Messages, settings and the cache, in one file."""
        self.conversation.save(path, saved_chat(self.settings, self.messages, self.seeds_used))

    def load(self, path: str | os.PathLike[str]) -> None:
        """Goes on where ``save`` left off."""
        extra = self.conversation.load(path)
        try:
            messages = [_checked(message) for message in extra["messages"]]
            settings = {"system": extra["system"], "thinking": Thinking(extra["thinking"]), "seed": int(extra["seed"])}
            seeds_used = int(extra["seeds_used"])
        except (KeyError, TypeError, ValueError):
            raise FileError(f"{os.fspath(path)}: holds a cache but no chat: it was not saved by dgemma run") from None
        self.change(**settings)
        self.messages, self.seeds_used = messages, seeds_used

    def _answer(self, messages: list[Message], show: Show) -> Answer:
        from ..chat import history_ids, settled_length

        asked, thinking = with_system(self.settings, messages), self.settings.thinking.wanted
        prompt = history_ids(self.template, self.tokenizer, asked, enable_thinking=thinking)
        answer = Answer(self.tokenizer, len(prompt))
        self.last_seed = (self.settings.seed + self.seeds_used) % 2**64
        self.seeds_used += 1
        try:
            for event in self.conversation.answer(
                prompt,
                max_new_tokens=self.settings.max_new_tokens,
                seed=self.last_seed,
                config=self.settings.config(self.engine),
                settled=settled_length(self.template, self.tokenizer, asked, prompt, enable_thinking=thinking),
            ):
                show(event, answer.add(event))
        except (KeyboardInterrupt, Cancelled):
            pass  # the answer has no DoneEvent and so counts as cancelled
        show(None, answer.finish())
        self.totals.add(answer)
        self.interrupted = answer.reason == "cancelled"
        if answer.tokens or answer.reason != "cancelled":
            self.messages = [*messages, answer.message.as_history()]
        return answer


def with_system(settings: Settings, messages: list[Message]) -> list[Message]:
    return [{"role": "system", "content": settings.system}, *messages] if settings.system else messages


def saved_chat(settings: Settings, messages: list[Message], seeds_used: int) -> dict[str, Any]:
    """What a saved session says beside its cache; ``ChatState.load`` reads it."""
    seeds = {"seed": settings.seed, "seeds_used": seeds_used}
    return {"messages": messages, "system": settings.system, "thinking": settings.thinking.value, **seeds}


def _last_question(messages: Sequence[Message]) -> int | None:
    places = [place for place, message in enumerate(messages) if message["role"] == "user"]
    return places[-1] if places else None


def _checked(message: Any) -> Message:
    """A message from a file, whose roles and texts the template can take."""
    if not isinstance(message, dict) or not isinstance(message.get("role"), str):
        raise TypeError
    if not isinstance(message.get("content"), str | None):
        raise TypeError
    return message
