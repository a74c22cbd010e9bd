"""Typed look-ups in the metadata of a GGUF file, so that a forged or foreign value is one sentence, not a traceback.

A metadata value is an int, float, bool or str, a numpy array of numbers, a list of bools, or a list of strings; the
file may hold any of them under any key.
"""

from __future__ import annotations

import numbers
from collections.abc import Mapping
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from .errors import ModelFileError


class Metadata:
    """The key/value pairs of one file; every failed look-up raises ``ModelFileError`` naming the file and the key."""

    def __init__(self, values: Mapping[str, object], source: str) -> None:
        self.source = source
        self._values = values

    def fail(self, key: str, problem: str) -> NoReturn:
        raise ModelFileError(f"{self.source}: {key} {problem}")

    def __contains__(self, key: str) -> bool:
        return key in self._values

    def is_array(self, key: str) -> bool:
        """Whether there is such a key, with a list of values."""
        return isinstance(self._values.get(key), np.ndarray | list)

    def text(self, key: str) -> str:
        value = self._get(key)
        if not isinstance(value, str):
            self._wrong(key, "a string", value)
        return value

    def integer(self, key: str, default: int | None = None) -> int:
        """The value, or ``default`` where the file has no such key."""
        value = self._get(key, default)
        if isinstance(value, bool) or not isinstance(value, numbers.Integral):
            self._wrong(key, "an integer", value)
        return int(value)

    def number(self, key: str, default: float | None = None) -> float:
        """The value, or ``default`` where the file has no such key."""
        value = self._get(key, default)
        if isinstance(value, bool) or not isinstance(value, numbers.Real):
            self._wrong(key, "a number", value)
        return float(value)

    def strings(self, key: str) -> list[str]:
        value = self._get(key)
        if not isinstance(value, list) or not set(map(type, value)) <= {str}:
            self._wrong(key, "a list of strings", value)
        return value

    def integers(self, key: str) -> NDArray[np.integer[Any]]:
        value = self._get(key)
        if not isinstance(value, np.ndarray) or value.ndim != 1 or not np.issubdtype(value.dtype, np.integer):
            self._wrong(key, "a list of integers", value)
        return value

    def _get(self, key: str, default: object = None) -> object:
        value = self._values.get(key, default)
        if value is None:
            self.fail(key, "is missing; the file was perhaps not made from a DiffusionGemma checkpoint")
        return value

    def _wrong(self, key: str, wanted: str, value: object) -> NoReturn:
        self.fail(key, f"should be {wanted}, but holds {_kind(value)}")


def _kind(value: object) -> str:
    """What a value is, in words: a sentence must not carry 262 144 tokens."""
    if isinstance(value, np.ndarray):
        return f"a list of {value.dtype}"
    if isinstance(value, list):
        return f"a list of {type(value[0]).__name__}" if value else "an empty list"
    return f"the {type(value).__name__} {value!r:.40}"
