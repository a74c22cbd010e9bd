"""Which tokens an answer came with, for when a client sends the conversation back as plain text."""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

from .message import Message

_MOST = 256  # answers; the oldest goes first


class AnswerMemory:
    """The last answers of one model, found again by what the client saw of them."""

    def __init__(self) -> None:
        self._tokens: OrderedDict[str, list[int]] = OrderedDict()

    def remember(self, answer: Message) -> None:
        message = answer.as_history()
        key = _key(message)
        if key is not None:
            self._tokens[key] = message["tokens"]
            self._tokens.move_to_end(key)
        if len(self._tokens) > _MOST:
            self._tokens.popitem(last=False)

    def recall(self, messages: Sequence[Mapping[str, Any]]) -> Sequence[Mapping[str, Any]]:
        """The messages, with "tokens" where an answer is one of these."""
        if not isinstance(messages, Sequence):
            return messages  # for ``history_ids`` to refuse
        return [self._recalled(message) for message in messages]

    def _recalled(self, message: Mapping[str, Any]) -> Mapping[str, Any]:
        if not isinstance(message, Mapping) or message.get("role") != "assistant" or "tokens" in message:
            return message
        tokens = self._tokens.get(_key(message) or "")
        return message if tokens is None else {**message, "tokens": tokens}


def _key(message: Mapping[str, Any]) -> str | None:
    """What an answer says and calls; None where it is in no form that this package writes."""
    try:
        calls = [_call(call["function"]) for call in message.get("tool_calls") or ()]
        return json.dumps([message.get("content") or "", calls], sort_keys=True)
    except (KeyError, TypeError, ValueError, RecursionError):
        return None


def _call(function: Mapping[str, Any]) -> list[Any]:
    arguments = function["arguments"]
    return [function["name"], json.loads(arguments) if isinstance(arguments, str) else arguments]
