"""Hugging Face checkpoint to GGUF: ``convert`` writes the file, ``plan`` says what it would hold.

    from dgemma.convert import convert
    convert("diffusiongemma-26B-A4B-it", "model.gguf", type="q8_0")

Needs neither torch nor, for f32, f16, bf16 and q8_0, the engine; ``dgemma.quantize`` sees to every other type. Tensors
are read, converted and written in small pieces, so memory does not grow with the checkpoint. Nothing is printed:
progress goes to a callback, refusals are ``dgemma.Error``.

Metadata beyond what other DiffusionGemma files carry: ``diffusion.eos_token_ids``, an array of every token that ends
an answer. The standard ``tokenizer.ggml.eos_token_id`` has room for one of them only.
"""

from .converter import convert, plan
from .plan import Plan, PlannedTensor
from .writer import Report

__all__ = ["Plan", "PlannedTensor", "Report", "convert", "plan"]
