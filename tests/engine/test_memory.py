"""The memory plan against what the process really takes, and the default chunk that depends on who multiplies."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from dgemma import Engine
from dgemma._core import has_own_product
from dgemma._native import core
from dgemma.convert import convert
from random_checkpoint import CheckpointConfig, write_checkpoint

MB = 10**6
# Each of cache, logits and passes takes megabytes, so that one which the plan forgot would be seen.
SIZES = CheckpointConfig(
    layers=4, hidden=256, heads=4, head_dim=128, head_dim_full=256, window=512, ffn=256, experts=8, expert_ffn=128,
    vocab=16384, canvas=256,
)  # fmt: skip


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("memory")
    checkpoint = write_checkpoint(folder / "checkpoint", SIZES)
    for kind in ("bf16", "q8_0"):
        convert(checkpoint, folder / f"{kind}.gguf", type=kind)
    return {kind: folder / f"{kind}.gguf" for kind in ("bf16", "q8_0")}


# In a process of its own, after a first engine has brought what Python and ggml keep. Pages and not malloc's count:
# a scheduler of ggml asks for far more than it ever touches.
_TAKEN = """
import sys
from dataclasses import replace
from dgemma import Engine
from dgemma.bench.machine import own_bytes

def run(n_ctx, tokens):
    engine = Engine(sys.argv[1], n_ctx=n_ctx, n_threads=2)
    before = own_bytes()
    session = engine.session()
    session.prefill([3] * tokens)
    config = replace(engine.config, max_denoising_steps=2, confidence_threshold=0.0)
    for _ in session.generate(max_new_tokens=1, config=config):
        pass
    return own_bytes() - before

run(512, 8)
print(run(4096, 3600))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("kind", ["bf16", "q8_0"])
def test_the_process_takes_what_was_planned(models: dict[str, Path], kind: str) -> None:
    """To a tenth: ``dgemma bench`` prints both to the megabyte."""
    plan = core.plan_memory(str(models[kind]), 4096, "f16", 0)["CPU"]
    planned = sum(plan.values()) - plan["weights"]
    assert planned > 35 * MB
    command = [sys.executable, "-c", _TAKEN, str(models[kind])]
    taken = int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert 0.9 * planned <= taken <= 1.1 * planned


def test_the_default_chunk_depends_on_who_multiplies(models: dict[str, Path]) -> None:
    ours = 384 if has_own_product("q8_0") else 256
    assert Engine(models["q8_0"], n_ctx=1024).n_batch == ours
    assert Engine(models["q8_0"], n_ctx=1024, exact=True).n_batch == 256
    assert Engine(models["bf16"], n_ctx=1024).n_batch == 256
    assert Engine(models["bf16"], n_ctx=1024, n_batch=33).n_batch == 33


@pytest.mark.parametrize("kind", ["bf16", "q8_0"])
def test_the_plan_chooses_the_chunk_that_the_engine_chooses(models: dict[str, Path], kind: str) -> None:
    engine = Engine(models[kind], n_ctx=2048)
    session = engine.session()
    assert core.plan_memory(str(models[kind]), 2048, "f16", 0) == engine.memory
    assert core.plan_memory(str(models[kind]), 2048, "f16", engine.n_batch) == engine.memory
    del session
