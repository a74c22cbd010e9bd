"""The compiled engine, loaded and checked once: ``from ._native import core``."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from .errors import LibraryError

__all__ = ["core"]

_INSTALL = "pip install --force-reinstall --no-cache-dir llama-cpp-python=={} and dgemma again"
_PINNED = "0.3.36"


def library_dir() -> Path | None:
    """Where llama-cpp-python keeps ggml's libraries, without importing it; None if it is not installed."""
    spec = importlib.util.find_spec("llama_cpp")
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(next(iter(spec.submodule_search_locations))) / "lib"


def check_version(built: str, found: str) -> None:
    """ggml's binary interface moves from version to version: raises ``LibraryError`` unless both are the same."""
    if built != found:
        raise LibraryError(
            f"dgemma was built with ggml {built} but found ggml {found}; reinstall both to match: "
            + _INSTALL.format(_PINNED)
        )


if library_dir() is None:
    raise LibraryError(
        f"dgemma needs the ggml libraries of llama-cpp-python, which is not installed: pip install "
        f"llama-cpp-python=={_PINNED}"
    )
try:
    from . import _core as core
except ImportError as error:
    raise LibraryError(
        f"dgemma's compiled engine does not load ({error}); its ggml libraries are missing or of another version: "
        + _INSTALL.format(_PINNED)
    ) from error

check_version(core.ggml_built_version(), core.ggml_found_version())
core.load_backends(str(library_dir()))
