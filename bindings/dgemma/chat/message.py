"""What an answer is made of: text, thoughts and tool calls."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import Any, Literal


@dataclass(frozen=True)
class Delta:
    """Some more of an answer's text, or of a thought."""

    kind: Literal["text", "thought"]
    text: str
    malformed_call: bool = False  # the text is a tool call that could not be read, as the model wrote it


@dataclass(frozen=True)
class ToolCall:
    """One function that the model wants called. The arguments are what JSON can hold."""

    name: str
    arguments: dict[str, Any]

    @property
    def arguments_json(self) -> str:
        return json.dumps(self.arguments, ensure_ascii=False)


Piece = Delta | ToolCall


def append(pieces: list[Piece], piece: Piece) -> None:
    """Adds a piece; text that goes on where the last piece ended makes that one longer."""
    last = pieces[-1] if pieces else None
    if not isinstance(piece, Delta):
        pieces.append(piece)
    elif isinstance(last, Delta) and (last.kind, last.malformed_call) == (piece.kind, piece.malformed_call):
        pieces[-1] = replace(last, text=last.text + piece.text)
    elif piece.text:
        pieces.append(piece)


@dataclass(frozen=True)
class Message:
    """An answer as it stands.

    ``content`` is the joined text of the deltas of kind "text". ``thought`` is what was thought on the way, which
    belongs in no history. ``ids`` are the tokens of content and calls as the model gave them, with the calls' markers.
    """

    content: str = ""
    thought: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    ids: tuple[int, ...] = ()
    malformed_call: bool = False  # somewhere in the content stands a tool call that could not be read

    def as_history(self) -> dict[str, Any]:
        """This answer among the messages of the next turn: plain data that JSON holds, with its own tokens."""
        message: dict[str, Any] = {"role": "assistant", "content": self.content, "tokens": list(self.ids)}
        if self.tool_calls:
            message["tool_calls"] = [
                {"type": "function", "function": {"name": call.name, "arguments": call.arguments}}
                for call in self.tool_calls
            ]
        return message
