"""``dgemma quantize``: parse, call the library, show."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .fitting import Context, FitSize, Reserve, check_flags, fit_and_write
from .sizes import byte_count
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


def quantize(
    source: Annotated[
        str,
        typer.Argument(
            metavar="IN", help="Checkpoint folder, GGUF file (or any of a split set), OWNER/NAME or OWNER/NAME:QUANT."
        ),
    ],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="GGUF file to write.")],
    type: Annotated[
        str | None,
        typer.Argument(
            metavar="TYPE", callback=known_type, help="Q4_K_M, IQ4_XS, …: see below; or --fit in its place."
        ),
    ] = None,
    budget: FitSize = None,
    n_ctx: Context = None,
    reserve: Reserve = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option(
            "--tensor-type",
            metavar="PATTERN=TYPE",
            help="Another type for tensors whose name matches, as in ffn_down_exps=iq4_nl; may be given often, the "
            "first match counts.",
        ),
    ] = None,
    pure: Annotated[bool, typer.Option("--pure", help="No mix: every matrix in the one type.")] = False,
    allow_requantize: Annotated[
        bool, typer.Option("--allow-requantize", help="Take a file that is quantised already; it loses more.")
    ] = False,
    split: Annotated[
        int | None,
        typer.Option(
            "--output-split-size",
            metavar="SIZE",
            parser=byte_count,
            help="Most bytes of tensors in a file (2GB, 500M); OUT-00001-of-00002.gguf and so on.",
        ),
    ] = None,
    imatrix: ImatrixFile = None,
    revision: Revision = None,
    force: Force = False,
    threads: Threads = None,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run", help="Print what would be written, from headers (and with --fit a sample); OUT is not touched."
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Quantise a DiffusionGemma checkpoint or GGUF file, in one pass.

    Types, from large to small: F32 F16 BF16 Q8_0 Q6_K Q5_K_M Q5_K_S Q5_1 Q5_0 Q4_K_M Q4_K_S Q4_1 Q4_0 IQ4_NL IQ4_XS
    MXFP4 NVFP4 Q3_K_L Q3_K_M Q3_K_S IQ3_M IQ3_S IQ3_XS Q2_K TQ2_0 TQ1_0. With an importance matrix (made by dgemma
    imatrix, given by --imatrix) also IQ3_XXS Q2_K_S IQ2_M IQ2_S IQ2_XS IQ2_XXS IQ1_M IQ1_S. A mix gives each tensor the
    type that llama-quantize would; rows that do not divide into its blocks get one that fits (for Q4_K, Q5_0).

    With --fit 18GB in place of TYPE a type is chosen for every tensor, by what it costs the tensor on a sample of its
    rows; what is chosen and why is printed. The file is then as good as that memory allows, by that measure.

    OUT appears when it is complete, or not at all. Shapes are printed in PyTorch's order: rows, columns.

    Exit codes: 0 done, 1 refused or failed (one line on stderr says why), 2 wrong command line, 130 interrupted.
    """
    from .. import quantize as quantizer

    check_flags(budget, type, n_ctx, reserve)
    patterns, matrix = tuple(overrides or ()), read_importance(imatrix)
    if budget is not None:
        if pure:
            raise typer.BadParameter(
                "gives every matrix one type, and --fit each its own: leave one out", param_hint="--pure"
            )
        fit_and_write(
            source,
            None if dry_run else out,
            budget,
            n_ctx=n_ctx,
            reserve=reserve,
            overrides=patterns,
            imatrix=matrix,
            allow_requantize=allow_requantize,
            split=split,
            revision=revision,
            force=force,
            threads=threads,
            as_json=as_json,
        )
        return
    if type is None:
        raise typer.BadParameter("name the type, or give --fit and the memory that there is", param_hint="TYPE")
    if dry_run:
        plan = quantizer.plan(source, type, overrides=patterns, pure=pure, imatrix=matrix, revision=revision)
        print_plan(plan, as_json=as_json, imatrix=matrix)
        return
    write_and_tell(
        lambda progress: quantizer.quantize(
            source,
            out,
            type,
            overrides=patterns,
            pure=pure,
            imatrix=matrix,
            allow_requantize=allow_requantize,
            split_bytes=split,
            revision=revision,
            force=force,
            threads=threads,
            progress=progress,
        ),
        as_json=as_json,
        imatrix=matrix,
    )
