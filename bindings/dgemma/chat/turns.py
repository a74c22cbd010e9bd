"""Messages as OpenAI's clients write them, to turns as Gemma's template wants them.

The template knows no role "tool": a call's results belong to the assistant's message that made the call, and so does
the answer that follows them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn

from ..errors import RequestError
from .markers import THOUGHT

_ROLES = ("system", "developer", "user", "assistant", "tool")
_CLOSED_THOUGHT = re.compile(r"<\|channel>.*?<channel\|>", re.DOTALL)


@dataclass
class Turn:
    """One message for the template. ``tokens`` stand in place of the content, ``call_tokens`` of the calls."""

    role: str
    content: str | list[str] = ""
    tokens: list[int] | None = None
    calls: list[dict[str, Any]] = field(default_factory=list)  # {"name", "arguments"}
    call_tokens: list[int] | None = None
    responses: list[dict[str, Any]] = field(default_factory=list)  # {"name", "response"}
    call_names: dict[str, str] = field(default_factory=dict)  # of the calls that have an id

    @property
    def awaits_answer(self) -> bool:
        """Whether an answer without calls goes on here, after the results of calls."""
        return bool(self.responses) and not self.content and self.tokens is None


def turns_of(messages: Sequence[Mapping[str, Any]], own_calls: bool) -> list[Turn]:
    """The turns of a conversation; without ``own_calls`` an answer with calls is written anew, not by its tokens.

    Raises ``RequestError`` naming the message that cannot be understood.
    """
    if not isinstance(messages, Sequence) or isinstance(messages, str):
        raise RequestError(f"messages must be a list, not {messages!r:.80}")
    turns: list[Turn] = []
    for index, message in enumerate(messages):
        where = f"messages[{index}]"
        if not isinstance(message, Mapping):
            _refuse(where, "must be an object with role and content")
        role = message.get("role")
        if role not in _ROLES:
            _refuse(where, f"has the role {role!r}; there are {', '.join(_ROLES)}")
        if role == "assistant":
            _add_answer(turns, message, where, own_calls)
        elif role == "tool":
            _add_result(turns, message, where)
        else:
            turns.append(Turn(str(role), _content(message, where)))
    if not turns:
        raise RequestError("messages must not be empty")
    return turns


def _add_answer(turns: list[Turn], message: Mapping[str, Any], where: str, own_calls: bool) -> None:
    content = _content(message, where)
    if isinstance(content, str):
        content = _without_thoughts(content)
    tokens = list(message.get("tokens") or ()) or None
    turn = Turn("assistant", content, tokens)
    for call in message.get("tool_calls") or ():
        turn.calls.append(_call(call, where))
        if isinstance(id := call.get("id"), str):
            turn.call_names[id] = turn.calls[-1]["name"]
    turn.responses.extend(message.get("tool_responses") or ())
    if turn.calls and turn.tokens is not None:
        turn.tokens = None
        if own_calls and not turn.responses:
            turn.content, turn.call_tokens = "", tokens
    if not turn.calls and turns and turns[-1].awaits_answer:
        turns[-1].content, turns[-1].tokens = content, tokens
    else:
        turns.append(turn)


def _add_result(turns: list[Turn], message: Mapping[str, Any], where: str) -> None:
    turn = turns[-1] if turns else None
    if turn is None or not turn.calls or (turn.responses and not turn.awaits_answer):
        _refuse(where, "is a tool's result, but no answer that calls tools stands before it")
    if turn.content:  # inside the turn the template would put it after the results
        turns.insert(-1, Turn("assistant", turn.content))
        turn.content = ""
    id, name = message.get("tool_call_id"), message.get("name")
    if id is not None and turn.call_names:
        if id not in turn.call_names:
            _refuse(where, f"answers the tool call {id!r}, which the answer before it has not made")
        name = turn.call_names[id]
    if name is None:  # neither id nor name: results come in the order of the calls
        name = turn.calls[min(len(turn.responses), len(turn.calls) - 1)]["name"]
    turn.responses.append({"name": str(name), "response": _response(message, where)})


def _response(message: Mapping[str, Any], where: str) -> Any:
    """A result: an object where it is one or spells one in JSON, else text."""
    content = message.get("content")
    if isinstance(content, Mapping):
        return content
    parts = _content(message, where)
    text = parts if isinstance(parts, str) else "\n".join(parts)
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return text
    return value if isinstance(value, dict) else text


def _call(call: Any, where: str) -> dict[str, Any]:
    function = call.get("function") if isinstance(call, Mapping) else None
    if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
        _refuse(where, "has a tool call without a function's name")
    arguments = function.get("arguments") or {}
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments)
        except (ValueError, RecursionError):
            _refuse(where, f"calls {function['name']!r} with arguments that are not JSON")
    if not isinstance(arguments, Mapping):
        _refuse(where, f"calls {function['name']!r} with arguments that are no JSON object")
    return {"name": function["name"], "arguments": arguments}


def _content(message: Mapping[str, Any], where: str) -> str | list[str]:
    content = message.get("content")
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    if not isinstance(content, Sequence):
        _refuse(where, "has a content that is neither text nor a list of parts")
    parts = [_part(part, where) for part in content]
    if message.get("role") in ("system", "developer") or len(parts) < 2:
        return "\n".join(parts)  # the template takes a system prompt only as one text
    return parts


def _part(part: Any, where: str) -> str:
    kind = part.get("type") if isinstance(part, Mapping) else None
    if kind != "text":
        _refuse(where, f"has a part of type {kind!r}, but dgemma reads text only")
    if not isinstance(part.get("text"), str):
        _refuse(where, "has a text part without its text")
    return str(part["text"])


def _without_thoughts(text: str) -> str:
    """An answer's text without the thoughts that another program left in it; one that is all there is stays."""
    rest = _CLOSED_THOUGHT.sub("", text)
    answer, _, thought = rest.partition("<|channel>")
    return (answer if answer.strip() else thought.removeprefix(THOUGHT)).replace("<channel|>", "")


def _refuse(where: str, why: str) -> NoReturn:
    raise RequestError(f"{where} {why}")
