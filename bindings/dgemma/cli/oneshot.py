"""One prompt, one answer."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import typer

from ..errors import Cancelled
from .answer import Answer
from .chat_state import saved_chat, with_system
from .display import Display

if TYPE_CHECKING:
    from pathlib import Path

    from ..conversation import Conversation
    from ..engine import Engine
    from ..events import Event
    from ..tokenizer import Tokenizer
    from .settings import Settings


def answer_once(text: str, tokenizer: Tokenizer, settings: Settings) -> Answer:
    """Answers ``text`` and shows it; the summary goes to stderr, or with --json all of it to stdout."""
    messages = [{"role": "user", "content": text}]
    prompt = tokenizer.encode(text) if settings.raw else _chat_ids(tokenizer, messages, settings)
    answer = Answer(tokenizer, prompt_tokens=len(prompt), raw=settings.raw)
    with settings.open_engine() as engine:
        conversation = _conversation(engine, settings.prompt_cache)
        with Display(tokenizer, settings, engine) as display:
            _receive(_events(engine, conversation, prompt, settings), answer, display)
        _report(answer, settings)
        if conversation is not None and settings.prompt_cache is not None:
            turns = [] if settings.raw or not answer.tokens else [*messages, answer.message.as_history()]
            conversation.save(settings.prompt_cache, saved_chat(settings, turns, seeds_used=1))
    return answer


def _chat_ids(tokenizer: Tokenizer, messages: list[dict[str, Any]], settings: Settings) -> list[int]:
    from ..chat import history_ids
    from ..template import ChatTemplate

    template = ChatTemplate.from_tokenizer(tokenizer)
    asked = with_system(settings, messages)
    return history_ids(template, tokenizer, asked, enable_thinking=settings.thinking.wanted)


def _conversation(engine: Engine, cache: Path | None) -> Conversation | None:
    """What --prompt-cache holds, or an empty one to be kept there; None without the flag.

    Only the cache counts: the prompt begins a conversation of its own, in which nothing known is encoded again.
    """
    from ..conversation import Conversation

    if cache is None:
        return None
    conversation = Conversation(engine)
    if cache.exists():
        conversation.load(cache)
    return conversation


def _events(
    engine: Engine, conversation: Conversation | None, prompt: list[int], settings: Settings
) -> Iterator[Event]:
    answer = engine.generate if conversation is None else conversation.answer
    config = settings.config(engine)
    return answer(prompt, max_new_tokens=settings.max_new_tokens, seed=settings.seed, config=config)


def _receive(events: Iterator[Event], answer: Answer, display: Display) -> None:
    """Collect all events, showing each as it comes. Ctrl-C ends the answer, not the program."""
    try:
        for event in events:
            display.show(event, answer.add(event))
    except (KeyboardInterrupt, Cancelled):
        pass  # the answer has no DoneEvent and so counts as cancelled
    display.show(None, answer.finish())


def _report(answer: Answer, settings: Settings) -> None:
    if settings.as_json:
        typer.echo(json.dumps({**answer.as_object(), "seed": settings.seed}, ensure_ascii=False))
    else:
        typer.echo(f"{answer.summary()}, seed {settings.seed}", err=True)
