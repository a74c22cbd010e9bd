"""How a file that cannot be used must be refused."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from forge import Forged

from dgemma import Engine, ModelFileError, Tokenizer
from dgemma._native import core


def load(path: Path | bytes) -> None:
    """Everything that reads a model file."""
    core.read_gguf(path)
    Engine(os.fsdecode(path), n_threads=1)
    Tokenizer.from_gguf(os.fsdecode(path))


def refusal(path: Path, named: Path | None = None) -> str:
    """The one sentence with which a file is refused, without the file's name. ``named``: the file that it names."""
    with pytest.raises(ModelFileError) as caught:
        load(path)
    message = str(caught.value)
    assert message.startswith(f"{named or path}: ")
    assert message.isprintable()  # one line, and nothing that a terminal would obey
    message = message.removeprefix(f"{named or path}: ")
    assert len(message) < 300
    return message


class Refused:
    """``refused(forged)`` writes a forged file and returns the sentence with which it is refused."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "forged.gguf"

    def __call__(self, forged: Forged | bytes) -> str:
        self.path.write_bytes(forged if isinstance(forged, bytes) else forged.to_bytes())
        return refusal(self.path)
