"""The random file of real shapes, at small widths: it loads, answers, and no two rows or experts are the same."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import gguf
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
    "expert_ffn": 512,
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


def test_every_expert_is_taken(model: Path) -> None:
    """By some of 98 tokens that take 4 of 16 each, in every layer, and none by all of them."""
    with Engine(model, n_ctx=256, n_threads=1, exact=True) as engine:
        session = engine.session()
        session.collect_inputs()
        session.prefill(range(2, 100))
        rows = {name: rows for name, (_, rows) in session.take_inputs().items() if name.endswith("gate_up_exps.weight")}
    assert len(rows) == CONFIG.layers - 1  # of the last, the encoder needs keys and values only
    for taken in rows.values():
        assert taken.sum() == 98 * CONFIG.experts_used
        assert 0 < taken.min() <= taken.max() < 98


def test_no_two_rows_are_the_same(model: Path) -> None:
    """Tokens would tie, and experts would share what a cache holds."""
    tensors = {tensor.name: tensor.data for tensor in gguf.GGUFReader(model).tensors}
    for name in ("token_embd.weight", "blk.0.ffn_gate_up_exps.weight", "blk.0.ffn_down_exps.weight"):
        rows = tensors[name].reshape(-1, tensors[name].shape[-1])
        assert len(np.unique(rows, axis=0)) > 0.99 * len(rows), name
