"""What the engine collects for an importance matrix, against the oracle's own products."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from engine.philox import EngineRandom

from dgemma import Engine, RequestError, Session, StepEvent
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
        np.testing.assert_allclose(found[name][0], sums, rtol=1e-4, atol=1e-6 * sums.mean(), err_msg=name)


@pytest.mark.parametrize("name", ["short", "long", "edge", "crossing", "hidden256"])
def test_the_inputs_are_those_of_the_reference(model_path, tmp_path, name: str) -> None:
    """Encoder, first and conditioned steps, every block; an expert counts the rows that were routed to it."""
    case = load_case(name)
    reference = WatchedReference(checkpoint_for(case, tmp_path))
    replay(reference, case)
    check_equal(collected(model_path(name), case), reference.sums)


def test_a_generation_is_seen_step_by_step(model_path, tmp_path) -> None:
    """A real denoising run, replayed by the reference with the canvases that the events show."""
    case, seed = load_case("all_steps"), 3
    with Engine(model_path("all_steps"), n_ctx=128, exact=True) as engine:
        session = engine.session()
        session.collect_inputs()
        steps = [event for event in session.generate(case.prompt, 33, seed) if isinstance(event, StepEvent)]
        found = session.take_inputs()
        start = EngineRandom(seed, engine.info.canvas_length, engine.info.n_vocab)
    reference, cache = WatchedReference(checkpoint_for(case, tmp_path)), Cache()
    to_encode = case.prompt
    for event in steps:
        if event.step == 1:
            reference.encode(to_encode, cache)
            start.begin_block()
            canvas, previous = start.noise(), None
        previous = reference.decode(canvas, cache, previous) / event.temperature
        canvas, to_encode = event.canvas, event.argmax
    assert {event.block for event in steps} == {0, 1, 2}
    check_equal(found, reference.sums)


def test_any_number_of_threads_gives_the_same_sums(model_path) -> None:
    case = load_case("long")
    first = collected(model_path("long"), case, n_threads=1)
    for n_threads in (2, 3):
        other = collected(model_path("long"), case, n_threads=n_threads)
        for name, (sums, rows) in first.items():
            np.testing.assert_array_equal(other[name][0], sums)
            np.testing.assert_array_equal(other[name][1], rows)


def test_taking_begins_anew(model_path) -> None:
    case = load_case("short")
    with Engine(model_path("short"), n_ctx=128, exact=True) as engine:
        session = engine.session()
        session.collect_inputs()
        run_case(session, case)
        first = session.take_inputs()
        assert session.take_inputs() == {}
        session.truncate(0)
        run_case(session, case)
        again = session.take_inputs()
    for name, (sums, rows) in first.items():
        np.testing.assert_array_equal(again[name][0], sums)
        np.testing.assert_array_equal(again[name][1], rows)


def test_only_an_exact_engine_can_be_looked_into(tiny) -> None:
    session = Engine(tiny, n_ctx=64).session()
    with pytest.raises(RequestError, match="only an engine made with exact"):
        session.collect_inputs()
    with pytest.raises(RequestError, match="call collect_inputs first"):
        session.take_inputs()


def test_looking_on_changes_nothing(model_path) -> None:
    case = load_case("short")
    with Engine(model_path("short"), n_ctx=128, exact=True) as engine:
        plain, watched = engine.session(), engine.session()
        watched.collect_inputs()
        for session in (plain, watched):
            session.prefill(case.prompt)
        np.testing.assert_array_equal(plain.denoise(case.canvas[0, 0]), watched.denoise(case.canvas[0, 0]))
