"""``dgemma imatrix``, and ``--imatrix`` of ``quantize`` and ``convert``."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from calibration import TEXT
from gguf import GGUFReader
from typer.testing import CliRunner, Result

from dgemma.cli import app
from dgemma.quantize import Imatrix, calibrate, read_imatrix, write_imatrix
from dgemma.quantize.imatrix import Inputs


def dgemma(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text(TEXT)
    return path


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "imatrix.gguf"


def collect(model: Path, text: Path, target: Path, *more: object) -> Result:
    return dgemma("imatrix", "-m", model, "-f", text, "-o", target, "-c", 48, "-n", 10, *more)


def test_collects_resumes_and_merges(float_gguf: Path, text: Path, target: Path, tmp_path: Path) -> None:
    result = collect(float_gguf, text, target, "--chunks", 1)
    tensors = len(read_imatrix(target).entries)
    assert (result.exit_code, result.stdout) == (0, "")
    assert result.stderr == f"{target}: {tensors} tensors from 1 piece\n"
    result = collect(float_gguf, text, target, "--chunks", 2)
    assert result.exit_code == 1
    assert "exists already" in result.stderr
    result = collect(float_gguf, text, target, "--chunks", 2, "--resume", "--json")
    report = json.loads(result.stdout)
    assert (result.exit_code, report["chunks"], report["datasets"]) == (0, 2, ["text.txt"])
    experts = next(tensor for tensor in report["tensors"] if tensor["name"] == "blk.0.ffn_down_exps.weight")
    assert (experts["matrices"], experts["columns"], experts["unseen"]) == (3, 20, [])
    merged = tmp_path / "merged.gguf"
    assert dgemma("imatrix", "--in-file", target, "--in-file", target, "-o", merged).exit_code == 0
    assert read_imatrix(merged).chunk_count == 4
    result = dgemma("imatrix", "--in-file", target, "-o", target, "--force")
    assert result.exit_code == 1


def test_quantises_with_it(wide_float: Path, wide: Path, wide_imatrix: Imatrix, out: Path, tmp_path: Path) -> None:
    options = ["--imatrix", wide_imatrix.source]
    result = dgemma("quantize", wide_float, out, "IQ4_XS", *options)
    assert result.exit_code == 0
    assert "importance" not in result.stderr
    other = tmp_path / "other.gguf"
    assert dgemma("convert", wide, "-o", other, "--type", "IQ4_XS", *options).exit_code == 0
    assert [t.data.tobytes() for t in GGUFReader(out).tensors] == [t.data.tobytes() for t in GGUFReader(other).tensors]
    for command in (["quantize", wide_float, out, "IQ2_XXS"], ["convert", wide, "--type", "IQ2_XXS"]):
        result = dgemma(*command, *options, "--dry-run", "--json")
        assert (result.exit_code, result.stderr) == (0, "")
        assert json.loads(result.stdout)["bytes"]


def test_what_a_matrix_does_not_know_is_said(wide_float: Path, wide_imatrix: Imatrix, out: Path, target: Path) -> None:
    entries = dict(wide_imatrix.entries)
    del entries["token_embd.weight"], entries["blk.0.attn_q.weight"]
    experts = entries["blk.1.ffn_down_exps.weight"]
    rows, squares = experts.rows.copy(), experts.squares.copy()
    rows[2], squares[2] = 0, 0
    entries["blk.1.ffn_down_exps.weight"] = Inputs(squares, rows)
    write_imatrix(Imatrix(entries), target)
    result = dgemma("quantize", wide_float, out, "Q4_0", "--imatrix", target)
    assert result.exit_code == 0
    assert result.stderr.splitlines()[1:] == [
        f"{target} has no values for token_embd.weight, blk.0.attn_q.weight: without importance",
        f"{target}: 1 expert saw no row and counts as the mean of the others (blk.1.ffn_down_exps.weight: 2)",
    ]


@pytest.mark.parametrize(
    "arguments",
    [
        [], ["-f", "text"], ["-m", "model", "-f", "text", "--parse-special"], ["--resume", "--in-file", "a"],
        ["-m", "model", "-hf", "a/b", "-f", __file__], ["-c", "1"], ["-n", "0"], ["--chunks", "0"],
    ],
)  # fmt: skip
def test_a_wrong_command_line_is_exit_code_2(arguments: list[str]) -> None:
    result = dgemma("imatrix", *arguments)
    assert (result.exit_code, result.stdout) == (2, "")


def test_texts_that_cannot_be_used(float_gguf: Path, text: Path, target: Path) -> None:
    text.write_bytes(b"Gr\xfc\xdfe")
    assert collect(float_gguf, text, target).stderr == f"dgemma: {text} is not UTF-8 text: byte 2 is no part of it\n"
    text.write_text("short")
    result = collect(float_gguf, text, target)
    assert result.exit_code == 1
    assert "less than 1 of 48: take a longer text or smaller pieces (-c)" in result.stderr
    text.unlink()
    assert collect(float_gguf, text, target).stderr == f"dgemma: {text} cannot be read: No such file or directory\n"


def test_pieces_that_the_model_is_too_small_for(float_gguf: Path, text: Path, target: Path) -> None:
    result = collect(float_gguf, text, target, "-n", "10000000")
    assert result.exit_code == 1
    assert "take smaller pieces (-c) or shorter answers (-n)" in result.stderr


@pytest.mark.parametrize("kept", [True, False])
def test_interrupted_is_exit_code_130(
    float_gguf: Path, text: Path, target: Path, monkeypatch: pytest.MonkeyPatch, kept: bool
) -> None:
    def interrupt(*args: object, **kwargs: object) -> None:
        if kept:
            target.touch()
        raise KeyboardInterrupt

    monkeypatch.setattr(calibrate, "make_imatrix", interrupt)
    result = collect(float_gguf, text, target)
    words = f"{target} has the pieces that are done; --resume goes on" if kept else "no piece was done yet"
    assert (result.exit_code, result.stderr) == (130, f"dgemma: interrupted; {words}\n")


def test_help_and_reading_need_no_engine(target: Path) -> None:
    write_imatrix(Imatrix({"a": Inputs(np.ones((1, 4)), np.ones(1))}), target)
    code = (
        "import sys; from dgemma.quantize import read_imatrix\n"
        f"assert read_imatrix({str(target)!r}).entries\n"
        "from dgemma.cli import app\n"
        "try: app(['imatrix', '--help'])\n"
        "except SystemExit as error: code = error.code\n"
        "sys.exit(code or 'dgemma._core' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0
