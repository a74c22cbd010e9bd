"""``dgemma convert``: parse, call the library, show."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from .fitting import Context, FitSize, Reserve, check_flags, fit_and_write
from .written import (
    AsJson,
    Force,
    ImatrixFile,
    Revision,
    Threads,
    known_type,
    print_plan,
    read_importance,
    write_and_tell,
)


def convert(
    src: Annotated[str, typer.Argument(metavar="SRC", help="Checkpoint folder, or hub repository OWNER/NAME.")],
    out: Annotated[Path | None, typer.Option("-o", "--out", metavar="OUT", help="GGUF file to write.")] = None,
    type: Annotated[
        str | None,
        typer.Option(
            "--type",
            metavar="TYPE",
            callback=known_type,
            help="f32, f16, bf16, q8_0, or any type that dgemma quantize knows, for the matrices; norms, scales and "
            "the router stay F32. bf16 if absent.",
        ),
    ] = None,
    budget: FitSize = None,
    n_ctx: Context = None,
    reserve: Reserve = None,
    imatrix: ImatrixFile = None,
    revision: Revision = None,
    force: Force = False,
    threads: Threads = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what would be written, from headers only; OUT is not needed.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Convert a Hugging Face DiffusionGemma checkpoint to a GGUF file.

    SRC holds config.json, tokenizer.json and the safetensors weights. Of a hub repository only those are fetched, with
    the token that the hub's own tools use (HF_TOKEN, or what "hf auth login" stored). The vision tower stays behind.

    With --type Q4_K_M the matrices are quantised on the way, in the same pass; "dgemma quantize" can be told more. With
    --fit 18GB a type is chosen for every tensor, so that the model runs in that much memory and loses the least.

    OUT appears when it is complete, or not at all. Shapes are printed in PyTorch's order: rows, columns.

    Exit codes: 0 done, 1 refused or failed (one line on stderr says why), 2 wrong command line, 130 interrupted.
    """
    from .. import convert as converter
    from .. import quantize as quantizer

    check_flags(budget, type, n_ctx, reserve)
    target, wanted, matrix = None if dry_run else out, type or "bf16", read_importance(imatrix)
    if target is None and not dry_run:
        raise typer.BadParameter("name the file to write, or ask for --dry-run", param_hint="-o")
    if budget is not None:
        fit_and_write(
            src,
            target,
            budget,
            n_ctx=n_ctx,
            reserve=reserve,
            imatrix=matrix,
            revision=revision,
            force=force,
            threads=threads,
            as_json=as_json,
        )
        return
    # What quantises with importance is the quantizer; without, the plain types need no engine.
    if target is None:
        if matrix is None:
            plan = converter.plan(src, wanted, revision=revision)
        else:
            plan = quantizer.plan(src, wanted, imatrix=matrix, revision=revision)
        print_plan(plan, as_json=as_json, imatrix=matrix)
        return
    options: dict[str, Any] = {"revision": revision, "force": force, "threads": threads}
    if matrix is None:
        write = partial(converter.convert, src, target, wanted, **options)
    else:
        write = partial(quantizer.quantize, src, target, wanted, imatrix=matrix, **options)
    write_and_tell(lambda progress: write(progress=progress), as_json=as_json, imatrix=matrix)
