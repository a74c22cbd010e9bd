"""Importance matrices as files: ours, llama.cpp's, damaged ones."""

from __future__ import annotations

import random
import struct
from pathlib import Path

import gguf
import numpy as np
import pytest

from dgemma import FileError
from dgemma.quantize import Imatrix, read_imatrix, write_imatrix
from dgemma.quantize.imatrix import Inputs

RNG = np.random.default_rng(3)


def inputs(matrices: int, columns: int, rows: list[int]) -> Inputs:
    return Inputs(RNG.random((matrices, columns)).astype(np.float32).astype(np.float64), np.array(rows, np.float64))


ENTRIES = {
    "token_embd.weight": inputs(1, 8, [5]),
    "blk.0.ffn_down_exps.weight": inputs(3, 4, [7, 0, 12]),
}


def as_llama_writes(path: Path, entries: dict[str, Inputs], **keys: str) -> Path:
    """The layout of llama-imatrix, by gguf's own writer."""
    writer = gguf.GGUFWriter(path, arch="")
    writer.kv_data[0].clear()
    for key, text in keys.items():
        writer.add_string(key.replace("_", "."), text)
    writer.add_string("general.type", "imatrix")
    writer.add_array("imatrix.datasets", ["one.txt", "two.txt"])
    writer.add_uint32("imatrix.chunk_count", 9)
    writer.add_uint32("imatrix.chunk_size", 512)
    for name, one in entries.items():
        writer.add_tensor(name + ".in_sum2", one.squares.astype(np.float32))
        writer.add_tensor(name + ".counts", one.rows[:, None].astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def check_equal(found: Imatrix, expected: dict[str, Inputs]) -> None:
    assert found.entries.keys() == expected.keys()
    for name, one in expected.items():
        np.testing.assert_array_equal(found.entries[name].squares, one.squares)
        np.testing.assert_array_equal(found.entries[name].rows, one.rows)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    written = Imatrix(ENTRIES, ("a.txt", "b.txt"), 12, 256, "how it was made")
    write_imatrix(written, tmp_path / "i.gguf")
    found = read_imatrix(tmp_path / "i.gguf")
    check_equal(found, ENTRIES)
    assert (found.datasets, found.chunk_count, found.chunk_size, found.run) == (
        ("a.txt", "b.txt"),
        12,
        256,
        written.run,
    )
    assert found.source == str(tmp_path / "i.gguf")
    assert [file.name for file in tmp_path.iterdir()] == ["i.gguf"]


def test_the_layout_is_llama_cpps(tmp_path: Path) -> None:
    write_imatrix(Imatrix(ENTRIES, ("one.txt", "two.txt"), 9, 512), tmp_path / "ours.gguf")
    ours, theirs = (
        gguf.GGUFReader(path) for path in (tmp_path / "ours.gguf", as_llama_writes(tmp_path / "theirs.gguf", ENTRIES))
    )
    assert [(name, field.types, field.contents()) for name, field in ours.fields.items()] == [
        (name, field.types, field.contents()) for name, field in theirs.fields.items()
    ]
    tensors = {t.name: (t.shape.tolist(), t.tensor_type, t.data.tobytes()) for t in ours.tensors}
    assert tensors == {t.name: (t.shape.tolist(), t.tensor_type, t.data.tobytes()) for t in theirs.tensors}
    assert tensors["blk.0.ffn_down_exps.weight.in_sum2"][0] == [4, 3]
    assert tensors["blk.0.ffn_down_exps.weight.counts"][0] == [1, 3]
    assert [t.name for t in ours.tensors] == sorted(tensors, key=lambda name: name.replace(".in_sum2", ".a"))


def test_reads_llama_cpps_file(tmp_path: Path) -> None:
    found = read_imatrix(as_llama_writes(tmp_path / "theirs.gguf", ENTRIES))
    check_equal(found, ENTRIES)
    assert (found.datasets, found.chunk_count, found.chunk_size, found.run) == (("one.txt", "two.txt"), 9, 512, "")


def old_layout(path: Path, calls: int = 3, tail: bytes = struct.pack("<ii", 8, 7) + b"old.txt") -> Path:
    data = struct.pack("<i", len(ENTRIES))
    for name, one in ENTRIES.items():
        mean = one.squares / np.maximum(one.rows, 1)[:, None]
        data += struct.pack("<i", len(name)) + name.encode() + struct.pack("<ii", calls, mean.size)
        data += (mean * calls).astype("<f4").tobytes()
    path.write_bytes(data + tail)
    return path


@pytest.mark.parametrize("tail", [True, False])
def test_reads_the_old_binary_layout(tmp_path: Path, tail: bool) -> None:
    found = read_imatrix(old_layout(tmp_path / "imatrix.dat", **({} if tail else {"tail": b""})))
    assert (found.datasets, found.chunk_count) == ((("old.txt",), 8) if tail else ((), 0))
    for name, one in ENTRIES.items():
        fitting = found.entries[name].shaped(*one.squares.shape)
        assert fitting is not None
        assert set(fitting.rows) == {3 * 512}
        mean = fitting.squares / fitting.rows[:, None]
        np.testing.assert_allclose(mean, one.squares / np.maximum(one.rows, 1)[:, None], rtol=1e-6)


# ------------------------------------------------------------------------------------------------ bad files


def refused(path: Path) -> str:
    with pytest.raises(FileError) as error:
        read_imatrix(path)
    assert str(error.value).startswith(f"{path}: ")
    return str(error.value).removeprefix(f"{path}: ")


@pytest.mark.parametrize("make", [as_llama_writes, lambda path, entries: old_layout(path)])
def test_a_file_that_ends_early(tmp_path: Path, make) -> None:
    data = make(tmp_path / "whole", ENTRIES).read_bytes()
    short = tmp_path / "short"
    # The old layout ends with a note that may be missing.
    for length in range(len(data) - 24):
        short.write_bytes(data[:length])
        assert refused(short) == "is no importance matrix, or damaged: it ends in the middle"


@pytest.mark.parametrize("make", [as_llama_writes, lambda path, entries: old_layout(path)])
def test_any_damage_is_a_sentence_or_no_matter(tmp_path: Path, make) -> None:
    data, chance = make(tmp_path / "whole", ENTRIES).read_bytes(), random.Random(1)
    damaged = tmp_path / "damaged"
    for _ in range(600):
        place = chance.randrange(len(data))
        damaged.write_bytes(data[:place] + chance.randbytes(chance.choice((1, 4, 8))) + data[place + 8 :])
        try:
            read_imatrix(damaged)
        except FileError as error:
            assert str(error).startswith(f"{damaged}: ")  # noqa: PT017


def test_other_files(tmp_path: Path, float_gguf: Path) -> None:
    path = tmp_path / "file"
    assert refused(path) == "cannot be read: No such file or directory"
    assert refused(float_gguf) == "is a GGUF file, but no importance matrix"
    path.write_text("Once upon a time")
    assert refused(path) == "is no importance matrix, or damaged: it ends in the middle"
    path.write_bytes(b"GGUF" + struct.pack(">IQQ", 3, 0, 0))
    assert refused(path) == "is a GGUF file of another version or byte order than can be read"
    assert refused(as_llama_writes(path, {})) == "holds no values: nothing was collected"


@pytest.mark.parametrize("value", [np.nan, np.inf, -1.0])
def test_values_that_cannot_be(tmp_path: Path, value: float) -> None:
    bad = inputs(2, 4, [3, 3])
    bad.squares[1, 2] = value
    path = as_llama_writes(tmp_path / "file", {"blk.1.attn_q.weight": bad})
    assert refused(path) == "blk.1.attn_q.weight has values that are negative or no numbers; the file is damaged"
    bad = inputs(2, 4, [3, 3])
    bad.rows[0] = value
    assert refused(as_llama_writes(path, {"blk.1.attn_q.weight": bad})).startswith("blk.1.attn_q.weight has values")


def test_sums_and_counts_that_do_not_belong_together(tmp_path: Path) -> None:
    path = as_llama_writes(tmp_path / "file", {"a": inputs(3, 4, [1, 2])})
    assert refused(path) == "a has 12 values and 2 counts, which do not belong together"
    path.write_bytes(path.read_bytes().replace(b"a.counts", b"b.counts"))
    assert refused(path) == "tensor 'a.counts' is missing; it is damaged"
