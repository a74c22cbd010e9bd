"""The CUDA kernels run on the CPU, in processes of their own (emulated_worker.py)."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]

Card = Callable[..., Any]  # a function of dgemma._core, under the emulation or on a card


def build(target: str) -> Path:
    """Builds a target in the folder where ``pip install --editable`` left this Python's build, which it returns."""
    if sys.platform != "linux":
        pytest.skip("the emulation of CUDA's threads is built on Linux only")
    for cache in ROOT.glob(f"build/cp{sys.version_info.major}{sys.version_info.minor}-*/CMakeCache.txt"):
        entry = next(line for line in cache.read_text().splitlines() if line.startswith("CMAKE_COMMAND:"))
        command = [entry.partition("=")[2], "--build", str(cache.parent), "--target", target]
        built = subprocess.run(command, capture_output=True, text=True)
        assert built.returncode == 0, built.stdout[-3000:] + built.stderr[-3000:]
        return cache.parent
    pytest.skip("the emulation needs the build folder of an editable install (make setup)")


def build_emulation() -> Path:
    return next((build("_core_emulated") / "bindings" / "emulated").glob("_core*.so"))


class Emulation:
    """A process whose ``dgemma._core`` is the emulation, or another build of it."""

    def __init__(self, module: Path | None = None) -> None:
        script = Path(__file__).with_name("emulated_worker.py")
        command = [sys.executable, str(script), str(module or build_emulation())]
        environment = {**os.environ, "PYTHONPATH": str(ROOT / "tests")}
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment)

    def call(self, function: str, **arguments: Any) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        pickle.dump((function, arguments), self._process.stdin)
        self._process.stdin.flush()
        try:
            result = pickle.load(self._process.stdout)
        except EOFError:
            ended = signal.Signals(-self._process.wait()).name
            raise AssertionError(f"a kernel ended the emulation: {ended} (docs/cuda.md)") from None
        if isinstance(result, Exception):
            raise result
        return result

    def close(self) -> None:
        self._process.communicate()
