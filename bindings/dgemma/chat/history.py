"""The tokens of a conversation, as the next answer sees it.

The template makes one text of everything, but not everything may be tokenised like that. An answer keeps the tokens
that it came with: the same text can be cut otherwise, and then the cache would not hold it. And what users, tools and
documents say must stay text, even where it spells ``<turn|>``. So the template is given a seal in place of such a part,
a string that nobody can guess, and when its text is tokenised, the part's own tokens are put where the seal is.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import RequestError
from ..template import ChatTemplate
from ..tokenizer import Tokenizer
from .tool_choice import checked_tools
from .turns import Turn, turns_of

Messages = Sequence[Mapping[str, Any]]

_CALL = "<|tool_call>call:{}{{}}<tool_call|>"  # how the template writes a call without arguments


def history_ids(
    template: ChatTemplate,
    tokenizer: Tokenizer,
    messages: Messages,
    *,
    tools: Messages | None = None,
    enable_thinking: bool = False,
    add_generation_prompt: bool = True,
) -> list[int]:
    """The ids of a conversation, beginning with BOS.

    ``messages`` are as OpenAI's clients write them; an assistant's message that has "tokens" (``Message.as_history``)
    is made of those. Thoughts are no part of it. Only the template's own special tokens become control tokens.

    Raises ``RequestError`` for messages or tools that cannot be understood, or that the template refuses.
    """
    offered = checked_tools(tools)

    def render(own_calls: bool) -> tuple[str, _Seals]:
        seals = _Seals(tokenizer)
        written = [seals.message(turn) for turn in turns_of(messages, own_calls)]
        text = template.render(
            written,
            tools=seals.protect(offered),
            add_generation_prompt=add_generation_prompt,
            enable_thinking=enable_thinking,
        )
        return text, seals

    text, seals = render(own_calls=True)
    if not seals.calls_are_in(text):  # a template that writes calls in a way of its own
        text, seals = render(own_calls=False)
    return seals.open(text)


def settled_length(
    template: ChatTemplate, tokenizer: Tokenizer, messages: Messages, prompt: Sequence[int], **options: Any
) -> int:
    """How many ids of ``prompt`` (of ``history_ids`` for the same messages) later prompts will begin with, too.

    The template ends a prompt with an empty thought where the model shall not think, and leaves it out of the history.
    """
    answered = [*messages, {"role": "assistant", "content": ""}]
    later = history_ids(template, tokenizer, answered, add_generation_prompt=False, **options)
    return next(
        (i for i, (a, b) in enumerate(zip(prompt, later, strict=False)) if a != b), min(len(prompt), len(later))
    )


class _Seals:
    """Tokens that go through the template as a string which stands for them."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._nonce = secrets.randbits(128)  # in digits: no filter of a template changes them
        self._sealed: list[list[int]] = []
        self._calls: list[str] = []

    def message(self, turn: Turn) -> dict[str, Any]:
        """A turn as the template takes it."""
        written: dict[str, Any] = {"role": turn.role, "content": self._content(turn)}
        if turn.call_tokens is not None:
            self._calls.append(self._seal(self._checked(turn.call_tokens)))
            written["tool_calls"] = [_function(self._calls[-1], {})]
        elif turn.calls:
            written["tool_calls"] = [_function(call["name"], call["arguments"]) for call in self.protect(turn.calls)]
        if turn.responses:
            written["tool_responses"] = self.protect(turn.responses)
        return written

    def protect(self, value: Any) -> Any:
        """The same value, with a seal in place of every string that spells a special token."""
        if isinstance(value, str):
            return self._protect_text(value) if self._spells_special(value) else value
        if isinstance(value, Mapping):
            return {self.protect(key): self.protect(item) for key, item in value.items()}
        if isinstance(value, Sequence):
            return [self.protect(item) for item in value]
        return value

    def calls_are_in(self, text: str) -> bool:
        """Whether the template wrote every sealed call in the way that ``open`` looks for."""
        return all(_CALL.format(seal) in text for seal in self._calls)

    def open(self, text: str) -> list[int]:
        """The ids of the template's text."""
        for seal in self._calls:
            text = text.replace(_CALL.format(seal), seal)
        first, *rest = re.split(rf"@{self._nonce}:(\d+)@", text)
        ids = self._tokenizer.encode(first)
        for number, piece in zip(rest[::2], rest[1::2], strict=True):
            ids += self._sealed[int(number)]
            ids += self._tokenizer.encode(piece, add_bos=False)
        return ids

    def _content(self, turn: Turn) -> str | list[dict[str, str]]:
        if turn.tokens is not None:
            return self._seal(self._checked(turn.tokens))
        if isinstance(turn.content, str):
            return str(self.protect(turn.content))
        texts = turn.content
        if self._spells_special("".join(part.strip() for part in texts)):  # maybe only where two of them meet
            texts = [self._protect_text(part) for part in texts]
        return [{"type": "text", "text": part} for part in texts]

    def _protect_text(self, text: str) -> str:
        """White space stays outside: whether it is trimmed is the template's business."""
        core = text.strip()
        if not core:
            return text
        before, _, after = text.partition(core)
        ids = self._tokenizer.encode(core, add_bos=False, parse_special=False)
        return f"{before}{self._seal(ids)}{after}"

    def _spells_special(self, text: str) -> bool:
        encode = self._tokenizer.encode
        return encode(text, add_bos=False) != encode(text, add_bos=False, parse_special=False)

    def _seal(self, ids: list[int]) -> str:
        self._sealed.append(ids)
        return f"@{self._nonce}:{len(self._sealed) - 1}@"

    def _checked(self, tokens: list[int]) -> list[int]:
        for token in tokens:
            if isinstance(token, bool) or not isinstance(token, int) or not 0 <= token < self._tokenizer.vocab_size:
                raise RequestError(f"an answer in messages has the token {token!r:.20}, which is not in the vocabulary")
        return tokens


def _function(name: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "arguments": arguments}}
