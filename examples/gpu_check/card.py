"""What the driver says of the first card."""

from __future__ import annotations

import shutil
import subprocess
import threading
from typing import Any

FIELDS = ("name", "driver_version", "memory.total", "compute_cap")
MIB = 1 << 20


def ask(fields: tuple[str, ...], units: str = "") -> list[str]:
    if shutil.which("nvidia-smi") is None:
        raise SystemExit("gpu-check needs an NVIDIA GPU: there is no nvidia-smi on this machine")
    command = ["nvidia-smi", f"--query-gpu={','.join(fields)}", f"--format=csv,noheader{units}", "--id=0"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"gpu-check needs an NVIDIA GPU: {done.stdout.strip() or done.stderr.strip()}")
    return done.stdout.strip().split(", ")


def device() -> dict[str, str]:
    return dict(zip(FIELDS, ask(FIELDS), strict=True))


def used_bytes() -> int:
    """Of the card's memory, by all processes."""
    return int(ask(("memory.used",), ",nounits")[0]) * MIB


class PeakMemory:
    """``with PeakMemory() as memory``: the most that is used meanwhile beyond what was before, asked again and again;
    what lasts less than a quarter of a second may be missed."""

    def __enter__(self) -> PeakMemory:
        self.before = self.peak = used_bytes()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def _watch(self) -> None:
        while not self._stop.wait(0.25):
            self.peak = max(self.peak, used_bytes())

    def __exit__(self, *_: Any) -> None:
        self._stop.set()
        self._thread.join()
        self.peak = max(self.peak, used_bytes())

    @property
    def taken(self) -> int:
        return self.peak - self.before
