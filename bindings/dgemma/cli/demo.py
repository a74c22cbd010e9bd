"""``dgemma demo``: a small model that was trained from scratch solves a Sudoku before your eyes."""

from __future__ import annotations

import json
import secrets
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from . import FAILED

if TYPE_CHECKING:
    from ..events import GenerationStats

_PAUSE = 0.25  # seconds a step on a terminal: the model takes a few milliseconds, which no eye can follow


def demo(
    puzzle: Annotated[
        str | None,
        typer.Option(
            "--puzzle", metavar="CELLS", help="36 cells row by row: 1 to 6, or . where empty; one of ours if absent."
        ),
    ] = None,
    seed: Annotated[
        int | None, typer.Option("-s", "--seed", min=0, metavar="N", help="Same seed, same puzzle and same answer.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout and nothing else.")] = False,
) -> None:
    """Watch a small DiffusionGemma solve a Sudoku, and see whether it is right. Nothing is downloaded.

    The model (2.8 million weights, part of this package) is converted and quantised to Q4_K_M on the spot, and run like
    the large one. Every row, column and box of two rows by three columns holds each of 1 to 6 once.

    Exit codes: 0 solved, 1 not solved or refused, 2 wrong command line, 130 interrupted.
    """
    from .. import demo as library
    from .. import sudoku

    number = secrets.randbits(16) if seed is None else seed
    cells = library.some_puzzle(number) if puzzle is None else sudoku.parse(puzzle)
    if not as_json:
        typer.echo(f"{sudoku.picture(cells)}\n")
    if remark := library.remark(cells):
        typer.echo(f"({remark})", err=True)
    with library.model_file() as path:
        answer, stats = _solve(path, cells, number, silent=as_json)
    why = sudoku.wrong(cells, answer)
    if as_json:
        report = {"puzzle": sudoku.write(cells), "answer": answer, "solved": why is None, "why": why, "remark": remark}
        typer.echo(json.dumps({**report, "steps": stats.steps, "ms_per_step": stats.ms_per_step, "seed": number}))
    else:
        _report(answer, why, stats, number)
    raise typer.Exit(FAILED if why else 0)


def _solve(path: Path, cells: tuple[int, ...], seed: int, *, silent: bool) -> tuple[str, GenerationStats]:
    """The model's answer to the puzzle and what it took; the canvas is shown where stdout is a terminal."""
    from rich.console import Console

    from .. import sudoku
    from ..engine import Engine
    from ..errors import Cancelled
    from ..evaluation import chat_ids
    from ..events import BlockEvent, DoneEvent, StepEvent
    from ..tokenizer import Tokenizer
    from ..visual import CanvasView

    console = Console(file=sys.stderr if silent else sys.stdout, highlight=False)
    watched = console.is_terminal and not silent
    tokenizer, answer = Tokenizer.from_gguf(path), ""
    with Engine(path, n_threads=1) as engine:  # a model this small gains nothing from a second thread
        view = CanvasView(
            console,
            tokenizer,
            max_steps=engine.config.max_denoising_steps,
            heading=f"{sudoku.picture(cells)}\n\n",
            print_block=lambda block: None,
            row_length=sudoku.SIZE + 1,
        )
        with view:
            for event in engine.generate(
                chat_ids(tokenizer, sudoku.write(cells)), max_new_tokens=engine.info.canvas_length, seed=seed
            ):
                if watched:
                    view.show(event)
                    time.sleep(_PAUSE if isinstance(event, StepEvent) else 0)
                if isinstance(event, BlockEvent):
                    answer += tokenizer.decode(event.tokens)
                elif isinstance(event, DoneEvent):
                    return answer, event.stats
    raise Cancelled("interrupted")


def _report(answer: str, why: str | None, stats: GenerationStats, seed: int) -> None:
    """The answer and the verdict on stdout, what it took on stderr."""
    from .. import sudoku
    from ..errors import RequestError

    try:
        shown = sudoku.picture(sudoku.parse(answer))
    except RequestError:
        shown = repr(answer)  # whatever the model wrote, a terminal obeys none of it
    verdict = "Solved: every row, column and box has each digit once." if why is None else f"Not solved: {why}."
    typer.echo(f"{shown}\n\n{verdict}")
    typer.echo(f"{stats.steps} steps, {stats.ms_per_step:.1f} ms a step, seed {seed}", err=True)
