"""``dgemma compare``: its tables, its JSON, its picture, and one line for what it refuses."""

from __future__ import annotations

import json
import struct
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from dgemma import FileError, LibraryError, RequestError
from dgemma.cli import app
from dgemma.cli.compare import _number
from dgemma.compare import Candidate, Comparison, Estimate, LevelDamage, ModelSummary
from dgemma.compare.names import short_names
from dgemma.compare.plot import check_plot, draw
from dgemma.convert import convert
from random_checkpoint import CheckpointConfig, write_checkpoint

EXACT = Estimate(0.0, 0.0)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """A small random model in F32 and in Q8_0."""
    folder = tmp_path_factory.mktemp("compare")
    checkpoint = write_checkpoint(folder / "checkpoint", CheckpointConfig(layers=2, branch_gain=0.3), vision=False)
    files = folder / "tiny-f32.gguf", folder / "tiny-q8_0.gguf"
    for file in files:
        convert(checkpoint, file, type=file.stem.split("-")[1])
    return str(files[0]), str(files[1])


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["compare", *map(str, arguments), "-t", "1"])


def summary(path: str, gigabytes: float) -> ModelSummary:
    return ModelSummary(path, "Q4_K_M", int(gigabytes * 1e9), 4.5)


def candidate(path: str, gigabytes: float, kl: Estimate) -> Candidate:
    level = LevelDamage(1.0, 0.8, kl, EXACT, EXACT, EXACT)
    return Candidate(summary(path, gigabytes), kl, EXACT, EXACT, (level,), None)


def comparison(*candidates: Candidate) -> Comparison:
    return Comparison(summary("some-model-BF16.gguf", 50), candidates, 8, 256, 0, 0)


def test_tables_and_json(models: tuple[str, str]) -> None:
    result = run(*models, "--passages", 2, "--levels", "1,0.5", "-n", 5, "--json")
    assert result.exit_code == 0, result.output
    *lines, last = result.stdout.splitlines()
    found = json.loads(last)
    assert (found["passages"], found["runs"], found["canvas_length"]) == (2, 1, 16)
    (only,) = found["candidates"]
    assert only["model"]["path"] == models[1]
    assert only["model"]["n_bytes"] == Path(models[1]).stat().st_size
    assert 8 < only["model"]["bits_per_weight"] < 10
    assert [level["level"] for level in only["levels"]] == [1.0, 0.5]
    assert 0 < only["kl"]["mean"] < 1
    assert 0 <= only["runs"]["same_tokens"]["mean"] <= 1
    text = "\n".join(lines)
    for title in ("Distributions against f32, 2 passages", "q8_0, by noise level", "2 answers, same seeds"):
        assert title in text
    assert sum(line.startswith("f32 ") for line in lines) == 2
    assert max(map(len, lines)) <= 80


def test_a_text(models: tuple[str, str], tmp_path: Path) -> None:
    file = tmp_path / "text.txt"
    file.write_text("All work and no play.\n" * 20)
    result = run(*models, "--text", file, "--prefix", 10, "--passages", 1, "--levels", "0.5", "--runs", 0)
    assert result.exit_code == 0, result.output
    assert "1 passage," in result.stdout
    assert "answers" not in result.stdout
    assert "±" not in result.stdout.split("standard error")[0][:-3]  # one passage says nothing about others


@pytest.mark.parametrize(
    ("text", "options", "code", "sentence"),
    [
        ("", ["--text"], 1, "is empty"),
        ("short", ["--text"], 1, "too few for a passage: a prefix of 256 and a canvas of 16"),
        ("\n\n", ["--prompts"], 1, "is empty"),
        (
            "a\nb",
            ["--levels", "1,2", "--prompts"],
            1,
            "a noise level is a share of the canvas between 0 and 1, not 2.0",
        ),
        ("a\nb", ["--levels", "much", "--prompts"], 2, "write it like 1,0.5,0.1"),
        ("a\nb", ["--passages", "0", "--prompts"], 2, "Invalid value for '--passages'"),
    ],
)
def test_refusals(
    models: tuple[str, str], tmp_path: Path, text: str, options: list[str], code: int, sentence: str
) -> None:
    file = tmp_path / "file.txt"
    file.write_text(text)
    result = run(*models, *options, file)
    assert result.exit_code == code
    assert sentence in " ".join(result.stderr.replace("│", " ").split())
    assert result.stdout == ""
    if code == 1:
        assert len(result.stderr.splitlines()) == 1


