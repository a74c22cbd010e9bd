"""Writes files under temporary names and renames them, so that an output is there whole or not at all."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from ..errors import FileError

_FULL = (errno.ENOSPC, errno.EDQUOT)


def check_output(dst: Path, inputs: Iterable[Path], *, force: bool) -> None:
    """Refuse an output that cannot be: a folder, a device, a file already there or read, a missing folder."""
    if os.path.isdir(dst):  # unlike Path's, these answer no where the system does not want to say
        raise FileError(f"{dst}: is a folder; name the file to write")
    if not os.path.isdir(dst.parent):
        raise FileError(f"{dst.parent}: no such folder to write {dst.name} into")
    if not os.path.exists(dst):
        return
    if not os.path.isfile(dst):  # the finished file would take the place of a device such as /dev/null
        raise FileError(f"{dst}: is no ordinary file, and an output takes the place of what has its name")
    if any(dst.samefile(file) for file in inputs):
        raise FileError(f"{dst}: is a file of the model to convert; choose another output")
    if not force:
        raise FileError(f"{dst}: exists already; choose another name, or overwrite it with force (--force)")


@contextmanager
def atomic_outputs(paths: Sequence[Path], needed: int) -> Iterator[list[Path]]:
    """Gives the temporary paths to write; afterwards all files are on disk under their names, or nothing is left.

    needed: bytes that they will take together. Raises FileError where they do not fit, or the system refuses to write.
    """
    dst = paths[0]
    partials = [path.with_name(f"{path.name}.{os.getpid()}.partial") for path in paths]
    try:
        if _free(dst) < needed:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        yield partials
        for partial in partials:
            with partial.open("rb+") as file:
                os.fsync(file.fileno())
        for partial, path in reversed(list(zip(partials, paths, strict=True))):  # the file that is opened comes last
            partial.replace(path)
    except OSError as error:
        _remove(partials)
        problem = f"cannot be written: {error.strerror or error}"
        if error.errno in _FULL:
            problem = f"the disk is full: {needed} bytes are needed, and {_free(dst)} are free"
        raise FileError(f"{dst}: {problem}") from None
    finally:
        _remove(partials)


def _remove(partials: Iterable[Path]) -> None:
    for partial in partials:
        with suppress(OSError):  # most often it is gone already, renamed
            partial.unlink()


def _free(dst: Path) -> int:
    return shutil.disk_usage(dst.parent).free
