"""Generation: the loop against the slow obvious one, end tokens, limits, seeds, and stopping from outside."""

from __future__ import annotations

import signal
from pathlib import Path

import numpy as np
import pytest
from engine.conftest import NO_END
from engine.philox import EngineRandom, philox4x32

from dgemma import BlockEvent, DoneEvent, Engine, GenerationConfig, RequestError, Session, StepEvent
from oracle.reference_sampler import StopRule, denoise
from random_checkpoint import SamplerConfig

PROMPT = [2, 105, 300, 301, 302, 106]
# Blocks of the "early" checkpoint settle within a few steps; 12 steps at most.
QUICK = GenerationConfig(max_denoising_steps=12, entropy_bound=2.0, confidence_threshold=0.05)


def answer(engine: Engine, **options) -> tuple[list[int], DoneEvent]:
    events = list(engine.generate(PROMPT, config=QUICK, **options))
    assert isinstance(events[-1], DoneEvent)
    return [t for event in events if isinstance(event, BlockEvent) for t in event.tokens], events[-1]


def test_philox_known_answers() -> None:
    """The vectors that Random123 publishes (kat_vectors, philox4x32 10)."""
    assert philox4x32((0, 0, 0, 0), (0, 0)) == (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)
    ones = 0xFFFFFFFF
    assert philox4x32((ones,) * 4, (ones,) * 2) == (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)


@pytest.mark.parametrize("seed", [0, 7, 2**64 - 1])
def test_the_loop_against_the_slow_one(endless: Path, seed: int) -> None:
    """Every event of three blocks, against numpy's loop over ``Session.denoise`` with Philox in Python."""
    engine = Engine(endless, n_ctx=128, exact=True)
    events = iter(engine.generate(PROMPT, max_new_tokens=48, seed=seed, config=QUICK))
    slow = engine.session()
    slow.prefill(PROMPT)
    random = EngineRandom(seed, engine.info.canvas_length, engine.info.n_vocab)
    sampling = SamplerConfig(12, entropy_bound=2.0, confidence_threshold=0.05)
    for block in range(3):
        random.begin_block()
        for count, wanted in enumerate(denoise(slow.denoise, sampling, random, block), 1):
            got = next(events)
            assert isinstance(got, StepEvent)
            assert (got.block, got.step) == (block, count)
            assert got.temperature == pytest.approx(wanted.temperature, abs=1e-12)
            np.testing.assert_array_equal(got.argmax, wanted.step.argmax)
            np.testing.assert_array_equal(got.accepted, wanted.step.accepted)
            np.testing.assert_array_equal(got.canvas, wanted.step.next_canvas)
            np.testing.assert_allclose(got.entropy, wanted.step.entropy, atol=1e-5)
        finished = next(events)
        assert finished == BlockEvent(block, wanted.step.argmax.tolist())
        slow.prefill(wanted.step.argmax)
    done = next(events)
    assert isinstance(done, DoneEvent)
    assert done.reason == "length"
    assert next(events, None) is None


@pytest.mark.parametrize("threshold", [0, 1, 2])
def test_the_stop_rule(endless: Path, threshold: int) -> None:
    """Each block ends at the first step at which the reference's rule fires, or at the last."""
    config = GenerationConfig(
        max_denoising_steps=12, entropy_bound=2.0, stability_threshold=threshold, confidence_threshold=0.3
    )
    sampling = SamplerConfig(12, stability_threshold=threshold, confidence_threshold=0.3)
    rule, early, fired, last = StopRule(sampling), 0, False, 0
    for event in Engine(endless, n_ctx=256).generate(PROMPT, max_new_tokens=96, seed=3, config=config):
        if isinstance(event, StepEvent):
            assert event.step == 1 or not fired
            fired, last = rule(event), event.step  # type: ignore[arg-type]  # it has argmax and entropy
        elif isinstance(event, BlockEvent):
            assert fired or last == 12
            assert last > threshold  # the first step has nothing to be compared with
            early += last < 12
            rule = StopRule(sampling)
    assert early > 0


def test_fewer_steps_are_another_schedule(endless: Path) -> None:
    def temperatures(steps: int) -> list[float]:
        config = GenerationConfig(max_denoising_steps=steps, confidence_threshold=0.0)
        events = Engine(endless, n_ctx=64).generate(PROMPT, max_new_tokens=1, config=config)
        return [event.temperature for event in events if isinstance(event, StepEvent)]

    np.testing.assert_allclose(temperatures(4), [0.8, 0.7, 0.6, 0.5])
    np.testing.assert_allclose(temperatures(2), [0.8, 0.6])


@pytest.mark.parametrize("position", [0, 5, 15, 16, 20])
def test_end_tokens_cut_the_answer(with_end_tokens, endless: Path, position: int) -> None:
    """An end token inside a canvas, at either edge, and in the second canvas: everything before it is the answer."""
    tokens, done = answer(Engine(endless, n_ctx=128), max_new_tokens=48, seed=1)
    assert done.reason == "length"
    end = tokens[position]
    first = tokens.index(end)
    cut, done = answer(Engine(with_end_tokens([end, NO_END]), n_ctx=128), max_new_tokens=48, seed=1)
    assert cut == tokens[:first]
    assert (done.reason, done.end_token) == ("stop", end)
    assert done.stats.new_tokens == first
    assert done.stats.blocks == first // 16 + 1


