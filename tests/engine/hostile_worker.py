"""Loads damaged files in a process of its own: an abort inside ggml then ends this process, not pytest.

    python hostile_worker.py fuzz MODEL FOLDER SEED COUNT [run]   seeded mutations of a model's header
    python hostile_worker.py types MODEL FOLDER                   the model with weights of every type, loaded and run

Prints a line for each file: "ok" or the error's class and sentence. Whatever is not a dgemma.Error ends it with a
traceback. The address space is limited, so that an allocation that a forged length asked for fails.
"""

from __future__ import annotations

import math
import random
import struct
import sys
from pathlib import Path

import gguf
import numpy as np
from forge import ARRAY, BOOL, F32, F64, STRING, Forged

import dgemma
from dgemma._native import core
from dgemma.convert.table import rows

_GIB = 2**30
_BEYOND_TYPES = 48
_SIZES = {9: (32, 36), 42: (64, 18)}  # Q8_1 and Q2_0, as ggml has them
_EXTREMES = (0, 1, 2, 3, 7, 127, 128, 255, 256, 2**15, 2**16 - 1, 2**20, 2**24, 2**26, 2**31 - 1, 2**31, 2**32 - 1)
_EXTREMES_64 = (*_EXTREMES, 2**32, 2**40, 2**53, 2**62, 2**63 - 1, 2**63, 2**64 - 1)
_REALS = (0.0, -1.0, 1e-30, 1e-3, 1.0, 1e9, 1e30, float("inf"), float("nan"))


def main(command: str, *arguments: str) -> None:
    _limit_memory(4 * _GIB)
    if command == "fuzz":
        model, folder, seed, count, *run = arguments
        fuzz(Path(model), Path(folder), int(seed), int(count), run=bool(run))
    else:
        types(*map(Path, arguments))


def fuzz(model: Path, folder: Path, seed: int, count: int, run: bool) -> None:
    rng = random.Random(seed)
    forged = Forged.read(model)
    data = forged.data()
    target = folder / f"mutant-{seed}.gguf"
    for number in range(count):
        what, contents = mutant(rng, forged, data)
        target.write_bytes(contents)
        print(number, what, end=": ", flush=True)  # before the attempt: if that kills the process, this is the culprit
        print(attempt(target, run), flush=True)


def types(model: Path, folder: Path) -> None:
    """Every number that ggml may know as a type, for every tensor that need not be F32."""
    genuine = Forged.read(model)
    keep = {row.gguf.partition("{i}.")[2] or row.gguf for row in rows() if row.floor == "f32"}
    for type in range(_BEYOND_TYPES):
        forged = genuine.copy()
        for tensor in forged.tensors:
            name = tensor.name.decode()
            if name not in keep and name.split(".", 2)[-1] not in keep:
                tensor.type, tensor.data = type, _weights(type, math.prod(tensor.shape))
        print(type, end=": ", flush=True)
        print(attempt(forged.write(folder / "typed.gguf"), run=True), flush=True)


def _weights(type: int, n: int) -> bytes:
    """Made-up data of n values. Small bytes, so that whatever is a scale is finite and small."""
    block, size = _SIZES.get(type) or gguf.GGML_QUANT_SIZES.get(type, (32, 18))
    return np.random.default_rng(type).integers(0, 0x28, n // block * size, dtype=np.uint8).tobytes()


def mutant(rng: random.Random, model: Forged, data: bytes) -> tuple[str, bytes]:
    """A damaged copy of the model and what was done to it."""
    kind = rng.choice(("byte", "word", "cut", "value", "value", "tensor"))
    if kind == "value":
        return _change_value(rng, model.copy())
    if kind == "tensor":
        return _change_tensor(rng, model.copy())
    header = bytearray(model.header())
    at = rng.randrange(len(header) - 8)
    if kind == "cut":
        return f"cut at {at}", bytes(header[:at])
    if kind == "byte":
        header[at] = rng.randrange(256)
    else:
        wide = rng.random() < 0.5
        size, value = (8, rng.choice(_EXTREMES_64)) if wide else (4, rng.choice(_EXTREMES))
        header[at : at + size] = value.to_bytes(size, "little")
    padding = bytes(-len(header) % model.alignment)
    return f"{kind} at {at}", bytes(header) + padding + data


def _change_value(rng: random.Random, forged: Forged) -> tuple[str, bytes]:
    """One value of an array or a scalar, of the same type, becomes extreme."""
    key = rng.choice([key for key in forged.metadata if b"ggml.tokens" not in key])
    value = bytearray(forged.metadata[key])
    kind, start = struct.unpack_from("<I", value)[0], 4
    if kind == ARRAY:
        kind, start = struct.unpack_from("<I", value, 4)[0], 16
    if kind in (F32, F64):
        new = struct.pack("<f" if kind == F32 else "<d", rng.choice(_REALS))
    elif kind in (STRING, BOOL):
        new = bytes([rng.randrange(256)])
    else:
        new = rng.choice(_EXTREMES).to_bytes(4, "little")
    if kind == STRING:
        start = min(start + 8, len(value) - 1)
    value[start : start + len(new)] = new
    forged.metadata[key] = bytes(value)
    return f"{key.decode()} = {new.hex()}", forged.to_bytes()


def _change_tensor(rng: random.Random, forged: Forged) -> tuple[str, bytes]:
    tensor = rng.choice(forged.tensors)
    kind = rng.choice(("shape", "type", "offset", "name"))
    if kind == "shape":
        tensor.shape[rng.randrange(len(tensor.shape))] = rng.choice(_EXTREMES_64)
    elif kind == "type":
        tensor.type = rng.randrange(45)
    elif kind == "offset":
        tensor.offset = rng.choice(_EXTREMES_64)
    else:
        tensor.name = rng.choice(forged.tensors).name
    return f"{tensor.name.decode()} {kind}", forged.to_bytes()


def attempt(file: Path, run: bool) -> str:
    """Everything that reads the file. Lets nothing through but dgemma.Error."""
    try:
        core.read_gguf(str(file))
        with dgemma.Engine(file, n_threads=1) as engine:
            core.plan_memory(str(file), 0, "f16", 64)
            dgemma.Tokenizer.from_gguf(file)
            return _run(engine) if run else "ok"
    except dgemma.Error as error:
        return f"{type(error).__name__} {error}"


def _run(engine: dgemma.Engine) -> str:
    canvas = [1] * engine.info.canvas_length
    session = engine.session()
    session.prefill([0, 1, 0])
    logits = session.denoise(canvas)
    return "ok" if np.isfinite(session.denoise(canvas, logits)).all() else "ok, but the logits are not finite"


def _limit_memory(size: int) -> None:
    try:
        import resource
    except ImportError:  # not on Windows
        return
    resource.setrlimit(resource.RLIMIT_AS, (size, size))


if __name__ == "__main__":
    main(*sys.argv[1:])
