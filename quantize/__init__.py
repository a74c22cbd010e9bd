"""Checkpoints and GGUF files to quantised GGUF files, in one pass and with little memory.

    from dgemma.quantize import quantize
    quantize("diffusiongemma-26B-A4B-it", "model-Q4_K_M.gguf", "Q4_K_M")
    quantize("model-bf16.gguf", "model.gguf", "IQ4_XS", overrides=["ffn_down_exps=q5_0"])
    fit("diffusiongemma-26B-A4B-it", 18 * 10**9).write("model.gguf")
    quantize("model-bf16.gguf", "model.gguf", "IQ2_XS", imatrix=read_imatrix("imatrix.gguf"))

A type's name means what it means to llama-quantize: ``types`` lists the names, ``mixes`` is the table of which tensor
gets which type. ggml's quantisers make the bytes. Nothing is printed: progress goes to a callback, refusals are
``dgemma.Error``.
"""

from ..convert.plan import Plan, PlannedTensor
from ..convert.writer import Report
from .fitting import DEFAULT_RESERVE, Fit, fit, fit_model
from .imatrix import Imatrix, merge
from .imatrix_file import read_imatrix, write_imatrix
from .quantizer import plan, plan_model, quantize, quantize_model
from .recipes import Recipe
from .types import FILE_TYPES, FileType

__all__ = [
    "DEFAULT_RESERVE",
    "FILE_TYPES",
    "FileType",
    "Fit",
    "Imatrix",
    "Plan",
    "PlannedTensor",
    "Recipe",
    "Report",
    "fit",
    "fit_model",
    "merge",
    "plan",
    "plan_model",
    "quantize",
    "quantize_model",
    "read_imatrix",
    "write_imatrix",
]
