"""Writes a file under a temporary name and renames it, so that an output is there whole or not at all."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ..errors import FileError

_FULL = (errno.ENOSPC, errno.EDQUOT)


def check_output(dst: Path, inputs: Path, *, force: bool) -> None:
    """Refuse an output that cannot be: a folder, a file already there, a file of the checkpoint, a missing folder."""
    if os.path.isdir(dst):  # unlike Path's, these answer no where the system does not want to say
        raise FileError(f"{dst}: is a folder; name the file to write")
    if not os.path.isdir(dst.parent):
        raise FileError(f"{dst.parent}: no such folder to write {dst.name} into")
    if not os.path.exists(dst):
        return
    if any(file.is_file() and file.suffix != ".gguf" and dst.samefile(file) for file in inputs.iterdir()):
        raise FileError(f"{dst}: is a file of the checkpoint to convert; choose another output")
    if not force:
        raise FileError(f"{dst}: exists already; choose another name, or overwrite it with force (--force)")


@contextmanager
def atomic_output(dst: Path, needed: int) -> Iterator[Path]:
    """Gives the temporary path to write; afterwards the file is on disk under its name, or nothing is left.

    needed: bytes it will take. Raises FileError where they do not fit, or the system refuses to write.
    """
    partial = dst.with_name(f"{dst.name}.{os.getpid()}.partial")
    try:
        if _free(dst) < needed:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        yield partial
        with partial.open("rb+") as file:
            os.fsync(file.fileno())
        partial.replace(dst)
    except OSError as error:
        _remove(partial)
        problem = f"cannot be written: {error.strerror or error}"
        if error.errno in _FULL:
            problem = f"the disk is full: {needed} bytes are needed, and {_free(dst)} are free"
        raise FileError(f"{dst}: {problem}") from None
    finally:
        _remove(partial)


def _remove(partial: Path) -> None:
    with suppress(OSError):  # most often it is gone already, renamed
        partial.unlink()


def _free(dst: Path) -> int:
    return shutil.disk_usage(dst.parent).free
