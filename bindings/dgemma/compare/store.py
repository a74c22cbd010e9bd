"""The reference's distributions on disk, while the candidates are measured."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import FileError


class Store:
    """float32 arrays [C, V], one for each passage and level, as files in ``folder``.

    They are kept whole: most rows of a noisy canvas are flat, so that leaving out small probabilities saves little
    there, and half precision would put a floor under the divergences that can be seen. ``n_bytes`` is what they will
    take; raises ``FileError`` where the disk has less.
    """

    def __init__(self, folder: Path, n_bytes: int) -> None:
        self._folder = folder
        free = shutil.disk_usage(folder).free
        if n_bytes > free:
            needed, there = f"{n_bytes / 1e9:.1f} GB", f"{free / 1e9:.1f} GB"
            raise FileError(
                f"{folder.parent}: the reference's distributions need {needed} there and {there} are free; take fewer "
                "passages or levels, or name another folder in TMPDIR"
            )

    def put(self, passage: int, level: int, z: NDArray[np.float32]) -> None:
        try:
            np.save(self._file(passage, level), z)
        except OSError as error:
            reason = error.strerror or "the disk is perhaps full"  # numpy's own message has no errno
            raise FileError(f"{self._folder}: the reference's distributions cannot be written: {reason}") from None

    def get(self, passage: int, level: int) -> NDArray[np.float32]:
        """Mapped, not read."""
        z: NDArray[np.float32] = np.load(self._file(passage, level), mmap_mode="r")
        return z

    def _file(self, passage: int, level: int) -> Path:
        return self._folder / f"{passage}-{level}.npy"
