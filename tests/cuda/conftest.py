"""Where the CUDA kernels run: under an emulation of blocks and threads, always; on a card, where there is one."""

from __future__ import annotations

import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dgemma._core import cuda_unavailable, run_experts_on_card, run_on_card

ROOT = Path(__file__).parents[2]
Card = Callable[..., dict[str, Any]]


def build_emulation() -> Path:
    """Builds the module in the folder where ``pip install --editable`` left this Python's build."""
    if sys.platform != "linux":
        pytest.skip("the emulation of CUDA's threads is built on Linux only")
    for cache in ROOT.glob(f"build/cp{sys.version_info.major}{sys.version_info.minor}-*/CMakeCache.txt"):
        entry = next(line for line in cache.read_text().splitlines() if line.startswith("CMAKE_COMMAND:"))
        command = [entry.partition("=")[2], "--build", str(cache.parent), "--target", "_core_emulated"]
        built = subprocess.run(command, capture_output=True, text=True)
        assert built.returncode == 0, built.stdout[-3000:] + built.stderr[-3000:]
        return next((cache.parent / "bindings" / "emulated").glob("_core*.so"))
    pytest.skip("the emulation needs the build folder of an editable install (make setup)")


class Emulation:
    def __init__(self, module: Path) -> None:
        command = [sys.executable, str(Path(__file__).with_name("emulated_worker.py")), str(module)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def call(self, function: str, **arguments: Any) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        pickle.dump((function, arguments), self._process.stdin)
        self._process.stdin.flush()
        result = pickle.load(self._process.stdout)
        if isinstance(result, Exception):
            raise result
        return result

    def close(self) -> None:
        self._process.communicate()


@pytest.fixture(scope="session")
def emulation() -> Iterator[Emulation]:
    emulation = Emulation(build_emulation())
    yield emulation
    emulation.close()


def on_card(request: pytest.FixtureRequest, function: Card) -> Card:
    """A function of ``dgemma._core`` where its kernels run."""
    if request.param == "card":
        if why := cuda_unavailable():
            pytest.skip(why)
        return function
    emulation = request.getfixturevalue("emulation")
    return lambda **arguments: emulation.call(function.__name__, **arguments)


@pytest.fixture(params=["emulated", "card"])
def card(request: pytest.FixtureRequest) -> Card:
    return on_card(request, run_on_card)


@pytest.fixture(params=["emulated", "card"])
def card_experts(request: pytest.FixtureRequest) -> Card:
    return on_card(request, run_experts_on_card)
