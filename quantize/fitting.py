"""A type for every tensor, so that the model runs in a given amount of memory and loses the least.

    headers ─→ what running takes beside the weights (the engine's own plan) ─→ room for the weights
    sample of the rows ─→ error of each tensor in each type it may have ──────→ knapsack ─→ types

What is kept small is the damage: the mean of the tensors' errors, each counted as often as a pass multiplies by the
tensor. It is a proxy. Every branch of this network ends in a norm, so what a product passes on is its error relative to
its size, wherever it stands and however large its matrix; which branches matter more, no weight says.
"""

from __future__ import annotations

import math
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from gguf import GGMLQuantizationType as Kind

from ..convert.model import Model, Weight
from ..convert.plan import Plan, planned
from ..convert.safetensors_file import StoredTensor
from ..convert.writer import Importance, Output, Progress, Report
from ..errors import RequestError
from .imatrix import Imatrix, importance_for, noting
from .knapsack import Option, choose
from .memory import memory_beside_weights
from .quantizer import check_importance, open_model, plan_model, quantize_model, refuse_requantizing
from .recipes import Recipe
from .types import FILE_TYPES, FileType

if TYPE_CHECKING:
    from .damage import Errors

# What a device keeps for itself: the driver's context, the kernels, and what its matrix products need in between. An
# allowance, not a measurement.
DEFAULT_RESERVE = 500_000_000

# Where rows divide into blocks of 256, types of 32-value blocks lose more at the same size. NVFP4 and TQ lose more than
# they save, for weights that were not trained for them; MXFP4 too, but nothing else makes narrow rows so small. The IQ
# types are slow to make, and here because each loses least at its size.
_ANY = (Kind.F16, Kind.BF16)
_WIDE = (Kind.Q8_0, Kind.Q6_K, Kind.Q5_K, Kind.Q4_K, Kind.IQ4_XS, Kind.Q3_K, Kind.IQ3_S, Kind.Q2_K)
_WIDE_WITH_IMPORTANCE = (Kind.IQ3_XXS, Kind.IQ2_S, Kind.IQ2_XS, Kind.IQ2_XXS, Kind.IQ1_M, Kind.IQ1_S)
_TRAINED_FOR = (Kind.MXFP4, Kind.NVFP4, Kind.TQ1_0, Kind.TQ2_0)
_NARROW = (Kind.Q8_0, Kind.Q5_1, Kind.Q5_0, Kind.Q4_1, Kind.IQ4_NL, Kind.Q4_0, Kind.MXFP4)


@dataclass(frozen=True)
class Chosen:
    """A tensor whose type was chosen. ``error``: see ``damage.measure``; ``uses``: products of a pass that read it."""

    name: str
    type: str
    bytes: int
    values: int
    uses: int
    error: float

    @property
    def group(self) -> str:
        """Its name without the layer."""
        return re.sub(r"^blk\.\d+\.", "blk.*.", self.name)


@dataclass(frozen=True)
class Mix:
    """A named mix, measured in the same way."""

    name: str
    bytes: int
    damage: float


@dataclass(frozen=True)
class Fit:
    """What ``fit`` chose, ready to be written. ``memory``: purpose -> bytes, the budget but for what is ``left``."""

    plan: Plan
    chosen: tuple[Chosen, ...]
    budget: int
    n_ctx: int
    memory: Mapping[str, int]  # weights, kv, compute, sampler, reserve
    mix: Mix | None  # the largest named mix that fits; None: none does
    _write: Callable[[Output], Report] = field(repr=False)

    @property
    def left(self) -> int:
        return self.budget - sum(self.memory.values())

    @property
    def damage(self) -> float:
        return damage((tensor.uses, tensor.error) for tensor in self.chosen)

    def write(
        self,
        dst: str | os.PathLike[str],
        *,
        split_bytes: int | None = None,
        force: bool = False,
        threads: int | None = None,
        progress: Progress | None = None,
    ) -> Report:
        """Write the file; the arguments are those of ``quantize``."""
        return self._write(Output(Path(dst), force, split_bytes, threads, progress))


