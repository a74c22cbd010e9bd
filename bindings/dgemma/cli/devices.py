"""The flags that say which weights go to which device, by llama.cpp's names, and the plan as people read it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import groupby
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.filesize import decimal

from .sizes import byte_count

if TYPE_CHECKING:
    from .._core import DeviceInfo, DevicePlan

PANEL = "Devices"
_ALL = 2**31 - 1  # more layers than any model has


def _option(names: str, metavar: str | None, help: str, **more: Any) -> Any:
    return typer.Option(*names.split(), metavar=metavar, help=help, rich_help_panel=PANEL, **more)


def _layers(value: str | int) -> int:
    """-ngl: a number (the default, too, comes through here), auto or all; -1 is auto."""
    text = str(value)
    words = {"auto": -1, "all": _ALL}
    count = words[text] if text in words else int(text) if text.removeprefix("-").isdecimal() else -2
    if count < -1:
        raise typer.BadParameter(f"{text!r} is no number of layers: give one, or auto (what fits), or all")
    return min(count, _ALL)


def _proportions(text: str) -> list[float]:
    try:
        return [float(part) for part in text.replace("/", ",").split(",")]
    except ValueError:
        raise typer.BadParameter(f"{text!r} is no list of proportions: write it like 3,1") from None


def _memory_sizes(text: str) -> list[int]:
    """Without a unit, GB."""
    sizes = [part + "G" if part.replace(".", "").isdecimal() else part for part in text.split(",")]
    return [byte_count(size) for size in sizes]


def _bind_threads(strategy: str | None) -> None:
    if strategy is None:
        return
    from .. import RequestError, use_numa

    try:
        use_numa(strategy)
    except RequestError as error:
        raise typer.BadParameter(str(error)) from None


def _print_devices(wanted: bool) -> None:
    if not wanted:
        return
    from .. import list_devices

    devices = list_devices()
    for device in devices:
        memory = f"{decimal(device.total_bytes)}, {decimal(device.free_bytes)} free" if device.total_bytes else ""
        typer.echo(f"{device.name}: {device.description}" + (f" ({memory})" if memory else ""))
    for line in _missing(devices):
        typer.echo(f"dgemma: {line}", err=True)
    raise typer.Exit


def _missing(devices: list[DeviceInfo]) -> Iterator[str]:
    """What keeps a GPU, or our kernels on it, from being used."""
    from .._native import core
    from ..devices import missing_gpu

    if why := missing_gpu():
        yield f"no GPU: {why}"
    why = core.cuda_unavailable()
    if why and any(device.name.startswith("CUDA") for device in devices):
        yield f"sampling and self-conditioning stay on the CPU: {why}"


GpuLayers = Annotated[
    int,
    _option(
        "-ngl --n-gpu-layers",
        "N",
        "Layers on GPUs, the head counted first; what fits if absent.",
        parser=_layers,
        show_default=False,
    ),
]
CpuMoeLayers = Annotated[
    int, _option("-ncmoe --n-cpu-moe", "N", "Experts of the first N layers on the CPU.", min=0, show_default=False)
]
CpuMoe = Annotated[bool, _option("-cmoe --cpu-moe", None, "The experts of all layers on the CPU.")]
Overrides = Annotated[
    list[str] | None,
    _option("-ot --override-tensor", "PATTERN=DEVICE,…", "Matrices whose name matches go there: exps=CPU."),
]
Split = Annotated[
    Any, _option("-ts --tensor-split", "N,N", "Layers of each GPU, as proportions: 3,1.", parser=_proportions)
]
MainGpu = Annotated[int | None, _option("-mg --main-gpu", "I", "Use this GPU alone, counted from 0.", min=0)]
CardLayers = Annotated[
    Literal["ggml", "own"],
    _option("--card-layers", None, "own: our CUDA kernels for all but attention.", show_default=False),
]
Numa = Annotated[
    str | None,
    _option(
        "--numa",
        "WORD",
        "Memory nodes: distribute, isolate, numactl.",
        callback=_bind_threads,
        is_eager=True,
    ),
]
ListDevices = Annotated[
    bool,
    _option(
        "--list-devices",
        None,
        "Print devices, or why there is no GPU; exit.",
        callback=_print_devices,
        is_eager=True,
    ),
]
DeviceMemory = Annotated[
    Any,
    _option(
        "--device-memory",
        "SIZE,SIZE",
        "Plan for GPUs with this much free memory (24G,12G) in place of this machine's.",
        parser=_memory_sizes,
    ),
]


def device_arguments(
    gpu_layers: int,
    cpu_moe_layers: int,
    cpu_moe: bool,
    overrides: list[str] | None,
    split: list[float] | None,
    main_gpu: int | None,
    card_layers: str = "ggml",
) -> dict[str, Any]:
    """Engine's arguments, those that were given and n_gpu_layers."""
    given = {
        "n_cpu_moe": -1 if cpu_moe else cpu_moe_layers or None,
        "override_tensor": [part for text in overrides or () for part in text.split(",")] or None,
        "tensor_split": split,
        "main_gpu": main_gpu,
        "card_layers": None if card_layers == "ggml" else card_layers,
    }
    return {"n_gpu_layers": gpu_layers} | {name: value for name, value in given.items() if value is not None}


def place_lines(memory: Mapping[str, Any]) -> Iterator[str]:
    """A line for each run of layers that lie alike, then the head; nothing for a model on one device.

    memory: ``devices`` with their bytes by purpose, ``layers`` as {"device", "experts"}, ``head``.
    """
    if len(memory["devices"]) == 1:
        return
    for place, run in groupby(enumerate(memory["layers"]), lambda item: item[1]):
        numbers = [index for index, _ in run]
        name = f"layer {numbers[0]}" if len(numbers) == 1 else f"layers {numbers[0]} to {numbers[-1]}"
        beside = "" if place["experts"] == place["device"] else f", experts on {place['experts']}"
        yield f"{name}: {place['device']}{beside}"
    yield f"head: {memory['head']}"


def plan_line(plan: DevicePlan) -> str:
    """All of it on one line, with each device's bytes; "" for a model on one device."""
    layers = [{"device": layer.device, "experts": layer.experts} for layer in plan.layers]
    lines = place_lines({"devices": plan.memory, "layers": layers, "head": plan.head})
    sizes = ", ".join(f"{name} {decimal(sum(uses.values()))}" for name, uses in plan.memory.items())
    return f"{'; '.join(lines)} ({sizes})" if len(plan.memory) > 1 else ""
