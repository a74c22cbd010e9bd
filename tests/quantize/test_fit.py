"""Types chosen for an amount of memory: what was measured, what fits, what is refused."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from gguf import GGMLQuantizationType as Kind
from gguf.quants import dequantize

from dgemma import CheckpointError, Engine, RequestError, plan_devices
from dgemma._native import core
from dgemma.convert.safetensors_file import read_header
from dgemma.quantize import Fit, fit, fit_model, plan, quantize
from dgemma.quantize.damage import SAMPLED_ROWS, measure, sample_places
from dgemma.quantize.fitting import _uses
from dgemma.quantize.memory import memory_beside_weights
from dgemma.quantize.quantizer import open_model
from dgemma.quantize.rows import quantize_rows
from outliers import add_outliers, chosen
from released import RELEASED, hollow_gguf, model_of

CONTEXT = 600


@pytest.fixture(scope="module")
def uneven(wide: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wide checkpoint with columns that stand out in a third of the matrices."""
    folder = Path(shutil.copytree(wide, tmp_path_factory.mktemp("uneven") / "model"))
    assert len(add_outliers(folder)) > 5
    return folder


def beside(folder: Path) -> int:
    """What running takes beside the weights."""
    return sum(memory_beside_weights(open_model(folder), CONTEXT)[1].values())


def fitted_like(folder: Path, mix: str) -> Fit:
    """In the bytes of a named mix."""
    return fit(folder, plan(folder, mix).bytes + beside(folder), n_ctx=CONTEXT, reserve=0)


# ------------------------------------------------------------------------------------------------ measuring


