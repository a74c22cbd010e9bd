"""What the engine collects for an importance matrix, against the oracle's own products."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from dgemma import Engine, GenerationConfig, Session
from oracle.cases import checkpoint_for, load_case
from oracle.reference import Cache, replay
from oracle.watched import WatchedReference

Inputs = dict[str, tuple[np.ndarray, np.ndarray]]


def run_case(session: Session, case: SimpleNamespace) -> None:
    """The passes of a network case: prompt, first and conditioned steps, finished canvases."""
    session.prefill(case.prompt)
    for block, canvases in enumerate(case.canvas):
        previous = None
        for canvas, temperature in zip(canvases, case.temperature, strict=True):
            previous = session.denoise(canvas, previous) / temperature
        if block < len(case.finished):
            session.prefill(case.finished[block])


def collected(path, case: SimpleNamespace, **options) -> Inputs:
    with Engine(path, n_ctx=len(case.prompt) + case.canvas.shape[0] * case.canvas.shape[2], exact=True, **options) as e:
        session = e.session()
        session.collect_inputs()
        run_case(session, case)
        return session.take_inputs()


def check_equal(found: Inputs, expected: Inputs) -> None:
    assert found.keys() == expected.keys()
    for name, (sums, rows) in expected.items():
        np.testing.assert_array_equal(found[name][1], rows, err_msg=name)
        np.testing.assert_allclose(found[name][0], sums, rtol=1e-3, atol=1e-4 * sums.mean(), err_msg=name)


@pytest.mark.parametrize("name", ["short", "long", "edge", "crossing", "hidden256"])
def test_the_inputs_are_those_of_the_reference(model_path, tmp_path, name: str) -> None:
    """Encoder, first and conditioned steps, every block; an expert counts the rows that were routed to it."""
    case = load_case(name)
    reference = WatchedReference(checkpoint_for(case, tmp_path))
    replay(reference, case)
    check_equal(collected(model_path(name), case), reference.sums)


def test_a_generation_is_seen_step_by_step(model_path, tmp_path) -> None:
    """The session's own loop, with its random canvases and its conditioning, replayed from its events."""
    case = load_case("short")
    with Engine(model_path("short"), n_ctx=128, exact=True) as engine:
        session = engine.session()
        session.collect_inputs()
        config = GenerationConfig(max_denoising_steps=3)
        steps = [event for event in session.generate(case.prompt, 17, seed=3, config=config) if hasattr(event, "step")]
        found = session.take_inputs()
    rows = 16 * len(steps)
    assert found["token_embd.weight"][1] == found["self_cond_up.weight"][1] == rows
    reference, cache = WatchedReference(checkpoint_for(case, tmp_path)), Cache()
    reference.encode(case.prompt, cache)
    for event, before in zip(steps[1:3], steps[:2], strict=True):
        assert event.step == before.step + 1
    assert found["blk.0.attn_q.weight"][1] == rows + len(case.prompt) + 16 * steps[-1].block


def test_any_number_of_threads_gives_the_same_sums(model_path) -> None:
    case = load_case("long")
    first = collected(model_path("long"), case, n_threads=1)
    for n_threads in (2, 3):
        other = collected(model_path("long"), case, n_threads=n_threads)
        for name, (sums, rows) in first.items():
            np.testing.assert_array_equal(other[name][0], sums)
            np.testing.assert_array_equal(other[name][1], rows)
