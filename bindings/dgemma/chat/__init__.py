"""Answers of Gemma 4 taken apart, and conversations made into prompts.

``MessageParser`` turns an answer's tokens into text, thoughts and tool calls while they come; ``StopStrings`` ends a
text; ``history_ids`` gives the tokens of a whole conversation, in which every answer keeps its own.
"""

from __future__ import annotations

from .history import history_ids, settled_length
from .memory import AnswerMemory
from .message import Delta, Message, Piece, ToolCall
from .parser import MessageParser
from .stop import StopStrings
from .tool_call import parse_call
from .tool_choice import ToolUse, tool_use

__all__ = [
    "AnswerMemory",
    "Delta",
    "Message",
    "MessageParser",
    "Piece",
    "StopStrings",
    "ToolCall",
    "ToolUse",
    "history_ids",
    "parse_call",
    "settled_length",
    "tool_use",
]
