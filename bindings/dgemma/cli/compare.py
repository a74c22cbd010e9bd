"""``dgemma compare``: parse, call the library, show."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .console import model_bar, table_console
from .written import size

if TYPE_CHECKING:
    from rich.table import Table

    from ..compare import Candidate, Comparison, Estimate

_TEXT, _RUNS = "Where to measure (the prompts that dgemma brings along if absent)", "Whole answers"


def _levels(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise typer.BadParameter(f"{text!r} is no list of numbers: write it like 1,0.5,0.1") from None


def compare(
    reference: Annotated[
        str, typer.Argument(metavar="REFERENCE", help="The GGUF file to measure against, best in F32, F16 or BF16.")
    ],
    candidates: Annotated[
        list[str], typer.Argument(metavar="CANDIDATE", help="GGUF files of the same model, quantised.")
    ],
    text: Annotated[
        Path | None,
        typer.Option("--text", metavar="FILE", help="Windows of this UTF-8 text as it is.", rich_help_panel=_TEXT),
    ] = None,
    prompts: Annotated[
        Path | None,
        typer.Option(
            "--prompts", metavar="FILE", help="A prompt a line, put into the chat template.", rich_help_panel=_TEXT
        ),
    ] = None,
    passages: Annotated[
        int, typer.Option("--passages", min=1, metavar="N", help="At most N places.", rich_help_panel=_TEXT)
    ] = 8,
    prefix: Annotated[
        int,
        typer.Option("--prefix", min=1, metavar="N", help="Tokens before a canvas of a text.", rich_help_panel=_TEXT),
    ] = 256,
    levels: Annotated[
        str,
        typer.Option("--levels", metavar="LIST", help="Shares of the canvas that are noise.", rich_help_panel=_TEXT),
    ] = "1,0.75,0.5,0.25,0.1",
    runs: Annotated[
        int, typer.Option("--runs", min=0, metavar="N", help="Answers for each place; 0: none.", rich_help_panel=_RUNS)
    ] = 1,
    max_tokens: Annotated[
        int | None,
        typer.Option(
            "-n", "--n-predict", min=1, metavar="N", help="Of N tokens; one canvas if absent.", rich_help_panel=_RUNS
        ),
    ] = None,
    seed: Annotated[int, typer.Option("-s", "--seed", min=0, metavar="N", help="Of the noise and the answers.")] = 0,
    gpu_layers: Annotated[
        int, typer.Option("-ngl", "--n-gpu-layers", min=-1, metavar="N", help="Layers on GPUs; -1: what fits.")
    ] = -1,
    threads: Annotated[
        int | None, typer.Option("-t", "--threads", min=1, metavar="N", help="CPU threads; one a core if absent.")
    ] = None,
    plot: Annotated[
        Path | None, typer.Option("--plot", metavar="FILE.png", help="Draw size against damage; needs dgemma[plot].")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object as the last line of stdout.")] = False,
) -> None:
    """Measure what quantising a model costs: how far each CANDIDATE is from REFERENCE, and how large it is.

    Both denoise the same canvases: right answers with a share of noise, as they are met on the way from noise to an
    answer, each model conditioned on its own step before. Then both write whole answers from the same seeds.

    Models are opened one after the other. The reference's distributions wait in a temporary folder (TMPDIR says where):
    at the real size 268 MB for each place and noise level, 11 GB with what stands below.

    Exit codes: 0 done, 1 refused or failed (one line on stderr says why), 2 wrong command line, 130 interrupted.
    """
    from .. import compare as library
    from ..compare.plot import check_plot, draw
    from ..passages import load_passages

    shares = _levels(levels)
    if plot is not None:
        check_plot(plot)
    places = load_passages(reference, text=text, prompts=prompts, prefix_length=prefix, limit=passages)
    with model_bar() as progress:
        comparison = library.compare(
            reference,
            candidates,
            places,
            levels=shares,
            runs=runs,
            max_new_tokens=max_tokens,
            seed=seed,
            n_gpu_layers=gpu_layers,
            n_threads=threads,
            progress=progress,
        )
    _show(comparison)
    if as_json:
        typer.echo(json.dumps(comparison.to_dict()))
    if plot is not None:
        draw(comparison, plot)
        typer.echo(f"{plot}: drawn", err=True)


def _show(comparison: Comparison) -> None:
    """Tables on stdout."""
    from rich.markup import escape

    from ..compare.names import short_names

    console = table_console()
    paths = [comparison.reference.path, *(candidate.model.path for candidate in comparison.candidates)]
    names = [escape(name) for name in short_names(paths)]
    tables = [_distributions(comparison, names)]
    tables += [_levels_of(name, candidate) for name, candidate in zip(names[1:], comparison.candidates, strict=True)]
    tables += [_answers(comparison, names)] if comparison.runs else []
    for table in tables:
        console.print(table, "")
    console.print("± standard error over passages; KL and entropy in nats a position", highlight=False)


def _distributions(comparison: Comparison, names: list[str]) -> Table:
    reference = comparison.reference
    places = f"{comparison.passages} passage{'s' * (comparison.passages > 1)}"
    title = f"Distributions against {names[0]}, {places}, all noise levels"
    table = _table(title, "model", "size", "bits", "KL", "same argmax", "entropy shift")
    table.add_row(names[0], size(reference.n_bytes), f"{reference.bits_per_weight:.2f}", "", "", "")
    for name, candidate in zip(names[1:], comparison.candidates, strict=True):
        table.add_row(
            name,
            size(candidate.model.n_bytes),
            f"{candidate.model.bits_per_weight:.2f}",
            _number(candidate.kl),
            _percent(candidate.agreement),
            _number(candidate.entropy_shift, signed=True),
        )
    return table


def _levels_of(name: str, candidate: Candidate) -> Table:
    headers = ("noise", "T", "KL", "same argmax", "entropy", "entropy shift")
    table = _table(f"{name}, by noise level", *headers)
    for level in candidate.levels:
        table.add_row(
            f"{level.level:g}",
            f"{level.temperature:.2f}",
            _number(level.kl),
            _percent(level.agreement),
            _number(level.entropy),
            _number(level.entropy_shift, signed=True),
        )
    return table


def _answers(comparison: Comparison, names: list[str]) -> Table:
    count = comparison.passages * comparison.runs
    headers = ("model", "steps a canvas", "took every step", "same tokens", "same first canvas")
    table = _table(f"{count} answer{'s' * (count > 1)}, same seeds", *headers)
    damages = [candidate.runs for candidate in comparison.candidates if candidate.runs is not None]
    steps, unfinished = damages[0].reference_steps, damages[0].reference_unfinished
    table.add_row(names[0], _number(steps), _percent(unfinished), "", "")
    for name, runs in zip(names[1:], damages, strict=True):
        same = (_percent(runs.same_tokens), _percent(runs.same_first_block))
        table.add_row(name, _number(runs.steps), _percent(runs.unfinished), *same)
    return table


def _table(title: str, *headers: str) -> Table:
    from rich.table import Table

    table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False)
    for header in headers:
        if header == "model":
            table.add_column(header, overflow="fold")
        else:
            table.add_column(header, justify="right", no_wrap=True)
    return table


def _number(estimate: Estimate, *, signed: bool = False) -> str:
    """The mean to the place of its error's second digit: 0.0123 ± 0.0011."""
    mean, error = estimate.mean, estimate.error
    spread = error or abs(mean) / 10
    places = max(1 - math.floor(math.log10(spread)), 0) if spread > 0 else 0
    form = f".{places}f" if places <= 5 else ".1e"
    sign = "+" if signed and mean else ""
    return f"{mean:{sign}{form}}" + ("" if error is None else f" ± {error:{form}}")


def _percent(estimate: Estimate) -> str:
    mean, error = 100 * estimate.mean, estimate.error
    return f"{mean:.1f}" + ("" if error is None else f" ± {100 * error:.1f}") + " %"
