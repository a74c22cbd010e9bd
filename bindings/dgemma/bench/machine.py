"""What the machine can do: its name, how fast it copies and multiplies, and what this process has in memory."""

from __future__ import annotations

import os
import platform
import sys
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from ..errors import ModelFileError, RequestError

_STATUS = Path("/proc/self/status")  # Linux
_COPY_BYTES = 1 << 27  # a thread; several times any cache
_ROWS, _COLUMNS, _N = 2048, 2048, 256  # the int8 product of each thread
_F32 = 1024
_READ_BYTES = 1 << 23
_REPEATS = 5


def processor() -> str:
    """The processor's name as the system gives it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def limits(threads: int) -> dict[str, float | None]:
    """Best of a few runs: bytes a second of a plain copy (read and written ones), operations a second of f32 products
    by numpy (on its own threads), and on ``threads`` threads of our 16-bit kernel (self-conditioning's dense product)
    and our int8 kernel; None where this processor has no int8 kernel of ours."""
    return {
        "copy_bytes_per_second": _copy_rate(threads),
        "f32_ops_per_second": _f32_rate(),
        "bf16_ops_per_second": _bf16_rate(threads),
        "int8_ops_per_second": _int8_rate(threads),
    }


def int8_kernel() -> str | None:
    """Our kernel for products with quantised weights on this processor; None where there is none."""
    from .._native import core

    kernels = core.product_kernels()
    return kernels[0] if kernels else None


def _best_seconds(work: Callable[[int], object], threads: int) -> float:
    with ThreadPoolExecutor(threads) as pool:
        times = []
        for _ in range(_REPEATS + 1):
            start = time.perf_counter()
            list(pool.map(work, range(threads)))
            times.append(time.perf_counter() - start)
    return min(times[1:])


def _copy_rate(threads: int) -> float:
    pairs = [(np.ones(_COPY_BYTES, np.uint8), np.empty(_COPY_BYTES, np.uint8)) for _ in range(threads)]
    return 2 * _COPY_BYTES * threads / _best_seconds(lambda i: np.copyto(pairs[i][1], pairs[i][0]), threads)


def _f32_rate() -> float:
    a = np.ones((_F32, _F32), np.float32)
    return 2 * _F32**3 / _best_seconds(lambda _: a @ a, 1)


def _bf16_rate(threads: int) -> float | None:
    """Of our attention, its softmax included: one head of keys and values that all heads of the queries share."""
    from .._native import core

    if not core.has_own_attention():
        return None
    heads, width = 16, 256
    q = np.zeros((_N, heads, width), np.float32)
    keys = np.zeros((_ROWS, 1, width), np.float32)
    mask = np.zeros((_N, _ROWS), np.float32)
    seconds = _best_seconds(lambda _: core.attend_rows(q, keys, keys, mask, threads), 1)
    return 4 * _N * heads * _ROWS * width / seconds


def _int8_rate(threads: int) -> float | None:
    """On Q4_0, which no type is faster than."""
    from .._native import core

    if int8_kernel() is None:
        return None
    random = np.random.default_rng(0)
    rows = random.standard_normal((_ROWS, _COLUMNS), dtype=np.float32)
    weights, _ = core.convert_rows(rows.view(np.uint8), "f32", "q4_0", _COLUMNS, None, 1)
    columns = random.standard_normal((_N, _COLUMNS), dtype=np.float32)
    seconds = _best_seconds(lambda _: core.multiply_rows(weights, "q4_0", columns), threads)
    return 2 * _ROWS * _COLUMNS * _N * threads / seconds


def forget_files(paths: Iterable[str]) -> None:
    """Takes files out of the system's page cache. RequestError where that cannot be asked for."""
    if not hasattr(os, "posix_fadvise"):
        raise RequestError("a cold start can be measured on Linux only: no other system forgets a file when asked to")
    for path in paths:
        file = os.open(path, os.O_RDONLY)
        try:
            os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(file)


def read_files(paths: Iterable[str]) -> None:
    """Reads files from one end to the other. ModelFileError where one cannot be read."""
    buffer = bytearray(_READ_BYTES)
    for path in paths:
        try:
            with open(path, "rb", buffering=0) as file:
                while file.readinto(buffer):
                    pass
        except OSError as error:
            raise ModelFileError(f"{path}: cannot be read ({error.strerror or error})") from None


def peak_resident_bytes() -> int | None:
    """The most this process ever had in memory, mapped files included; None where the system does not say."""
    peak = _status("VmHWM")
    if peak is not None:
        return peak
    try:
        import resource
    except ImportError:  # Windows
        return None
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


def own_bytes() -> int | None:
    """What this process has in memory now besides mapped files; None where the system does not say."""
    return _status("RssAnon")


def _status(field: str) -> int | None:
    try:
        lines = _STATUS.read_text().splitlines()
    except OSError:
        return None
    values = [line.split()[1] for line in lines if line.startswith(field + ":")]
    return int(values[0]) * 1024 if values else None
