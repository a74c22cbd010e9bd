"""``dgemma quantize``, and ``dgemma convert --type`` with the same names."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from dgemma import quantize as quantizer
from dgemma.cli import app
from dgemma.cli.sizes import byte_count
from released import header_only


def dgemma(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_quantises(pristine: Path, out: Path, tmp_path: Path) -> None:
    result = dgemma("quantize", pristine, out, "q4_k_m")
    assert (result.exit_code, result.stdout) == (0, "")
    assert result.stderr.startswith(f"{out}: ")
    other = tmp_path / "other.gguf"
    assert dgemma("convert", pristine, "-o", other, "--type", "Q4_K_M", "-t", 3).exit_code == 0
    assert other.read_bytes() == out.read_bytes()
    result = dgemma("quantize", other, out, "Q5_0", "--force")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "insist with allow_requantize (--allow-requantize)\n" in result.stderr
    assert dgemma("quantize", other, out, "Q5_0", "--force", "--allow-requantize").exit_code == 0


def test_split_and_overrides(pristine: Path, out: Path) -> None:
    options = ["--output-split-size", "100K", "--tensor-type", "ffn_up=q8_0", "--tensor-type", "ffn=q5_0", "--json"]
    result = dgemma("quantize", pristine, out, "Q4_0", *options)
    assert result.exit_code == 0
    assert "model-00001-of-00002.gguf: " in result.stderr
    assert " in 2 files" in result.stderr
    types = {tensor["name"]: tensor["type"] for tensor in json.loads(result.stdout)["tensors"]}
    assert (types["blk.0.ffn_up.weight"], types["blk.0.ffn_gate.weight"]) == ("Q8_0", "Q5_0")
    pure = dgemma("quantize", pristine, out, "Q4_0", "--pure", "--dry-run", "--json")
    assert {tensor["type"] for tensor in json.loads(pure.stdout)["tensors"]} == {"F32", "F16", "Q4_0"}


@pytest.mark.parametrize("command", ["quantize", "convert"])
def test_dry_run_over_the_released_shapes(out: Path, tmp_path: Path, command: str) -> None:
    folder = header_only(tmp_path / "released")
    arguments = [folder, out, "Q4_K_M"] if command == "quantize" else [folder, "--type", "Q4_K_M"]
    lines = dgemma(command, *arguments, "--dry-run").stdout.splitlines()
    assert [line.split()[:3] for line in lines[-6:-1]] == [
        ["423", "tensors", "F32"], ["194", "tensors", "Q4_K"], ["33", "tensors", "Q5_0"], ["14", "tensors", "Q6_K"],
        ["28", "tensors", "Q8_0"],
    ]  # fmt: skip
    assert lines[-1].startswith("692 tensors, 16.79 GB; text only: ")
    assert not out.exists()


def test_dry_run_says_what_needs_an_importance_matrix(wide: Path, out: Path) -> None:
    result = dgemma("quantize", wide, out, "IQ2_XXS", "--dry-run", "--json")
    needing = json.loads(result.stdout)["needs_importance"]
    assert "blk.0.attn_q.weight" in needing
    assert result.stderr == f"{len(needing)} tensors can be made with an importance matrix only ({needing[0]})\n"
    assert dgemma("quantize", wide, out, "IQ2_XXS").exit_code == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ["quantize"], ["quantize", "in", "out"], ["quantize", "in", "out", "Q4_KM"],
        ["quantize", "in", "out", "Q4_0", "--output-split-size", "much"],
        ["convert", "in", "-o", "out", "--type", "q4"], ["quantize", "in", "out", "Q4_0", "-t", "0"],
    ],
)  # fmt: skip
def test_a_wrong_command_line_is_exit_code_2(arguments: list[str]) -> None:
    result = dgemma(*arguments)
    assert (result.exit_code, result.stdout) == (2, "")


def test_an_unknown_type_names_the_nearest() -> None:
    words = " ".join(dgemma("quantize", "in", "out", "Q4KM").stderr.replace("│", " ").split())
    assert "type 'Q4KM' is unknown; the nearest are Q4_K_M" in words


def test_sizes() -> None:
    sizes = {"2GB": 2 * 10**9, "500M": 5 * 10**8, "4 GiB": 2**32, "1.5k": 1500, "7": 7}
    assert {text: byte_count(text) for text in sizes} == sizes


def test_interrupted_is_exit_code_130(pristine: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*args: object, **kwargs: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(quantizer, "quantize", interrupt)
    result = dgemma("quantize", pristine, out, "Q4_0")
    assert (result.exit_code, result.stderr) == (130, "dgemma: interrupted\n")


def test_help_names_every_type_and_needs_no_engine() -> None:
    words = dgemma("quantize", "--help").stdout.split()
    assert set(quantizer.FILE_TYPES) <= {word.strip(".,") for word in words}
    code = (
        "import sys; from dgemma.cli import app\n"
        "try: app(['quantize', '--help'])\n"
        "except SystemExit as error: code = error.code\n"
        "sys.exit(code or bool({'dgemma._core', 'numpy', 'gguf'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0


def test_planning_needs_no_engine(tmp_path: Path) -> None:
    folder = header_only(tmp_path / "released")
    code = (
        "import sys; from dgemma.quantize import plan\n"
        f"assert len(plan({str(folder)!r}, 'Q4_K_M').tensors) == 692\n"
        "sys.exit('dgemma._core' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
