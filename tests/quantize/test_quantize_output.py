"""The output is whole or not there, and bad requests are refused in one sentence."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pytest

from dgemma import CheckpointError, FileError, RequestError
from dgemma.convert import output, writer
from dgemma.quantize import quantize
from dgemma.quantize.quantizer import open_model


def leftovers(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json"])
def test_a_checkpoint_is_never_overwritten(pristine: Path, name: str) -> None:
    before = (pristine / name).read_bytes()
    with pytest.raises(FileError, match="is a file of the model to convert"):
        quantize(pristine, pristine / name, "Q4_0", force=True)
    assert (pristine / name).read_bytes() == before


def test_the_input_is_never_overwritten(float_gguf: Path, out: Path) -> None:
    out.hardlink_to(float_gguf)
    for path in (float_gguf, out):
        with pytest.raises(FileError, match="is a file of the model to convert"):
            quantize(float_gguf, path, "Q4_0", force=True)


@pytest.mark.parametrize("split", [None, 50_000])
@pytest.mark.parametrize("calls", [1, 40, 140])
def test_interrupted(pristine: Path, out: Path, calls: int, split: int | None) -> None:
    """Ctrl-C at the first byte, in the middle, and late; what was there before stays."""
    out.write_bytes(b"precious")
    seen: list[str] = []

    def interrupt(done: int, total: int, name: str) -> None:
        seen.append(name)
        if len(seen) == calls:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        quantize(pristine, out, "Q4_0", force=True, split_bytes=split, progress=interrupt)
    assert leftovers(out.parent) == ["model.gguf"]
    assert out.read_bytes() == b"precious"


def test_a_disk_without_room_is_refused_before_writing(
    pristine: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(output, "_free", lambda dst: 1000)
    with pytest.raises(FileError, match=r"the disk is full: \d+ bytes are needed, and 1000 are free"):
        quantize(pristine, out, "Q4_0")
    assert leftovers(out.parent) == []


def test_a_disk_that_fills_up_midway(pristine: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write, written = writer._write_all, 0

    def fail(file: BinaryIO, view: memoryview) -> None:
        nonlocal written
        written += len(view)
        if written > 60_000:
            raise OSError(errno.ENOSPC, "no room")
        write(file, view)

    monkeypatch.setattr(writer, "_write_all", fail)
    with pytest.raises(FileError, match="the disk is full"):
        quantize(pristine, out, "Q4_0", split_bytes=50_000)
    assert leftovers(out.parent) == []


def test_bad_requests(pristine: Path, float_gguf: Path, out: Path, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"type 'Q4_KM' is unknown; the nearest are Q4_K_M, "):
        quantize(pristine, out, "Q4_KM")
    with pytest.raises(FileError, match="is a folder"):
        quantize(pristine, out.parent, "Q4_0")
    with pytest.raises(FileError, match="no such folder"):
        quantize(pristine, out.parent / "absent" / "model.gguf", "Q4_0")
    with pytest.raises(CheckpointError, match="nor a hub repository's owner/name"):
        quantize(tmp_path / "absent", out, "Q4_0")
    with pytest.raises(RequestError, match="is no hub repository"):
        quantize(f"{tmp_path}/absent:Q8_0", out, "Q4_0")
    with pytest.raises(CheckpointError, match=r"model\.safetensors: no such file"):
        quantize(out.parent, out, "Q4_0")
    out.write_bytes(b"precious")
    for source in (pristine, float_gguf):
        with pytest.raises(FileError, match="exists already"):
            quantize(source, out, "Q4_0")
    assert out.read_bytes() == b"precious"


@pytest.mark.parametrize("name", ["IQ1_S", "IQ2_XXS", "IQ2_M", "IQ3_XXS"])
def test_mixes_that_need_an_importance_matrix(wide: Path, out: Path, name: str) -> None:
    with pytest.raises(RequestError, match=r"self_cond_gate.weight would be I\w+, which needs an importance matrix"):
        quantize(wide, out, name)
    assert leftovers(out.parent) == []


def test_importance_is_checked_and_used(wide: Path, out: Path) -> None:
    name = "blk.0.ffn_down_exps.weight"  # [4, 256, 256]
    override = [rf"{name}=q4_K"]

    def made(importance: dict[str, np.ndarray] | None) -> bytes:
        quantize(wide, out, "F16", overrides=override, importance=importance, force=True)
        return next(w for w in map(_data, open_model(out).weights) if w[0] == name)[1]

    even = np.ones(256, np.float32)
    steep = np.linspace(0.01, 4, 1024, dtype=np.float32).reshape(4, 256)
    assert made({name: even}) == made({name: np.tile(even, (4, 1))})
    assert made({name: steep}) == made({name: steep.ravel()})
    assert len({made(None), made({name: even}), made({name: steep})}) == 3
    # each expert by its own row: the first expert's bytes follow from the first row alone
    quarter = len(made(None)) // 4
    assert made({name: steep})[:quarter] == made({name: steep[0]})[:quarter]
    assert made({name: steep})[-quarter:] == made({name: steep[3]})[-quarter:]
    for wrong in (np.ones(255, np.float32), np.ones((3, 256), np.float32), np.ones(256)):
        with pytest.raises(RequestError, match=f"the importance of {name} has {wrong.size} values of float"):
            made({name: wrong})
    for value in (np.nan, np.inf, -1.0):
        with pytest.raises(RequestError, match="negative or no numbers"):
            made({name: np.full(256, value, np.float32)})


def _data(weight):
    with open(weight.source.file, "rb") as file:
        file.seek(weight.source.begin)
        return weight.name, file.read(weight.source.bytes)
