"""``--fit``, for ``dgemma quantize`` and ``dgemma convert``: its flags, what it prints, and writing what was chosen."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .sizes import memory_size
from .written import progress_bar, size, write_and_tell

if TYPE_CHECKING:
    from ..quantize import Fit, Imatrix
    from ..quantize.fitting import Chosen

FitSize = Annotated[
    int | None,
    typer.Option(
        "--fit",
        metavar="SIZE",
        parser=memory_size,
        help="In place of a type: choose one for every tensor, so that the model runs in SIZE of memory (18GB, 24GiB) "
        "and loses the least. SIZE is all that a card has, or for a CPU all that may be used, with --reserve 0.",
    ),
]
Context = Annotated[
    int | None,
    typer.Option(
        "--ctx",
        "-c",
        min=1,
        max=1 << 24,
        metavar="N",
        help="With --fit: tokens of context to plan for; 8192 if absent.",
    ),
]
Reserve = Annotated[
    int | None,
    typer.Option(
        "--reserve",
        metavar="SIZE",
        parser=memory_size,
        help="With --fit: what of SIZE is not ours, for the card's driver and other programs; 500MB if absent.",
    ),
]

_WORDS = {"kv": "key/value cache", "sampler": "logits"}


def check_flags(budget: int | None, type: str | None, n_ctx: int | None, reserve: int | None) -> None:
    """A type or --fit, and what belongs to --fit only with it."""
    if budget is None and (n_ctx is not None or reserve is not None):
        name = "--ctx" if n_ctx is not None else "--reserve"
        raise typer.BadParameter("says how much memory --fit may give to the weights: give --fit too", param_hint=name)
    if budget is not None and type is not None:
        raise typer.BadParameter(f"chooses the types itself: leave {type} out, or leave --fit out", param_hint="--fit")


def fit_and_write(
    source: str,
    out: Path | None,
    budget: int,
    *,
    n_ctx: int | None,
    reserve: int | None,
    overrides: Sequence[str] = (),
    imatrix: Imatrix | None = None,
    allow_requantize: bool = False,
    split: int | None = None,
    revision: str | None,
    force: bool,
    threads: int | None,
    as_json: bool,
) -> None:
    """Choose, show, write. out: None for a dry run."""
    from .. import quantize as quantizer
    from ..convert.output import check_output

    if out is not None:
        check_output(out, (), force=force)  # measuring takes a minute
    with progress_bar("tensors") as progress:
        fitted = quantizer.fit(
            source,
            budget,
            n_ctx=n_ctx,
            reserve=quantizer.DEFAULT_RESERVE if reserve is None else reserve,
            overrides=overrides,
            imatrix=imatrix,
            allow_requantize=allow_requantize,
            revision=revision,
            threads=threads,
            progress=progress,
        )
    if out is None:
        typer.echo(json.dumps(_as_object(fitted)) if as_json else as_text(fitted))
        return
    typer.echo(as_text(fitted), err=True)
    write_and_tell(
        lambda progress: fitted.write(out, split_bytes=split, force=force, threads=threads, progress=progress),
        as_json=False,
        imatrix=imatrix,
    )
    if as_json:
        typer.echo(json.dumps(_as_object(fitted)))


def _as_object(fitted: Fit) -> dict[str, Any]:
    measured = {tensor.name: {"error": tensor.error, "uses": tensor.uses} for tensor in fitted.chosen}
    return {
        "budget": fitted.budget,
        "n_ctx": fitted.n_ctx,
        "memory": dict(fitted.memory),
        "left": fitted.left,
        "damage": fitted.damage,
        "nearest_mix": asdict(fitted.mix) if fitted.mix else None,
        "tensors": [
            {"name": t.name, "shape": list(t.shape), "type": t.type, "bytes": t.bytes, **measured.get(t.name, {})}
            for t in fitted.plan.tensors
        ],
        "bytes": fitted.plan.bytes,
    }


def as_text(fitted: Fit) -> str:
    """The memory, a line for each group of tensors and type, the damage, and the nearest mix."""
    uses = ", ".join(f"{_WORDS.get(purpose, purpose)} {size(count)}" for purpose, count in fitted.memory.items())
    lines = [
        f"{size(fitted.budget)} for {fitted.n_ctx:,} tokens of context: {uses}; {size(fitted.left)} left",
        "",
        f"{'tensors':<24}{'':>4} {'type':<7} {'bits':>6} {'size':>10} {'error':>9} {'of damage':>9}",
        *_group_lines(fitted.chosen),
        "",
        f"damage {fitted.damage:.3g}: the tensors' mean error (squared, over the weights' squares), each as often as "
        "it is used",
    ]
    if fitted.mix:
        lines.append(f"the nearest named mix, {fitted.mix.name} ({size(fitted.mix.bytes)}): {fitted.mix.damage:.3g}")
    else:
        lines.append("no named mix is small enough")
    return "\n".join(lines)


def _group_lines(chosen: Sequence[Chosen]) -> list[str]:
    def key(tensor: Chosen) -> tuple[str, float, str]:
        return tensor.group.removesuffix(".weight"), -tensor.bytes / tensor.values, tensor.type

    total = sum(tensor.uses * tensor.error for tensor in chosen)
    lines = []
    for (group, bits, type), members in groupby(sorted(chosen, key=key), key=key):
        tensors = list(members)
        error = sum(tensor.error for tensor in tensors) / len(tensors)
        share = sum(tensor.uses * tensor.error for tensor in tensors) / total if total else 0.0
        bytes_ = sum(tensor.bytes for tensor in tensors)
        lines.append(
            f"{group:<24}{len(tensors):>4} {type:<7} {-8 * bits:>6.2f} {size(bytes_):>10} {error:>9.2g} {share:>9.1%}"
        )
    return lines