def fit(
    src: str | os.PathLike[str],
    budget: int,
    *,
    n_ctx: int | None = None,
    reserve: int = DEFAULT_RESERVE,
    overrides: Sequence[str] = (),
    importance: Importance | None = None,
    imatrix: Imatrix | None = None,
    allow_requantize: bool = False,
    revision: str | None = None,
    threads: int | None = None,
    progress: Progress | None = None,
) -> Fit:
    """Choose the types with which a model runs in ``budget`` bytes of one memory: a card's, or main memory.

    Counted are the weights, each once, the key/value cache for ``n_ctx`` tokens (8192, or the model's own where it has
    fewer), the buffers of a pass, the logits, and ``reserve`` bytes for the device's driver (0 for main memory). src,
    overrides, importance, imatrix, allow_requantize, revision, threads: as for ``quantize``; an override is left alone.
    progress: tensors measured, tensors in all, the name of the one at hand.

    The same source and budget give the same types. Raises RequestError, naming the smallest budget, where nothing fits;
    and what ``quantize`` raises.
    """
    model = open_model(src, revision)
    if imatrix is not None:
        importance = importance_for(imatrix, model.weights)
        model = noting(model, imatrix)
    return fit_model(
        model,
        budget,
        n_ctx=n_ctx,
        reserve=reserve,
        overrides=overrides,
        importance=importance,
        allow_requantize=allow_requantize,
        threads=threads,
        progress=progress,
    )


def fit_model(
    model: Model,
    budget: int,
    *,
    n_ctx: int | None = None,
    reserve: int = DEFAULT_RESERVE,
    overrides: Sequence[str] = (),
    importance: Importance | None = None,
    allow_requantize: bool = False,
    threads: int | None = None,
    progress: Progress | None = None,
) -> Fit:
    """``fit`` for an open model."""
    from .damage import measure  # the engine, which plans of named types can do without

    recipe = Recipe.named("F32", overrides, has_importance=importance is not None)
    if not allow_requantize:
        refuse_requantizing(plan_model(model, recipe))
    offered = {weight: _offered(weight, recipe, importance or {}) for weight in model.weights}
    smallest = plan_model(model, recipe, lambda _: [min(kinds, key=_size(w)) for w, kinds in offered.items()])
    check_importance(smallest, importance or {})
    context, beside = memory_beside_weights(model, n_ctx)
    beside["reserve"] = reserve
    room = budget - sum(beside.values())
    if smallest.bytes > room:
        raise RequestError(_too_little(model, budget, context, smallest.bytes, beside, importance is not None))
    mix = _largest_mix(model, recipe, room, importance or {})
    if mix is not None:
        for tensor, weight in zip(mix.tensors, model.weights, strict=True):
            offered[weight] = tuple(dict.fromkeys((*offered[weight], tensor.kind)))
    errors = measure({w: kinds for w, kinds in offered.items() if w.fixed is None}, importance, threads, progress)

    measured_mix = _measured(model, mix, errors)
    kinds = _choose(offered, errors, _uses(model), room, mix if measured_mix else None)
    recipe = replace(recipe, type=_named_after(model, kinds))
    plan = plan_model(model, recipe, lambda _: kinds)
    return Fit(
        plan=plan,
        chosen=_chosen(model, plan, errors),
        budget=budget,
        n_ctx=context,
        memory={"weights": plan.bytes, **beside},
        mix=measured_mix,
        _write=lambda output: quantize_model(
            model,
            recipe,
            output,
            choose=lambda _: kinds,
            importance=importance,
            allow_requantize=allow_requantize,
        ),
    )


# ------------------------------------------------------------------------------------------------ what may be chosen


def _offered(weight: Weight, recipe: Recipe, importance: Importance) -> tuple[Kind, ...]:
    """The types that a tensor may get: the source's own, which costs nothing, and those that divide its rows."""
    pinned = recipe.pinned(weight)
    if pinned is not None:
        return (pinned,)
    own = (weight.source.kind,) if isinstance(weight.source, StoredTensor) else ()
    wide = (*_WIDE, *_WIDE_WITH_IMPORTANCE) if weight.name in importance else _WIDE
    row = weight.shape[-1]
    blocks = wide if row % 256 == 0 else _NARROW if row % 32 == 0 else ()
    return tuple(dict.fromkeys((*own, *_ANY, *blocks)))


def _size(weight: Weight) -> Callable[[Kind], int]:
    """Bytes of the tensor in a type."""
    return lambda kind: planned(weight, kind).bytes


