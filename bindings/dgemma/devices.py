"""ggml's devices, and which weights go to which of them (docs/devices.md)."""

from __future__ import annotations

import os
import shutil
import subprocess
import warnings
from collections.abc import Sequence
from functools import cache

from ._native import core
from .errors import RequestError

_LARGEST = 2**31 - 1  # what a C++ int holds
_N_BATCH = 0  # the engine's own choice
_DRIVER_SECONDS = 10  # what nvidia-smi may take; a driver that is not kept loaded needs some


def use_numa(strategy: str) -> None:
    """Binds threads on machines with several memory nodes, for the whole process; before its first engine.

    strategy: as in llama.cpp, "distribute" (over all nodes), "isolate" (to the node that the process began on) or
    "numactl" (as numactl was told). What came first stays. Raises ``RequestError`` for another word.
    """
    core.use_numa(strategy)


def list_devices() -> list[core.DeviceInfo]:
    """The GPUs in ggml's order (integrated ones only where there is no other), then the CPU."""
    return core.list_devices()


def missing_gpu() -> str | None:
    """Why ggml has no GPU and what would help, one sentence; None where it has one. NVIDIA's driver is asked whether it
    knows of a card, which is then named."""
    why = core.why_no_gpu()
    if not why:
        return None
    card = _nvidia_card()
    return f"the {card} is not used: {why}" if card else why


def warn_of_unused_card(n_gpu_layers: int, stacklevel: int) -> None:
    """Warns where this machine's NVIDIA card does nothing and nobody said that it should not: n_gpu_layers is -1."""
    if n_gpu_layers == -1 and core.why_no_gpu() and _nvidia_card():
        warnings.warn(f"{missing_gpu()}; n_gpu_layers=0 (-ngl 0) means the CPU", stacklevel=stacklevel + 1)


@cache
def _nvidia_card() -> str | None:
    """The first card that NVIDIA's driver lists, "NVIDIA GeForce RTX 4090"; None without driver or card."""
    command = shutil.which("nvidia-smi")
    if command is None:
        return None
    try:
        done = subprocess.run([command, "-L"], capture_output=True, text=True, timeout=_DRIVER_SECONDS, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    _, found, name = done.stdout.partition("\n")[0].partition(": ")  # "GPU 0: NVIDIA GeForce RTX 4090 (UUID: GPU-…)"
    return name.partition(" (UUID")[0] if found else None


def plan_devices(
    path: str | os.PathLike[str],
    n_ctx: int | None = None,
    *,
    n_gpu_layers: int = -1,
    n_cpu_moe: int = 0,
    override_tensor: str | Sequence[str] = (),
    tensor_split: Sequence[float] = (),
    main_gpu: int | None = None,
    device_memory: Sequence[int] | None = None,
) -> core.DevicePlan:
    """Where an ``Engine`` with these arguments and one session would put a model, from the file's header alone.

    device_memory: free bytes of GPUs to plan for ("GPU0", "GPU1", …) in place of this machine's. Raises what ``Engine``
    raises.
    """
    devices = device_request(n_gpu_layers, n_cpu_moe, override_tensor, tensor_split, main_gpu)
    cards = None if device_memory is None else list(device_memory)
    return core.plan_devices(os.fspath(path), n_ctx or 0, "f16", _N_BATCH, devices, cards)


def device_request(
    n_gpu_layers: int,
    n_cpu_moe: int,
    override_tensor: str | Sequence[str],
    tensor_split: Sequence[float],
    main_gpu: int | None,
) -> core.DeviceRequest:
    """The arguments as C++ takes them."""
    if main_gpu is not None and main_gpu < 0:
        raise RequestError(f"main_gpu must be a GPU's number, from 0 on, not {main_gpu}")
    overrides = override_tensor.split(",") if isinstance(override_tensor, str) else list(override_tensor)
    return core.DeviceRequest(
        n_gpu_layers=min(n_gpu_layers, _LARGEST),
        n_cpu_moe=min(n_cpu_moe, _LARGEST),
        override_tensor=overrides,
        tensor_split=[float(part) for part in tensor_split],
        main_gpu=-1 if main_gpu is None else min(main_gpu, _LARGEST),
    )
