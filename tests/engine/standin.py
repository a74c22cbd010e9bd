"""Builds the stand-in cards of standin.cpp."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from dgemma._native import library_dir


def build_cards(folder: Path) -> Path:
    """The library that registers them with ggml; see ``standin_worker.Cards``."""
    libraries = library_dir()
    assert libraries is not None
    library = folder / "standin.so"
    include = libraries.parent.parent / "include"
    options = ["-std=c++17", "-shared", "-fPIC", f"-I{include}", f"-L{libraries}", f"-Wl,-rpath,{libraries}"]
    source = Path(__file__).with_name("standin.cpp")
    command = [os.environ.get("CXX", "c++"), *options, str(source), "-o", str(library), "-lggml", "-lggml-base"]
    subprocess.run(command, check=True)
    return library
