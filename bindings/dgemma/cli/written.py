"""What ``dgemma convert`` and ``dgemma quantize`` share: flags, types by name, plans on the screen, a progress bar."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from ..errors import RequestError

if TYPE_CHECKING:
    from ..convert import Plan, Report
    from ..quantize import Imatrix

    Progress = Callable[[int, int, str], None]

Revision = Annotated[
    str | None, typer.Option("--revision", metavar="REV", help="Branch, tag or commit of a hub repository.")
]
Force = Annotated[bool, typer.Option("--force", help="Overwrite OUT if it exists.")]
Threads = Annotated[
    int | None, typer.Option("-t", "--threads", metavar="N", min=1, help="CPU threads; one a core if absent.")
]
ImatrixFile = Annotated[
    Path | None,
    typer.Option("--imatrix", metavar="FILE", help="An importance matrix (dgemma imatrix, or llama.cpp's): lose less."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the tensors as one JSON object on stdout.")]

_FLOATS = ("F32", "F16", "BF16")
_FEW = 4  # names that a line has room for
PLAIN_TYPES = ("f32", "f16", "bf16", "q8_0")  # those that need no engine


def known_type(name: str | None) -> str | None:
    """The callback of an option for a type: an unknown name is a wrong command line, with the nearest names."""
    if name is not None and name.lower() not in PLAIN_TYPES:
        from ..quantize.types import file_type

        try:
            file_type(name)
        except RequestError as error:
            raise typer.BadParameter(str(error)) from None
    return name


def read_importance(file: Path | None) -> Imatrix | None:
    """What --imatrix names."""
    if file is None:
        return None
    from ..quantize import read_imatrix

    return read_imatrix(file)


def print_plan(plan: Plan, *, as_json: bool, imatrix: Imatrix | None = None) -> None:
    """The answer of a dry run, on stdout."""
    typer.echo(json.dumps(_as_object(plan)) if as_json else _as_table(plan))
    needing = [tensor.name for tensor in plan.tensors if tensor.needs_importance]
    if imatrix is not None:
        needing = imatrix.lacks(needing)
        _tell_importance(plan, imatrix)
    if needing:
        tensors = "tensor" if len(needing) == 1 else "tensors"
        typer.echo(f"{len(needing)} {tensors} can be made with an importance matrix only ({needing[0]})", err=True)


def write_and_tell(write: Callable[[Progress], Report], *, as_json: bool, imatrix: Imatrix | None = None) -> None:
    """Run ``write`` with a bar, then say on stderr what was made, and with --json also on stdout."""
    began = time.monotonic()
    with progress_bar("bytes") as progress:
        report = write(progress)
    seconds = time.monotonic() - began
    files = f" in {len(report.paths)} files" if len(report.paths) > 1 else ""
    typer.echo(f"{report.path}: {size(report.bytes)}{files} in {seconds:.0f} s{_left_behind(report.plan)}", err=True)
    if imatrix is not None:
        _tell_importance(report.plan, imatrix)
    if as_json:
        typer.echo(json.dumps(_as_object(report.plan)))


def _tell_importance(plan: Plan, imatrix: Imatrix) -> None:
    """Which tensors are quantised without importance although there is a matrix, on stderr."""
    lacking = imatrix.lacks(tensor.name for tensor in plan.tensors if tensor.type not in _FLOATS)
    if lacking:
        more = f" and {len(lacking) - _FEW} more" if len(lacking) > _FEW else ""
        typer.echo(
            f"{imatrix.source} has no values for {', '.join(lacking[:_FEW])}{more}: without importance", err=True
        )
    if imatrix.unseen():
        typer.echo(f"{imatrix.source}: {unseen_experts(imatrix)}", err=True)


def unseen_experts(imatrix: Imatrix) -> str:
    """How many experts saw no row, and which, as far as a line has room."""
    unseen = imatrix.unseen()
    some = [f"{name}: {' '.join(map(str, experts[:_FEW]))}" for name, experts in list(unseen.items())[:_FEW]]
    more = ", …" if len(unseen) > _FEW or any(len(experts) > _FEW for experts in unseen.values()) else ""
    count = sum(map(len, unseen.values()))
    subject = "1 expert saw no row and counts" if count == 1 else f"{count} experts saw no row and count"
    return f"{subject} as the mean of the others ({', '.join(some)}{more})"


def size(count: int) -> str:
    """Bytes for people: 12.3 MB."""
    for power, unit in ((12, "TB"), (9, "GB"), (6, "MB"), (3, "kB")):
        if count >= 10**power:
            return f"{count / 10**power:.2f} {unit}"
    return f"{count} B"


def _as_object(plan: Plan) -> dict[str, Any]:
    tensors = [{"name": t.name, "shape": list(t.shape), "type": t.type, "bytes": t.bytes} for t in plan.tensors]
    needing = [tensor.name for tensor in plan.tensors if tensor.needs_importance]
    return {"tensors": tensors, "bytes": plan.bytes} | ({"needs_importance": needing} if needing else {})


def _as_table(plan: Plan) -> str:
    """Every tensor on a line, then the sums by type, then the total."""
    lines = [f"{t.name:<36} {' x '.join(map(str, t.shape)):<20} {t.type:<7} {t.bytes:>14,}" for t in plan.tensors]
    for kind in sorted({tensor.type for tensor in plan.tensors}):
        sizes = [tensor.bytes for tensor in plan.tensors if tensor.type == kind]
        lines.append(f"{f'{len(sizes)} tensors':<57} {kind:<7} {sum(sizes):>14,}")
    total = f"{len(plan.tensors)} tensors, {size(plan.bytes)}{_left_behind(plan)}"
    return "\n".join([*lines, total])


def _left_behind(plan: Plan) -> str:
    if not plan.vision_tensors:
        return ""
    return f"; text only: {plan.vision_tensors} vision tensors ({size(plan.vision_bytes)}) left out"


@contextmanager
def progress_bar(counted: Literal["bytes", "tensors"]) -> Iterator[Progress]:
    """A bar on stderr with count, rate and time left; it appears with the first count, after any download's bar."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    counts = (
        (DownloadColumn(), TransferSpeedColumn())
        if counted == "bytes"
        else (TextColumn("measuring tensors"), MofNCompleteColumn())
    )
    columns = (BarColumn(), *counts, TimeRemainingColumn())
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
