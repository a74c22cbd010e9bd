"""``dgemma eval``: questions, checkers, intervals, tables; on a model that knows nothing and on one that does."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from dgemma import FileError
from dgemma.cli import app
from dgemma.convert import convert
from dgemma.demo import checkpoint
from dgemma.evaluation import Attempt, Evaluation, Question, evaluate, load_questions, wilson_interval
from sudoku.checkpoint import HELD_OUT


@pytest.fixture(scope="module")
def solver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("eval") / "sudoku-Q8_0.gguf"
    convert(checkpoint(), path, "q8_0")
    return path


def written(folder: Path, *lines: str) -> Path:
    path = folder / "questions.jsonl"
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def test_exact_answers_and_checkers() -> None:
    exact = Question("1 + 1", "2")
    assert exact.is_right(" 2\n")
    assert not exact.is_right("2.")
    line = json.loads(HELD_OUT.read_text(encoding="utf-8").splitlines()[0])
    puzzle = Question(line["prompt"], None, "sudoku")
    assert puzzle.is_right(line["answer"])
    assert not puzzle.is_right(line["prompt"])


@pytest.mark.parametrize(
    ("right", "of", "low", "high"),
    # Brown, Cai and DasGupta's formula, worked out by hand for the first; the others are its limits.
    [(8, 10, 0.4902, 0.9433), (0, 10, 0.0, 0.2775), (10, 10, 0.7225, 1.0), (500, 1000, 0.4691, 0.5309)],
)
def test_wilson(right: int, of: int, low: float, high: float) -> None:
    assert wilson_interval(right, of) == pytest.approx((low, high), abs=1e-4)


def test_sums_over_questions() -> None:
    attempts = (Attempt("a", True, 4, True, 10, 0.5), Attempt("b", False, 48, False, 20, 1.0))
    one = Evaluation("m.gguf", "F32", 1, attempts)
    assert (one.right, one.rate, one.mean_steps, one.stopped_early, one.tokens_per_second) == (1, 0.5, 26, 0.5, 20)
    assert json.loads(json.dumps(one.to_dict()))["attempts"][1]["text"] == "b"


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("{", "line 1: is no JSON"),
        ("[]", "line 1: no prompt"),
        ('{"prompt": 3, "answer": "x"}', "line 1: no prompt"),
        ('{"prompt": "x"}', "line 1: no answer"),
        ('{"prompt": "x", "checker": "chess"}', "checker 'chess' is not known: there are exact and sudoku"),
        ('{"prompt": "12", "checker": "sudoku"}', "line 1: puzzle: 2 cells"),
        ("", "no question in it"),
    ],
)
def test_bad_questions(tmp_path: Path, line: str, sentence: str) -> None:
    path = written(tmp_path, line)
    with pytest.raises(FileError, match=sentence) as caught:
        load_questions(path)
    assert str(path) in str(caught.value)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="cannot be read: No such file"):
        load_questions(tmp_path / "none.jsonl")
    (tmp_path / "latin.jsonl").write_bytes(b"\xff")
    with pytest.raises(FileError, match="is not UTF-8"):
        load_questions(tmp_path / "latin.jsonl")


def test_the_same_seed_gives_the_same_answers(toy_model: Path) -> None:
    questions = [Question("hello", "nothing that it would say"), Question("who?", "I")]
    first, second = (evaluate(toy_model, questions, seed=3, n_threads=1) for _ in range(2))
    assert [one.text for one in first.attempts] == [one.text for one in second.attempts]
    assert first.right == 0


def test_models_side_by_side(solver: Path, toy_model: Path) -> None:
    command = ["eval", str(solver), str(toy_model), "--data", str(HELD_OUT), "--limit", "3", "-t", "1", "--json"]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    assert "3 questions" in result.stdout
    report = json.loads(result.stdout.splitlines()[-1])
    good, bad = report["models"]
    assert (good["questions"], good["file_type"], bad["right"]) == (3, "Q8_0", 0)
    assert good["interval"][0] < good["rate"] <= good["interval"][1]
    assert good["mean_steps"] < 48


def test_a_missing_model_is_one_line(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["eval", str(tmp_path / "none.gguf"), "--data", str(HELD_OUT)])
    assert result.exit_code == 1
    assert "none.gguf" in result.stderr
