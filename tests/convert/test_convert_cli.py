"""``dgemma convert``: exit codes, what goes to stdout, and what to stderr."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from checkpoints import WEIGHTS, edit_json, leftovers, read_gguf
from typer.testing import CliRunner, Result

from dgemma import convert as converter
from dgemma.cli import app


def dgemma(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_converts(pristine: Path, out: Path) -> None:
    result = dgemma("convert", pristine, "-o", out, "--type", "q8_0")
    assert (result.exit_code, result.stdout) == (0, "")
    assert str(out) in result.stderr
    assert "3 vision tensors (2.88 kB) left out" in result.stderr
    assert read_gguf(out)[1]["token_embd.weight"].tensor_type.name == "Q8_0"


def test_bf16_is_the_default(pristine: Path, out: Path) -> None:
    assert dgemma("convert", pristine, "-o", out).exit_code == 0
    assert read_gguf(out)[1]["token_embd.weight"].tensor_type.name == "BF16"


def test_dry_run_prints_the_plan_and_writes_nothing(pristine: Path, out: Path) -> None:
    result = dgemma("convert", pristine, "-o", out, "--type", "q8_0", "--dry-run")
    lines = result.stdout.splitlines()
    assert (result.exit_code, result.stderr, leftovers(out.parent)) == (0, "", [])
    assert lines[0].split() == ["token_embd.weight", "512", "x", "32", "Q8_0", "17,408"]
    assert [line.split()[2] for line in lines[-4:-1]] == ["F16", "F32", "Q8_0"]
    assert lines[-1].startswith("75 tensors, ")


@pytest.mark.parametrize("dry", [True, False])
def test_json(pristine: Path, out: Path, dry: bool) -> None:
    options = ["--dry-run"] if dry else ["-o", out]
    result = dgemma("convert", pristine, "--type", "f16", "--json", *options)
    plan = converter.plan(pristine, "f16")
    assert json.loads(result.stdout) == {
        "tensors": [{"name": t.name, "shape": list(t.shape), "type": t.type, "bytes": t.bytes} for t in plan.tensors],
        "bytes": plan.bytes,
    }
    assert out.exists() != dry


def test_the_plan_needs_no_weights_beyond_the_header(checkpoint: Path) -> None:
    """Headers only: a hole of zeros in place of the data makes no difference."""
    before = dgemma("convert", checkpoint, "--dry-run").stdout
    size = (checkpoint / WEIGHTS).stat().st_size
    with (checkpoint / WEIGHTS).open("rb+") as file:
        file.truncate(8 + int.from_bytes(file.read(8), "little"))
        file.truncate(size)
    assert dgemma("convert", checkpoint, "--dry-run").stdout == before


def test_a_refusal_is_one_line_and_exit_code_1(pristine: Path, out: Path) -> None:
    out.write_bytes(b"precious")
    result = dgemma("convert", pristine, "-o", out)
    assert (result.exit_code, result.stdout) == (1, "")
    assert (
        result.stderr == f"dgemma: {out}: exists already; choose another name, or overwrite it with force (--force)\n"
    )
    assert dgemma("convert", pristine, "-o", out, "--force").exit_code == 0


def test_a_refusal_is_one_harmless_line_whatever_the_file_says(checkpoint: Path) -> None:
    edit_json(
        checkpoint / "config.json", lambda config: config["text_config"].update(per_layer_config={"\n\x1b[2J": {}})
    )
    result = dgemma("convert", checkpoint, "--dry-run")
    assert result.stderr.count("\n") == 1
    assert r"per_layer_config.\n\x1b[2J is not the index" in result.stderr


@pytest.mark.parametrize(
    "arguments",
    [["convert"], ["convert", "x"], ["convert", "x", "-o", "y", "--type", "q4"], ["convert", "x", "--no"], ["no"]],
)
def test_a_wrong_command_line_is_exit_code_2(arguments: list[str]) -> None:
    result = dgemma(*arguments)
    assert (result.exit_code, result.stdout) == (2, "")


def test_interrupted_is_exit_code_130(pristine: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*args: object, **kwargs: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(converter, "convert", interrupt)
    result = dgemma("convert", pristine, "-o", out)
    assert (result.exit_code, result.stderr) == (130, "dgemma: interrupted\n")


def test_version_and_help() -> None:
    assert dgemma("--version").stdout.startswith("dgemma ")
    assert "convert" in dgemma("--help").stdout
    help = dgemma("convert", "--help").stdout
    assert "130 interrupted" in help


def test_help_needs_neither_the_engine_nor_numpy() -> None:
    code = (
        "import sys; from dgemma.cli import app\n"
        "try: app(['convert', '--help'])\n"
        "except SystemExit as error: code = error.code\n"
        "sys.exit(code or bool({'dgemma._core', 'numpy', 'gguf', 'torch'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0


def test_the_library_needs_neither_the_engine_nor_torch() -> None:
    code = "import sys, dgemma.convert; sys.exit(bool({'dgemma._core', 'torch'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0
