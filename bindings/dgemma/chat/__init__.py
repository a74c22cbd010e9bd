"""Answers of Gemma 4 taken apart, and conversations made into prompts.

``MessageParser`` turns an answer's tokens into text, thoughts and tool calls while they come; ``StopStrings`` ends a
text; ``history_ids`` gives the tokens of a whole conversation, in which every answer keeps its own.
"""

from __future__ import annotations

from .history import history_ids, settled_length
from .message import Delta, Message, Piece, ToolCall
from .parser import MessageParser
from .stop import StopStrings
from .tool_call import parse_call

__all__ = [
    "Delta",
    "Message",
    "MessageParser",
    "Piece",
    "StopStrings",
    "ToolCall",
    "history_ids",
    "parse_call",
    "settled_length",
]
