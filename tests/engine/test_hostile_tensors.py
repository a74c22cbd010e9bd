"""Tensors and split sets that lie: see test_hostile_files.py."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
from forge import F32, I32, STRING, U16, U32, Forged, Tensor
from refusal import Refused, load, refusal

from dgemma import Engine
from dgemma.convert.table import rows

NAMES = [row.gguf.replace("{i}", "2" if "rope" in row.gguf else "0") for row in rows()]
STAY_F32 = [row.gguf.replace("{i}", "0") for row in rows() if row.floor == "f32"]
WEIGHTS = [row.gguf.replace("{i}", "0") for row in rows() if row.floor == "any"]

F16, Q8_1, I8, I32_TENSOR, F64_TENSOR = 1, 9, 24, 26, 28


def retyped(tensor: Tensor, type: int, block: int, bytes_per_block: int) -> None:
    tensor.type = type
    tensor.data = bytes(int(np.prod(tensor.shape)) // block * bytes_per_block)


@pytest.mark.parametrize("name", NAMES)
def test_missing_tensors(refused: Refused, forged: Forged, name: str) -> None:
    forged.tensors.remove(forged.tensor(name))
    assert refused(forged).startswith(f"tensor {name} is missing; ")


@pytest.mark.parametrize("name", NAMES)
def test_shapes_that_the_metadata_does_not_ask_for(refused: Refused, forged: Forged, name: str) -> None:
    shape = forged.tensor(name).shape
    for wrong in ([shape[-1], *shape[:-1], 2], [*shape[:-1], shape[-1] * 2], [*shape[:-1], 0]):
        changed = forged.copy()
        tensor = changed.tensor(name)
        tensor.shape, tensor.data = wrong, bytes(4 * int(np.prod(wrong)))
        message = refused(changed)
        assert f"tensor {name} has the shape {wrong}, the metadata asks for " in message or (
            "token_embd.weight has " in message and name == "token_embd.weight"
        )


@pytest.mark.parametrize("shape", [[2**62, 4], [2**63, 1], [2**64 - 1], [2**31, 2**31, 2**31], [64] * 5, [2**61]])
def test_absurd_shapes(refused: Refused, forged: Forged, shape: list[int]) -> None:
    forged.tensor("output_norm.weight").shape = shape
    assert "the GGUF header cannot be read (" in refused(forged)


@pytest.mark.parametrize("name", STAY_F32)
def test_what_must_be_f32(refused: Refused, forged: Forged, name: str) -> None:
    retyped(forged.tensor(name), F16, 1, 2)
    assert refused(forged) == f"tensor {name} has the type f16, it must be f32"


@pytest.mark.parametrize("name", WEIGHTS)
@pytest.mark.parametrize(
    ("type", "block", "bytes_per_block", "spelling"),
    [(I8, 1, 1, "i8"), (I32_TENSOR, 1, 4, "i32"), (F64_TENSOR, 1, 8, "f64"), (Q8_1, 32, 36, "q8_1")],
)
def test_types_without_a_product(
    refused: Refused, forged: Forged, name: str, type: int, block: int, bytes_per_block: int, spelling: str
) -> None:
    retyped(forged.tensor(name), type, block, bytes_per_block)
    assert refused(forged) == f"tensor {name} has the type {spelling}, which ggml cannot multiply by"


@pytest.mark.parametrize("type", [4, 31, 43, 1000, 2**31 - 1, 2**32 - 1])
def test_types_that_ggml_does_not_know(refused: Refused, forged: Forged, type: int) -> None:
    forged.tensor("token_embd.weight").type = type
    assert "the GGUF header cannot be read (tensor 'token_embd.weight'" in refused(forged)


def test_blocks_that_do_not_divide_the_rows(refused: Refused, forged: Forged) -> None:
    forged.tensor("token_embd.weight").type = 12  # q4_K: blocks of 256, rows of 64
    assert "64 elements per row, not a multiple of block size (256)" in refused(forged)


@pytest.mark.parametrize("offset", [1, 4, 32, 10**7, 2**40, 2**63 - 32, 2**64 - 32])
def test_offsets_that_lead_elsewhere(refused: Refused, forged: Forged, offset: int) -> None:
    forged.tensor("output_norm.weight").offset = offset
    assert f"tensor 'output_norm.weight' has offset {offset}, expected " in refused(forged)


@pytest.mark.parametrize("alignment", [0, 3, 33, 2**31, 2**32 - 1])
def test_alignments_that_are_none(refused: Refused, forged: Forged, alignment: int) -> None:
    forged.set("general.alignment", U32, alignment)
    assert "the GGUF header cannot be read" in refused(forged)


def test_an_alignment_of_another_type(refused: Refused, forged: Forged) -> None:
    for type, value in ((STRING, "32"), (F32, 32.0), (I32, 32)):
        changed = forged.copy()
        changed.set("general.alignment", type, value)
        assert "key 'general.alignment' must be of type u32" in refused(changed)


def test_smaller_and_larger_alignments(refused: Refused, forged: Forged, tmp_path: Path) -> None:
    """ggml computes on rows that begin at multiples of 32 bytes; a larger alignment is as good."""
    for alignment in (64, 4096):
        forged.alignment = alignment
        forged.set("general.alignment", U32, alignment)
        load(forged.write(tmp_path / "large.gguf"))
    forged.alignment = 8
    forged.set("general.alignment", U32, 8)
    forged.tensors.insert(0, Tensor(b"spare", [2], 0, bytes(8)))
    assert "is not aligned to 32 bytes (general.alignment)" in refused(forged)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_layer_scalars_that_are_no_numbers(refused: Refused, forged: Forged, value: float) -> None:
    for name in ("blk.0.layer_output_scale.weight", "blk.2.enc_layer_output_scale.weight"):
        changed = forged.copy()
        changed.tensor(name).data = struct.pack("<f", value)
        assert refused(changed) == f"tensor {name} is not a finite number; it is damaged"


# ------------------------------------------------------------------------------------------------ split sets


class Set:
    """The tiny model as three files."""

    def __init__(self, folder: Path, genuine: Forged) -> None:
        self.parts = [genuine.copy() for _ in range(3)]
        self.paths = [folder / f"model-{i:05}-of-00003.gguf" for i in (1, 2, 3)]
        for i, part in enumerate(self.parts):
            part.tensors = part.tensors[i::3]
            if i > 0:
                part.metadata = {}
            part.set("split.no", U16, i)
            part.set("split.count", U16, 3)
            part.set("split.tensors.count", I32, len(genuine.tensors))

    def write(self) -> None:
        for part, path in zip(self.parts, self.paths, strict=True):
            part.write(path)


@pytest.fixture
def split(tmp_path: Path, genuine: Forged) -> Set:
    return Set(tmp_path, genuine)


def test_a_set_opens_by_any_of_its_files(split: Set, tiny: Path) -> None:
    split.write()
    whole = Engine(tiny, n_threads=1).info
    for path in split.paths:
        load(path)
        assert Engine(path, n_threads=1).info.n_params == whole.n_params


@pytest.mark.parametrize("gone", [0, 1, 2])
def test_missing_members(split: Set, gone: int) -> None:
    split.write()
    split.paths[gone].unlink()
    for path in split.paths:
        assert "cannot be opened: No such file" in refusal(path, named=split.paths[gone])


def test_members_that_are_no_gguf(split: Set) -> None:
    split.write()
    split.paths[2].write_bytes(b"<html>not found</html>" * 10)
    assert "is not a GGUF file" in refusal(split.paths[0], named=split.paths[2])


@pytest.mark.parametrize(("key", "value"), [("split.no", 0), ("split.no", 2), ("split.count", 2), ("split.count", 4)])
def test_members_of_different_sets(split: Set, key: str, value: int) -> None:
    split.parts[1].set(key, U16, value)
    split.write()
    message = refusal(split.paths[0], named=split.paths[1])
    assert f"{key} is {value}" in message
    assert "files of different sets were mixed" in message


def test_swapped_members(split: Set) -> None:
    split.parts[1], split.parts[2] = split.parts[2], split.parts[1]
    split.write()
    assert "split.no is 2 and split.count is 3, but the name says 1 and 3" in refusal(
        split.paths[0], named=split.paths[1]
    )


def test_members_that_do_not_say_which_they_are(split: Set) -> None:
    split.parts[2].remove("split.no")
    split.write()
    assert "metadata key split.no is missing" in refusal(split.paths[0], named=split.paths[2])


@pytest.mark.parametrize("count", [0, 1, 2, 1000, 65535])
def test_counts_that_do_not_fit_the_name(split: Set, count: int) -> None:
    split.parts[0].set("split.count", U16, count)
    split.write()
    assert "split.count is " in refusal(split.paths[1], named=split.paths[0])


def test_a_set_that_was_renamed(split: Set, tmp_path: Path) -> None:
    split.parts[0].write(tmp_path / "model.gguf")
    assert "split.count is 3, which the name does not fit" in refusal(tmp_path / "model.gguf")


def test_tensors_that_are_too_few_or_there_twice(split: Set, genuine: Forged) -> None:
    split.parts[2].tensors.append(genuine.tensor("token_embd.weight"))
    split.write()
    assert "tensor token_embd.weight is there twice" in refusal(split.paths[0], named=split.paths[2])
    split.parts[2].tensors = split.parts[2].tensors[:-2]
    split.write()
    message = refusal(split.paths[0])
    assert f"split.tensors.count is {len(genuine.tensors)}, but the set holds {len(genuine.tensors) - 1}" in message
