"""Passes whose layers our kernels compute but for their attention: the engine on a stand-in card that the emulation
takes for its own, against the same engine with ggml's graphs alone."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import answers
import numpy as np
import pytest
from emulation import Emulation
from engine.standin import build_cards

from dgemma import Engine, RequestError
from dgemma.convert import convert
from dgemma.quantize import quantize
from oracle.cases import checkpoint_for, load_case

HIDDEN, USED, EXPERT_FFN, CHUNK = 64, 2, 32, 256


@dataclass(frozen=True)
class Case:
    name: str
    type: str
    lengths: tuple[int, ...] = (1, 21)  # of what is encoded
    card: str = "CARD"  # "BF16" in the name: one with fast BF16


CASES = [
    Case("early", "q8_0", (1, 21, 270)),  # the last one in two passes, and with more keys than one round of 256
    Case("heads256", "q8_0"),  # the released model's heads, of 256 and 512 values
    Case("hidden256", "q4_k_s"),  # weights in blocks of 256
    Case("hidden256", "iq4_xs"),
    Case("early", "q8_0", card="CARD_BF16_"),
    Case("hidden256", "iq4_xs", card="CARD_BF16_"),
]


@pytest.fixture(scope="module", params=CASES, ids=lambda case: f"{case.name}, {case.card}0")
def case(request: pytest.FixtureRequest) -> Case:
    return request.param


@pytest.fixture(scope="module")
def model(case: Case, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("layers")
    convert(checkpoint_for(load_case(case.name), folder), folder / "model.gguf", type=case.type)
    return folder / "model.gguf"


@pytest.fixture(scope="module")
def found(case: Case, model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """In a process of its own: what is registered with ggml stays registered."""
    process, library = Emulation(), build_cards(tmp_path_factory.mktemp("cards"))
    both: dict[str, dict[str, Any]] = process.call(
        "own_layers", model=str(model), library=str(library), card=case.card, lengths=case.lengths
    )
    process.close()
    return both


def test_each_computes_what_it_was_asked_for(found: dict[str, dict[str, Any]]) -> None:
    assert found["own"]["whose"] == "own"
    assert found["ggml"]["whose"] == "ggml"


def typical(values: list[np.ndarray]) -> np.ndarray:
    """Of each pass, the length of a position in the middle: a route that rounding turns moves some by much more."""
    return np.array([np.median(np.linalg.norm(one, axis=1)) for one in values])


def test_logits_are_as_near_to_exact_ones_as_ggmls(
    found: dict[str, dict[str, Any]], case: Case, model: Path, tmp_path: Path
) -> None:
    """Both passes, one token and many, conditioned and not, beside the same weights in F32: ggml's products with
    quantised ones round rows to 8 bits as ours do."""
    quantize(model, tmp_path / "f32.gguf", "F32", allow_requantize=True)
    with Engine(tmp_path / "f32.gguf", n_ctx=600, n_threads=1, n_gpu_layers=0, exact=True) as engine:
        exact = answers.pass_logits(engine.session(), engine.info.canvas_length, case.lengths)
    ours, theirs = ([a - b for a, b in zip(found[name]["logits"], exact, strict=True)] for name in ("own", "ggml"))
    assert (typical(ours) < 1.25 * typical(theirs)).all()
    assert (typical(ours) < 0.05 * typical(exact)).all()
    assert (typical([a - b for a, b in zip(ours, theirs, strict=True)]) > 0).all()  # another kernel did it


def test_an_answer_is_finite(found: dict[str, dict[str, Any]]) -> None:
    assert all(np.isfinite(step["entropy"]).all() for step in found["own"]["steps"])
    assert len(found["own"]["steps"]) > 3


def test_the_graphs_of_attention_are_repeated(found: dict[str, dict[str, Any]]) -> None:
    """One a layer, each as it was in the step before: what ggml-cuda asks before it replays."""
    counts = [count for count in found["own"]["counts"] if count[0] > 1]
    assert len(counts) > 3
    n_layer = found["own"]["n_layer"]
    assert {(ran, again) for _, ran, again in counts} == {(n_layer, n_layer)}
    assert {ran for step, ran, _ in found["ggml"]["counts"] if step > 1} == {1}


def test_memory_is_within_the_plan(found: dict[str, dict[str, Any]], case: Case) -> None:
    planned, taken = (found["own"][name][f"{case.card}0"] for name in ("planned", "taken"))
    assert taken["compute"] <= planned["compute"]
    assert taken["compute"] > 0.9 * planned["compute"]
    assert taken["compute"] >= CHUNK * USED * (HIDDEN * 4 + EXPERT_FFN)  # what our kernels have between them, at least
    assert taken["sampler"] == planned["sampler"]
    for whose in ("own", "ggml"):
        assert not found[whose]["taken"]["CPU"].get("compute")  # the card does everything


def test_looking_on_by_part_changes_nothing(found: dict[str, dict[str, Any]]) -> None:
    names = ["attention", "dense_ffn", "embedding", "experts", "head", "router", "self_conditioning"]
    assert found["own"]["parts"] == found["ggml"]["parts"] == names
    np.testing.assert_array_equal(found["own"]["by_part"], found["own"]["whole"])


@pytest.mark.parametrize(
    ("placement", "why"),
    [
        ({"n_gpu_layers": 0}, "no card holds the whole model"),
        ({"kv_type": "f32"}, "their cache is F16, and F32 was asked for"),
        ({"exact": True}, "exact has ggml's products alone"),
    ],
)
def test_what_stands_against_them_is_said(
    emulation: Emulation, model: Path, placement: dict[str, Any], why: str
) -> None:
    whose, said = emulation.call("layers_note", model=str(model), **placement)
    assert whose == "ggml"
    assert said == [f'card_layers is "own", but ggml computes the layers: {why}']


def test_another_word_is_refused(model: Path) -> None:
    with pytest.raises(RequestError, match=r"^card_layers must be \"ggml\" or \"own\", not 'ours'$"):
        Engine(model, card_layers="ours")  # type: ignore[arg-type]


UNFIT = {  # tensors of another type -> what is said
    "self_cond_up=f16": r"self_cond_gate\.weight and self_cond_up\.weight are of different types",
    "ffn_(gate|up)\\.weight=f16": r"there is no kernel for blk\.0\.ffn_gate\.weight of type f16",
    "blk.1.attn_v=mxfp4": r"there is no kernel for blk\.1\.attn_v\.weight of type mxfp4",
    "ffn_down_exps=f16": r"there is no kernel for experts of q8_0 and f16 in this model's sizes",
}


def test_what_a_model_lacks_is_said(tmp_path: Path) -> None:
    checkpoint = checkpoint_for(load_case("early"), tmp_path)
    models = [tmp_path / f"{i}.gguf" for i in range(len(UNFIT))]
    for model, override in zip(models, UNFIT, strict=True):
        quantize(checkpoint, model, "Q8_0", overrides=[override])
    process = Emulation()
    notes = process.call("notes_on_a_card", models=[str(m) for m in models], library=str(build_cards(tmp_path)))
    process.close()
    for (whose, said), why in zip(notes, UNFIT.values(), strict=True):
        assert whose == "ggml"
        assert len(said) == 1
        assert re.fullmatch(f'card_layers is "own", but ggml computes the layers: {why}', said[0])


def test_a_long_pass(tmp_path: Path) -> None:
    """What a token's layers make of it does not depend on how many others there are; only attention's sums do."""
    convert(checkpoint_for(load_case("early"), tmp_path), tmp_path / "model.gguf", type="q8_0")
    process = Emulation()
    arguments = {"model": str(tmp_path / "model.gguf"), "library": str(build_cards(tmp_path)), "batches": (530, 256)}
    one, three = process.call("passes_of", **arguments)
    process.close()
    assert typical([one - three])[0] < 1e-3 * typical([one])[0]