@pytest.mark.parametrize("kind", [Kind.Q8_0, Kind.Q4_K, Kind.Q3_K])
@pytest.mark.parametrize("per_expert", [False, True])
def test_the_error_is_that_of_the_sampled_rows(wide: Path, kind: Kind, per_expert: bool) -> None:
    """Beside gguf's own dequantisation and one row after the other, in float64."""
    weight = next(w for w in open_model(wide).weights if w.name == "blk.0.ffn_gate_up_exps.weight")
    experts, rows, columns = weight.shape
    all_rows = np.fromfile(weight.source.file, "<f4", weight.size, offset=weight.source.begin).reshape(-1, columns)
    shape = (experts, columns) if per_expert else (columns,)
    importance = np.random.default_rng(3).uniform(0.1, 10, shape).astype(np.float32)
    error = energy = 0.0
    for place in sample_places(experts * rows, experts):
        w = importance[place // rows] if per_expert else importance
        x = all_rows[place : place + 1]
        restored = dequantize(quantize_rows(x, kind, w), kind).astype(np.float64)
        error += float((w * (restored - x) ** 2).sum())
        energy += float((w * x.astype(np.float64) ** 2).sum())
    found = measure({weight: (kind, Kind.F32)}, {weight.name: importance}, threads=2)
    assert found == {weight.name: {kind: pytest.approx(error / energy, rel=1e-4), Kind.F32: 0.0}}


@pytest.mark.parametrize(("rows", "matrices"), [(262144, 1), (128 * 1408, 128), (8 * 100, 8), (3, 1), (200 * 5, 200)])
def test_the_sample_is_spread_over_rows_and_matrices(rows: int, matrices: int) -> None:
    places = sample_places(rows, matrices)
    per_matrix = rows // matrices
    assert places == sorted(set(places))
    assert 0 <= places[0] < places[-1] < rows or rows == 1
    found = np.bincount(np.array(places) // per_matrix, minlength=matrices)
    assert set(found) == {min(per_matrix, max(1, SAMPLED_ROWS // matrices))}
    if len(places) >= SAMPLED_ROWS:  # no half of the matrices' rows is favoured, nor their even ones
        inside = np.array(places) % per_matrix
        assert abs((inside < per_matrix / 2).mean() - 0.5) < 0.1
        assert per_matrix < 10 or abs((inside % 2).mean() - 0.5) < 0.15


def test_importance_that_is_nothing_counts_as_none(wide: Path) -> None:
    weight = next(w for w in open_model(wide).weights if w.name == "blk.0.attn_q.weight")
    zeros = {weight.name: np.zeros(weight.shape[-1], np.float32)}
    assert measure({weight: (Kind.Q8_0,)}, zeros)[weight.name][Kind.Q8_0] > 0


def test_a_weight_that_is_no_number_is_refused_by_name(pristine: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(pristine, tmp_path / "spoiled"))
    tensor = read_header(folder / "model.safetensors")["model.decoder.layers.1.mlp.up_proj.weight"]
    values = np.memmap(tensor.file, "<f4", "r+", tensor.begin, tensor.shape)
    values[7, 3] = np.nan
    values.flush()
    with pytest.raises(CheckpointError, match=r"layers\.1\.mlp\.up_proj\.weight': a value in row 7 is infinite or not"):
        fit(folder, 10**9)


def test_types_that_cannot_hold_a_value_are_not_chosen(pristine: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(pristine, tmp_path / "large"))
    tensor = read_header(folder / "model.safetensors")["model.decoder.layers.1.mlp.up_proj.weight"]
    values = np.memmap(tensor.file, "<f4", "r+", tensor.begin, tensor.shape)
    values[7, 3] = 1e30
    values.flush()
    weight = next(w for w in open_model(folder).weights if w.name == "blk.1.ffn_up.weight")
    assert set(measure({weight: (Kind.F16, Kind.BF16, Kind.Q4_0)})[weight.name]) == {Kind.BF16}


# ------------------------------------------------------------------------------------------------ choosing


@pytest.mark.parametrize("mix", ["Q6_K", "Q4_K_M", "IQ4_XS", "Q3_K_M"])
@pytest.mark.parametrize("outliers", [False, True])
def test_at_equal_bytes_it_loses_less_than_a_named_mix(wide: Path, uneven: Path, mix: str, outliers: bool) -> None:
    folder = uneven if outliers else wide
    fitted = fitted_like(folder, mix)
    assert fitted.mix is not None
    assert (fitted.mix.bytes, fitted.left >= 0) == (plan(folder, mix).bytes, True)
    assert fitted.damage < fitted.mix.damage


def test_never_worse_than_the_mix_that_fits_to_the_byte(wide: Path) -> None:
    fitted = fitted_like(wide, "Q8_0")
    assert fitted.mix is not None
    assert fitted.damage <= fitted.mix.damage


def test_tensors_with_outliers_get_more_bits(wide: Path, uneven: Path) -> None:
    def bits(fitted: Fit) -> dict[str, float]:
        return {tensor.name: 8 * tensor.bytes / tensor.values for tensor in fitted.chosen}

    plain, adapted = (fitted_like(folder, "Q4_K_M") for folder in (wide, uneven))
    errors = [{t.name: t.error for t in fitted.chosen} for fitted in (plain, adapted)]
    assert errors[0] != errors[1]
    stored = {weight.source.name: weight.name for weight in open_model(uneven).weights if weight.fixed is None}
    changed = {stored[name] for name in changed_names(uneven) if name in stored}
    more = np.mean([bits(adapted)[name] - bits(plain)[name] for name in changed])
    less = np.mean([bits(adapted)[name] - bits(plain)[name] for name in set(bits(plain)) - changed])
    assert more > 0 > less


def changed_names(folder: Path) -> list[str]:
    return [tensor.name for tensor in chosen(read_header(folder / "model.safetensors").values())]


def test_more_memory_is_less_damage_down_to_none(wide: Path) -> None:
    least = smallest(wide)
    damages = [fit(wide, budget, n_ctx=CONTEXT, reserve=0).damage for budget in (least, least + 10**6, least + 10**7)]
    assert damages[0] > damages[1] > damages[2]
    everything = fit(wide, 10**9, n_ctx=CONTEXT)
    assert everything.damage == 0
    assert {tensor.type for tensor in everything.plan.tensors} == {"F32"}


@pytest.mark.parametrize("type", ["Q4_K_M", "Q8_0", "Q2_K"])
def test_a_card_of_that_size_holds_all_of_it(tmp_path: Path, type: str) -> None:
    """At the released model's shapes, by the plan that the engine makes for a card, whose buffers are not the CPU's."""
    _, counted = memory_beside_weights(open_model(hollow_gguf(tmp_path / "source.gguf", "BF16")), 8192)
    card = plan_devices(hollow_gguf(tmp_path / "m.gguf", type), 8192, device_memory=[1 << 40]).memory["GPU0"]
    for purpose in ("kv", "compute", "sampler"):
        assert card[purpose] <= counted[purpose], purpose


def test_the_same_on_any_number_of_threads(uneven: Path) -> None:
    budget = plan(uneven, "Q4_K_M").bytes + beside(uneven)
    one, three = (fit(uneven, budget, n_ctx=CONTEXT, reserve=0, threads=threads) for threads in (1, 3))
    assert (one.plan, one.chosen) == (three.plan, three.chosen)


def test_uses_of_the_released_model(tmp_path: Path) -> None:
    uses = _uses(model_of(tmp_path / "released", RELEASED))
    assert {name for name, count in uses.items() if count == 2} == {
        *(f"blk.{i}.ffn_gate_up_exps.weight" for i in range(30)), *(f"blk.{i}.attn_k.weight" for i in range(5, 30, 6)),
    }  # fmt: skip
    assert [name for name, count in uses.items() if count == 3] == ["token_embd.weight"]


def test_overrides_stay(wide: Path) -> None:
    budget = plan(wide, "Q6_K").bytes + beside(wide)
    fitted = fit(wide, budget, n_ctx=CONTEXT, reserve=0, overrides=[r"attn_q=q4_0"])
    assert {tensor.type for tensor in fitted.chosen if "attn_q." in tensor.name} == {"Q4_0"}
    assert fitted.left >= 0
    with pytest.raises(RequestError, match="no tensor that can be quantised has a name matching 'nothing'"):
        fit(wide, budget, overrides=["nothing=q4_0"])


def test_rows_that_no_block_divides(pristine: Path, out: Path) -> None:
    fitted = fit(pristine, smallest(pristine, 64), n_ctx=64, reserve=0)
    assert {tensor.type for tensor in fitted.chosen if tensor.name.endswith("ffn_down_exps.weight")} <= {"F16", "BF16"}
    assert fitted.mix is None or fitted.mix.bytes <= fitted.plan.bytes
    fitted.write(out)
    with Engine(out, n_ctx=64) as engine:
        engine.session().prefill([2, 5, 9])


# ------------------------------------------------------------------------------------------------ importance


def test_an_importance_matrix_allows_smaller_types_where_it_has_the_tensor(
    wide: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # One of them: ggml takes twenty seconds to make its tables for all.
    monkeypatch.setattr("dgemma.quantize.fitting._WIDE_WITH_IMPORTANCE", (Kind.IQ2_XXS,))
    names = {f"blk.{i}.attn_q.weight" for i in range(3)}
    free = {weight.name: weight.shape[-1] for weight in open_model(wide).weights if weight.fixed is None}
    importance = {name: np.ones(free[name], np.float32) for name in names}
    without = smallest(wide)
    with pytest.raises(RequestError, match="no choice of types runs in") as refusal:
        fit(wide, 10**4, n_ctx=CONTEXT, reserve=0, importance=importance)
    assert "importance" not in str(refusal.value)
    least = smallest_of(str(refusal.value))
    assert least < without
    fitted = fit(wide, least, n_ctx=CONTEXT, reserve=0, importance=importance)
    assert {tensor.name for tensor in fitted.chosen if tensor.type == "IQ2_XXS"} == names
    fitted.write(out)
    assert core.read_gguf(out).metadata["general.architecture"] == "diffusion-gemma"


def test_an_importance_that_does_not_fit_is_refused(wide: Path) -> None:
    importance = {"blk.0.attn_q.weight": np.ones(7, np.float32)}
    with pytest.raises(RequestError, match=r"the importance of blk\.0\.attn_q\.weight has 7 values of float32"):
        fit(wide, 10**9, importance=importance)
    with pytest.raises(RequestError, match=r"attn_v\.weight would be IQ2_XXS, which needs an importance matrix"):
        fit(wide, 10**9, overrides=["attn_v=iq2_xxs"])


# ------------------------------------------------------------------------------------------------ memory


def test_the_file_takes_the_memory_that_was_planned(uneven: Path, out: Path) -> None:
    budget = plan(uneven, "Q4_K_M").bytes + beside(uneven) + 10**6
    fitted = fit(uneven, budget, n_ctx=CONTEXT, reserve=10**6)
    report = fitted.write(out)
    assert report.plan == fitted.plan
    planned = core.plan_memory(out, CONTEXT, "f16", 256)["CPU"]
    # Two scalars a layer become numbers in the graph.
    assert planned["weights"] == fitted.memory["weights"] - 2 * 4 * 3
    assert (planned["kv"], planned["sampler"]) == (fitted.memory["kv"], fitted.memory["sampler"])
    assert 0 < planned["compute"] <= fitted.memory["compute"]
    assert sum(planned.values()) + 10**6 <= budget
    with Engine(out, n_ctx=CONTEXT) as engine:
        session = engine.session()
        session.prefill([2, 5, 9])
        assert sum(sum(uses.values()) for uses in engine.memory.values()) <= budget


@pytest.mark.parametrize("type", ["F32", "Q8_0", "Q4_K_M", "Q2_K", "MXFP4"])
def test_no_type_takes_more_beside_the_weights(wide: Path, out: Path, type: str) -> None:
    quantize(wide, out, type)
    planned = core.plan_memory(out, CONTEXT, "f16", 256)["CPU"]
    assert sum(planned.values()) - planned["weights"] <= beside(wide)


def test_the_context_is_8192_or_the_models_own(wide: Path, pristine: Path) -> None:
    assert fit(pristine, 10**10).n_ctx == 4096
    sizes = [fit(wide, 10**10, n_ctx=n_ctx).memory["kv"] for n_ctx in (600, 1200)]
    assert sizes[0] < sizes[1]
    with pytest.raises(RequestError, match="n_ctx is 999999; the model was made for at most 4096 positions"):
        fit(pristine, 10**10, n_ctx=999_999)


def smallest_of(message: str) -> int:
    found = re.search(r"the smallest takes (\d+\.\d+) MB", message)
    assert found
    return round(float(found[1]) * 1e6)


def smallest(folder: Path, n_ctx: int = CONTEXT) -> int:
    """The bytes that the refusal of ten kilobytes names."""
    with pytest.raises(RequestError, match=r"no choice of types runs in 0\.01 MB") as refusal:
        fit(folder, 10**4, n_ctx=n_ctx, reserve=0)
    return smallest_of(str(refusal.value))


def test_a_budget_below_the_floor_names_the_smallest(wide: Path) -> None:
    least = smallest(wide)
    assert fit(wide, least, n_ctx=CONTEXT, reserve=0).left >= 0
    needs = r": no choice of types runs in 10\.00 MB: the smallest takes 50\d\.\d\d MB \(.*, 500\.00 MB in reserve\); "
    hint = "a smaller context takes less, and an importance matrix allows smaller types"
    with pytest.raises(RequestError, match=needs + hint):
        fit(wide, 10**7)


def test_what_is_quantised_already_is_refused(quantised_gguf: Path, float_gguf: Path, pristine: Path) -> None:
    with pytest.raises(RequestError, match=r"is quantised already .* insist with allow_requantize"):
        fit(quantised_gguf, 10**10)
    assert fit(quantised_gguf, 10**10, allow_requantize=True).damage == 0  # copied
    sources = [fit(source, 5 * 10**6, n_ctx=64, reserve=0) for source in (float_gguf, pristine)]
    assert sources[0].chosen == sources[1].chosen


def test_an_open_model_keeps_its_order(wide: Path) -> None:
    model = open_model(wide)
    fitted = fit_model(model, 10**9, n_ctx=CONTEXT)
    assert [t.name for t in fitted.plan.tensors] == [w.name for w in model.weights]
