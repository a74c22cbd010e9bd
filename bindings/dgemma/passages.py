"""Text as passages: a prefix that a model has read, and the canvas of tokens that comes next.

Whatever measures a model, or watches it work, wants canvases whose right answer is known. A text gives them: windows of
prefix and continuation. A prompt gives the prefix alone; its continuation is what some model answers.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from .errors import FileError, RequestError
from .metadata import Metadata
from .template import ChatTemplate
from .tokenizer import Tokenizer

STORED_PROMPTS = Path(__file__).with_name("prompts.txt")  # a few of every kind: prose, code, sums, lists, languages

_T = TypeVar("_T")


@dataclass(frozen=True)
class Passage:
    """Token ids of one place in a text."""

    prefix: tuple[int, ...]  # begins with BOS; never empty
    canvas: tuple[int, ...] | None = None  # the C tokens that follow it, without noise; None where nobody knows them


def load_passages(
    model: str | os.PathLike[str],
    *,
    text: str | os.PathLike[str] | None = None,
    prompts: str | os.PathLike[str] | None = None,
    prefix_length: int = 256,
    limit: int = 8,
) -> list[Passage]:
    """Passages for the tokenizer and the canvas of the GGUF file ``model``; only its header is read.

    text: a UTF-8 file, cut into windows (see ``text_passages``). prompts: a UTF-8 file with a prompt on each line, put
    into the model's chat template; without either, the prompts that dgemma brings along. limit: at most so many
    passages, spread evenly over what the file gives.

    Raises ``FileError`` for a file that cannot be used, ``RequestError`` for one that gives no passage.
    """
    from ._native import core  # here, so that the rest of the module needs no compiled engine

    if text is not None and prompts is not None:
        raise RequestError("give a text or prompts, not both")
    source = os.fspath(Path(model).expanduser())
    metadata = core.read_gguf(source).metadata
    tokenizer = Tokenizer.from_metadata(metadata, source)
    if text is not None:
        canvas_length = Metadata(metadata, source).integer("diffusion.canvas_length")
        return text_passages(read_text(text), tokenizer, canvas_length, prefix_length, limit, os.fspath(text))
    file = STORED_PROMPTS if prompts is None else prompts
    return prompt_passages(read_text(file).splitlines(), tokenizer, limit, os.fspath(file))


def text_passages(
    text: str, tokenizer: Tokenizer, canvas_length: int, prefix_length: int, limit: int, source: str = "the text"
) -> list[Passage]:
    """Windows of a text that do not overlap: BOS and ``prefix_length`` tokens, then a canvas of ``canvas_length``.

    The text is taken as it is: special tokens spelled in it are ordinary text. ``source`` names it in error messages.
    Raises ``RequestError`` where it is too short for one window.
    """
    _check_counts(canvas_length=canvas_length, prefix_length=prefix_length, limit=limit)
    _check_not_empty(text, source)
    ids = tokenizer.encode(text, add_bos=False, parse_special=False)
    window = prefix_length + canvas_length
    if len(ids) < window:
        raise RequestError(
            f"{source} has {len(ids)} tokens, too few for a passage: a prefix of {prefix_length} and a canvas of "
            f"{canvas_length}"
        )
    starts = _spread(range(0, len(ids) - window + 1, window), limit)
    return [
        Passage(
            (tokenizer.bos_id, *ids[start : start + prefix_length]), tuple(ids[start + prefix_length : start + window])
        )
        for start in starts
    ]


def prompt_passages(
    prompts: Sequence[str], tokenizer: Tokenizer, limit: int, source: str = "the list of prompts"
) -> list[Passage]:
    """Each prompt as a user's message in the model's chat template; nothing is known of what follows.

    Blank lines are left out. Raises ``RequestError`` where nothing is left, ``ModelFileError`` for a file without a
    template.
    """
    _check_counts(limit=limit)
    given = [prompt for prompt in prompts if prompt.strip()]
    _check_not_empty("".join(given), source)
    template = ChatTemplate.from_tokenizer(tokenizer)
    texts = (template.render([{"role": "user", "content": prompt}]) for prompt in _spread(given, limit))
    return [Passage(tuple(tokenizer.encode(text))) for text in texts]


def read_text(path: str | os.PathLike[str]) -> str:
    """The text of a UTF-8 file, with or without a byte-order mark. Raises ``FileError`` where it is none."""
    name = os.fspath(path)
    try:
        return Path(path).expanduser().read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise FileError(f"{name} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise FileError(f"{name} is not UTF-8 text: byte {error.start} is no part of it") from None


def _spread(items: Sequence[_T], limit: int) -> list[_T]:
    """At most ``limit`` of them, from the first on, at even distances."""
    count = min(len(items), limit)
    return [items[i * len(items) // count] for i in range(count)]


def _check_not_empty(text: str, source: str) -> None:
    if not text.strip():
        raise RequestError(f"{source} is empty")


def _check_counts(**counts: int) -> None:
    for name, value in counts.items():
        if value < 1:
            raise RequestError(f"{name} must be at least 1, not {value}")
