"""A recipe: a mix, with a person's wishes, applied to a model."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from gguf import GGMLQuantizationType as Kind

from ..convert.model import Model, Weight
from ..convert.safetensors_file import StoredTensor
from ..errors import RequestError
from .mixes import Place, Role, fitting, for_embedding, for_place
from .types import FileType, file_type, tensor_type

# Below about 3 bits, rounding without knowing what matters gives a file that nobody can use.
_BLIND_ROUNDING_RUINS = (Kind.IQ3_XXS, Kind.IQ2_S, Kind.IQ2_XS, Kind.IQ2_XXS, Kind.IQ1_M, Kind.IQ1_S)
_GGML_REFUSES = (Kind.IQ2_XS, Kind.IQ2_XXS, Kind.IQ1_S)


@dataclass(frozen=True)
class Recipe:
    """A choice of types for a whole model: call it. ``overrides``: (pattern of names, type), the first match wins."""

    type: FileType
    overrides: tuple[tuple[re.Pattern[str], Kind], ...] = ()
    pure: bool = False  # every tensor gets the mix's own kind
    has_importance: bool = False

    @classmethod
    def named(
        cls, type: str, overrides: Sequence[str] = (), *, pure: bool = False, has_importance: bool = False
    ) -> Recipe:
        """From what people write: "Q4_K_M", "ffn_down_exps=iq4_nl". Raises RequestError."""
        return cls(file_type(type), tuple(map(_override, overrides)), pure, has_importance)

    def __call__(self, model: Model) -> list[Kind]:
        """The type of each of the model's weights, in order. RequestError for a pattern that matches none."""
        places = _places(model, self.has_importance)
        kinds = [self._kind(weight, place) for weight, place in zip(model.weights, places, strict=True)]
        free = [weight.name for weight in model.weights if weight.fixed is None]
        for pattern, _ in self.overrides:
            if not any(pattern.search(name) for name in free):
                raise RequestError(f"no tensor that can be quantised has a name matching {pattern.pattern!r}")
        return kinds

    def needs_importance(self, weight: Weight, kind: Kind) -> bool:
        """Whether this tensor can be of this type with an importance matrix only."""
        if isinstance(weight.source, StoredTensor) and weight.source.kind == kind:
            return False  # copied
        if kind in _GGML_REFUSES:
            return True
        if weight.name == "token_embd.weight":
            return False
        return kind in _BLIND_ROUNDING_RUINS or (kind == Kind.Q2_K and self.type.name == "Q2_K_S")

    def pinned(self, weight: Weight) -> Kind | None:
        """The type that the network or an override asks for; None: the tensor may have any."""
        if weight.fixed is not None:
            return weight.fixed
        wishes = (kind for pattern, kind in self.overrides if pattern.search(weight.name))
        return next((fitting(kind, weight.shape[-1]) for kind in wishes), None)

    def _kind(self, weight: Weight, place: Place) -> Kind:
        pinned, row, kind = self.pinned(weight), weight.shape[-1], self.type.kind
        if pinned is not None:
            return pinned
        if kind in (Kind.F32, Kind.F16, Kind.BF16):
            return kind
        if not self.pure:
            kind = for_embedding(self.type, row) if place.role is Role.EMBEDDING else for_place(self.type, place)
        return fitting(kind, row)


def _override(text: str) -> tuple[re.Pattern[str], Kind]:
    pattern, equals, type = text.rpartition("=")
    if not equals or not pattern:
        raise RequestError(f"{text!r} is no pattern and type: write it like ffn_down_exps=iq4_nl")
    try:
        return re.compile(pattern), tensor_type(type)
    except re.error as error:
        raise RequestError(f"{pattern!r} is no regular expression: {error}") from None


_NAMES = [(role, re.compile(role.value)) for role in Role]


def _places(model: Model, has_importance: bool) -> list[Place]:
    roles = [next(role for role, pattern in _NAMES if pattern.fullmatch(weight.name)) for weight in model.weights]
    # Files may list their tensors in any order; the running number goes by layer and name.
    order = sorted(range(len(roles)), key=lambda i: (_layer(model.weights[i].name), model.weights[i].name))
    running, seen = [0] * len(roles), dict.fromkeys(Role, 0)
    for i in order:
        running[i] = seen[roles[i]]
        seen[roles[i]] += 1
    places = []
    for weight, role, number in zip(model.weights, roles, running, strict=True):
        index, count = (number, seen[role]) if role is Role.ATTN_V else (_layer(weight.name), model.sizes.layers)
        matrices = weight.shape[0] if len(weight.shape) == 3 else 1
        places.append(Place(role, index, count, number, matrices, model.sizes, has_importance))
    return places


def _layer(name: str) -> int:
    found = re.match(r"blk\.(\d+)\.", name)
    return int(found[1]) if found else -1
