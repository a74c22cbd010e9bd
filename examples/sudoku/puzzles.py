"""Puzzles to train on and puzzles held out: random grids, each puzzle with exactly one solution.

    PYTHONPATH=examples python -m sudoku.puzzles > examples/sudoku/heldout.jsonl    # the thousand that are tested

Grids come in classes: two are of one class where renaming the digits turns one into the other. A tenth of the classes,
picked by a hash of the grid, is held out: no held-out puzzle, and no solution of one under any names, is trained on.
"""

from __future__ import annotations

import json
import random
import zlib
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import islice

from dgemma.sudoku import CELLS, SIZE, Grid, solutions, write

HELD_OUT_SHARE = 10  # one class in so many
FEWEST_EMPTY, MOST_EMPTY_TESTED = CELLS // 2, 22


@cache
def classes(*, held_out: bool) -> tuple[Grid, ...]:
    """The held-out classes of grids, or those to train on, each by its grid with the first row 1 2 3 4 5 6: 39168 in
    all, found in two seconds."""
    first_row = (*range(1, SIZE + 1), *[0] * (CELLS - SIZE))
    return tuple(grid for grid in solutions(first_row) if is_held_out(grid) == held_out)


def is_held_out(solution: Sequence[int]) -> bool:
    """Whether grids of this class are for testing only."""
    names = {digit: new for new, digit in enumerate(solution[:SIZE])}
    return zlib.crc32(bytes(names[digit] for digit in solution)) % HELD_OUT_SHARE == 0


def random_grid(rng: random.Random, *, held_out: bool) -> Grid:
    """A complete grid, every one of its kind as likely."""
    names = [0, *rng.sample(range(1, SIZE + 1), SIZE)]
    return tuple(names[digit] for digit in rng.choice(classes(held_out=held_out)))


def dig(solution: Grid, empty: int, rng: random.Random) -> Grid:
    """Empty cells of the grid in random order while the solution stays the only one, ``empty`` at most."""
    puzzle = list(solution)
    for cell in rng.sample(range(CELLS), CELLS):
        if puzzle.count(0) == empty:
            break
        puzzle[cell] = 0
        if len(list(islice(solutions(puzzle), 2))) > 1:
            puzzle[cell] = solution[cell]
    return tuple(puzzle)


def puzzles(rng: random.Random, *, held_out: bool, most_empty: int) -> Iterator[tuple[Grid, Grid]]:
    """Puzzles and their solutions without end; 18 to ``most_empty`` cells are empty, every number about as often."""
    while True:
        solution = random_grid(rng, held_out=held_out)
        puzzle = dig(solution, rng.randint(FEWEST_EMPTY, most_empty), rng)
        if puzzle.count(0) >= FEWEST_EMPTY:
            yield puzzle, solution


def held_out_questions(count: int, seed: int) -> Iterator[str]:
    """Lines for ``dgemma eval``, each of another grid."""
    stream, grids = puzzles(random.Random(seed), held_out=True, most_empty=MOST_EMPTY_TESTED), set()
    while len(grids) < count:
        puzzle, solution = next(stream)
        if solution not in grids:
            grids.add(solution)
            yield json.dumps({"prompt": write(puzzle), "answer": write(solution), "checker": "sudoku"})


if __name__ == "__main__":
    print(*held_out_questions(1000, seed=2026), sep="\n")
