"""``dgemma inspect``: what a GGUF file holds and what running it would take, from its header alone."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer
from rich.console import Console
from rich.filesize import decimal
from rich.table import Table
from rich.text import Text

from ..errors import ModelFileError
from . import devices as d

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .._core import GgufInfo

# What Engine uses when it is not told otherwise.
_CONTEXT, _KV_TYPE, _N_BATCH = 8192, "f16", 0
_LONGEST_CONTEXT = 1 << 24  # 64 times what the model was made for; the engine counts in 32 bits
_PURPOSES = ("weights", "kv", "compute", "sampler")
_LONGEST_ARRAY = 64  # in JSON; a vocabulary is not metadata for people, nor for most programs
_LONGEST_TEXT = 500  # in the table, where a value has one line of whatever width the terminal has


def inspect(
    file: Annotated[str, typer.Argument(metavar="FILE", help="A GGUF file, or any file of a split set.")],
    context: Annotated[
        int | None,
        typer.Option(
            "--ctx", "-c", min=1, max=_LONGEST_CONTEXT, metavar="N", help="Plan memory for N tokens; 8192 if absent."
        ),
    ] = None,
    plan_only: Annotated[bool, typer.Option("--plan", help="Show the memory plan only.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    gpu_layers: d.GpuLayers = -1,
    cpu_moe_layers: d.CpuMoeLayers = 0,
    cpu_moe: d.CpuMoe = False,
    overrides: d.Overrides = None,
    split: d.Split = None,
    main_gpu: d.MainGpu = None,
    cards: d.DeviceMemory = None,
) -> None:
    """Show a model file: metadata, tensors by type, and the memory that running it takes on this machine's devices, or
    on those that --device-memory names."""
    from .._native import core
    from ..devices import warn_of_unused_card

    info = core.read_gguf(file)
    report: dict[str, Any] = {} if plan_only else _contents(info)
    n_ctx = context or _default_context(info)
    try:
        wanted = d.device_arguments(gpu_layers, cpu_moe_layers, cpu_moe, overrides, split, main_gpu)
        plan = core.plan_devices(file, n_ctx, _KV_TYPE, _N_BATCH, core.DeviceRequest(**wanted), cards)
        layers = [{"device": layer.device, "experts": layer.experts} for layer in plan.layers]
        report["memory"] = {"n_ctx": n_ctx, "kv_type": _KV_TYPE, "devices": plan.memory}
        report["memory"] |= {"layers": layers, "head": plan.head, "notes": list(plan.notes)}
        if cards is None:
            warn_of_unused_card(gpu_layers, stacklevel=1)
    except ModelFileError as error:
        if plan_only:
            raise
        # A vocabulary, or a model of another architecture: it can still be looked at.
        report["memory"] = None
        report["memory_error"] = str(error)
    if as_json:
        typer.echo(json.dumps(report, ensure_ascii=False))
    else:
        _show(report, Console())


def _default_context(info: GgufInfo) -> int:
    """What Engine takes when it is not told otherwise: no more than the model was made for."""
    longest = info.metadata.get("diffusion-gemma.context_length")
    return min(_CONTEXT, longest) if isinstance(longest, int) and longest > 0 else _CONTEXT


def _contents(info: GgufInfo) -> dict[str, Any]:
    """All but the memory plan, as JSON has it."""
    types: dict[str, dict[str, Any]] = {}
    for tensor in info.tensors:
        row = types.setdefault(tensor.type, {"type": tensor.type, "tensors": 0, "parameters": 0, "bytes": 0})
        row["tensors"] += 1
        row["parameters"] += math.prod(tensor.shape)
        row["bytes"] += tensor.n_bytes
    return {
        "files": list(info.paths),
        "bytes": info.n_bytes,
        "gguf_version": info.version,
        "parameters": sum(row["parameters"] for row in types.values()),
        "metadata": {key: _plain(value) for key, value in info.metadata.items()},
        "tensors": sorted(types.values(), key=lambda row: (-row["bytes"], row["type"])),
    }


def _plain(value: object) -> object:
    """A metadata value for JSON; a long array as its length and first elements."""
    items = value if isinstance(value, str | int | float | list) else cast("NDArray[Any]", value).tolist()
    if isinstance(items, list) and len(items) > _LONGEST_ARRAY:
        return {"length": len(items), "first": items[:8]}
    return items


def _show(report: dict[str, Any], console: Console) -> None:
    if "files" in report:
        for path in report["files"]:
            console.print(Text(_printable(path), overflow="fold"))
        size, parameters = decimal(report["bytes"]), report["parameters"]
        console.print(f"GGUF version {report['gguf_version']}, {size}, {parameters:,} parameters", highlight=False)
        console.print("", _metadata_table(report["metadata"]), "", _tensor_table(report["tensors"]), "", sep="\n")
    if report["memory"] is None:
        console.print(Text(f"No memory plan: {_printable(report['memory_error'])}"))
    else:
        console.print(_memory_table(report["memory"]))
        for line in (*d.place_lines(report["memory"]), *report["memory"]["notes"]):
            console.print(Text(_printable(line)))


def _metadata_table(metadata: dict[str, object]) -> Table:
    table = _table("Metadata", "key", "value")
    table.columns[0].no_wrap = True  # where it is tight, values give way: a key cut short helps nobody
    for key, value in metadata.items():
        table.add_row(Text(_printable(key)), Text(_short(value), no_wrap=True, overflow="ellipsis"))
    return table


def _tensor_table(types: list[dict[str, Any]]) -> Table:
    table = _table("Tensors", "type", "tensors", "parameters", "size", "bits a weight")
    for row in types:
        bits = 8 * row["bytes"] / row["parameters"] if row["parameters"] else 0.0
        table.add_row(row["type"], str(row["tensors"]), f"{row['parameters']:,}", decimal(row["bytes"]), f"{bits:.2f}")
    _numbers_right(table)
    return table


def _memory_table(memory: dict[str, Any]) -> Table:
    """A row for each device, a column for each purpose."""
    title = f"Memory for {memory['n_ctx']:,} tokens of context, {memory['kv_type']} cache"
    purposes = [*_PURPOSES, *(["reserve"] if len(memory["devices"]) > 1 else [])]
    table = _table(title, "device", *purposes, "total")
    for device, uses in memory["devices"].items():
        sizes = [uses.get(purpose, 0) for purpose in purposes]
        table.add_row(device, *map(decimal, sizes), decimal(sum(uses.values())))
    _numbers_right(table)
    return table


def _table(title: str, *headers: str) -> Table:
    return Table(*headers, title=title, title_justify="left", title_style="bold", box=None, pad_edge=False)


def _numbers_right(table: Table) -> None:
    for column in table.columns[1:]:
        column.justify = "right"


def _short(value: object) -> str:
    """A metadata value on one line."""
    if isinstance(value, dict):
        return f"{value['length']:,} values: {_short(value['first'])}"
    if isinstance(value, list):
        return ", ".join(map(_short, value))
    if isinstance(value, float):
        return f"{value:.6g}"  # most are float32, whose further digits are noise
    return _printable(str(value)[:_LONGEST_TEXT])


def _printable(text: str) -> str:
    """Whatever could move a terminal's cursor, spelled out: the file may come from anywhere."""
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)
