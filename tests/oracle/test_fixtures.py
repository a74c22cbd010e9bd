"""The committed fixtures against ``transformers`` itself: each is made again and compared. Needs torch."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open

from oracle.cases import FIXTURES, NETWORK_CASES, SAMPLER_CASES, TINY, TRACES, load_arrays
from random_checkpoint import write_checkpoint

pytestmark = pytest.mark.reference

NAMES = [
    *(case.name for case in NETWORK_CASES),
    *(trace.name for trace in TRACES),
    *SAMPLER_CASES,
    "temperature",
    "stop_rule",
    "end_tokens",
]


@pytest.fixture(scope="module")
def maker():
    """make_fixtures, or a skip with the reason."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what torch and transformers deprecate at import is not ours
        for module in ("torch", "transformers"):
            pytest.importorskip(module, reason=f"{module} is not installed: pip install 'dgemma[reference]'")
        from oracle import make_fixtures
    return make_fixtures


@pytest.fixture(scope="module")
def makers(maker, tmp_path_factory: pytest.TempPathFactory):
    return maker.fixtures(tmp_path_factory.mktemp("checkpoints"))


def tolerance(name: str, committed: dict[str, np.ndarray]) -> float:
    """How far an array may be from the committed one on another machine, whose float32 products round otherwise.

    ``rounding`` says how far rounding moves the logits; two machines differ by up to twice that, doubled for safety.
    What is computed from logits / temperature inherits their error, divided by the temperature (at least 0.4) and, in
    an entropy, times the logits' spread (a few).
    """
    unit = 4 * float(np.max(committed.get("rounding", 1e-6)))
    return {"logits": unit, "rounding": unit}.get(name, 25 * unit)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.filterwarnings("ignore")
def test_made_again_it_is_the_same(name: str, makers) -> None:
    committed, made = load_arrays(name), makers[name]()
    assert made.keys() == committed.keys()
    for key, expected in committed.items():
        array = np.asarray(made[key])
        assert (array.shape, array.dtype) == (expected.shape, expected.dtype), key
        if expected.dtype.kind == "f":
            assert np.allclose(array, expected, rtol=0, atol=tolerance(key, committed), equal_nan=True), key
        else:
            assert np.array_equal(array, expected), key


def test_every_committed_fixture_is_made() -> None:
    assert sorted(path.stem for path in FIXTURES.glob("*.npz")) == sorted([*NAMES, "sudoku"])


@pytest.mark.filterwarnings("ignore")
def test_the_trained_model_s_fixture_made_again_is_the_same(maker) -> None:
    from oracle import make_sudoku_fixture

    committed, made = load_arrays("sudoku"), make_sudoku_fixture.make()
    assert made.keys() == committed.keys()
    for key, expected in committed.items():
        if key == "entropy":  # rounding moves the logits by some 3e-6 (make_sudoku_fixture.SAFE)
            np.testing.assert_allclose(made[key], expected, rtol=0, atol=1e-4)
        else:
            np.testing.assert_array_equal(made[key], expected, err_msg=key)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("spelling", ["released", "per_layer"])
def test_checkpoint_has_the_layout_that_transformers_saves(spelling: str, maker, tmp_path: Path) -> None:
    ours = write_checkpoint(tmp_path / "ours", TINY, spelling=spelling)
    maker.load_model(ours).save_pretrained(tmp_path / "theirs")
    assert text_shapes(ours) == text_shapes(tmp_path / "theirs")


def text_shapes(folder: Path) -> dict[str, list[int]]:
    """Shapes by name, without the vision tower: of that we write only a few tensors."""
    with safe_open(folder / "model.safetensors", "np") as file:
        return {name: file.get_slice(name).get_shape() for name in file.keys() if "vision" not in name}  # noqa: SIM118
