"""The random file of real shapes, at small widths: it loads, answers, and no two rows or experts are the same."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from full_size import write_model

from dgemma import Engine, StepEvent
from random_checkpoint import REAL_WIDTHS

WIDTHS = {
    "layers": 3,
    "full_every": 3,
    "hidden": 512,
    "heads": 4,
    "kv_heads": 2,
    "kv_heads_full": 1,
    "head_dim": 128,
    "head_dim_full": 256,
    "ffn": 512,
    "experts": 16,
    "experts_used": 4,
    "expert_ffn": 256,
    "vocab": 4096,
    "canvas": 64,
    "window": 128,
}
CONFIG = replace(REAL_WIDTHS, **WIDTHS)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("full") / "m.gguf"
    write_model(path, "Q4_K_M", CONFIG, processes=1)
    return path


def test_logits_are_spread(model: Path) -> None:
    with Engine(model, n_ctx=256, n_threads=1) as engine:
        session = engine.session()
        session.prefill(range(2, 100))
        logits = session.denoise(range(300, 364))
    assert np.isfinite(logits).all()
    assert 0.7 * CONFIG.logit_spread < logits.std() < 1.3 * CONFIG.logit_spread


def test_an_answer_comes(model: Path) -> None:
    with Engine(model, n_ctx=256, n_threads=1) as engine:
        steps = [e for e in engine.generate(range(5, 50), max_new_tokens=64, seed=1) if isinstance(e, StepEvent)]
    assert len(steps) > 1
    assert len(np.unique(steps[-1].argmax)) > 8


def test_any_number_of_processes_writes_the_same(model: Path, tmp_path: Path) -> None:
    write_model(tmp_path / "m.gguf", "Q4_K_M", CONFIG, processes=2)
    assert (tmp_path / "m.gguf").read_bytes() == model.read_bytes()
