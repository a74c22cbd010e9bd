"""Which tensor gets which type: the mixes of llama-quantize, as a table for DiffusionGemma.

What a tensor does decides (its role), where it stands in the model (early and late layers matter more), and a few
numbers of the network. Two of llama-quantize's habits show in the numbers that follow:

* The head is tied to the embedding, so ``token_embd`` counts as the output and gets Q6_K or Q5_K.
* "Layer" means the number in the name for ``ffn_*``, but for ``attn_v`` the how-manieth tensor of that name it is: full
  layers have none, so 30 layers have 25.

A row must divide into blocks. Most types have blocks of 256 values, and 704 and 2112 (the widths of an expert and of
the dense part) do not divide: such a tensor gets the type of 32-value blocks that FALLBACK names, and F16 where even
that does not fit.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from gguf import GGML_QUANT_SIZES
from gguf import GGMLQuantizationType as Kind

from ..convert.model import Sizes
from .types import FileType


class Role(Enum):
    """What a tensor does, as far as recipes care; the value is a pattern of its names."""

    EMBEDDING = r"token_embd\.weight"
    ATTN_Q = r"blk\.\d+\.attn_q\.weight"
    ATTN_K = r"blk\.\d+\.attn_k\.weight"
    ATTN_V = r"blk\.\d+\.attn_v\.weight"
    ATTN_OUTPUT = r"blk\.\d+\.attn_output\.weight"
    FFN_UP = r"blk\.\d+\.ffn_up\.weight"
    FFN_GATE = r"blk\.\d+\.ffn_gate(_up_exps)?\.weight"  # the experts' gate and up are one tensor, counted as gate
    FFN_DOWN = r"blk\.\d+\.ffn_down(_exps)?\.weight"
    OTHER = r".*"  # the self-conditioning block


@dataclass(frozen=True)
class Place:
    """A tensor as the conditions of the table see it: the ``index``-th of ``count``."""

    role: Role
    index: int
    count: int
    running: int  # as index, but every tensor of the role counts, dense and experts' alike
    matrices: int  # 1, or the number of experts
    sizes: Sizes
    has_importance: bool


Condition = Callable[[Place], bool]
Rules = tuple[tuple[Condition, Kind], ...]  # the first that holds; none: the mix's own kind


def always(_: Place) -> bool:
    return True


def more_bits(p: Place) -> bool:
    """The first eighth of the layers, the last, and every third between."""
    eighth = p.count // 8
    return p.index < eighth or p.index >= 7 * p.count // 8 or (p.index - eighth) % 3 == 2


def first_2(p: Place) -> bool:
    return p.index < 2


def first_4(p: Place) -> bool:
    return p.index < 4


def first_eighth(p: Place) -> bool:
    return p.index < p.count // 8


def first_sixteenth(p: Place) -> bool:
    return p.index < p.count // 16


def running_eighth(p: Place) -> bool:
    return p.running < p.count // 8


def middle(p: Place) -> bool:
    return p.count // 8 <= p.index < 7 * p.count // 8


def without_importance(p: Place) -> bool:
    return not p.has_importance


def first_eighth_without_importance(p: Place) -> bool:
    return not p.has_importance and first_eighth(p)


def first_eighth_with_importance(p: Place) -> bool:
    return p.has_importance and first_eighth(p)


def shared_kv(p: Place) -> bool:
    """Four query heads or more read one key/value head: attn_v is small, and good bits cost little."""
    return p.sizes.heads_per_kv >= 4


def shared_kv_or_experts(p: Place) -> bool:
    return shared_kv(p) or p.sizes.experts >= 4


def eight_experts(p: Place) -> bool:
    return p.sizes.experts == 8


def eight_experts_more_bits(p: Place) -> bool:
    return eight_experts(p) and more_bits(p)


def one_matrix(p: Place) -> bool:
    return p.matrices == 1


Q, K, V, O = Role.ATTN_Q, Role.ATTN_K, Role.ATTN_V, Role.ATTN_OUTPUT  # noqa: E741
UP, GATE, DOWN = Role.FFN_UP, Role.FFN_GATE, Role.FFN_DOWN

# Mixes with eight experts, the number that llama-quantize was tuned on.
_EIGHT_O: Rules = ((eight_experts, Kind.Q5_K),)
_EIGHT_KV: Rules = ((eight_experts, Kind.Q8_0),)


def _tiny(early: Kind, output: Rules) -> dict[Role, Rules]:
    """Mixes of about 2 bits and less. early: for attn_v without sharing, and the first feed-forward tensors."""
    return {
        K: ((eight_experts, Kind.Q4_K),),
        V: ((shared_kv_or_experts, Kind.Q4_K), (always, early)),
        O: ((eight_experts, Kind.Q5_K), *output),
        DOWN: ((running_eighth, early),),
    }


def _experts_only() -> dict[Role, Rules]:
    return dict.fromkeys(Role, ((one_matrix, Kind.Q8_0),))


RULES: dict[str, dict[Role, Rules]] = {
    "Q5_K_M": {V: ((more_bits, Kind.Q6_K),), DOWN: ((more_bits, Kind.Q6_K),)},
    "Q5_0": {DOWN: ((first_eighth_with_importance, Kind.Q5_1),)},
    "Q4_K_M": {V: ((more_bits, Kind.Q6_K),), O: _EIGHT_O, DOWN: ((more_bits, Kind.Q6_K),)},
    "Q4_K_S": {V: ((first_4, Kind.Q5_K),), O: _EIGHT_O, DOWN: ((first_eighth, Kind.Q5_K),)},
    "Q4_0": {DOWN: ((first_eighth_with_importance, Kind.Q4_1),)},
    "IQ4_NL": {V: ((shared_kv, Kind.Q5_K),), O: _EIGHT_O, DOWN: ((first_eighth_without_importance, Kind.Q5_K),)},
    "IQ4_XS": {V: ((shared_kv, Kind.Q5_K),), O: _EIGHT_O, DOWN: ((first_eighth_without_importance, Kind.Q5_K),)},
    "MXFP4": _experts_only(),
    "NVFP4": _experts_only(),  # not in llama-quantize; by the pattern of MXFP4
    "Q3_K_L": {
        V: ((always, Kind.Q5_K),),
        O: ((eight_experts, Kind.Q3_K), (always, Kind.Q5_K)),
        DOWN: ((always, Kind.Q5_K),),
    },
    "Q3_K_M": {
        V: ((first_2, Kind.Q5_K), (always, Kind.Q4_K)),
        O: (*_EIGHT_O, (always, Kind.Q4_K)),
        DOWN: ((first_sixteenth, Kind.Q5_K), (always, Kind.Q4_K)),
    },
    "Q3_K_S": {O: _EIGHT_O},
    "IQ3_M": {
        V: ((always, Kind.Q4_K),),
        O: (*_EIGHT_O, (always, Kind.Q4_K)),
        DOWN: ((first_eighth, Kind.Q4_K), (eight_experts_more_bits, Kind.Q4_K)),
    },
    "IQ3_S": {V: ((shared_kv, Kind.Q4_K),), O: _EIGHT_O},
    "IQ3_XS": {
        Q: ((always, Kind.IQ3_XXS),),
        K: (*_EIGHT_KV, (always, Kind.IQ3_XXS)),
        V: ((shared_kv, Kind.Q4_K),),
        O: _EIGHT_O,
        GATE: ((middle, Kind.IQ3_XXS),),
        UP: ((middle, Kind.IQ3_XXS),),
    },
    "IQ3_XXS": {
        Q: ((always, Kind.IQ2_S),),
        K: (*_EIGHT_KV, (always, Kind.IQ2_S)),
        V: ((shared_kv, Kind.Q4_K), (without_importance, Kind.IQ3_S)),
        O: (*_EIGHT_O, (always, Kind.IQ3_S)),
        DOWN: ((first_eighth_without_importance, Kind.Q4_K), (without_importance, Kind.Q3_K)),
    },
    "Q2_K": {
        V: ((shared_kv, Kind.Q4_K), (always, Kind.Q3_K)),
        O: (*_EIGHT_O, (always, Kind.Q3_K)),
        DOWN: ((always, Kind.Q3_K),),
    },
    "Q2_K_S": {V: ((shared_kv, Kind.Q4_K),), DOWN: ((first_eighth, Kind.Q4_K),)},
    "IQ2_M": _tiny(Kind.IQ3_S, ((always, Kind.IQ3_S),)),
    "IQ2_S": _tiny(Kind.IQ3_S, ((always, Kind.IQ3_S),)),
    "IQ2_XS": _tiny(Kind.Q2_K, ()),
    "IQ2_XXS": _tiny(Kind.Q2_K, ()),
    "IQ1_M": _tiny(Kind.Q2_K, ((always, Kind.IQ2_XXS),)),
    "IQ1_S": _tiny(Kind.Q2_K, ((always, Kind.IQ2_XXS),)),
}  # fmt: skip
TINY = {"IQ2_M", "IQ2_S", "IQ2_XS", "IQ2_XXS", "IQ1_M", "IQ1_S"}

FALLBACK = {
    **dict.fromkeys(
        (Kind.IQ1_S, Kind.IQ1_M, Kind.IQ2_XXS, Kind.IQ2_XS, Kind.IQ2_S, Kind.IQ3_XXS, Kind.IQ3_S, Kind.IQ4_XS),
        Kind.IQ4_NL,
    ),
    **dict.fromkeys((Kind.Q2_K, Kind.Q3_K, Kind.TQ1_0, Kind.TQ2_0), Kind.Q4_0),
    Kind.Q4_K: Kind.Q5_0,
    Kind.Q5_K: Kind.Q5_1,
    Kind.Q6_K: Kind.Q8_0,
    Kind.NVFP4: Kind.IQ4_NL,  # blocks of 64; not in llama-quantize
}


def for_embedding(type: FileType, row: int) -> Kind:
    """The embedding is the head too, and the head is worth good bits."""
    if type.name in ("MXFP4", "NVFP4") or row % GGML_QUANT_SIZES[type.kind][0]:
        return Kind.Q8_0
    if type.name in TINY or type.name == "IQ3_XXS":
        return Kind.Q5_K
    return Kind.Q8_0 if type.kind == Kind.Q8_0 else Kind.Q6_K


def for_place(type: FileType, place: Place) -> Kind:
    rules = RULES.get(type.name, {}).get(place.role, ())
    if place.role in (K, V) and type.name not in (*TINY, "MXFP4", "NVFP4"):
        rules = (*_EIGHT_KV, *rules)
    return next((kind for condition, kind in rules if condition(place)), type.kind)


def fitting(kind: Kind, row: int) -> Kind:
    """``kind``, or what stands in for it where rows of ``row`` values do not divide into its blocks."""
    if row % GGML_QUANT_SIZES[kind][0] == 0:
        return kind
    fallback = FALLBACK.get(kind, kind)
    return Kind.F16 if row % GGML_QUANT_SIZES[fallback][0] else fallback
