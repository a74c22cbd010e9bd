"""``quantize`` and ``plan``: a source, a recipe, and the converter's writer."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from gguf import GGMLQuantizationType as Kind

from ..convert.checkpoint import open_checkpoint
from ..convert.model import Model, checkpoint_model
from ..convert.plan import Plan, make_plan, planned
from ..convert.safetensors_file import StoredTensor
from ..convert.writer import Importance, Output, Progress, Report, write
from ..errors import RequestError
from .imatrix import Imatrix, importance_for, noting
from .recipes import Recipe

_FLOATS = (Kind.F32, Kind.F16, Kind.BF16)

Choice = Callable[[Model], Sequence[Kind]]  # a type for each of the model's weights


def quantize(
    src: str | os.PathLike[str],
    dst: str | os.PathLike[str],
    type: str = "Q4_K_M",
    *,
    overrides: Sequence[str] = (),
    pure: bool = False,
    importance: Importance | None = None,
    imatrix: Imatrix | None = None,
    allow_requantize: bool = False,
    split_bytes: int | None = None,
    revision: str | None = None,
    force: bool = False,
    threads: int | None = None,
    progress: Progress | None = None,
) -> Report:
    """Quantise a DiffusionGemma model to a GGUF file.

    src: a checkpoint folder, a GGUF file (any file of a split set), or on the hub OWNER/NAME, a checkpoint (at
    ``revision``), or OWNER/NAME:QUANT, a GGUF file. dst: the file to write; one that exists is refused unless
    ``force``. type: a name of ``FILE_TYPES``, in any case.

    overrides: "PATTERN=TYPE", a regular expression searched for in tensor names and ggml's name of a type; the first
    that matches a tensor decides. pure: no mix, every matrix in the one type. importance: by tensor, how much an error
    in each column matters; or imatrix: the same from a file (``read_imatrix``), which the output's metadata will name;
    tensors that it lacks are quantised without. allow_requantize: take matrices that are quantised already, and lose
    more. split_bytes: the most bytes of tensors in a file; more become model-00001-of-00002.gguf and so on. threads:
    how many cores; all, if absent. progress: called with bytes written, bytes in all, and the tensor's name after each
    piece.

    The same source gives the same bytes on any number of threads. Raises CheckpointError or ModelFileError for a source
    that is damaged or of another model, RequestError for what cannot be done, FileError for an output that cannot be
    written; ``dst`` is then as it was before.
    """
    recipe = Recipe.named(type, overrides, pure=pure, has_importance=importance is not None or imatrix is not None)
    output = Output(Path(dst), force, split_bytes, threads, progress)
    model = open_model(src, revision)
    if imatrix is not None:
        importance = importance_for(imatrix, model.weights)
        model = noting(model, imatrix)
    return quantize_model(model, recipe, output, importance=importance, allow_requantize=allow_requantize)


def plan(
    src: str | os.PathLike[str],
    type: str = "Q4_K_M",
    *,
    overrides: Sequence[str] = (),
    pure: bool = False,
    has_importance: bool = False,
    imatrix: Imatrix | None = None,
    revision: str | None = None,
) -> Plan:
    """What ``quantize`` would write, from headers only; of a hub repository the weights are not fetched."""
    recipe = Recipe.named(type, overrides, pure=pure, has_importance=has_importance or imatrix is not None)
    model = open_model(src, revision, weights=False)
    if imatrix is not None:
        importance_for(imatrix, model.weights)  # refuses one of another model
    return plan_model(model, recipe)


def open_model(src: str | os.PathLike[str], revision: str | None = None, *, weights: bool = True) -> Model:
    """Whatever ``src`` names, as ``quantize`` takes it. weights: whether they will be read, so must be fetched."""
    from .gguf_source import gguf_model

    if os.path.isfile(src):
        return gguf_model(src)
    if not os.path.exists(src) and ":" in str(src):
        from ..hub import resolve

        return gguf_model(resolve(str(src), revision=revision))
    return checkpoint_model(open_checkpoint(src, revision, weights=weights))


def quantize_model(
    model: Model,
    recipe: Recipe,
    output: Output,
    *,
    choose: Choice | None = None,
    importance: Importance | None = None,
    allow_requantize: bool = False,
) -> Report:
    """Write an open model. choose: types other than the recipe's, which then only names the file's type."""
    plan = plan_model(model, recipe, choose)
    check_importance(plan, importance or {})
    if not allow_requantize:
        refuse_requantizing(plan)
    from .rows import encode  # the engine, which a plan can do without

    return write(model, plan, recipe.type.value, output, encode, importance)


def plan_model(model: Model, recipe: Recipe, choose: Choice | None = None) -> Plan:
    """What quantize_model would write."""
    kinds = (choose or recipe)(model)
    return make_plan(
        model,
        recipe.type.name,
        [
            planned(weight, kind, needs_importance=recipe.needs_importance(weight, kind))
            for weight, kind in zip(model.weights, kinds, strict=True)
        ],
    )


def check_importance(plan: Plan, importance: Importance) -> None:
    """RequestError where a tensor needs importance and has none, or has one that does not fit it."""
    for tensor in plan.tensors:
        given = importance.get(tensor.name)
        if given is None:
            if tensor.needs_importance:
                raise RequestError(
                    f"{tensor.name} would be {tensor.type}, which needs an importance matrix: without one its values "
                    "would mean little"
                )
            continue
        columns, matrices = tensor.shape[-1], tensor.shape[0] if len(tensor.shape) == 3 else 1
        if given.dtype != np.float32 or given.size not in (columns, columns * matrices):
            raise RequestError(
                f"the importance of {tensor.name} has {given.size} values of {given.dtype}, but float32 is needed, "
                f"{columns} values or {columns} for each of {matrices} matrices"
            )
        if not (np.isfinite(given).all() and (given >= 0).all()):
            raise RequestError(f"the importance of {tensor.name} holds values that are negative or no numbers")


def refuse_requantizing(plan: Plan) -> None:
    """RequestError where a tensor that is quantised already would get another type."""
    for tensor in plan.tensors:
        source = tensor.source
        if isinstance(source, StoredTensor) and source.kind not in _FLOATS and source.kind != tensor.kind:
            raise RequestError(
                f"{source.file}: tensor {tensor.name!r} is quantised already ({source.dtype}), and doing it again "
                "loses more: begin from a float file, or insist with allow_requantize (--allow-requantize)"
            )