def test_a_missing_candidate(models: tuple[str, str]) -> None:
    result = run(models[0], "none.gguf")
    assert result.exit_code == 1
    assert "none.gguf" in result.stderr
    assert run(models[0]).exit_code == 2


@pytest.mark.parametrize(
    ("estimate", "text"),
    [
        (Estimate(0.012345, 0.00111), "0.0123 ± 0.0011"),
        (Estimate(26.64, 1.9), "26.6 ± 1.9"),
        (Estimate(1234.5, 96.0), "1234 ± 96"),
        (Estimate(48.0, 0.0), "48.0 ± 0.0"),
        (Estimate(0.0, 0.0), "0 ± 0"),
        (Estimate(0.0, None), "0"),
        (Estimate(0.0456, None), "0.0456"),
        (Estimate(1.234e-9, 5.6e-10), "1.2e-09 ± 5.6e-10"),
    ],
)
def test_numbers(estimate: Estimate, text: str) -> None:
    assert _number(estimate) == text


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["a/some-model-BF16.gguf", "b/some-model-Q4_K_M.gguf"], ["BF16", "Q4_K_M"]),
        (["some-model-BF16.gguf", "some-model.gguf", "some-Q8_0.gguf"], ["model-BF16", "model", "Q8_0"]),
        (["x.gguf", "x.gguf", "y-1.gguf"], ["x", "x", "y-1"]),
        (["m-1.gguf", "m-1.gguf"], ["1", "1"]),
        (["a/m.gguf", "b/m.gguf"], ["a/m.gguf", "b/m.gguf"]),
    ],
)
def test_names(paths: list[str], names: list[str]) -> None:
    assert short_names(paths) == names


def test_signs() -> None:
    assert [_number(Estimate(mean, None), signed=True) for mean in (0.25, -0.25, 0.0)] == ["+0.250", "-0.250", "0"]


# The picture.


def test_a_picture(models: tuple[str, str], tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    file = tmp_path / "plot.png"
    result = run(*models, "--passages", 1, "--levels", "1", "--runs", 0, "--plot", file)
    assert result.exit_code == 0, result.output
    assert "plot.png: drawn" in result.stderr
    data = file.read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    assert struct.unpack(">II", data[16:24]) == (1200, 750)


def test_what_stands_in_a_picture(tmp_path: Path) -> None:
    """Each name once, without what all share; and what a log scale or a title might stumble over."""
    pytest.importorskip("matplotlib")
    file = tmp_path / "plot.svg"
    candidates = [
        candidate("some-model-Q4_K_M.gguf", 16.8, Estimate(0.05, 0.06)),  # the bar reaches below 0
        candidate("some-model-$x_{y.gguf", 20, Estimate(0.01, None)),
        candidate("some-model-BF16.gguf", 50, EXACT),
    ]
    import matplotlib

    with matplotlib.rc_context({"svg.fonttype": "none"}):
        draw(comparison(*candidates), file)
        drawn = file.read_text()
        for label in (
            ">Q4_K_M<",
            ">$x_{y<",
            ">BF16 (no divergence)<",
            "Against some-model-BF16",
            "size of the file, GB",
        ):
            assert drawn.count(label) == 1, label
        draw(comparison(replace(candidates[2], model=summary("other.gguf", 0.03))), file)
        assert ">other (no divergence)<" in file.read_text()
        assert "size of the file, MB" in file.read_text()


def test_pictures_that_cannot_be_drawn(monkeypatch: pytest.MonkeyPatch, models: tuple[str, str]) -> None:
    pytest.importorskip("matplotlib")
    with pytest.raises(RequestError, match=r"^plot\.doc names no kind of picture"):
        check_plot("plot.doc")
    with pytest.raises(FileError, match=r"plot\.png cannot be written: there is no folder nowhere"):
        check_plot("nowhere/plot.png")
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.backend_bases", None)
    sentence = "drawing needs matplotlib, which is not installed: pip install 'dgemma[plot]'"
    with pytest.raises(LibraryError, match="drawing needs matplotlib"):
        check_plot("plot.png")
    result = run(*models, "--plot", "plot.png")
    assert (result.exit_code, result.stdout, result.stderr) == (1, "", f"dgemma: {sentence}\n")
