"""``dgemma convert``: parse, call the library, show."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from ..convert import Plan

    Progress = Callable[[int, int, str], None]


class TargetType(str, Enum):
    """What --type may be; the library checks again."""

    f32 = "f32"
    f16 = "f16"
    bf16 = "bf16"
    q8_0 = "q8_0"


def convert(
    src: Annotated[str, typer.Argument(metavar="SRC", help="Checkpoint folder, or hub repository OWNER/NAME.")],
    out: Annotated[Path | None, typer.Option("-o", "--out", metavar="OUT", help="GGUF file to write.")] = None,
    type: Annotated[
        TargetType, typer.Option("--type", help="Type of the matrices; norms, scales and the router stay F32.")
    ] = TargetType.bf16,
    revision: Annotated[
        str | None, typer.Option("--revision", metavar="REV", help="Branch, tag or commit of a hub repository.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite OUT if it exists.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what would be written, from headers only; OUT is not needed.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the tensors as one JSON object on stdout.")] = False,
) -> None:
    """Convert a Hugging Face DiffusionGemma checkpoint to a GGUF file.

    SRC holds config.json, tokenizer.json and the safetensors weights. Of a hub repository only those are fetched, with
    the token that the hub's own tools use (HF_TOKEN, or what "hf auth login" stored). The vision tower stays behind.

    OUT appears when it is complete, or not at all. Shapes are printed in PyTorch's order: rows, columns.

    Exit codes: 0 done, 1 refused or failed (one line on stderr says why), 2 wrong command line, 130 interrupted.
    """
    from .. import convert as converter

    if dry_run:
        plan = converter.plan(src, type.value, revision=revision)
        typer.echo(json.dumps(_as_object(plan)) if as_json else _as_table(plan))
        return
    if out is None:
        raise typer.BadParameter("name the file to write, or ask for --dry-run", param_hint="-o")
    began = time.monotonic()
    with _progress_bar() as progress:
        report = converter.convert(src, out, type.value, revision=revision, force=force, progress=progress)
    seconds = time.monotonic() - began
    typer.echo(f"{report.path}: {_size(report.bytes)} in {seconds:.0f} s{_left_behind(report.plan)}", err=True)
    if as_json:
        typer.echo(json.dumps(_as_object(report.plan)))


def _as_object(plan: Plan) -> dict[str, Any]:
    tensors = [{"name": t.name, "shape": list(t.shape), "type": t.type, "bytes": t.bytes} for t in plan.tensors]
    return {"tensors": tensors, "bytes": plan.bytes}


def _as_table(plan: Plan) -> str:
    """Every tensor on a line, then the sums by type, then the total."""
    lines = [f"{t.name:<36} {' x '.join(map(str, t.shape)):<20} {t.type:<5} {t.bytes:>14,}" for t in plan.tensors]
    for kind in sorted({tensor.type for tensor in plan.tensors}):
        sizes = [tensor.bytes for tensor in plan.tensors if tensor.type == kind]
        lines.append(f"{f'{len(sizes)} tensors':<57} {kind:<5} {sum(sizes):>14,}")
    total = f"{len(plan.tensors)} tensors, {_size(plan.bytes)}{_left_behind(plan)}"
    return "\n".join([*lines, total])


def _left_behind(plan: Plan) -> str:
    if not plan.vision_tensors:
        return ""
    return f"; text only: {plan.vision_tensors} vision tensors ({_size(plan.vision_bytes)}) left out"


def _size(count: int) -> str:
    """Bytes for people: 12.3 MB."""
    for power, unit in ((12, "TB"), (9, "GB"), (6, "MB"), (3, "kB")):
        if count >= 10**power:
            return f"{count / 10**power:.2f} {unit}"
    return f"{count} B"


@contextmanager
def _progress_bar() -> Iterator[Progress]:
    """A bar on stderr with bytes, rate and time left; it appears with the first bytes, after any download's bar."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn, TransferSpeedColumn

    columns = (BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    bar = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
    task = bar.add_task("", total=None)

    def show(done: int, total: int, name: str) -> None:
        bar.update(task, completed=done, total=total)
        bar.start()

    try:
        yield show
    finally:
        bar.stop()
