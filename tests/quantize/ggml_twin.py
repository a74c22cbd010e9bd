"""ggml's quantisers and llama-quantize's choice of types, called in their own libraries: twins that are not ours."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from ctypes import POINTER, Structure, c_bool, c_char_p, c_float, c_int, c_int32, c_int64, c_size_t, c_uint32, c_void_p
from functools import cache

import gguf
import numpy as np
import pytest

from dgemma._native import library_dir


def load(name: str) -> ctypes.CDLL:
    folder = library_dir()
    assert folder is not None
    found = [path for path in folder.iterdir() if path.name.startswith((f"lib{name}.so", f"lib{name}.dylib"))]
    if not found:
        pytest.skip(f"no {name} library to compare with")
    return ctypes.CDLL(str(min(found, key=lambda path: len(path.name))))


# -------------------------------------------------------------------------------------------- ggml_quantize_chunk


def quantize_chunk(kind: gguf.GGMLQuantizationType, values: np.ndarray, importance: np.ndarray | None) -> bytes:
    """[rows, columns] float32 in one call on one thread."""
    base = load("ggml-base")
    function = base.ggml_quantize_chunk
    function.restype = c_size_t
    function.argtypes = [c_int, c_void_p, c_void_p, c_int64, c_int64, c_int64, c_void_p]
    rows, columns = values.shape
    block, size = gguf.GGML_QUANT_SIZES[kind]
    result = ctypes.create_string_buffer(rows * columns // block * size)
    pointer = None if importance is None else importance.ctypes.data
    assert function(kind, values.ctypes.data, result, 0, rows, columns, pointer) == len(result)
    return result.raw


# -------------------------------------------------------------------------------------------- llama-quantize's types


class _InitParams(Structure):
    _fields_ = (("mem_size", c_size_t), ("mem_buffer", c_void_p), ("no_alloc", c_bool))


class _ModelDesc(Structure):
    _fields_ = (
        ("architecture", c_char_p),
        *((name, c_uint32) for name in ("n_embd", "n_ff", "n_layer", "n_head", "n_head_kv", "n_expert", "k", "v")),
    )


class _QuantizeParams(Structure):
    _fields_ = (
        *((name, c_int32) for name in ("nthread", "ftype", "output_tensor_type", "token_embedding_type")),
        *((f"flag{i}", c_bool) for i in range(6)),
        *((f"pointer{i}", c_void_p) for i in range(4)),
        ("max_buf_size", c_size_t),
    )


@cache
def _llama() -> ctypes.CDLL:
    load("ggml-base")
    library = load("llama")
    names = {
        "new": "_Z31llama_quant_model_from_metadataPK22llama_quant_model_desc",
        "init": "_Z16llama_quant_initPK11llama_modelPK27llama_model_quantize_params",
        "compute": "_Z25llama_quant_compute_typesP19quantize_state_impl11llama_ftypePP11ggml_tensorP9ggml_typem",
        "free": "_Z16llama_quant_freeP19quantize_state_impl",
    }
    try:
        for short, name in names.items():
            setattr(library, short, getattr(library, name))
    except AttributeError:
        pytest.skip("this libllama keeps its choice of types to itself")
    library.new.restype = library.init.restype = c_void_p
    library.init.argtypes = [c_void_p, c_void_p]
    library.compute.argtypes = [c_void_p, c_int, c_void_p, c_void_p, c_size_t]
    library.free.argtypes = library.llama_model_free.argtypes = [c_void_p]
    library.llama_model_quantize_default_params.restype = _QuantizeParams
    library.silence = ctypes.CFUNCTYPE(None, c_int, c_char_p, c_void_p)(lambda level, text, data: None)
    library.llama_log_set(library.silence, None)
    return library


def llama_types(
    file_type: int, tensors: Sequence[tuple[str, tuple[int, ...]]], *, layers: int, experts: int, heads: int, kv: int
) -> list[int]:
    """ggml's types for (name, shape in PyTorch's order), as llama-quantize would choose them without importance matrix.

    It knows no DiffusionGemma; gemma4 stands in, which no rule mentions. Sorted as its loader sorts them.
    """
    library, base = _llama(), load("ggml-base")
    base.ggml_init.restype = base.ggml_new_tensor.restype = c_void_p
    base.ggml_init.argtypes = [_InitParams]
    base.ggml_new_tensor.argtypes = [c_void_p, c_int, c_int, POINTER(c_int64)]
    base.ggml_set_name.argtypes = [c_void_p, c_char_p]
    base.ggml_free.argtypes = [c_void_p]
    context = base.ggml_init(_InitParams(1 << 20, None, True))
    pointers = (c_void_p * len(tensors))()
    order = sorted(range(len(tensors)), key=lambda i: (_layer(tensors[i][0]), tensors[i][0]))
    for place, i in enumerate(order):
        name, shape = tensors[i]
        sizes = (c_int64 * len(shape))(*reversed(shape))
        pointers[place] = base.ggml_new_tensor(context, 0, len(shape), sizes)
        base.ggml_set_name(pointers[place], name.encode())
    model = library.new(ctypes.byref(_ModelDesc(b"gemma4", 2816, 2112, layers, heads, kv, experts, 256, 256)))
    params = library.llama_model_quantize_default_params()
    state = library.init(model, ctypes.byref(params))
    types = (c_int * len(tensors))()
    library.compute(state, file_type, pointers, types, len(tensors))
    library.free(state)
    library.llama_model_free(model)
    base.ggml_free(context)
    found = [0] * len(tensors)
    for place, i in enumerate(order):
        found[i] = types[place]
    return found


def _layer(name: str) -> int:
    return int(name.split(".")[1]) if name.startswith("blk.") else -1


assert ctypes.sizeof(c_float) == 4
