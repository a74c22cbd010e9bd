"""dgemma with its CUDA kernels run on the CPU, in a process of its own: a process can hold one ``dgemma._core``.

    python emulated_worker.py MODULE

Reads pickled pairs (function, keyword arguments) from stdin and writes a pickled result, or the exception, for each.
"""

from __future__ import annotations

import importlib.util
import pickle
import sys
from pathlib import Path
from typing import Any

import answers


def load(module: str) -> None:
    """Puts the emulated module in the place of ``dgemma._core``."""
    spec = importlib.util.spec_from_file_location("dgemma._core", module)
    assert spec is not None
    assert spec.loader is not None
    core = importlib.util.module_from_spec(spec)
    sys.modules["dgemma._core"] = core
    spec.loader.exec_module(core)


def run(function: str, arguments: dict[str, Any]) -> Any:
    core = sys.modules["dgemma._core"]
    return getattr(answers if hasattr(answers, function) else core, function)(**arguments)


def main(module: Path) -> None:
    load(str(module))
    while True:
        try:
            function, arguments = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        try:
            result = run(function, arguments)
        except Exception as error:
            result = error
        pickle.dump(result, sys.stdout.buffer)
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
