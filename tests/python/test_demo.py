"""``dgemma demo``: a puzzle typed by hand, ones that cannot be solved, and what is no puzzle."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from dgemma import FileError, demo
from dgemma.cli import app
from dgemma.sudoku import parse, wrong

BY_HAND = "12.4.6 4.61.3 2.15.4 .64.31 31.6.5 6.53.2"


def run(*arguments: str):
    return CliRunner().invoke(app, ["demo", *arguments])


def test_a_puzzle_typed_by_hand_is_solved() -> None:
    result = run("--puzzle", BY_HAND, "-s", "1")
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[-1] == "Solved: every row, column and box has each digit once."
    assert result.stdout.startswith("1 2 . | 4 . 6\n")
    assert "steps" in result.stderr


def test_json() -> None:
    result = run("--puzzle", BY_HAND, "-s", "1", "--json")
    report = json.loads(result.stdout)
    assert report["solved"]
    assert report["why"] is None
    assert wrong(parse(BY_HAND), report["answer"]) is None
    assert 0 < report["steps"] < 48


def test_the_same_seed_shows_the_same() -> None:
    first, second = run("-s", "5"), run("-s", "5")
    assert first.stdout == second.stdout


@pytest.mark.parametrize(
    ("puzzle", "remark"),
    [
        ("11.4.6 4.61.3 2.15.4 .64.31 31.6.5 6.53.2", "no answer can be right: the puzzle has 1 twice in row 1"),
        ("12345. 4.61.6 ...... ...... ...... ......", "no answer can be right: the puzzle has 6 twice in row 2"),
        ("12345. .....6 ...... ...... ...... ......", "no answer can be right: the puzzle has no solution"),
    ],
)
def test_an_impossible_puzzle_is_answered_and_called_wrong(puzzle: str, remark: str) -> None:
    result = run("--puzzle", puzzle, "-s", "1")
    assert result.exit_code == 1
    assert remark in result.stderr
    assert "\nNot solved: " in result.stdout


def test_remarks() -> None:
    assert demo.remark(parse(BY_HAND)) is None
    assert demo.remark((0,) * 36) == "the puzzle has more than one solution; any of them is right"


@pytest.mark.parametrize(("puzzle", "sentence"), [("12", "2 cells"), ("z" * 36, "'z' is not a cell")])
def test_what_is_no_puzzle_is_one_line(puzzle: str, sentence: str) -> None:
    result = run("--puzzle", puzzle)
    assert result.exit_code == 1
    assert len(result.stderr.splitlines()) == 1
    assert sentence in result.stderr


def test_a_checkpoint_that_is_missing(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    monkeypatch.setattr(demo, "_PLACES", (tmp_path / "a",))
    with pytest.raises(FileError, match="a: the demonstration's checkpoint is missing from this installation"):
        demo.checkpoint()
