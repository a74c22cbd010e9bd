"""The error family. Catch ``dgemma.Error`` for everything that dgemma raises on purpose.

Error
├── FileError              a file cannot be used; the sentence names the file, the field and the likely cause
│   ├── CheckpointError    a Hugging Face checkpoint: config, shard, index, tokenizer
│   └── ModelFileError     a GGUF file
├── RequestError           an argument that cannot be honoured (also a ValueError)
│   └── ContextError       more tokens than the context holds, or positions that the cache no longer has
├── BackendError           ggml or a device failed: out of memory, an unsupported operation
└── LibraryError           the ggml libraries are missing or of another version (also an ImportError)

``Cancelled`` is what a computation raises when it was stopped from outside. Every message is one sentence for a
person to read; the command line prints it as it is and exits with 1.
"""

from __future__ import annotations


class Error(Exception):
    """Base of everything that dgemma raises on purpose.

    The message is one line: names from a hostile file may hold line breaks, or codes that a terminal would obey.
    """

    def __init__(self, message: str = "") -> None:
        super().__init__("".join(char if char.isprintable() else repr(char)[1:-1] for char in message))


class FileError(Error):
    """A file cannot be used: the message names the file, the field and the likely cause."""


class CheckpointError(FileError):
    """A Hugging Face checkpoint cannot be converted."""


class ModelFileError(FileError):
    """A GGUF file cannot be loaded."""


class RequestError(Error, ValueError):
    """An argument that cannot be honoured."""


class ContextError(RequestError):
    """More tokens than the context holds, or positions that the key/value cache no longer has."""


class BackendError(Error):
    """ggml or one of its devices failed."""


class LibraryError(Error, ImportError):
    """The ggml libraries are missing, or are not the version that this build was made with."""


class Cancelled(Error):
    """The computation was stopped from outside."""
