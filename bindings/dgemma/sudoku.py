"""Sudoku of six by six: reading a grid, the rules, a solver, and what is wrong with an answer.

A grid is 36 digits in reading order, 0 where a cell is empty. Every row, every column and every box of two rows by
three columns holds each of 1 … 6 once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from dgemma.errors import RequestError

SIZE = 6
BOX_ROWS, BOX_COLUMNS = 2, 3
CELLS = SIZE * SIZE
EMPTY = "."
DIGITS = "".join(str(digit) for digit in range(1, SIZE + 1))

Grid = tuple[int, ...]


def _box(cell: int) -> int:
    row, column = divmod(cell, SIZE)
    return row // BOX_ROWS * (SIZE // BOX_COLUMNS) + column // BOX_COLUMNS


# The row, the column and the box of each cell, numbered through: 0 … 5 rows, 6 … 11 columns, 12 … 17 boxes.
UNITS = tuple((cell // SIZE, SIZE + cell % SIZE, 2 * SIZE + _box(cell)) for cell in range(CELLS))
UNIT_NAMES = tuple(f"{kind} {n}" for kind in ("row", "column", "box") for n in range(1, SIZE + 1))


def parse(text: str) -> Grid:
    """The grid written in ``text``: 36 cells, a digit or one of ``. 0 _`` each; space and | - + between them mean
    nothing. Raises RequestError for anything else."""
    cells = [char for char in text if not char.isspace() and char not in "|+-"]
    for char in cells:
        if char not in DIGITS + EMPTY + "0_":
            raise RequestError(f"puzzle: {char!r} is not a cell: a cell is 1 to {SIZE}, or {EMPTY} where it is empty")
    if len(cells) != CELLS:
        raise RequestError(f"puzzle: {len(cells)} cells, but a grid of {SIZE} rows of {SIZE} has {CELLS}")
    return tuple(int(char) if char in DIGITS else 0 for char in cells)


def write(grid: Sequence[int]) -> str:
    """Six lines of six cells, as the model reads and writes them."""
    cells = "".join(str(digit) if digit else EMPTY for digit in grid)
    return "\n".join(cells[start : start + SIZE] for start in range(0, CELLS, SIZE))


def picture(grid: Sequence[int]) -> str:
    """The grid for people, its boxes apart; ``parse`` reads it as well."""
    rows = [" ".join(row) for row in write(grid).splitlines()]
    middle = 2 * BOX_COLUMNS - 1
    lines = [f"{row[:middle]} | {row[middle + 1 :]}" for row in rows]
    rule = "-" * (middle + 1) + "+" + "-" * (middle + 1)
    bands = ["\n".join(lines[start : start + BOX_ROWS]) for start in range(0, SIZE, BOX_ROWS)]
    return f"\n{rule}\n".join(bands)


def repeated(grid: Sequence[int]) -> str | None:
    """The first digit that stands twice in a row, column or box, in words; None where there is none."""
    seen: set[tuple[int, int]] = set()
    for cell, digit in enumerate(grid):
        for unit in UNITS[cell] if digit else ():
            if (unit, digit) in seen:
                return f"{digit} twice in {UNIT_NAMES[unit]}"
            seen.add((unit, digit))
    return None


def solutions(puzzle: Sequence[int]) -> Iterator[Grid]:
    """Every grid that completes the puzzle, one after the other."""
    if repeated(puzzle) is None:
        grid, used = list(puzzle), [0] * (3 * SIZE)  # used[unit]: bit d is set where digit d stands in it
        for cell, digit in enumerate(puzzle):
            for unit in UNITS[cell]:
                used[unit] |= 1 << digit
        yield from _complete(grid, used, [cell for cell, digit in enumerate(puzzle) if not digit])


def _complete(grid: list[int], used: list[int], empty: list[int]) -> Iterator[Grid]:
    """Fill the empty cell with the fewest choices in every way, and go on."""
    if not empty:
        yield tuple(grid)
        return
    taken, cell = -1, -1
    for candidate in empty:
        a, b, c = UNITS[candidate]
        here = ((used[a] | used[b] | used[c]) >> 1).bit_count()
        if here > taken:
            taken, cell = here, candidate
            if here >= SIZE - 1:
                break
    a, b, c = UNITS[cell]
    blocked = used[a] | used[b] | used[c]
    rest = [other for other in empty if other != cell]
    for digit in range(1, SIZE + 1):
        bit = 1 << digit
        if not blocked & bit:
            grid[cell] = digit
            used[a], used[b], used[c] = used[a] | bit, used[b] | bit, used[c] | bit
            yield from _complete(grid, used, rest)
            used[a], used[b], used[c] = used[a] & ~bit, used[b] & ~bit, used[c] & ~bit
    grid[cell] = 0


def wrong(puzzle: Sequence[int], answer: str) -> str | None:
    """Why ``answer`` does not solve the puzzle, in words; None where it does."""
    try:
        grid = parse(answer)
    except RequestError as error:
        return str(error).replace("puzzle: ", "the answer is no grid: ", 1)
    if 0 in grid:
        return "the answer has empty cells"
    for cell, (given, digit) in enumerate(zip(puzzle, grid, strict=True)):
        if given and given != digit:
            return f"the puzzle's {given} in row {cell // SIZE + 1}, column {cell % SIZE + 1} became {digit}"
    return repeated(grid)
