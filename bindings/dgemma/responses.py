"""Answers in OpenAI's shapes, as ``llama-cpp-python`` gives them: whole ones, and streams of chunks.

Beside the fields known from there: ``seed`` (with it the answer can be had again), ``timings``, and
``reasoning_content`` for thoughts. The last chunk of a stream has ``usage`` and ``timings``.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from typing import Any

from .answering import Answering
from .chat import AnswerMemory, Delta, MessageParser, Piece, ToolCall

Response = dict[str, Any]


class Completion:
    """The shapes of one answer to a bare prompt. ``echo`` is the prompt's text where it shall come back."""

    def __init__(self, answering: Answering, model: str, echo: str = "") -> None:
        self._answering = answering
        self._echo = echo
        self._head = _head("cmpl", "text_completion", answering, model)

    def whole(self) -> Response:
        for _ in self._answering.pieces():
            pass
        text = self._echo + self._answering.text
        return {**self._head, "choices": [_choice(self._answering.finish_reason, text=text)], **_tail(self._answering)}

    def chunks(self) -> Iterator[Response]:
        if self._echo:
            yield self._chunk(self._echo)
        for pieces in self._answering.pieces():
            if text := "".join(piece.text for piece in pieces if isinstance(piece, Delta)):
                yield self._chunk(text)
        yield {**self._chunk("", self._answering.finish_reason), **_tail(self._answering)}

    def _chunk(self, text: str, reason: str | None = None) -> Response:
        return {**self._head, "choices": [_choice(reason, text=text)]}


class ChatCompletion:
    """The shapes of one answer to messages, which ``parser`` takes apart and ``memory`` keeps."""

    def __init__(self, answering: Answering, parser: MessageParser, memory: AnswerMemory, model: str) -> None:
        self._answering = answering
        self._parser = parser
        self._memory = memory
        self._head = _head("chatcmpl", "chat.completion", answering, model)
        self._calls = 0

    def whole(self) -> Response:
        for _ in self._answering.pieces():
            pass
        self._remember()
        answering, thought = self._answering, self._parser.message.thought
        message: Response = {"role": "assistant", "content": answering.text}
        if thought:
            message["reasoning_content"] = thought
        if answering.calls:
            message["content"] = answering.text or None
            message["tool_calls"] = [self._call(call) for call in answering.calls]
        return {**self._head, "choices": [_choice(answering.finish_reason, message=message)], **_tail(answering)}

    def chunks(self) -> Iterator[Response]:
        yield self._chunk({"role": "assistant", "content": ""})
        for pieces in self._answering.pieces():
            for piece in pieces:
                yield self._chunk(self._delta(piece))
        self._remember()
        yield {**self._chunk({}, self._answering.finish_reason), **_tail(self._answering)}

    def _remember(self) -> None:
        if not self._answering.stopped_by_string:  # else its tokens say more than the client saw
            self._memory.remember(self._parser.message)

    def _delta(self, piece: Piece) -> Response:
        if isinstance(piece, ToolCall):
            return {"tool_calls": [{"index": self._calls, **self._call(piece)}]}
        return {"content" if piece.kind == "text" else "reasoning_content": piece.text}

    def _call(self, call: ToolCall) -> Response:
        self._calls += 1
        id = f"call_{self._head['id'].removeprefix('chatcmpl-')[:16]}_{self._calls - 1}"
        return {"id": id, "type": "function", "function": {"name": call.name, "arguments": call.arguments_json}}

    def _chunk(self, delta: Response, reason: str | None = None) -> Response:
        return {**self._head, "object": "chat.completion.chunk", "choices": [_choice(reason, delta=delta)]}


def _head(prefix: str, kind: str, answering: Answering, model: str) -> Response:
    id = f"{prefix}-{uuid.uuid4().hex}"
    return {"id": id, "object": kind, "created": int(time.time()), "model": model, "seed": answering.request.seed}


def _choice(reason: str | None, **content: Any) -> Response:
    return {"index": 0, **content, "logprobs": None, "finish_reason": reason}


def _tail(answering: Answering) -> Response:
    return {"usage": answering.usage(), "timings": answering.timings()}
