"""The memory that a model takes to run, for a file that is not written yet."""

from __future__ import annotations

import tempfile
from pathlib import Path

from gguf import LlamaFileType

from ..convert.keys import header, padding
from ..convert.model import Model
from ..errors import FileError
from .quantizer import plan_model
from .recipes import Recipe

DEFAULT_CONTEXT = 8192
_KV_TYPE, _N_BATCH = "f16", 256  # what the engine uses on a card when it is not told otherwise
_PLENTY = 1 << 60  # bytes of a card that holds anything
# All of ggml's products, as on a card; and its experts beside our dense products, which keep activations in 8 bits too.
_LARGEST = ("BF16", "MXFP4")


def memory_beside_weights(model: Model, n_ctx: int | None) -> tuple[int, dict[str, int]]:
    """The context planned for, and bytes for the key/value cache (kv), the buffers of a pass (compute), the logits and
    what samples them (sampler): the most that the engine itself plans for a file of the model, whatever its types, all
    of it on a card or all on this machine's CPU, where each thread has a megabyte.

    n_ctx: None for 8192, or what the model has if less. Raises RequestError for a context that the model does not have.
    """
    plans = [_planned(model, Recipe.named(name), n_ctx) for name in _LARGEST]
    return plans[0][0], {use: max(uses[use] for _, uses in plans) for use in plans[0][1]}


def _planned(model: Model, recipe: Recipe, n_ctx: int | None) -> tuple[int, dict[str, int]]:
    """The same for one file. The engine gets its header, followed by a hole where the weights would be, which takes no
    space."""
    from .._native import core

    plan = plan_model(model, recipe)
    head = header(model.keys(LlamaFileType.ALL_F32), plan.tensors)
    size = len(head) + sum(tensor.bytes + len(padding(tensor.bytes)) for tensor in plan.tensors)
    with tempfile.TemporaryDirectory(prefix="dgemma-") as folder:
        path = Path(folder) / "planned.gguf"
        try:
            with path.open("wb") as file:
                file.write(head)
                file.truncate(size)
        except OSError as error:
            raise FileError(f"{path}: cannot be written, to plan the memory: {error.strerror or error}") from None
        longest = core.read_gguf(path).metadata.get("diffusion-gemma.context_length")
        default = min(DEFAULT_CONTEXT, longest) if isinstance(longest, int) and longest > 0 else DEFAULT_CONTEXT
        context = default if n_ctx is None else n_ctx
        [on_cpu] = core.plan_memory(path, context, _KV_TYPE, _N_BATCH).values()
        card = core.plan_devices(path, context, _KV_TYPE, _N_BATCH, core.DeviceRequest(), [_PLENTY]).memory["GPU0"]
    return context, {use: max(on_cpu[use], card[use]) for use in on_cpu if use != "weights"}