def test_the_end_token_right_after_the_last_wanted_one(with_end_tokens, endless: Path) -> None:
    tokens, _ = answer(Engine(endless, n_ctx=128), max_new_tokens=16, seed=1)
    end = next(t for i, t in enumerate(tokens) if i > 0 and t not in tokens[:i])
    at = tokens.index(end)
    engine = Engine(with_end_tokens([end]), n_ctx=128)
    assert answer(engine, max_new_tokens=at, seed=1)[1].reason == "stop"
    assert answer(engine, max_new_tokens=at - 1, seed=1)[1].reason == "length" if at > 1 else True


@pytest.mark.parametrize("wanted", [1, 15, 16, 17, 40])
def test_max_new_tokens_is_what_the_user_gets(endless: Path, wanted: int) -> None:
    tokens, done = answer(Engine(endless, n_ctx=128), max_new_tokens=wanted, seed=2)
    longer, _ = answer(Engine(endless, n_ctx=128), max_new_tokens=48, seed=2)
    assert tokens == longer[:wanted]
    assert (done.reason, done.end_token, done.stats.new_tokens) == ("length", None, wanted)
    assert done.stats.blocks == -(-wanted // 16)
    assert done.stats.prompt_tokens == len(PROMPT)


@pytest.mark.parametrize(("n_ctx", "blocks"), [(17, 0), (21, 0), (22, 1), (37, 1), (38, 2), (54, 3)])
def test_the_context_fills_up(endless: Path, n_ctx: int, blocks: int) -> None:
    """6 prompt tokens and canvases of 16: the answer ends when another canvas would not fit."""
    tokens, done = answer(Engine(endless, n_ctx=n_ctx), max_new_tokens=1000, seed=2)
    assert (done.reason, len(tokens)) == ("context", 16 * blocks)
    assert done.stats.blocks == blocks


def test_same_seed_same_tokens_on_any_number_of_threads(endless: Path) -> None:
    answers = [answer(Engine(endless, n_ctx=128, n_threads=n), max_new_tokens=48, seed=11)[0] for n in (1, 2, 3, 4)]
    assert answers[1:] == answers[:-1]
    assert answer(Engine(endless, n_ctx=128), max_new_tokens=48, seed=12)[0] != answers[0]


def test_each_finished_canvas_is_encoded_once(endless: Path) -> None:
    session = Engine(endless, n_ctx=128).session()
    for event in session.generate(PROMPT, max_new_tokens=40, seed=1, config=QUICK):
        if isinstance(event, StepEvent):
            assert session.n_past == len(PROMPT) + 16 * event.block
    assert session.n_past == len(PROMPT) + 32  # the last canvas has nobody to read it yet


def test_a_session_goes_on_where_it_was(endless: Path) -> None:
    """A second turn encodes its own tokens only, and answers as a session that was given all at once."""
    engine = Engine(endless, n_ctx=128, exact=True)
    first, second = [5, 6, 7], [8, 9]
    session, whole = engine.session(), engine.session()
    session.prefill(first)
    events = [list(s.generate(t, 16, 5, QUICK)) for s, t in ((session, second), (whole, first + second))]
    assert events[0][-2] == events[1][-2]
    assert (events[0][-1].stats.prompt_tokens, events[1][-1].stats.prompt_tokens) == (2, 5)


def test_closing_the_iterator_ends_the_answer(endless: Path) -> None:
    session = Engine(endless, n_ctx=128).session()
    events = session.generate(PROMPT, max_new_tokens=100, config=QUICK)
    next(events)
    events.close()
    assert list(events) == []
    assert session.n_past == len(PROMPT)
    assert len(list(session.generate([5], max_new_tokens=16, config=QUICK))) > 1


def test_two_answers_of_one_session_do_not_mix(endless: Path) -> None:
    session = Engine(endless, n_ctx=128).session()
    first = session.generate(PROMPT, max_new_tokens=40, config=QUICK)
    next(first)
    second = session.generate([5], max_new_tokens=16, config=QUICK)
    next(second)
    with pytest.raises(RequestError, match="used for something else since"):
        next(first)
    assert isinstance(list(second)[-1], DoneEvent)


def encode_forever(session: Session) -> None:
    """Each call is long, but a machine may be fast."""
    while True:
        session.prefill([7] * 3500)
        session.truncate(0)


def test_a_signal_ends_a_computation(model_path) -> None:
    """Ctrl-C's way: a handler that raises, while one long call computes. The session is usable afterwards."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    session = Engine(model_path("real_window"), n_ctx=4096).session()
    session.prefill([5])
    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        with pytest.raises(KeyboardInterrupt):
            encode_forever(session)
        signal.setitimer(signal.ITIMER_REAL, 0)
    finally:
        signal.signal(signal.SIGALRM, before)
    session.truncate(0)
    session.prefill([5, 6])
    assert session.n_past == 2


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"seed": -1}, "seed must be between 0"),
        ({"seed": 2**64}, "seed must be between 0"),
        ({"max_new_tokens": 0}, "max_new_tokens must be at least 1"),
    ],
)
def test_requests_out_of_range(endless: Path, options: dict, sentence: str) -> None:
    with pytest.raises(RequestError, match=sentence):
        Engine(endless, n_ctx=64).generate(PROMPT, **options)


def test_the_prompt_does_not_fit(endless: Path) -> None:
    with pytest.raises(RequestError, match="18 tokens do not fit: the context holds 17"):
        list(Engine(endless, n_ctx=17).generate([5] * 18))
