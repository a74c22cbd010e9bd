"""Hugging Face checkpoint to GGUF: ``convert`` writes the file, ``plan`` says what it would hold.

    from dgemma.convert import convert
    convert("diffusiongemma-26B-A4B-it", "model.gguf", type="q8_0")

Needs neither torch nor the engine. Tensors are read, converted and written in pieces of a few megabytes, so memory
does not grow with the checkpoint. Nothing is printed: progress goes to a callback, refusals are ``dgemma.Error``.

Metadata beyond what other DiffusionGemma files carry: ``diffusion.eos_token_ids``, an array of every token that ends
an answer. The standard ``tokenizer.ggml.eos_token_id`` has room for one of them only.
"""

from .converter import Report, convert
from .plan import Plan, PlannedTensor, plan

__all__ = ["Plan", "PlannedTensor", "Report", "convert", "plan"]
