"""The sections of ``make gpu-check`` themselves, measured where there is no card: on the CPU and at small widths."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from gpu_check import parity, proofs, step, whole
from gpu_check.section import Found

from oracle.cases import load_case
from random_checkpoint import CheckpointConfig


@pytest.fixture(scope="module")
def found() -> Found:
    return parity.parity(Path(), parity.ON_CPU)


def test_parity_on_the_cpu(found: Found) -> None:
    """Every case is there. The bounds hold for the CPU too where its attention is as exact as a card's: not in the
    normal mode with F32 weights, where attention in BF16 is the largest error."""
    rows = found["cases"]
    assert {row["type"] for row in rows} == set(parity.WEIGHTS)
    assert {row["name"] for row in rows if row["type"] == "q8_0"} == set(parity.SMALLER)
    for row in rows:
        assert row["apart"] == 0.0  # the same engine twice
        assert row["rms"] == row["cpu_rms"]
        assert row["finite"]
        assert "kv" in row["cpu_bytes"]  # which alone fails here
        assert parity.failed(row)
        if row["type"] != "f32" or row["exact"]:
            assert 0 < row["rms"] < row["bound"]


def test_parity_sees_a_row_in_the_place_of_another(found: Found) -> None:
    """Its bounds are far below what wrong logits do, whatever the weights."""
    bounds = {row["name"]: row["bound"] for row in found["cases"] if row["type"] == "q8_0"}
    assert bounds
    for name, bound in bounds.items():
        logits = load_case(name).logits[:, 0]
        assert parity.median_row(np.roll(logits, 1, axis=1) - logits) > 5 * bound


def test_a_value_that_is_no_number_fails() -> None:
    row = {"finite": True, "rms": 0.5, "bound": 1.0, "cpu_bytes": {}, "asked": "ggml", "layers": "ggml"}
    assert not parity.failed(row)
    assert parity.failed({**row, "rms": parity.median_row(np.full((1, 2, 3), np.nan))})


def test_answers_on_the_cpu(tmp_path: Path) -> None:
    """The CPU against itself: everything is equal."""
    answers = proofs.answers(tmp_path, layers=0)
    assert answers["equal_steps"] == answers["steps"] > 4 * 3
    assert answers["first"] == {"argmax": 1.0, "canvas": 1.0}
    assert proofs.answer_problem(answers) == ""


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """In the place of the file of full size, and a driver that always says the same."""
    from dgemma.convert import convert
    from random_checkpoint import write_checkpoint

    model = tmp_path / "small.gguf"
    convert(write_checkpoint(tmp_path / "checkpoint", CheckpointConfig()), model, type="bf16")
    (tmp_path / "nvidia-smi").write_text("#!/bin/sh\necho 512\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    for name, value in {"MODEL": model, "N_CTX": 256, "PREFIX": 40}.items():
        monkeypatch.setattr(whole, name, value)
    monkeypatch.setattr(step, "MODEL", model)
    monkeypatch.setattr(step, "PREFIX", 40)
    return model


def test_memory_and_times_and_the_step(tmp_path: Path, small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From what the engine and the bench really give to the lines of the report."""
    monkeypatch.setattr(whole, "PLACEMENT", parity.ON_CPU)
    monkeypatch.setattr(whole, "BENCH_PLACEMENT", ("-ngl", "0"))
    memory = whole.memory(tmp_path)
    assert (memory["driver_bytes"], memory["other_bytes"]) == (0, 512 << 20)
    assert memory["planned"]["CPU"]["kv"] == memory["allocated"]["CPU"]["kv"] > 0
    assert any(line.startswith("| CPU | kv | ") for line in whole.memory_lines(memory))

    bench = whole.bench(tmp_path)
    assert "not all layers lay on the card" in whole.bench_problem(bench)
    assert sum(line.startswith("| experts ") for line in whole.bench_lines(bench)) == 3  # sharp, mixed, flat

    (tmp_path / "gpu-check.json").write_text(json.dumps({"sections": {"bench": bench}}))
    monkeypatch.setattr(step, "device", lambda: {"name": "NVIDIA H100 80GB HBM3"})
    found = step.step(tmp_path)
    assert found["card"] is not None
    assert found["layers"].keys() == {"ggml"}  # ours are not there
    times = found["layers"]["ggml"]
    assert set(times["predicted"]) & set(times["parts"])
    assert any("a step, sharp rows" in line for line in step.step_lines(found))
    monkeypatch.setattr(step, "device", lambda: {"name": "a card of tomorrow"})
    assert step.step_lines(step.step(tmp_path))[0] == "There is no prediction for this card."


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("exit 0", "clean"),
        ("echo '========= Error: Race reported between Write access'; exit 99", "errors"),
        ("exit 1", "failed"),
        ("sleep 60", "unfinished, clean so far"),
    ],
)
def test_checkers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, said: str) -> None:
    tool = tmp_path / "compute-sanitizer"
    tool.write_text(f"#!/bin/sh\n{script}\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr(proofs, "CHECKER_SECONDS", 1 if "sleep" in script else 30)
    monkeypatch.setattr(proofs, "CHECKERS", ("racecheck",))
    assert proofs.checkers(tmp_path) == {"racecheck": said}


def test_the_bench_that_fails_says_where_its_sentence_is(
    tmp_path: Path, small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(whole, "BENCH_PLACEMENT", ("-ngl", "all", "-mg", "9"))
    with pytest.raises(SystemExit, match=r"its own sentence is in log\.txt"):
        whole.bench(tmp_path)
