"""Reads the JSON files of a checkpoint: every refusal is one sentence that names the file and the field."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import NoReturn

from ..errors import CheckpointError

# The largest real one, tokenizer.json, has 32 MB.
MAX_JSON_BYTES = 256 << 20
MAX_PROBLEM = 300  # characters: a sentence must not carry a whole field

SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


def read_text(path: Path) -> str:
    """The text of a small UTF-8 file. Raises CheckpointError where it is missing, huge, unreadable or not text."""
    try:
        size = path.stat().st_size
        if size > MAX_JSON_BYTES:
            raise CheckpointError(f"{path}: {size} bytes is too large for a text file of a checkpoint")
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such file; the folder is not a whole checkpoint") from None
    except UnicodeDecodeError as error:
        raise CheckpointError(f"{path}: byte {error.start} is not UTF-8 text: the file is damaged") from None
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror or error}") from None


def parse_object(text: str, source: str) -> dict[str, object]:
    """One JSON object; ``source`` names it in refusals."""
    try:
        value = json.loads(text)
        if SURROGATE.search(text):  # half of a pair is no text, but only encoding shows it
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{source}: not valid JSON ({error}): the file is damaged or incomplete") from None
    if not isinstance(value, dict):
        raise CheckpointError(f"{source}: holds a JSON {type(value).__name__}, not an object")
    return value


def read_fields(path: Path) -> Fields:
    return Fields(str(path), parse_object(read_text(path), str(path)))


def read_optional_fields(path: Path) -> Fields:
    """The same, where an absent file counts as an empty object."""
    return read_fields(path) if path.exists() else Fields(str(path), {})


class Fields:
    """One JSON object of a named file, read field by field.

    A getter raises CheckpointError where the field is missing (unless a default is given), has another type, or lies
    outside its range. ``null`` counts as missing, as it does in ``transformers``.
    """

    def __init__(self, source: str, data: Mapping[str, object], prefix: str = "") -> None:
        self.source = source
        self.data = data
        self._prefix = prefix

    def fail(self, field: str, problem: str) -> NoReturn:
        if len(problem) > MAX_PROBLEM:
            problem = problem[:MAX_PROBLEM] + "…"
        raise CheckpointError(f"{self.source}: {self._prefix}{field} {problem}")

    def has(self, field: str) -> bool:
        return self.data.get(field) is not None

    def get(self, field: str) -> object:
        value = self.data.get(field)
        if value is None:
            self.fail(field, "is missing; the file is incomplete or belongs to another model")
        return value

    def integer(self, field: str, low: int, high: int, default: int | None = None) -> int:
        value = default if default is not None and not self.has(field) else self.get(field)
        if not isinstance(value, int) or isinstance(value, bool):
            self.fail(field, f"is {value!r}, but must be a whole number")
        if not low <= value <= high:
            self.fail(field, f"is {value}, but must be from {low} to {high}")
        return value

    def number(self, field: str, *, above: float | None = None, default: float | None = None) -> float:
        """A finite number, at least 0; ``above`` makes that bound another one and strict."""
        value = default if default is not None and not self.has(field) else self.get(field)
        if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
            self.fail(field, f"is {value!r}, but must be a finite number")
        if value < 0 if above is None else value <= above:
            self.fail(field, f"is {value}, but must be {'at least 0' if above is None else f'above {above:g}'}")
        return float(value)

    def flag(self, field: str, default: bool) -> bool:
        value = self.data.get(field, default)
        if not isinstance(value, bool):
            self.fail(field, f"is {value!r}, but must be true or false")
        return value

    def text(self, field: str) -> str:
        value = self.get(field)
        if not isinstance(value, str):
            self.fail(field, f"is {value!r}, but must be text")
        return value

    def array(self, field: str) -> list[object]:
        value = self.get(field)
        if not isinstance(value, list):
            self.fail(field, "must be an array")
        return value

    def object(self, field: str) -> Fields:
        value = self.get(field)
        if not isinstance(value, dict):
            self.fail(field, "must be an object")
        return Fields(self.source, value, f"{self._prefix}{field}.")
