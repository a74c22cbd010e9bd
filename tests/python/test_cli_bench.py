"""``dgemma bench``: its last line is what scripts read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from dgemma.cli import app
from dgemma.convert import convert
from random_checkpoint import CheckpointConfig, write_checkpoint


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bench")
    convert(write_checkpoint(folder / "checkpoint", CheckpointConfig()), folder / "m.gguf", type="bf16")
    return folder / "m.gguf"


def test_the_last_line_is_json(model: Path) -> None:
    result = CliRunner().invoke(app, ["bench", "-m", str(model), "-p", "20", "--steps", "3", "-r", "2"])
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout.splitlines()[-1])
    assert (report["steps"], report["prompt_tokens"], report["file_type"]) == (3, 20, "BF16")
    for key in ("encode_tokens_per_second", "first_step_ms", "conditioned_step_ms"):
        assert 0 < report[key]["least"] <= report[key]["median"] <= report[key]["most"]
    assert set(report["memory"]["CPU"]) == {"weights", "kv", "compute", "sampler"}


def test_a_missing_file(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["bench", "-m", str(tmp_path / "none.gguf")])
    assert result.exit_code == 1
    assert "none.gguf: cannot be opened" in result.stderr
