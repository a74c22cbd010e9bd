from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from calibration import TEXT

from dgemma.convert import convert
from dgemma.quantize import Imatrix, quantize, read_imatrix
from dgemma.quantize.calibrate import Calibration, make_imatrix
from oracle.cases import checkpoint_for, load_case
from random_checkpoint import CheckpointConfig, write_checkpoint

# Rows of 64 and 96 divide by 32 only, those of 20 by nothing that quantises; three experts.
SMALL = CheckpointConfig(
    layers=3, full_every=3, hidden=64, heads=4, kv_heads=2, head_dim=16, head_dim_full=32,
    ffn=96, experts=3, experts_used=2, expert_ffn=20,
)  # fmt: skip


@pytest.fixture(scope="session")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A float32 checkpoint in one file. Not to be changed."""
    return write_checkpoint(tmp_path_factory.mktemp("pristine") / "model", SMALL)


@pytest.fixture(scope="session")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint of the case "hidden256": every row divides by 256."""
    return checkpoint_for(load_case("hidden256"), tmp_path_factory.mktemp("wide"))


@pytest.fixture(scope="session")
def float_gguf(pristine: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small checkpoint as a GGUF file in F32."""
    path = tmp_path_factory.mktemp("float") / "float.gguf"
    convert(pristine, path, "f32")
    return path


@pytest.fixture(scope="session")
def quantised_gguf(pristine: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("quantised") / "quantised.gguf"
    quantize(pristine, path, "Q4_0")
    return path


@pytest.fixture(scope="session")
def wide_float(wide: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("wide-float") / "wide.gguf"
    convert(wide, path, "f32")
    return path


@pytest.fixture(scope="session")
def wide_imatrix(wide_float: Path, tmp_path_factory: pytest.TempPathFactory) -> Imatrix:
    """Of two pieces of text and their answers."""
    path = tmp_path_factory.mktemp("imatrix") / "imatrix.gguf"
    make_imatrix(wide_float, TEXT, path, Calibration(64, 20), dataset="text.txt", chunks=2)
    return read_imatrix(path)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """Where to write: alone in its folder, so that a test can see what is left there."""
    folder = tmp_path / "out"
    folder.mkdir()
    return folder / "model.gguf"


@pytest.fixture(scope="session")
def gaussian() -> np.ndarray:
    """Weights like a model's: [70, 512], spread by 0.02."""
    return (np.random.default_rng(5).standard_normal((70, 512)) * 0.02).astype(np.float32)
