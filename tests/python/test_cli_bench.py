"""``dgemma bench``: its last line is what scripts read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from dgemma._core import product_kernels
from dgemma.bench import compare_reports, differences
from dgemma.bench.work import Work, step_work
from dgemma.cli import app
from dgemma.convert import convert
from random_checkpoint import CheckpointConfig, write_checkpoint

PARTS = {"self_conditioning", "embedding", "attention", "router", "experts", "dense_ffn", "head", "sampler"}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bench")
    convert(write_checkpoint(folder / "checkpoint", CheckpointConfig()), folder / "m.gguf", type="bf16")
    return folder / "m.gguf"


def run(model: Path, *arguments: str) -> Result:
    return CliRunner().invoke(app, ["bench", "-m", str(model), "-p", "20", "--steps", "3", "-r", "1", *arguments])


@pytest.fixture(scope="module")
def output(model: Path) -> str:
    result = run(model, "-p", "20,30", "--blocks", "2", "-t", "1")
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.fixture(scope="module")
def report(output: str) -> dict[str, Any]:
    report: dict[str, Any] = json.loads(output.splitlines()[-1])
    return report


def test_the_last_line_is_json(report: dict[str, Any]) -> None:
    assert (report["steps"], report["prompt_tokens"], report["file_type"]) == (3, [20, 30], "BF16")
    assert (report["threads"], report["blocks"], report["repeats"]) == (1, 2, 1)
    spreads = [*report["encode_tokens_per_second"].values(), report["commit_ms"], *report["step_ms"].values()]
    assert len(spreads) == 2 + 1 + 4
    for spread in spreads:
        assert 0 < spread["least"] <= spread["median"] <= spread["most"]
    assert set(report["memory"]["CPU"]) == {"weights", "kv", "compute", "sampler"}
    assert 0 <= report["answer"]["tokens"] <= 2 * 256


def test_the_kernel_is_named(report: dict[str, Any], output: str) -> None:
    kernels = product_kernels()
    assert report["int8_kernel"] == (kernels[0] if kernels else None)
    assert f"int8 kernel: {kernels[0] if kernels else 'none'}" in output.splitlines()


def test_the_plan_stands_beside_what_was_taken(report: dict[str, Any]) -> None:
    assert report["planned_bytes"] == sum(size for use, size in report["memory"]["CPU"].items() if use != "weights")


def test_a_cold_start(model: Path) -> None:
    result = run(model, "--cold", "--steps", "1", "-ub", "7")
    assert result.exit_code == 0, result.output
    assert "ready from the disk" in result.stdout
    new = json.loads(result.stdout.splitlines()[-1])
    cold = new["cold"]
    assert new["n_batch"] == 7
    assert 0 < cold["load_seconds"] <= cold["ready_seconds"] <= cold["load_seconds"] + cold["first_answer_seconds"]
    assert cold["read_seconds"] > 0


def test_the_slow_path(model: Path, report: dict[str, Any]) -> None:
    result = run(model, "--exact", "--steps", "1")
    assert result.exit_code == 0, result.output
    assert " threads, exact, dgemma" in result.stdout.replace("\n", " ")
    exact = json.loads(result.stdout.splitlines()[-1])
    assert (exact["exact"], report["exact"]) == (True, False)
    assert exact["memory"]["CPU"]["kv"] == 2 * report["memory"]["CPU"]["kv"]


def test_a_cold_start_where_no_file_can_be_forgotten(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr("os.posix_fadvise", raising=False)
    result = run(model, "--cold")
    assert result.exit_code == 1
    assert "on Linux only" in result.stderr


def test_temperatures_make_rows_sharp_and_flat(report: dict[str, Any]) -> None:
    assert report["entropy"]["sharp"] < report["entropy"]["mixed"] < report["entropy"]["flat"]


def test_every_part_is_there(report: dict[str, Any]) -> None:
    for parts in report["parts"].values():
        assert set(parts) == PARTS
        assert all(part["ms"] > 0 and part["mb"] > 0 for part in parts.values())


def test_the_table_is_for_people(output: str) -> None:
    for words in (
        "encode 30 tokens",
        "commit a canvas",
        "sharp rows",
        "self conditioning",
        "Limits of CPU",
        "planned beside",
    ):
        assert words in output


def test_json_alone(model: Path, report: dict[str, Any], tmp_path: Path) -> None:
    old = dict(report, model="other.gguf", load_seconds=1e6)
    (tmp_path / "old.json").write_text("a table\n" + json.dumps(old) + "\n")
    result = run(model, "--json", "--compare", str(tmp_path / "old.json"))
    assert result.exit_code == 0, result.output
    new = json.loads(result.stdout)
    assert new["compared"]["load, s"] > 1000


def test_a_comparison_says_which_is_better(report: dict[str, Any]) -> None:
    slower = json.loads(json.dumps(report))
    slower["load_seconds"] = 2 * report["load_seconds"]
    slower["answer"]["tokens_per_second"] = report["answer"]["tokens_per_second"] / 2
    speedups = {change.figure: change.speedup for change in compare_reports(slower, report)}
    assert speedups["load, s"] == pytest.approx(2)
    assert speedups["commit, ms"] == pytest.approx(1)
    assert speedups.get("answer, tokens/s", 2) == pytest.approx(2)
    assert differences(report, dict(report, threads=2)) == ["threads"]


def test_the_work_of_a_step(model: Path) -> None:
    """Counted by hand from the shapes of the random checkpoint."""
    from dgemma._native import core

    config, info = CheckpointConfig(), core.read_gguf(str(model))
    work, longer = step_work(info, n_past=10), step_work(info, n_past=5000)
    dense = 3 * config.hidden * config.ffn
    assert work["head"].operations == 2 * config.vocab * config.hidden * config.canvas
    assert work["dense_ffn"].operations == 2 * config.layers * dense * config.canvas
    assert work["experts"].operations == pytest.approx(
        2 * config.layers * config.experts_used * 3 * config.hidden * config.expert_ffn * config.canvas
    )
    # Both prefixes are past the window, so that only full layers see more.
    full = sum(not config.is_sliding(i) for i in range(config.layers))
    more = 4 * 4990 * config.canvas * config.heads * config.head_dim_full * full
    assert longer["attention"].operations - work["attention"].operations == more


def test_each_operation_has_the_rate_of_what_it_multiplies(model: Path, tmp_path: Path) -> None:
    from dgemma._native import core

    quantised = tmp_path / "q8_0.gguf"
    convert(write_checkpoint(tmp_path / "checkpoint", CheckpointConfig()), quantised, type="q8_0")
    for path, kind in ((model, "bf16"), (quantised, "int8")):
        work = step_work(core.read_gguf(str(path)), n_past=10)
        for part in ("head", "experts", "dense_ffn"):
            assert getattr(work[part], kind) == work[part].operations > 0
        assert work["self_conditioning"].int8 == work["self_conditioning"].operations
    # Projections are quantised, scores and mixing are not.
    assert work["attention"].int8 > 0 < work["attention"].bf16
    limits = {"int8_ops_per_second": 4.0, "bf16_ops_per_second": 2.0, "f32_ops_per_second": 1.0}
    assert Work(8.0, 6.0, 5.0).least_seconds(limits) == 2 + 3 + 5
    assert Work(8.0).least_seconds(limits | {"int8_ops_per_second": None}) == 4


@pytest.mark.parametrize("text", ["", "0", "20,", "many"])
def test_lengths_that_are_none(model: Path, text: str) -> None:
    result = run(model, "-p", text)
    assert result.exit_code == 2
    assert "is no list of lengths" in result.stderr


def test_a_comparison_with_something_else(model: Path, tmp_path: Path) -> None:
    (tmp_path / "old.json").write_text("{}")
    result = run(model, "--compare", str(tmp_path / "old.json"))
    assert result.exit_code == 1
    assert "its last line is no report of dgemma bench" in result.stderr
    missing = run(model, "--compare", str(tmp_path / "none.json"))
    assert "none.json: cannot be read" in missing.stderr


def test_a_missing_file(tmp_path: Path) -> None:
    result = run(tmp_path / "none.gguf")
    assert result.exit_code == 1
    assert "none.gguf: cannot be opened" in result.stderr
