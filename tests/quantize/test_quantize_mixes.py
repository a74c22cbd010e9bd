"""Which tensor gets which type: against llama-quantize's own choice, and against what is known of published files."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from ggml_twin import llama_types

from dgemma import RequestError
from dgemma.convert.model import Model
from dgemma.quantize import FILE_TYPES, Plan, Recipe, plan, plan_model
from dgemma.quantize.types import file_type, tensor_type
from random_checkpoint import CheckpointConfig
from released import RELEASED, header_only, model_of

# Shapes that touch every rule: the released ones; key/value heads shared by four; the eight experts that
# llama-quantize singles out; a pruned model; rows that divide by 32 only, and by nothing.
VARIANTS: dict[str, CheckpointConfig] = {
    "released": RELEASED,
    "shared": replace(RELEASED, kv_heads=4),
    "eight": replace(RELEASED, experts=8),
    "eight_shared": replace(RELEASED, experts=8, kv_heads=2, layers=12),
    "pruned": replace(RELEASED, experts=90, layers=24),
    "three": replace(RELEASED, experts=3, experts_used=2, layers=17),
    "narrow": replace(RELEASED, hidden=96, layers=12),
    "odd": replace(RELEASED, expert_ffn=20, ffn=48, layers=12),
}
NOT_IN_LLAMA = {"NVFP4"}

# For the released shapes, matrices only (423 tensors are F32 in each): derived from llama-quantize's rules by hand.
# 30 layers, 25 of them with attn_v; 269 matrices: 30 each of q, k, output, gate, up, down, gate_up_exps, down_exps; 25
# attn_v; token_embd; 3 of the self-conditioning block, of which self_cond_down has rows of 2112. Rows of 704 and 2112
# (61 matrices) take a type of 32-value blocks.
COUNTS = {
    "F32": {"F32": 269},
    "F16": {"F16": 269},
    "BF16": {"BF16": 269},
    "Q8_0": {"Q8_0": 269},
    "Q6_K": {"Q6_K": 208, "Q8_0": 61},
    "Q5_K_M": {"Q5_K": 194, "Q6_K": 14, "Q5_1": 33, "Q8_0": 28},
    "Q5_K_S": {"Q5_K": 207, "Q6_K": 1, "Q5_1": 61},
    "Q4_K_M": {"Q4_K": 194, "Q6_K": 14, "Q5_0": 33, "Q8_0": 28},
    "Q4_K_S": {"Q4_K": 203, "Q5_K": 4, "Q6_K": 1, "Q5_0": 55, "Q5_1": 6},
    "Q4_0": {"Q4_0": 268, "Q6_K": 1},
    "IQ4_NL": {"IQ4_NL": 262, "Q5_1": 6, "Q6_K": 1},
    "IQ4_XS": {"IQ4_XS": 207, "IQ4_NL": 55, "Q5_1": 6, "Q6_K": 1},
    "MXFP4": {"MXFP4": 60, "Q8_0": 209},
    "NVFP4": {"NVFP4": 60, "Q8_0": 209},
    "Q3_K_L": {"Q3_K": 152, "Q5_K": 55, "Q6_K": 1, "Q4_0": 1, "Q5_1": 60},
    "Q3_K_M": {"Q3_K": 152, "Q4_K": 53, "Q5_K": 2, "Q6_K": 1, "Q4_0": 1, "Q5_0": 58, "Q5_1": 2},
    "Q3_K_S": {"Q3_K": 207, "Q6_K": 1, "Q4_0": 61},
    "IQ3_M": {"IQ3_S": 152, "Q4_K": 55, "Q6_K": 1, "IQ4_NL": 55, "Q5_0": 6},
    "Q2_K": {"Q2_K": 152, "Q3_K": 55, "Q6_K": 1, "Q4_0": 61},
    "TQ1_0": {"TQ1_0": 207, "Q6_K": 1, "Q4_0": 61},
    "IQ2_XXS": {"IQ2_XXS": 182, "Q4_K": 25, "Q5_K": 1, "IQ4_NL": 58, "Q4_0": 3},
    "IQ1_S": {"IQ1_S": 152, "IQ2_XXS": 30, "Q4_K": 25, "Q5_K": 1, "IQ4_NL": 58, "Q4_0": 3},
}
# Decimal GB of the whole file, where a published file's size is known (the metadata is 17 MB of it).
GIGABYTES = {"Q4_K_M": 16.807}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Model]:
    folder = tmp_path_factory.mktemp("models")
    return {name: model_of(folder / name, config) for name, config in VARIANTS.items()}


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return header_only(tmp_path_factory.mktemp("released") / "model")


def matrices(made: Plan) -> Counter[str]:
    return Counter(tensor.type for tensor in made.tensors if tensor.name.endswith(".weight") and len(tensor.shape) > 1)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("name", [name for name in FILE_TYPES if name not in NOT_IN_LLAMA])
def test_types_are_those_of_llama_quantize(models: dict[str, Model], variant: str, name: str) -> None:
    model, config = models[variant], VARIANTS[variant]
    recipe = Recipe.named(name)
    free = [i for i, weight in enumerate(model.weights) if weight.fixed is None]
    tensors = [(model.weights[i].name, model.weights[i].shape) for i in free]
    kinds = recipe(model)
    expected = llama_types(
        recipe.type.value,
        tensors,
        layers=config.layers,
        experts=config.experts,
        heads=config.heads,
        kv=config.kv_heads,
    )
    assert [(model.weights[i].name, kinds[i].value) for i in free] == [
        (tensor[0], kind) for tensor, kind in zip(tensors, expected, strict=True)
    ]


@pytest.mark.parametrize("name", COUNTS)
def test_counts_for_the_released_shapes(models: dict[str, Model], name: str) -> None:
    made = plan_model(models["released"], Recipe.named(name))
    assert len(made.tensors) == 692
    counts = matrices(made)
    counts["F32"] -= 30  # the routers
    assert +counts == Counter(COUNTS[name])
    assert sum(tensor.type == "F32" for tensor in made.tensors) == 423 + counts["F32"]


def test_the_published_q4_k_m(released: Path) -> None:
    """423 F32, 194 Q4_K, 33 Q5_0, 28 Q8_0, 14 Q6_K, 16.807 GB: from a checkpoint that is all header."""
    made = plan(released, "q4_k_m")
    assert Counter(tensor.type for tensor in made.tensors) == {
        "F32": 423,
        "Q4_K": 194,
        "Q5_0": 33,
        "Q8_0": 28,
        "Q6_K": 14,
    }
    assert made.bytes + 17e6 == pytest.approx(GIGABYTES["Q4_K_M"] * 1e9, rel=0.01)


def test_the_order_of_the_tensors_does_not_matter(models: dict[str, Model]) -> None:
    model = models["released"]
    backwards = replace(model, weights=model.weights[::-1])
    for name in ("Q4_K_M", "IQ2_XS"):
        recipe = Recipe.named(name)
        assert recipe(backwards)[::-1] == recipe(model)


# Without an importance matrix some early feed-forward tensors get more bits, with one others do; see mixes.py.
WITH_IMPORTANCE = {
    "IQ4_XS": {"IQ4_XS": 207, "IQ4_NL": 61, "Q6_K": 1},
    "IQ4_NL": {"IQ4_NL": 268, "Q6_K": 1},
    "Q4_0": {"Q4_0": 262, "Q4_1": 6, "Q6_K": 1},
    "Q5_0": {"Q5_0": 262, "Q5_1": 6, "Q6_K": 1},
    "IQ3_XXS": {"IQ3_XXS": 92 + 25, "IQ2_S": 60, "IQ3_S": 30, "IQ4_NL": 61, "Q5_K": 1},
}


@pytest.mark.parametrize("name", FILE_TYPES)
def test_what_an_importance_matrix_changes(models: dict[str, Model], name: str) -> None:
    without = plan_model(models["released"], Recipe.named(name))
    given = plan_model(models["released"], Recipe.named(name, has_importance=True))
    counts = matrices(given)
    counts["F32"] -= 30
    assert (without.tensors != given.tensors) == (name in WITH_IMPORTANCE)
    if name in WITH_IMPORTANCE:
        assert +counts == Counter(WITH_IMPORTANCE[name])


def test_which_mixes_need_an_importance_matrix(models: dict[str, Model]) -> None:
    needing = {
        name
        for name in FILE_TYPES
        if any(tensor.needs_importance for tensor in plan_model(models["released"], Recipe.named(name)).tensors)
    }
    # IQ3_XS and IQ3_XXS: of attention's queries and keys, and more
    assert needing == {"IQ3_XS", "IQ3_XXS", "Q2_K_S", "IQ2_M", "IQ2_S", "IQ2_XS", "IQ2_XXS", "IQ1_M", "IQ1_S"}


def test_overrides(models: dict[str, Model]) -> None:
    def types(*overrides: str, pure: bool = False) -> dict[str, str]:
        made = plan_model(models["released"], Recipe.named("Q4_K_M", overrides, pure=pure))
        return {tensor.name: tensor.type for tensor in made.tensors}

    usual = types()
    assert types("ffn_down_exps=iq4_nl") == {
        name: "IQ4_NL" if name.endswith("ffn_down_exps.weight") else type for name, type in usual.items()
    }
    first = types(r"blk\.0\.=bf16", "blk=q5_K")
    assert (first["blk.0.attn_q.weight"], first["blk.1.attn_q.weight"]) == ("BF16", "Q5_K")
    assert (first["blk.1.ffn_down.weight"], first["token_embd.weight"]) == ("Q5_1", "Q6_K")  # 2112 does not divide
    assert first["blk.0.attn_norm.weight"] == first["blk.1.ffn_gate_inp.weight"] == "F32"
    assert set(types(pure=True).values()) == {"F32", "Q4_K", "Q5_0"}


@pytest.mark.parametrize(
    ("overrides", "problem"),
    [
        (["ffn_down"], "is no pattern and type: write it like ffn_down_exps=iq4_nl"),
        (["=q8_0"], "is no pattern and type"),
        (["ffn=q4_k_m"], "no tensor has the type 'q4_k_m': that is a mix of types for a whole file"),
        (["ffn=q4_x"], "no tensor has the type 'q4_x': the nearest are "),
        (["(=q8_0"], "is no regular expression"),
        (["ffn_dwn=q8_0"], "no tensor that can be quantised has a name matching 'ffn_dwn'"),
        (["_norm=q8_0"], "no tensor that can be quantised has a name matching '_norm'"),
    ],
)
def test_overrides_that_cannot_be(models: dict[str, Model], overrides: list[str], problem: str) -> None:
    with pytest.raises(RequestError, match=problem):
        Recipe.named("Q4_K_M", overrides)(models["released"])


def test_names() -> None:
    assert file_type("q4_k_m") is file_type("Q4_K") is file_type(" q4-k-m ") is FILE_TYPES["Q4_K_M"]
    assert file_type("mxfp4_moe") is FILE_TYPES["MXFP4"]
    assert (file_type("fp16").name, file_type("Q3_K").name, file_type("q5_k").name) == ("F16", "Q3_K_M", "Q5_K_M")
    values = {name: int(FILE_TYPES[name].value) for name in ("Q4_K_M", "IQ4_XS", "BF16", "F32")}
    assert values == {"Q4_K_M": 15, "IQ4_XS": 30, "BF16": 32, "F32": 0}
    assert tensor_type("q4_K").name == "Q4_K"
    with pytest.raises(RequestError, match=r"type 'Q4_KM' is unknown; the nearest are Q4_K_M, "):
        file_type("Q4_KM")
    with pytest.raises(RequestError, match=r"type 'large' is unknown; choose one of F32, F16, BF16, Q8_0, "):
        file_type("large")
