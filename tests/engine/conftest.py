"""Models for the engine's tests: the oracle's random checkpoints, converted once for each type."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from dgemma import Engine
from dgemma.convert import convert
from oracle.cases import checkpoint_for, load_case

ModelPath = Callable[..., Path]


@pytest.fixture(scope="session")
def model_path(tmp_path_factory: pytest.TempPathFactory) -> ModelPath:
    """``model_path(case_name, type="f32")`` -> the GGUF of that case's checkpoint."""
    folder = tmp_path_factory.mktemp("models")

    def path(name: str, type: str = "f32") -> Path:
        target = folder / f"{name}-{type}.gguf"
        if not target.exists():
            convert(checkpoint_for(load_case(name), folder), target, type=type)
        return target

    return path


@pytest.fixture(scope="session")
def tiny(model_path: ModelPath) -> Path:
    """A float32 model with a window of 8, a canvas of 16, 512 tokens, 3 layers of which the last is full."""
    return model_path("short")


@pytest.fixture
def engine(tiny: Path) -> Engine:
    return Engine(tiny, n_ctx=128, exact=True)
