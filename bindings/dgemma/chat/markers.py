"""The special tokens with which Gemma 4 marks the parts of an answer."""

from __future__ import annotations

from dataclasses import dataclass, fields

from ..tokenizer import Tokenizer

THOUGHT = "thought\n"  # the first line of a channel says what it is; Gemma has no other kind

_SPELLINGS = {
    "channel": "<|channel>",
    "channel_end": "<channel|>",
    "call": "<|tool_call>",
    "call_end": "<tool_call|>",
    "response": "<|tool_response>",
    "response_end": "<tool_response|>",
    "quote": '<|"|>',
}


@dataclass(frozen=True)
class Markers:
    """The markers' ids in one vocabulary; None where it has no such special token."""

    channel: int | None
    channel_end: int | None
    call: int | None
    call_end: int | None
    response: int | None
    response_end: int | None
    quote: int | None

    @classmethod
    def of(cls, tokenizer: Tokenizer) -> Markers:
        return cls(**{field.name: _special_id(tokenizer, _SPELLINGS[field.name]) for field in fields(cls)})


def _special_id(tokenizer: Tokenizer, spelling: str) -> int | None:
    """The token's id, unless it is an ordinary one that merely spells like it."""
    id = tokenizer.token_to_id(spelling)
    return id if id is not None and tokenizer.encode(spelling, add_bos=False) == [id] else None
