"""The CUDA kernels over several devices: the engine on stand-in cards that the emulation takes for its own, against the
engine that has the vocabulary's side on the host, wherever the layers and the head lie."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from emulation import Emulation
from engine.standin import build_cards
from engine.standin_worker import PLACEMENTS
from test_cuda_engine import LAYERS_ROUNDING

from dgemma import _core
from dgemma.convert import convert
from oracle.cases import checkpoint_for, load_case

HIDDEN, FFN, CANVAS, VOCAB = 64, 96, 16, 512
Placed = dict[str, dict[str, Any]]


def place(parts: dict[str, str], module: Path | None) -> Placed:
    """In a process of its own: what is registered with ggml stays registered."""
    process = Emulation(module)
    placed: Placed = process.call("place", **parts)
    process.close()
    return placed


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("placed")
    convert(checkpoint_for(load_case("early"), folder), folder / "early.gguf", type="f32")
    return {"model": str(folder / "early.gguf"), "library": str(build_cards(folder))}


@pytest.fixture(scope="module")
def ours(parts: dict[str, str]) -> Placed:
    return place(parts, None)


@pytest.fixture(scope="module")
def theirs(parts: dict[str, str]) -> Placed:
    return place(parts, Path(_core.__file__))


def later_steps(placed: dict[str, Any]) -> np.ndarray:
    """Of each step that is not its block's first, (moved, graphs, repeated) by card."""
    counts = [step["counts"] for step in placed["steps"] if step["step"] > 1]
    assert len(counts) > 3
    return np.array(counts)


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_the_same_answers_wherever_the_parts_lie(ours: Placed, theirs: Placed, placement: str) -> None:
    mine, yours = ours[placement]["steps"], theirs[placement]["steps"]
    assert len(mine) == len(yours)
    assert mine[-1]["block"] > 0
    for a, b in zip(mine, yours, strict=True):
        for name in ("block", "step", "canvas", "argmax", "accepted"):
            np.testing.assert_array_equal(a[name], b[name])
        np.testing.assert_allclose(a["entropy"], b["entropy"], atol=LAYERS_ROUNDING)


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_canvases_of_the_callers(ours: Placed, theirs: Placed, placement: str) -> None:
    mine, yours = ours[placement]["callers"], theirs[placement]["callers"]
    for a, b in zip(mine, yours, strict=True):
        np.testing.assert_allclose(a, b, atol=2 * LAYERS_ROUNDING)
    assert np.abs(mine[0] - mine[2]).max() > 100 * LAYERS_ROUNDING


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_placed_memory_is_what_was_planned(ours: Placed, placement: str) -> None:
    planned, taken = ours[placement]["planned"], ours[placement]["taken"]
    assert planned.keys() == taken.keys()
    for device, uses in planned.items():
        assert taken[device].get("sampler", 0) == uses.get("sampler", 0), device
        assert taken[device].get("compute", 0) <= uses["compute"]


def test_the_hosts_memory_holds_none_of_it(ours: Placed, theirs: Placed) -> None:
    """With all layers on one card nothing is left to the CPU; the buffer is there only where the first layer lies
    elsewhere than the head."""
    assert "sampler" not in ours["one card"]["taken"]["CPU"]
    assert theirs["one card"]["taken"]["CPU"]["sampler"] > 0
    one, split = (ours[name]["taken"]["CARD1"]["sampler"] for name in ("one card", "split"))
    assert split - one == 256 * HIDDEN * 4  # rows of an encoder's chunk


def test_a_step_moves_nothing_through_the_host(ours: Placed, theirs: Placed) -> None:
    """Beside the few numbers a position that ``CardStep::sample`` reports, which ggml does not count."""
    assert (later_steps(ours["one card"])[:, :, 0] == 0).all()
    by_host = later_steps(theirs["one card"])[:, 1, 0]
    assert (by_host == 4 * CANVAS * (2 * HIDDEN + VOCAB)).all()


def test_only_the_first_layers_card_reads_the_inputs(ours: Placed) -> None:
    """Another would take a copy without waiting for our queue. What crosses are one product's operand and result."""
    moved = later_steps(ours["conditioning on the other card"])[:, 0, 0]
    assert (moved == 4 * CANVAS * (FFN + HIDDEN)).all()


@pytest.mark.parametrize("placement", ["one card", "split", "experts on the CPU"])
def test_the_graphs_of_a_step_are_repeated(ours: Placed, theirs: Placed, placement: str) -> None:
    """Every node and source as it was, at the addresses at which it was: what ggml-cuda asks before it replays."""
    for placed in (ours, theirs):
        counts = later_steps(placed[placement])
        np.testing.assert_array_equal(counts[:, :, 1], counts[:, :, 2])
        assert counts[:, :, 1].sum() >= len(counts)
