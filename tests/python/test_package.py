"""The package as installed: what it exports, its stubs, and the guard on ggml's version."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import dgemma
from dgemma import LibraryError, _native
from dgemma._native import check_version


def test_every_public_name_is_there_and_listed_once() -> None:
    assert list(dgemma.__all__) == sorted(set(dgemma.__all__))
    for name in dgemma.__all__:
        assert getattr(dgemma, name) is not None
    assert dir(dgemma) == dgemma.__all__
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = dgemma.nonsense


def test_the_error_family() -> None:
    assert issubclass(dgemma.ModelFileError, dgemma.FileError)
    assert issubclass(dgemma.ContextError, dgemma.RequestError)
    assert issubclass(dgemma.RequestError, ValueError)
    assert issubclass(dgemma.LibraryError, ImportError)
    for name in dgemma.__all__:
        if name.endswith("Error"):
            assert issubclass(getattr(dgemma, name), dgemma.Error)


def test_the_converter_needs_no_engine() -> None:
    code = "import sys, dgemma.convert; sys.exit(any(m in sys.modules for m in ('dgemma._core', 'torch')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_another_ggml_is_refused_in_one_sentence() -> None:
    check_version("0.25.3", "0.25.3")
    with pytest.raises(LibraryError, match=r"built with ggml 0\.25\.3 but found ggml 0\.26\.0; reinstall") as caught:
        check_version("0.25.3", "0.26.0")
    assert "\n" not in str(caught.value)


def test_the_guard_runs_at_import(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_native.core, "ggml_found_version", lambda: "0.0.1")
    with pytest.raises(LibraryError, match=r"found ggml 0\.0\.1"):
        importlib.reload(_native)
    monkeypatch.undo()
    importlib.reload(_native)


def test_missing_libraries_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(LibraryError, match="llama-cpp-python, which is not installed"):
        importlib.reload(_native)
    monkeypatch.undo()
    importlib.reload(_native)


def test_the_stubs_are_current(tmp_path: Path) -> None:
    """bindings/dgemma/_core.pyi is what nanobind's stub generator says of the module that is built."""
    made = tmp_path / "_core.pyi"
    command = [sys.executable, "-m", "nanobind.stubgen", "-q", "-m", "dgemma._core", "-o", str(made)]
    subprocess.run(command, check=True, cwd=tmp_path)
    committed = Path(__file__).parents[2] / "bindings" / "dgemma" / "_core.pyi"
    assert made.read_text() == committed.read_text(), f"run: {' '.join(command[:-1])} {committed.name}"
