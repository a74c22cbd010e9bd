"""The demonstration: a small DiffusionGemma, trained from scratch, solves a Sudoku of six by six.

Its checkpoint is made by examples/sudoku/train.py of the repository, and comes with the package.
"""

from __future__ import annotations

import random
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

from . import sudoku
from .convert import convert
from .errors import FileError

TYPE = "Q4_K_M"
# In the package, or in the repository from which an editable one is imported.
_PLACES = (Path(__file__).with_name("sudoku_model"), Path(__file__).parents[2] / "examples" / "sudoku" / "sudoku_model")
_TRAINED_WITH = 24  # the most empty cells that the model met in training

# Held out: none of them, nor a grid like their solutions, was trained on.
PUZZLES = (
    "5..2.. .6..3. 6...54 ..51.. 3.26.. ...42.",
    "..6.3. 3251.4 .4..2. .51... ....1. ....56",
    ".14236 2....4 ..5..3 .3.5.. 6..342 3.2.1.",
    "...36. 5.6.42 .63.5. 4.123. ....1. 61.5..",
    "4235.. ....2. 3..261 .163.4 .....5 13.6..",
    "12.6.. .56... 6.3125 2..43. .6...1 .31...",
    ".251.. 6..2.4 1645.. ..3... 3....5 51..42",
    ".4.... ..2.64 .6..13 1.3... .51.36 ..6...",
    "243..5 .1...4 ...4.. 16..23 4.1..6 35...2",
    ".1..4. .23.5. 16.2.5 ...6.. .5.463 .46.21",
    "...52. ....36 1.4... 6532.. .3.4.2 .62...",
    ".264.1 .135.. 23..5. .452.3 ..4..6 1...4.",
)


def checkpoint() -> Path:
    """The folder of the trained checkpoint. Raises ``FileError`` where it is missing."""
    for place in _PLACES:
        if (place / "config.json").exists():
            return place
    raise FileError(f"{_PLACES[0]}: the demonstration's checkpoint is missing from this installation")


@contextmanager
def model_file() -> Iterator[Path]:
    """The checkpoint as a GGUF of the type TYPE, for as long as the context lasts; making it takes a second."""
    with tempfile.TemporaryDirectory(prefix="dgemma-demo-") as folder:
        path = Path(folder) / f"sudoku-{TYPE}.gguf"
        convert(checkpoint(), path, TYPE)
        yield path


def some_puzzle(seed: int) -> sudoku.Grid:
    """One of PUZZLES."""
    return sudoku.parse(random.Random(seed).choice(PUZZLES))


def remark(puzzle: sudoku.Grid) -> str | None:
    """What is unusual about a puzzle, in words: no solution, many of them, or much left open. None where nothing is."""
    if twice := sudoku.repeated(puzzle):
        return f"no answer can be right: the puzzle has {twice}"
    known = len(list(islice(sudoku.solutions(puzzle), 2)))
    if known == 0:
        return "no answer can be right: the puzzle has no solution"
    if known > 1:
        return "the puzzle has more than one solution; any of them is right"
    empty = puzzle.count(0)
    if empty > _TRAINED_WITH:
        return f"{empty} cells are empty: the model was trained with {_TRAINED_WITH} at most"
    return None
