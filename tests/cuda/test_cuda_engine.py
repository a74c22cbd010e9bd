"""The engine with the vocabulary's side of its steps in the CUDA kernels, against the engine that has it on the CPU."""

from __future__ import annotations

from pathlib import Path

import answers
import numpy as np
import pytest

from dgemma import BackendError
from dgemma._core import cuda_unavailable, run_on_card
from dgemma.convert import convert
from oracle.cases import checkpoint_for, load_case

# The two differ in the last bits of the conditioning, and the CPU's layers round to BF16 or 8 bits: a bit that falls
# the other way there is thousandths of a logit.
LAYERS_ROUNDING = 5e-3


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    convert(checkpoint_for(load_case("early"), folder), folder / "early.gguf", type="f32")
    return folder / "early.gguf"


# Seeds of whose decisions none is so close that the layers' rounding turns it.
@pytest.mark.parametrize("seed", [0, 3, 2**64 - 1])
def test_the_same_seed_gives_the_same_tokens(emulation, model: Path, seed: int) -> None:
    """Three blocks, conditioned steps included: every canvas, draft and decision."""
    ours = emulation.call("generate", model=str(model), seed=seed)
    theirs = answers.generate(str(model), seed)
    assert len(ours) == len(theirs) > 3
    for mine, yours in zip(ours, theirs, strict=True):
        for name in ("block", "step", "canvas", "argmax", "accepted"):
            np.testing.assert_array_equal(mine[name], yours[name])
        np.testing.assert_allclose(mine["entropy"], yours["entropy"], atol=LAYERS_ROUNDING)


def test_conditioned_on_the_callers_logits(emulation, model: Path) -> None:
    previous = np.random.default_rng(0).standard_normal((16, 512)).astype(np.float32) * 5
    ours = emulation.call("conditioned_logits", model=str(model), previous=previous)
    np.testing.assert_allclose(ours, answers.conditioned_logits(str(model), previous), atol=LAYERS_ROUNDING)


def test_what_it_takes_is_planned(emulation, model: Path) -> None:
    planned, taken = emulation.call("sampler_memory", model=str(model))
    assert planned == taken
    assert planned > answers.sampler_memory(str(model))[0]


def test_memory_is_freed_when_nothing_uses_it(emulation, model: Path) -> None:
    assert emulation.call("closed_at_once", model=str(model))


@pytest.mark.skipif(not cuda_unavailable(), reason="a card is there")
def test_without_a_card_it_says_so() -> None:
    assert cuda_unavailable().count(". ") == 0
    zeros = np.zeros((1, 1), np.float32)
    with pytest.raises(BackendError, match=r"CUDA|NVIDIA"):
        run_on_card(zeros, None, 0.0, 1.0, 0.1, 0, 0, 0, zeros.view(np.uint8), "F32", 1, 1e-4, 1, [], False)
