"""Engines that several threads use, and what stops them from outside."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from dgemma import ContextError, Conversation, Engine

posix = pytest.mark.skipif(os.name != "posix", reason="needs named pipes and signals to one process")


def tokens(n: int, seed: int = 0) -> list[int]:
    return np.random.default_rng(seed).integers(200, 500, n).tolist()


def slow_engine(path: Path) -> Engine:
    """Chunks of 2 tokens: 1500 of them take several times the 50 ms after which a waiting caller looks for signals."""
    return Engine(path, n_ctx=2048, n_batch=2, n_threads=1)


def test_a_session_may_end_while_another_one_computes(endless: Path) -> None:
    """Both ends need Python's lock and the engine's thread: taken in the wrong order nobody would go on."""
    engine = slow_engine(endless)
    busy, idle = engine.session(), engine.session()
    worker = threading.Thread(target=busy.prefill, args=(tokens(1500),), daemon=True)
    worker.start()
    time.sleep(0.02)
    del idle
    gc.collect()
    assert "compute" in engine.memory["CPU"]
    worker.join(timeout=60)
    assert busy.n_past == 1500


def test_sessions_of_two_threads_do_not_mix(endless: Path) -> None:
    engine = Engine(endless, n_ctx=512, exact=True)
    prompts = [tokens(40, seed=1), tokens(90, seed=2)]
    alone = [[event.tokens for event in engine.generate(p, 48, seed=3) if hasattr(event, "tokens")] for p in prompts]
    together: list[list[list[int]] | None] = [None, None]

    def answer(i: int) -> None:
        together[i] = [event.tokens for event in engine.generate(prompts[i], 48, seed=3) if hasattr(event, "tokens")]

    threads = [threading.Thread(target=answer, args=(i,)) for i in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert together == alone


def test_a_session_outlives_its_engine(endless: Path) -> None:
    with Engine(endless, n_ctx=128) as engine:
        session = engine.session()
    del engine
    gc.collect()
    session.prefill(tokens(20))
    assert session.denoise(tokens(16)).shape == (16, 512)


# A named pipe in place of the file: writing waits until someone reads, as a slow disk would.
_SAVE = """
import os, signal, sys, threading, time
from dgemma import Engine
model, pipe = sys.argv[1:]
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job would ignore it
session = Engine(model, n_ctx=2048).session()
session.prefill([300] * 1000)
os.mkfifo(pipe + ".partial")

def interrupt_then_read():
    time.sleep(0.3)
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(0.3)
    open(pipe + ".partial", "rb").read()

reader = threading.Thread(target=interrupt_then_read)
reader.start()
try:
    session.save(pipe)
except KeyboardInterrupt:
    print("interrupted,", session.n_past)
reader.join()  # a thread that outlives the interpreter keeps what it sees alive, which nanobind reports as a leak
del session
"""


@posix
def test_a_signal_during_a_job_that_cannot_stop(endless: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-c", _SAVE, str(endless), str(tmp_path / "pipe")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("interrupted, 1000\n", "")


@posix
def test_an_encoding_that_was_stopped_leaves_the_conversation_usable(endless: Path) -> None:
    """Its first tokens have moved the rings on, so that the cache is emptied: the ids must say so."""
    engine = slow_engine(endless)
    conversation, history = Conversation(engine), tokens(300)
    list(conversation.answer(history, max_new_tokens=16))
    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.15)
        with pytest.raises(KeyboardInterrupt):
            list(conversation.answer(history + tokens(1500, seed=1), max_new_tokens=16))
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert len(conversation.ids) < 1800
    again, fresh = history + tokens(20, seed=2), Conversation(engine)
    canvas = tokens(16, seed=3)
    for one in (conversation, fresh):
        list(one.answer(again, max_new_tokens=16))
    assert conversation.ids == fresh.ids
    np.testing.assert_allclose(conversation._session.denoise(canvas), fresh._session.denoise(canvas), rtol=0, atol=2e-2)


def test_a_snapshot_after_a_truncation(endless: Path) -> None:
    """Nothing was encoded since, so it is still good, whether or not the rings reach it."""
    session = Engine(endless, n_ctx=2048, exact=True).session()
    session.prefill(tokens(100))
    expected, snapshot = session.denoise(tokens(16)), session.snapshot()
    for shorter in (60, 0):
        session.truncate(shorter)
        session.restore(snapshot)
        assert session.n_past == 100
        np.testing.assert_array_equal(session.denoise(tokens(16)), expected)


def test_loading_ends_snapshots(endless: Path, tmp_path: Path) -> None:
    engine = Engine(endless, n_ctx=2048, exact=True)
    other, session = engine.session(), engine.session()
    other.prefill(tokens(100, seed=1))
    other.save(tmp_path / "other")
    session.prefill(tokens(100))
    snapshot = session.snapshot()
    session.load(tmp_path / "other")
    with pytest.raises(ContextError, match="encoded anew"):
        session.restore(snapshot)


_MANY = """
import resource, sys
import dgemma
resource.setrlimit(resource.RLIMIT_AS, (3 << 30, 3 << 30))  # a thread's stack takes 8 MB of it
try:
    dgemma.Engine(sys.argv[1], n_ctx=128, n_threads=1024)
except dgemma.BackendError as error:
    print(error)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the limit is not kept")
def test_more_threads_than_the_system_gives(endless: Path) -> None:
    done = subprocess.run([sys.executable, "-c", _MANY, str(endless)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "the system gives no more than" in done.stdout
    assert "a smaller n_threads" in done.stdout
