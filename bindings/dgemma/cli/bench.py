"""``dgemma bench``: measure, show, compare; the last line of stdout is JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.filesize import decimal
from rich.table import Table

from ..errors import RequestError
from . import devices as d

if TYPE_CHECKING:
    from ..bench import Change


def _lengths(text: str) -> tuple[int, ...]:
    try:
        lengths = tuple(int(part) for part in text.split(","))
    except ValueError:
        lengths = ()
    if not lengths or min(lengths) < 1:
        raise typer.BadParameter(f"{text!r} is no list of lengths: write it like 256,1024")
    return lengths


def bench(
    model: Annotated[str, typer.Option("-m", "--model", metavar="FILE", help="The GGUF file.")],
    prompt_tokens: Annotated[
        str,
        typer.Option("-p", "--prompt-tokens", metavar="N,N", help="Encode random prompts of these lengths."),
    ] = "256",
    steps: Annotated[
        int, typer.Option("--steps", min=1, metavar="N", help="Denoising steps a canvas; never fewer.")
    ] = 4,
    blocks: Annotated[int, typer.Option("--blocks", min=1, metavar="N", help="Canvases of the timed answer.")] = 1,
    repeats: Annotated[int, typer.Option("-r", "--repeats", min=1, metavar="N", help="Runs after one warm-up.")] = 3,
    threads: Annotated[
        int | None, typer.Option("-t", "--threads", min=1, metavar="N", help="CPU threads; as many as cores if absent.")
    ] = None,
    context: Annotated[
        int | None, typer.Option("-c", "--ctx-size", min=1, metavar="N", help="Room for N tokens; 8192 if absent.")
    ] = None,
    chunk: Annotated[
        int | None,
        typer.Option(
            "-ub",
            "--ubatch-size",
            min=1,
            metavar="N",
            help="Encode N tokens at a time. If absent: 384 where our own products encode on the CPU, 256 elsewhere.",
        ),
    ] = None,
    cold: Annotated[
        bool,
        typer.Option(
            "--cold", help="First time a start with the file out of the page cache, beside reading it. Linux only."
        ),
    ] = False,
    exact: Annotated[
        bool,
        typer.Option(
            "--exact", help="Time the slow path that the fast one is tested against: ggml's products, F32 cache."
        ),
    ] = False,
    gpu_layers: d.GpuLayers = -1,
    cpu_moe_layers: d.CpuMoeLayers = 0,
    cpu_moe: d.CpuMoe = False,
    overrides: d.Overrides = None,
    split: d.Split = None,
    main_gpu: d.MainGpu = None,
    card_layers: d.CardLayers = "ggml",
    numa: d.Numa = None,
    list_devices: d.ListDevices = False,
    compare: Annotated[
        Path | None, typer.Option("--compare", metavar="OLD.json", help="Say what changed since a saved report.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the JSON line only, no tables.")] = False,
) -> None:
    """Time a model by phase and part, beside what this machine can do. The last line is JSON.

    Every canvas takes the same number of steps, so that random weights measure too. Medians, with least and most.
    """
    from ..bench import Plan, compare_reports, measure

    old = None if compare is None else _read(compare)
    devices = d.device_arguments(gpu_layers, cpu_moe_layers, cpu_moe, overrides, split, main_gpu, card_layers)
    plan = Plan(_lengths(prompt_tokens), steps, blocks, repeats, threads, devices, context, chunk, cold, exact)
    with Console(stderr=True).status("load") as status:
        report = measure(model, plan, status.update)
    if not as_json:
        _show(report, Console())
    if old is not None:
        changes = compare_reports(old, report)
        report["compared"] = {change.figure: round(change.speedup, 4) for change in changes}
        if not as_json:
            _show_changes(changes, old, report, Console())
    typer.echo(json.dumps(report))


def _read(path: Path) -> dict[str, Any]:
    """The last line of a saved output, so that both ``--json > FILE`` and a whole log will do."""
    try:
        report = json.loads(path.read_text(encoding="utf-8").strip().rpartition("\n")[2])
    except OSError as error:
        raise RequestError(f"{path}: cannot be read ({error.strerror})") from None
    except ValueError:
        report = None
    if not isinstance(report, dict) or not {"step_ms", "commit_ms", "load_seconds"} <= report.keys():
        raise RequestError(f"{path}: its last line is no report of dgemma bench")
    return report


def _show(report: dict[str, Any], console: Console) -> None:
    console.print(
        f"{report['model']} ({report['file_type']}, {decimal(report['file_bytes'])}), {report['machine']}, "
        f"{report['threads']} threads, {'exact, ' if report['exact'] else ''}dgemma {report['dgemma']}, "
        f"{report['date']}",
        highlight=False,
    )
    table = _table("Phases", "phase", "median", "least", "most", "unit")
    table.add_row("load", f"{report['load_seconds']:.2f}", "", "", "s")
    if cold := report.get("cold"):
        table.add_row("read the file from the disk", f"{cold['read_seconds']:.2f}", "", "", "s")
        table.add_row("ready from the disk", f"{cold['ready_seconds']:.2f}", "", "", "s")
    for tokens, rate in report["encode_tokens_per_second"].items():
        _add_spread(table, f"encode {tokens} tokens", rate, "tokens/s")
    _add_spread(table, "commit a canvas", report["commit_ms"], "ms")
    for rows, step in report["step_ms"].items():
        entropy = report["entropy"].get(rows)
        label = f"{rows} step" if entropy is None else f"step, {rows} rows ({entropy:.2f} nats)"
        _add_spread(table, label, step, "ms")
    answer = report["answer"]
    table.add_row(f"answer of {answer['tokens']} tokens", f"{answer['tokens_per_second']:.1f}", "", "", "tokens/s")
    console.print("", table, "", sep="\n")
    for rows, parts in report["parts"].items():
        console.print(_parts_table(rows, parts, report["step_ms"][rows]["median"]), "", sep="\n")
    limits = ", ".join(f"{key.split('_')[0]} {value / 1e9:.0f}" for key, value in report["limits"].items() if value)
    console.print(f"Limits of {report['limits_of']}, in 10^9 a second: {limits}", highlight=False)
    console.print(f"int8 kernel: {report['int8_kernel'] or 'none'}", highlight=False)
    sizes = {
        "planned beside the weights": report["planned_bytes"],
        "taken": report["own_bytes"],
        "peak with the file": report["peak_resident_bytes"],
    }
    known = ", ".join(f"{name} {decimal(size)}" for name, size in sizes.items() if size is not None)
    console.print(f"Memory: {known}", highlight=False)


def _parts_table(rows: str, parts: dict[str, dict[str, Any]], step_ms: float) -> Table:
    total = sum(part["ms"] for part in parts.values())
    title = f"A step with {rows} rows by part: {total:.1f} ms looked into, {step_ms:.1f} ms when not"
    table = _table(title, "part", "ms", "Gop", "MB", "of matrix rate", "of copy rate")
    for name, part in parts.items():
        shares = [part["share_of_matrix_rate"], part["share_of_copy_rate"]]
        table.add_row(
            name.replace("_", " "),
            f"{part['ms']:.1f}",
            *("" if value is None else f"{value:.1f}" for value in (part["gop"], part["mb"])),
            *("" if share is None else f"{share:.0%}" for share in shares),
        )
    return table


def _show_changes(changes: list[Change], old: dict[str, Any], new: dict[str, Any], console: Console) -> None:
    from ..bench import differences

    table = _table(f"Against {old['model']} of {old['date']}", "figure", "then", "now", "")
    for change in changes:
        word = "better" if change.speedup >= 1 else "worse"
        ratio = max(change.speedup, 1 / change.speedup)
        table.add_row(change.figure, f"{change.old:.1f}", f"{change.new:.1f}", f"{ratio:.2f} times {word}")
    console.print("", table, sep="\n")
    if different := differences(old, new):
        console.print(f"The two differ in more than speed: {', '.join(different)}.", highlight=False)


def _add_spread(table: Table, label: str, spread: dict[str, float], unit: str) -> None:
    table.add_row(label, *(f"{spread[key]:.1f}" for key in ("median", "least", "most")), unit)


def _table(title: str, *headers: str) -> Table:
    table = Table(*headers, title=title, title_justify="left", title_style="bold", box=None, pad_edge=False)
    for column in table.columns[1:]:
        column.justify = "right"
    return table
