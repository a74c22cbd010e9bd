"""``--fit`` on the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from dgemma._native import core
from dgemma.cli import app
from dgemma.cli.sizes import memory_size

FLAGS = ["--fit", "9MB", "--ctx", "600", "--reserve", "1MB"]


def dgemma(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def words(result: Result) -> str:
    return " ".join(result.stderr.replace("│", " ").split())


def test_a_dry_run_prints_the_plan_and_writes_nothing(wide: Path, out: Path) -> None:
    result = dgemma("quantize", wide, out, *FLAGS, "--dry-run")
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert lines[0].startswith("9.00 MB for 600 tokens of context: weights ")
    assert ", key/value cache " in lines[0]
    assert ", reserve 1.00 MB; " in lines[0]
    assert lines[0].endswith(" left")
    assert any(line.startswith("blk.*.ffn_gate_up_exps ") for line in lines)
    assert lines[-2].startswith("damage ")
    assert lines[-1].startswith("the nearest named mix, ")
    assert not out.exists()


def test_what_is_written_is_what_was_planned(wide: Path, out: Path, tmp_path: Path) -> None:
    planned = json.loads(dgemma("quantize", wide, out, *FLAGS, "--dry-run", "--json").stdout)
    result = dgemma("quantize", wide, out, *FLAGS, "--json")
    assert result.exit_code == 0
    assert json.loads(result.stdout) == planned
    assert "the nearest named mix, " in result.stderr
    assert sum(planned["memory"].values()) + planned["left"] == planned["budget"] == 9_000_000
    assert planned["damage"] < planned["nearest_mix"]["damage"]
    written = {tensor.name: tensor.type.upper() for tensor in core.read_gguf(out).tensors}
    assert written == {tensor["name"]: tensor["type"] for tensor in planned["tensors"]}
    plan = json.loads(dgemma("inspect", out, "--plan", "--ctx", 600, "--json").stdout)
    assert sum(sum(uses.values()) for uses in plan["memory"]["devices"].values()) <= 8_000_000
    other = tmp_path / "other.gguf"
    assert dgemma("convert", wide, "-o", other, *FLAGS).exit_code == 0
    assert other.read_bytes() == out.read_bytes()


def test_an_output_that_is_there_is_refused_before_measuring(wide: Path, out: Path) -> None:
    out.write_text("mine")
    result = dgemma("quantize", wide, out, "--fit", "1kB")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "exists already" in result.stderr


def test_a_budget_that_cannot_be_met(wide: Path, out: Path) -> None:
    result = dgemma("quantize", wide, out, "--fit", "1kB")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "no choice of types runs in 0.01 MB: the smallest takes 50" in result.stderr
    assert not out.exists()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["quantize", "in", "out", "Q4_0", "--fit", "9GB"], "chooses the types itself: leave Q4_0 out"),
        (["quantize", "in", "out"], "name the type, or give --fit and the memory that there is"),
        (["quantize", "in", "out", "Q4_0", "--ctx", "600"], "--fit may give to the weights: give --fit too"),
        (["quantize", "in", "out", "Q4_0", "--reserve", "1GB"], "--fit may give to the weights: give --fit too"),
        (["quantize", "in", "out", "--fit", "9GB", "--pure"], "gives every matrix one type"),
        (["quantize", "in", "out", "--fit", "18"], "'18' is no size: write it with a unit, like 18GB"),
        (["quantize", "in", "out", "--fit", "much"], "'much' is no size"),
        (["quantize", "in", "out", "--fit", "9GB", "--ctx", "0"], "greater than or equal to 1"),
        (["convert", "in", "-o", "out", "--type", "f16", "--fit", "9GB"], "chooses the types itself: leave f16 out"),
        (["convert", "in", "--fit", "9GB"], "name the file to write, or ask for --dry-run"),
    ],
)
def test_a_wrong_command_line_is_exit_code_2(arguments: list[str], sentence: str) -> None:
    result = dgemma(*arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert sentence in words(result)


def test_sizes() -> None:
    sizes = {
        "18GB": 18 * 10**9,
        "24GiB": 24 * 2**30,
        "500 MB": 5 * 10**8,
        "1.5mib": 3 * 2**19,
        "0": 0,
        "12G": 12 * 10**9,
    }
    assert {text: memory_size(text) for text in sizes} == sizes
    for text in ("18", "18.5", "", "GB", "-1GB", "18XB", "1e3GB"):
        with pytest.raises(typer.BadParameter, match="is no size: write it with a unit"):
            memory_size(text)
