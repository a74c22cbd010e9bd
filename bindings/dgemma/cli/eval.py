"""``dgemma eval``: parse, call the library, show."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .console import model_bar, table_console
from .written import size

if TYPE_CHECKING:
    from ..evaluation import Evaluation


def evaluate(
    models: Annotated[list[str], typer.Argument(metavar="MODEL", help="GGUF files, asked one after the other.")],
    data: Annotated[Path, typer.Option("--data", metavar="FILE.jsonl", help="The questions: see below.")],
    limit: Annotated[
        int | None, typer.Option("--limit", min=1, metavar="N", help="The first N questions only.")
    ] = None,
    max_tokens: Annotated[
        int | None,
        typer.Option("-n", "--n-predict", min=1, metavar="N", help="At most N tokens; one canvas if absent."),
    ] = None,
    seed: Annotated[
        int, typer.Option("-s", "--seed", min=0, metavar="N", help="Of the first question; then N+1, N+2, …")
    ] = 0,
    gpu_layers: Annotated[
        int, typer.Option("-ngl", "--n-gpu-layers", min=-1, metavar="N", help="Layers on GPUs; -1: what fits.")
    ] = -1,
    threads: Annotated[
        int | None, typer.Option("-t", "--threads", min=1, metavar="N", help="CPU threads; one a core if absent.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object as the last line of stdout.")] = False,
) -> None:
    """Count how often models are right: the share with its 95 % interval (Wilson's), mean steps, tokens a second.

    Each line of FILE.jsonl is a question: {"prompt": "…", "answer": "…"} wants that answer word for word,
    {"prompt": "…", "checker": "sudoku"} any grid that solves the puzzle. Every model gets the same seeds.

    Exit codes: 0 done, 1 refused or failed (one line on stderr says why), 2 wrong command line, 130 interrupted.
    """
    from ..evaluation import evaluate, load_questions

    questions = load_questions(data, limit)
    evaluations = []
    with model_bar() as progress:
        for model in models:
            evaluations.append(
                evaluate(
                    model,
                    questions,
                    seed=seed,
                    max_new_tokens=max_tokens,
                    n_gpu_layers=gpu_layers,
                    n_threads=threads,
                    progress=progress,
                )
            )
    _show(evaluations)
    if as_json:
        typer.echo(json.dumps({"data": str(data), "seed": seed, "models": [e.to_dict() for e in evaluations]}))


def _show(evaluations: list[Evaluation]) -> None:
    """A table on stdout."""
    from rich.markup import escape
    from rich.table import Table

    from ..compare.names import short_names

    count = len(evaluations[0].attempts)
    title = f"{count} question{'s' * (count > 1)}"
    table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False)
    table.add_column("model", overflow="fold")
    for header in ("size", "right", "95 % interval", "steps", "stopped early", "tokens/s"):
        table.add_column(header, justify="right", no_wrap=True)
    for name, one in zip(short_names([e.model for e in evaluations]), evaluations, strict=True):
        low, high = one.interval
        table.add_row(
            escape(name),
            size(one.n_bytes),
            f"{100 * one.rate:.1f} %",
            f"{100 * low:.1f} to {100 * high:.1f} %",
            f"{one.mean_steps:.1f}",
            f"{100 * one.stopped_early:.0f} %",
            f"{one.tokens_per_second:.0f}",
        )
    table_console().print(table)
