#!/usr/bin/env python3
"""What quantising costs in right answers: every type of the Sudoku model on the held-out puzzles, as a page.

PYTHONPATH=examples .venv/bin/python -m sudoku.quality docs/quality.md        # make quality
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from dgemma.convert import convert
from dgemma.demo import checkpoint
from dgemma.evaluation import Evaluation, evaluate, load_questions
from sudoku.checkpoint import HELD_OUT

TYPES = ("f32", "q8_0", "Q6_K", "Q5_K_M", "Q4_K_M", "Q3_K_M", "Q2_K")
PAGE = """# What quantising costs in right answers

Written by `examples/sudoku/quality.py`: the small model of [examples/sudoku](../examples/sudoku/README.md), which was
trained from scratch, solves {count} held-out puzzles with each type (`make quality`: all 1000). The interval is
Wilson's, 95 %; all types get the same seeds. Differences smaller than the intervals mean nothing.

| type | file | solved | 95 % interval | steps | stopped early |
|---|---:|---:|---:|---:|---:|
{rows}

Rows are 256 wide, so K-quants apply as they do to the released model; the narrower down projections take types with
blocks of 32, as its do.
"""


def evaluations(types: Sequence[str], limit: int | None) -> Iterator[Evaluation]:
    """One for each type; the files are made in a temporary folder."""
    questions = load_questions(HELD_OUT, limit)
    with tempfile.TemporaryDirectory() as folder:
        for type in types:
            path = Path(folder) / f"{type}.gguf"
            convert(checkpoint(), path, type)
            one = evaluate(path, questions, n_threads=1)  # a model this small gains nothing from more
            print(f"{type}: {one.right} of {len(questions)}, {one.mean_steps:.1f} steps", file=sys.stderr, flush=True)
            yield one


def row(one: Evaluation) -> str:
    low, high = one.interval
    cells = (
        Path(one.model).stem,
        f"{one.n_bytes / 1e6:.2f} MB",
        f"{100 * one.rate:.1f} %",
        f"{100 * low:.1f} to {100 * high:.1f} %",
        f"{one.mean_steps:.1f}",
        f"{100 * one.stopped_early:.1f} %",
    )
    return f"| {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("page", type=Path, help="Markdown file to write")
    parser.add_argument("--limit", type=int, default=None, help="the first so many puzzles only")
    args = parser.parse_args()
    done = list(evaluations(TYPES, args.limit))
    page = PAGE.format(count=len(done[0].attempts), rows="\n".join(map(row, done)))
    args.page.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
