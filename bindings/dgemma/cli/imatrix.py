"""``dgemma imatrix``: parse, call the library, show."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import INTERRUPTED
from .written import unseen_experts

if TYPE_CHECKING:
    from ..quantize import Imatrix

    Watch = Callable[[int, int, float], None]


def _option(panel: str, names: str, metavar: str | None, help: str, **more: Any) -> Any:
    return typer.Option(*names.split(), metavar=metavar, help=help, rich_help_panel=panel, **more)


_TEXT, _FILES, _MODEL = "Text", "Files", "Model"


def imatrix(
    model: Annotated[
        str | None, _option(_MODEL, "-m --model", "FILE", "The GGUF file to look into; best of all F16 or BF16.")
    ] = None,
    hub_model: Annotated[str | None, _option(_MODEL, "-hf --hf-repo", "REPO[:QUANT]", "A model on the hub.")] = None,
    gpu_layers: Annotated[
        int,
        _option(_MODEL, "-ngl --n-gpu-layers", "N", "Layers on GPUs; what fits if absent.", min=-1, show_default=False),
    ] = -1,
    threads: Annotated[
        int | None, _option(_MODEL, "-t --threads", "N", "CPU threads; one a core if absent.", min=1)
    ] = None,
    text: Annotated[Path | None, _option(_TEXT, "-f --file", "FILE", "UTF-8 text like what the model is for.")] = None,
    chunk_size: Annotated[int, _option(_TEXT, "-c --ctx-size", "N", "Tokens of text in a piece.", min=2)] = 512,
    n_predict: Annotated[
        int, _option(_TEXT, "-n --n-predict", "N", "Tokens of answer to each piece; a canvas has 256.", min=1)
    ] = 256,
    chunks: Annotated[int | None, _option(_TEXT, "--chunks", "N", "No more than N pieces.", min=1)] = None,
    first: Annotated[int, _option(_TEXT, "--chunk --from-chunk", "N", "Leave the first N pieces out.", min=0)] = 0,
    raw: Annotated[
        bool, _option(_TEXT, "--raw", None, "The pieces are prompts as they are, not what a user says in a chat.")
    ] = False,
    parse_special: Annotated[
        bool, _option(_TEXT, "--parse-special", None, "With --raw: <|turn> and the like in the text are tokens.")
    ] = False,
    seed: Annotated[int, _option(_TEXT, "-s --seed", "N", "Same seed, same matrix.", min=0, max=2**63 - 1)] = 0,
    out: Annotated[Path, _option(_FILES, "-o --out", "OUT", "GGUF file to write.")] = Path("imatrix.gguf"),
    in_files: Annotated[
        list[Path] | None,
        _option(
            _FILES, "--in-file", "FILE", "A matrix whose rows count too; may be given often. Without -f: only merge."
        ),
    ] = None,
    resume: Annotated[
        bool, _option(_FILES, "--resume", None, "Go on where OUT ends, if it is of the same run.")
    ] = False,
    force: Annotated[bool, _option(_FILES, "--force", None, "Overwrite OUT if it exists.")] = False,
    save_every: Annotated[
        int, _option(_FILES, "--output-frequency", "N", "Write OUT after every N pieces, and at the end.", min=1)
    ] = 10,
    as_json: Annotated[bool, _option(_FILES, "--json", None, "Print what OUT holds as one JSON object.")] = False,
) -> None:
    """Collect an importance matrix: which columns of each weight matter. Quantising with it (--imatrix) loses less.

    The text is cut into pieces. The model answers each as it would answer a user, and for every product on the way,
    encoder and decoder, at every denoising step, the squares of what goes in are added up: for each expert, of what was
    routed to it.

        dgemma imatrix -m model-bf16.gguf -f text.txt -o imatrix.gguf
        dgemma quantize model-bf16.gguf model.gguf IQ3_XXS --imatrix imatrix.gguf

    OUT has llama.cpp's layout. Ctrl-C keeps the pieces that are done: the same command with --resume goes on after
    them. What is left at the end of the text and is no whole piece is left out.

    Exit codes: 0 done, 1 refused or failed (one line on stderr says why), 2 wrong command line, 130 interrupted.
    """
    if parse_special and not raw:
        raise typer.BadParameter("--parse-special is for texts that are prompts already: it needs --raw")
    if resume and in_files:
        raise typer.BadParameter("--resume goes on with one run, and --in-file merges several; one of them")
    from ..quantize import read_imatrix

    if text is None and not in_files:
        raise typer.BadParameter("give a text with -f, or files to merge with --in-file")
    others = [read_imatrix(file) for file in in_files or []]
    if text is None:
        _tell(_merged(others, out, force), out, as_json)
        return
    from ..quantize.calibrate import Calibration, make_imatrix
    from .prompt import file_text
    from .run import model_path

    path, before = model_path(model, hub_model), _written(out)
    with _progress_bar() as watch:
        try:
            found = make_imatrix(
                path,
                file_text(text),
                out,
                Calibration(chunk_size, n_predict, raw, parse_special, first, seed),
                dataset=text.name,
                chunks=chunks,
                merge_with=others,
                resume=resume,
                force=force,
                n_gpu_layers=gpu_layers,
                threads=threads,
                save_every=save_every,
                watch=watch,
            )
        except KeyboardInterrupt:
            has_pieces = _written(out) != before or (resume and out.exists())
            kept = f"{out} has the pieces that are done; --resume goes on" if has_pieces else "no piece was done yet"
            typer.echo(f"dgemma: interrupted; {kept}", err=True)
            raise typer.Exit(INTERRUPTED) from None
    _tell(found, out, as_json)


def _written(file: Path) -> int | None:
    """When a file was written last; None: never."""
    return file.stat().st_mtime_ns if file.exists() else None


def _merged(parts: list[Imatrix], out: Path, force: bool) -> Imatrix:
    from ..convert.output import check_output
    from ..quantize import merge, write_imatrix

    check_output(out, [Path(part.source) for part in parts], force=force)
    merged = merge(parts)
    write_imatrix(merged, out)
    return merged


def _tell(found: Imatrix, out: Path, as_json: bool) -> None:
    unseen = f"; {unseen_experts(found)}" if found.unseen() else ""
    pieces = "piece" if found.chunk_count == 1 else "pieces"
    typer.echo(f"{out}: {len(found.entries)} tensors from {found.chunk_count} {pieces}{unseen}", err=True)
    if as_json:
        tensors = [
            {
                "name": name,
                "matrices": len(inputs.rows),
                "columns": inputs.squares.shape[1],
                "fewest_rows": int(inputs.rows.min()),
                "rows": int(inputs.rows.sum()),
                "unseen": inputs.unseen(),
            }
            for name, inputs in sorted(found.entries.items())
        ]
        typer.echo(json.dumps({"chunks": found.chunk_count, "datasets": found.datasets, "tensors": tensors}))


@contextmanager
def _progress_bar() -> Iterator[Watch]:
    """A bar on stderr with pieces and time left."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TextColumn("left:"))
    console = Console(stderr=True)
    bar = Progress(*columns, TimeRemainingColumn(), console=console, transient=True, disable=not console.is_terminal)
    task = bar.add_task("", total=None)

    def show(index: int, total: int, part: float) -> None:
        bar.update(task, completed=index + part, total=total, description=f"piece {index + 1} of {total}")
        bar.start()

    try:
        yield show
    finally:
        bar.stop()
