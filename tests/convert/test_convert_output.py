"""The output is whole or not there: overwriting, interruption, full disks."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path
from typing import BinaryIO

import pytest
from checkpoints import WEIGHTS, leftovers

from dgemma import FileError, RequestError
from dgemma.convert import convert, output, plan, writer


def test_an_existing_file_is_not_overwritten_unasked(pristine: Path, out: Path) -> None:
    out.write_bytes(b"precious")
    with pytest.raises(FileError, match=r"model\.gguf: exists already") as error:
        convert(pristine, out)
    assert str(error.value).startswith(f"{out}: ")
    assert out.read_bytes() == b"precious"
    convert(pristine, out, force=True)
    assert out.read_bytes()[:4] == b"GGUF"
    assert leftovers(out.parent) == ["model.gguf"]


@pytest.mark.parametrize("name", [WEIGHTS, "config.json", "tokenizer.json"])
def test_an_input_is_never_overwritten(checkpoint: Path, name: str) -> None:
    before = (checkpoint / name).read_bytes()
    with pytest.raises(FileError, match="is a file of the model to convert"):
        convert(checkpoint, checkpoint / name, force=True)
    assert (checkpoint / name).read_bytes() == before


def test_a_linked_input_is_never_overwritten(checkpoint: Path, out: Path) -> None:
    (checkpoint / "dangling").symlink_to("nowhere")
    out.hardlink_to(checkpoint / WEIGHTS)
    with pytest.raises(FileError, match="is a file of the model to convert"):
        convert(checkpoint, out, force=True)


def test_the_output_may_lie_beside_the_inputs(checkpoint: Path) -> None:
    for _ in range(2):
        convert(checkpoint, checkpoint / "model.gguf", force=True)


def test_places_that_cannot_be_written(pristine: Path, out: Path) -> None:
    with pytest.raises(FileError, match="is a folder"):
        convert(pristine, out.parent)
    with pytest.raises(FileError, match="no such folder"):
        convert(pristine, out.parent / "absent" / "model.gguf")
    if hasattr(os, "mkfifo"):  # stands for any device: renaming would put a file in the place of /dev/null
        os.mkfifo(out)
        with pytest.raises(FileError, match="is no ordinary file"):
            convert(pristine, out, force=True)
        out.unlink()
    assert leftovers(out.parent) == []


@pytest.mark.parametrize("calls", [1, 40])
def test_interrupted(pristine: Path, out: Path, calls: int) -> None:
    """Ctrl-C before the first byte and in the middle; what was there before stays."""
    out.write_bytes(b"precious")
    seen: list[str] = []

    def interrupt(done: int, total: int, name: str) -> None:
        assert len(leftovers(out.parent)) == 2  # the old file and the temporary one
        seen.append(name)
        if len(seen) == calls:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert(pristine, out, force=True, progress=interrupt)
    assert leftovers(out.parent) == ["model.gguf"]
    assert out.read_bytes() == b"precious"


def test_a_disk_without_room_is_refused_before_writing(
    pristine: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(output, "_free", lambda dst: 1000)
    with pytest.raises(FileError) as error:
        convert(pristine, out, "f32")
    assert leftovers(out.parent) == []
    monkeypatch.undo()
    needed = convert(pristine, out, "f32").bytes
    assert str(error.value) == f"{out}: the disk is full: {needed} bytes are needed, and 1000 are free"


@pytest.mark.parametrize(
    ("code", "cause"), [(errno.ENOSPC, "the disk is full: "), (errno.EIO, "cannot be written: Input/output error")]
)
def test_a_disk_that_fails_midway(
    pristine: Path, out: Path, monkeypatch: pytest.MonkeyPatch, code: int, cause: str
) -> None:
    write, written = writer._write_all, 0

    def fail(file: BinaryIO, view: memoryview) -> None:
        nonlocal written
        written += len(view)
        if written > 20_000:
            raise OSError(code, "as the system says it")
        write(file, view)

    monkeypatch.setattr(writer, "_write_all", fail)
    monkeypatch.setattr("os.strerror", lambda code: "unused")
    with pytest.raises(FileError) as error:
        convert(pristine, out, "f32")
    assert str(error.value).startswith(f"{out}: {cause.replace('Input/output error', 'as the system says it')}")
    assert leftovers(out.parent) == []


def test_bad_arguments(pristine: Path, out: Path, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"type 'q4_x' is unknown; the nearest are .*Q4_0"):
        convert(pristine, out, "q4_x")
    with pytest.raises(RequestError, match="a revision can be chosen for a hub repository only"):
        convert(pristine, out, revision="main")
    with pytest.raises(FileError, match="nor a hub repository's owner/name"):
        convert(tmp_path / "absent", out)
    with pytest.raises(FileError, match="nor a hub repository's owner/name"):
        convert("n" * 1000, out)
    with pytest.raises(FileError, match="cannot be written: File name too long"):
        convert(pristine, out.parent / ("n" * 300))
    with pytest.raises(FileError, match="is a file; give the folder"):
        convert(pristine / WEIGHTS, out)
    assert leftovers(out.parent) == []


def test_type_in_capitals(pristine: Path) -> None:
    assert plan(pristine, "Q8_0") == plan(pristine, "q8_0")


def test_a_real_full_disk_leaves_nothing(pristine: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The system's own refusal: a write past the limit on file sizes."""
    resource = pytest.importorskip("resource")
    import signal

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        with pytest.raises(FileError, match="cannot be written: File too large"):
            convert(pristine, out, "f32")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert leftovers(out.parent) == []


def test_the_folder_is_the_input_wherever_one_stands(
    pristine: Path, out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    convert(pristine, out)
    folder = Path(shutil.copytree(pristine, tmp_path / "model"))
    monkeypatch.chdir(folder)
    convert(".", "../here.gguf")
    assert (tmp_path / "here.gguf").read_bytes() == out.read_bytes()
