from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from checkpoints import SMALL, write_checkpoint


@pytest.fixture(scope="session")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A float32 checkpoint in one file, spelled as released. Not to be changed."""
    return write_checkpoint(tmp_path_factory.mktemp("pristine") / "model", SMALL)


@pytest.fixture
def checkpoint(pristine: Path, tmp_path: Path) -> Path:
    """A copy of it to spoil."""
    return Path(shutil.copytree(pristine, tmp_path / "model"))


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """Where to write: alone in its folder, so that a test can see what is left there."""
    folder = tmp_path / "out"
    folder.mkdir()
    return folder / "model.gguf"
