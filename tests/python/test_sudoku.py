"""The rules of Sudoku against the slow obvious way, and the split of the puzzles."""

from __future__ import annotations

import json
import random
from itertools import islice

import pytest

from dgemma import RequestError
from dgemma.demo import PUZZLES
from dgemma.sudoku import CELLS, SIZE, parse, picture, repeated, solutions, write, wrong
from sudoku.checkpoint import HELD_OUT
from sudoku.puzzles import FEWEST_EMPTY, classes, held_out_questions, is_held_out, puzzles

SOLVED = "123456 456123 231564 564231 312645 645312"
PUZZLE = "1..456 45.123 2.1564 56..31 31.645 64.312"


def obeys_the_rules(grid) -> bool:
    rows = [grid[6 * i : 6 * i + 6] for i in range(6)]
    columns = [grid[i::6] for i in range(6)]
    boxes = [[grid[6 * (r + i) + c + j] for i in range(2) for j in range(3)] for r in (0, 2, 4) for c in (0, 3)]
    return all(sorted(unit) == [1, 2, 3, 4, 5, 6] for unit in [*rows, *columns, *boxes])


def test_written_in_several_ways_it_is_one_puzzle() -> None:
    puzzle = parse(PUZZLE)
    assert parse(write(puzzle)) == parse(picture(puzzle)) == parse(PUZZLE.replace(".", "0")) == puzzle
    assert picture(puzzle).splitlines()[:3] == ["1 . . | 4 5 6", "4 5 . | 1 2 3", "------+------"]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "0 cells, but a grid of 6 rows of 6 has 36"),
        (PUZZLE + "1", "37 cells"),
        (PUZZLE.replace("2", "7"), "'7' is not a cell: a cell is 1 to 6, or . where it is empty"),
        (PUZZLE.replace("2", "x"), "'x' is not a cell"),
    ],
)
def test_what_is_no_grid(text: str, sentence: str) -> None:
    with pytest.raises(RequestError, match=sentence):
        parse(text)


@pytest.mark.parametrize(("cells", "words"), [((0, 5), "row 1"), ((0, 30), "column 1"), ((14, 19), "box 3")])
def test_a_repeated_digit_is_named(cells: tuple[int, int], words: str) -> None:
    grid = [4 if cell in cells else 0 for cell in range(CELLS)]
    assert repeated(grid) == f"4 twice in {words}"
    assert list(solutions(grid)) == []


def test_solutions_are_all_there_are() -> None:
    """Against trying every digit in every empty cell."""
    grid = list(parse(SOLVED))
    rng = random.Random(3)
    for _ in range(5):
        puzzle = list(grid)
        for cell in rng.sample(range(CELLS), 4):
            puzzle[cell] = 0
        empty = [cell for cell in range(CELLS) if not puzzle[cell]]
        slow = set()
        for number in range(SIZE**4):
            for place, cell in enumerate(empty):
                puzzle[cell] = number // SIZE**place % SIZE + 1
            if obeys_the_rules(puzzle):
                slow.add(tuple(puzzle))
        for cell in empty:
            puzzle[cell] = 0
        assert set(solutions(puzzle)) == slow


def test_what_is_wrong_with_an_answer() -> None:
    puzzle = parse(PUZZLE)
    assert wrong(puzzle, SOLVED) is None
    assert wrong(puzzle, "a poem").startswith("the answer is no grid")
    assert wrong(puzzle, PUZZLE) == "the answer has empty cells"
    assert wrong(puzzle, "2" + SOLVED[1:]) == "the puzzle's 1 in row 1, column 1 became 2"
    assert wrong(puzzle, SOLVED.replace("123456", "133456", 1)) == "3 twice in row 1"


def test_the_classes_are_all_grids() -> None:
    """28 200 960 grids (Jarvis, Russell) in classes of 6! = 720."""
    train, test = classes(held_out=False), classes(held_out=True)
    assert 720 * (len(train) + len(test)) == 28_200_960
    assert not set(train) & set(test)
    assert obeys_the_rules(train[-1])


def test_training_and_held_out_puzzles_share_nothing() -> None:
    rng, renamed = random.Random(1), [0, 3, 1, 6, 2, 5, 4]
    for held_out in (False, True):
        for puzzle, solution in islice(puzzles(rng, held_out=held_out, most_empty=24), 50):
            assert list(solutions(puzzle)) == [solution]
            assert FEWEST_EMPTY <= puzzle.count(0) <= 24
            assert is_held_out(solution) == held_out == is_held_out([renamed[digit] for digit in solution])


def test_the_committed_puzzles() -> None:
    """They are what the script writes; each has one solution, of a class that is never trained on."""
    lines = HELD_OUT.read_text(encoding="utf-8").splitlines()
    assert len(lines) == len(set(lines)) == 1000
    assert lines[:50] == list(held_out_questions(50, seed=2026))
    prompts, answers = ([parse(json.loads(line)[name]) for line in lines] for name in ("prompt", "answer"))
    assert len(set(answers)) == 1000
    for prompt, answer in zip(prompts, answers, strict=True):
        assert list(islice(solutions(prompt), 2)) == [answer]
        assert prompt.count(0) >= FEWEST_EMPTY
        assert is_held_out(answer)
    assert {parse(puzzle) for puzzle in PUZZLES} <= set(prompts)