def _too_little(
    model: Model, budget: int, n_ctx: int, weights: int, beside: Mapping[str, int], has_importance: bool
) -> str:
    reserve = beside["reserve"]
    running = sum(beside.values()) - reserve
    hint = "a smaller context takes less"
    if not has_importance:
        hint += ", and an importance matrix allows smaller types"
    parts = (
        f"{_enough(weights)} of weights, {_enough(running)} to run with {n_ctx} tokens of context, "
        f"{_enough(reserve)} in reserve"
    )
    least = _enough(weights + running + reserve)
    return f"{model.name}: no choice of types runs in {_enough(budget)}: the smallest takes {least} ({parts}); {hint}"


def _enough(count: int) -> str:
    """Rounded up, so that what is named as enough is enough."""
    unit, name = (10**9, "GB") if count >= 10**9 else (10**6, "MB")
    return f"{-(-100 * count // unit) / 100:.2f} {name}"


def _largest_mix(model: Model, recipe: Recipe, room: int, importance: Importance) -> Plan | None:
    """The largest of the named mixes that fits, with the same overrides; those for weights trained for them aside."""
    types = [type for type in FILE_TYPES.values() if type.kind not in _TRAINED_FOR]
    plans = [plan_model(model, replace(recipe, type=type)) for type in types]
    possible = [
        plan
        for plan in plans
        if plan.bytes <= room and not any(t.needs_importance and t.name not in importance for t in plan.tensors)
    ]
    return max(possible, key=lambda plan: plan.bytes, default=None)


# ------------------------------------------------------------------------------------------------ the choice


def damage(plan: Iterable[tuple[int, float]]) -> float:
    """The mean of (uses, error)."""
    pairs = list(plan)
    total = sum(uses for uses, _ in pairs)
    return sum(uses * error for uses, error in pairs) / total if total else 0.0


def _uses(model: Model) -> dict[str, int]:
    """How many products of a pass each tensor takes part in.

    The embedding is looked up, summed by probability, and the head. The experts' gate and up lie in one tensor. A full
    layer has no attn_v: its attn_k makes the values too.
    """
    names = {weight.name for weight in model.weights}
    uses = dict.fromkeys(names, 1) | {"token_embd.weight": 3}
    for name in names:
        if name.endswith(".ffn_gate_up_exps.weight"):
            uses[name] = 2
        if name.endswith(".attn_k.weight") and name.replace("attn_k", "attn_v") not in names:
            uses[name] = 2
    return uses


def _choose(
    offered: Mapping[Weight, Sequence[Kind]],
    errors: Mapping[str, Errors],
    uses: Mapping[str, int],
    room: int,
    known: Plan | None,
) -> list[Kind]:
    """A type for each weight, in order: the knapsack over the tensors. known: a plan that fits, of types offered."""
    kinds, options = [], []
    for weight, wanted in offered.items():
        held = errors.get(weight.name, dict.fromkeys(wanted, 0.0))  # what is fixed has no error to measure
        if not held:
            raise RequestError(f"{weight.name} has values that {' and '.join(k.name for k in wanted)} cannot hold")
        kinds.append(list(held))
        options.append([Option(_size(weight)(kind), uses[weight.name] * error) for kind, error in held.items()])
    start = None if known is None else [of.index(t.kind) for of, t in zip(kinds, known.tensors, strict=True)]
    try:
        picks = choose(options, room, start)
    except ValueError:
        raise RequestError("some tensors have values that only large types hold: no choice fits the budget") from None
    return [of[pick] for of, pick in zip(kinds, picks, strict=True)]


def _named_after(model: Model, kinds: Sequence[Kind]) -> FileType:
    """The file's type is called after what most of its values are."""
    values: Counter[Kind] = Counter()
    for weight, kind in zip(model.weights, kinds, strict=True):
        values[kind] += weight.size
    return next((type for kind, _ in values.most_common() for type in FILE_TYPES.values() if type.kind == kind))


def _chosen(model: Model, plan: Plan, errors: Mapping[str, Errors]) -> tuple[Chosen, ...]:
    uses = _uses(model)
    return tuple(
        Chosen(t.name, t.type, t.bytes, math.prod(t.shape), uses[t.name], errors[t.name][t.kind])
        for t in plan.tensors
        if t.name in errors
    )


def _measured(model: Model, mix: Plan | None, errors: Mapping[str, Errors]) -> Mix | None:
    """None also where the mix could not hold some tensor's values."""
    if mix is None or any(t.kind not in errors[t.name] for t in mix.tensors if t.name in errors):
        return None
    return Mix(mix.type, mix.bytes, damage((t.uses, t.error) for t in _chosen(model, mix, errors)))
