"""Timing a step by part, the memory plan, idling, and how often a token is encoded."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

from dgemma import Engine, GenerationConfig, RequestError
from dgemma._native import core
from dgemma.convert import convert
from random_checkpoint import CheckpointConfig, write_checkpoint


def test_timing_changes_nothing(tiny: Path) -> None:
    engine = Engine(tiny, n_ctx=128, n_threads=1)
    plain, timed = engine.session(), engine.session()
    timed.time_parts()
    canvas = list(range(16))
    for session in (plain, timed):
        session.prefill([3, 4, 5])
    np.testing.assert_array_equal(plain.denoise(canvas), timed.denoise(canvas))


def test_encoding_has_fewer_parts_than_a_step(tiny: Path) -> None:
    session = Engine(tiny, n_ctx=128).session()
    session.time_parts()
    session.prefill([3, 4, 5])
    encode = session.take_parts()
    assert set(encode) == {"embedding", "attention", "dense_ffn", "router", "experts"}
    list(session.generate(max_new_tokens=1, config=GenerationConfig(max_denoising_steps=2)))
    assert set(session.take_parts()) == {*encode, "self_conditioning", "head", "sampler"}
    assert session.take_parts() == {}


def test_parts_without_timing(tiny: Path) -> None:
    session = Engine(tiny, n_ctx=128, exact=True).session()
    with pytest.raises(RequestError, match="call time_parts first"):
        session.take_parts()
    session.time_parts()
    session.collect_inputs()
    with pytest.raises(RequestError, match="call time_parts first"):
        session.take_parts()


@pytest.mark.parametrize("type", ["f32", "bf16"])
@pytest.mark.parametrize("n_ctx", [100, 256, 1000])
@pytest.mark.parametrize("kv_type", ["f16", "f32"])
def test_the_plan_is_what_is_allocated(model_path, type: str, n_ctx: int, kv_type) -> None:
    path = model_path("short", type)
    engine = Engine(path, n_ctx=n_ctx, kv_type=kv_type)
    session = engine.session()
    assert core.plan_memory(str(path), n_ctx, kv_type, 0) == engine.memory
    del session


def test_a_long_context_costs_what_its_full_layers_hold(tmp_path: Path) -> None:
    """The cache's shape of the released model, 30 layers of which 5 are full, on narrow weights: 20 KiB a position and
    200 KiB for each of the ring's."""
    config = CheckpointConfig(
        layers=30, full_every=6, heads=16, kv_heads=8, kv_heads_full=2, head_dim=256, head_dim_full=512,
        window=1024, canvas=256, context=262_144,
    )  # fmt: skip
    convert(write_checkpoint(tmp_path / "checkpoint", config), tmp_path / "m.gguf", type="bf16")
    plan = core.plan_memory(str(tmp_path / "m.gguf"), 262_144, "f16", 256)
    ring = 1280  # 1023 + 256, rounded up to 256
    assert plan["CPU"]["kv"] == 262_144 * 20 * 1024 + ring * 200 * 1024
    assert 5.3e9 < 262_144 * 20 * 1024 < 5.4e9


def test_a_conversation_encodes_each_token_once(tiny: Path) -> None:
    """Ten turns: what the encoder was given is what was said, and the cache holds no more."""
    session = Engine(tiny, n_ctx=1024).session()
    random, said, encoded = np.random.default_rng(0), 0, 0
    for turn in range(10):
        before = session.n_past
        tokens = random.integers(0, 512, 3 + turn).tolist()
        session.prefill(tokens)
        encoded += session.n_past - before
        said += len(tokens)
        list(session.generate(max_new_tokens=1, config=GenerationConfig(max_denoising_steps=1)))
        assert session.n_past == said
    assert encoded == said


def test_an_idle_engine_burns_no_time(tiny: Path) -> None:
    """Threads that spin between steps would take half a second each; a tenth leaves room for everything else."""
    session = Engine(tiny, n_ctx=128, n_threads=2).session()
    session.prefill([3, 4, 5])
    session.denoise(list(range(16)))
    time.sleep(0.2)  # what a thread may take to fall asleep
    before = time.process_time()
    time.sleep(0.5)
    assert time.process_time() - before < 0.1
