"""The chat template of a model file: messages in, the prompt's text out.

A template is a Jinja program that comes with the file, so it runs in Jinja's sandbox: it can read what it is given and
make text, nothing else. The environment offers what Hugging Face's does: templates are written for that one.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from .errors import ModelFileError, RequestError
from .tokenizer import Tokenizer

Message = Mapping[str, Any]


class ChatTemplate:
    """One compiled chat template.

    ``source`` is the template's text, ``bos`` and ``eos`` are spelled as the vocabulary spells them, ``file`` names the
    model file in error messages. Raises ``ModelFileError`` where the template is no valid Jinja.
    """

    def __init__(self, source: str, bos: str, eos: str = "", file: str = "chat template") -> None:
        self._variables = {"bos_token": bos, "eos_token": eos}
        try:
            self._template = _environment().from_string(source)
        except jinja2.TemplateSyntaxError as error:
            raise ModelFileError(
                f"{file}: tokenizer.chat_template is not valid Jinja at line {error.lineno}: {_sentence(error)}"
            ) from None

    @classmethod
    def from_tokenizer(cls, tokenizer: Tokenizer) -> ChatTemplate:
        """The template that came with the tokenizer's file; ``ModelFileError`` where there is none."""
        if tokenizer.chat_template is None:
            raise ModelFileError(
                f"{tokenizer.source}: tokenizer.chat_template is missing, so messages cannot be made into a prompt; "
                "give the whole prompt yourself (dgemma run --raw)"
            )
        eos = "" if tokenizer.eos_id is None else tokenizer.id_to_token(tokenizer.eos_id)
        return cls(tokenizer.chat_template, tokenizer.id_to_token(tokenizer.bos_id), eos, tokenizer.source)

    def render(
        self,
        messages: Sequence[Message],
        tools: Sequence[Message] | None = None,
        add_generation_prompt: bool = True,
        enable_thinking: bool = False,
    ) -> str:
        """The prompt for ``messages``, each a mapping with "role" and "content", in OpenAI's shapes.

        ``tools`` are function declarations in the same shapes; ``add_generation_prompt`` opens the model's turn;
        ``enable_thinking`` asks for thoughts before the answer. The text begins with BOS where the template says so.
        Raises ``RequestError`` with the template's own words where it refuses the messages.
        """
        try:
            return self._template.render(
                **self._variables,
                messages=messages,
                tools=tools,
                add_generation_prompt=add_generation_prompt,
                enable_thinking=enable_thinking,
            )
        except Exception as error:  # the template is a program from the file: it may fail in any way Python can
            raise RequestError(f"the chat template refused the messages: {_sentence(error)}") from error


class _GenerationBlock(Extension):
    """``{% generation %}``, with which templates mark the model's words for training: here its body as it is."""

    tags = {"generation"}  # noqa: RUF012 - the name and the kind are Jinja's

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _environment() -> ImmutableSandboxedEnvironment:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_GenerationBlock, "jinja2.ext.loopcontrols"]
    )
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = _strftime_now
    return environment


def _to_json(
    value: object,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Jinja's own filter writes "<" as \\u003c for HTML; a prompt is not HTML."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _raise_exception(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)


def _strftime_now(format: str) -> str:
    return datetime.datetime.now().strftime(format)


def _sentence(error: Exception) -> str:
    """The error's message on one line; its kind where it has none."""
    return " ".join(str(error).split()) or type(error).__name__
