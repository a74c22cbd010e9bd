"""What an importance matrix means: its means, merging, fitting a model, and what quantising with it gives."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from gguf import GGUFReader

from dgemma import Engine, RequestError
from dgemma.quantize import Imatrix, merge, plan, quantize, read_imatrix
from dgemma.quantize.imatrix import PRIOR_ROWS, Inputs, importance_for
from dgemma.quantize.quantizer import open_model
from dgemma.quantize.rows import dequantize_rows


def inputs(squares: list[list[float]], rows: list[int]) -> Inputs:
    return Inputs(np.array(squares), np.array(rows, np.float64))


# ------------------------------------------------------------------------------------------------ means


def test_one_matrix_has_the_plain_mean() -> None:
    np.testing.assert_array_equal(inputs([[6, 0, 3]], [3]).mean(), [[2, 0, 1]])


def test_an_expert_with_few_rows_is_drawn_to_the_mean_of_all() -> None:
    """As if each had seen PRIOR_ROWS more rows of the average; so one without any has the average."""
    squares, rows = [[40000.0, 0.0], [8.0, 16.0], [0.0, 0.0]], [10000, 8, 0]
    overall = np.array([40008.0, 16.0]) / 10008
    mean = inputs(squares, rows).mean()
    np.testing.assert_allclose(mean[0], [4, 0], atol=1e-4)
    np.testing.assert_allclose(mean[1], (np.array([8.0, 16.0]) + PRIOR_ROWS * overall) / (8 + PRIOR_ROWS), rtol=1e-6)
    np.testing.assert_allclose(mean[2], overall, rtol=1e-6)
    assert mean.dtype == np.float32
    assert inputs(squares, rows).unseen() == [2]
    matrix = Imatrix(
        {"experts": inputs(squares, rows), "dense": inputs([[1.0]], [1]), "never": inputs([[0.0]] * 2, [0, 0])}
    )
    assert matrix.unseen() == {"experts": [2]}
    assert matrix.lacks(["dense", "never", "experts", "unknown"]) == ["never", "unknown"]


# ------------------------------------------------------------------------------------------------ merging


def test_merging_adds_rows() -> None:
    one = Imatrix({"a": inputs([[1, 2]], [3]), "b": inputs([[1], [2]], [1, 0])}, ("x",), 2, 512, "run")
    two = Imatrix({"a": inputs([[10, 20]], [4]), "c": inputs([[5]], [1])}, ("y",), 3, 256)
    both = merge([one, two])
    np.testing.assert_array_equal(both.entries["a"].squares, [[11, 22]])
    np.testing.assert_array_equal(both.entries["a"].rows, [7])
    assert set(both.entries) == {"a", "b", "c"}
    assert (both.datasets, both.chunk_count, both.chunk_size, both.run) == (("x", "y"), 5, 512, "")


@pytest.mark.parametrize("order", [1, -1])
def test_merging_with_an_old_file_that_knows_no_experts(order: int) -> None:
    old = Imatrix({"a": inputs([[1, 2, 3, 4]], [10])})
    new = Imatrix({"a": inputs([[1, 1], [1, 1]], [5, 6])})
    merged = merge([old, new][::order]).entries["a"]
    np.testing.assert_array_equal(merged.squares, [[2, 3], [4, 5]])
    np.testing.assert_array_equal(merged.rows, [15, 16])


def test_merging_matrices_of_different_models() -> None:
    one, two = Imatrix({"a": inputs([[1, 2]], [3])}), Imatrix({"a": inputs([[1, 2, 3]], [3])}, source="two.gguf")
    with pytest.raises(RequestError, match=r"^two.gguf: a has 1 x 3 values, but 1 x 2 in the others: it is of another"):
        merge([one, two])


# ------------------------------------------------------------------------------------------------ models


def test_every_tensor_that_is_quantised_has_importance(wide_float: Path, wide_imatrix: Imatrix) -> None:
    weights = open_model(wide_float).weights
    importance = importance_for(wide_imatrix, weights)
    assert set(importance) == {weight.name for weight in weights if weight.fixed is None}
    assert importance["blk.0.ffn_gate_up_exps.weight"].shape == (4, 256)
    assert all((values > 0).all() for values in importance.values())


def test_a_matrix_of_another_model(float_gguf: Path, wide_imatrix: Imatrix, out: Path) -> None:
    sentence = r"^.*imatrix\.gguf: token_embd\.weight has 1 x 256 values, but the model's tensor 1 x 64: the importance"
    with pytest.raises(RequestError, match=sentence):
        quantize(float_gguf, out, "Q4_0", imatrix=wide_imatrix)
    with pytest.raises(RequestError, match=sentence):
        plan(float_gguf, "Q4_0", imatrix=wide_imatrix)
    stranger = Imatrix({"output.weight": inputs([[1.0]], [1])}, source="other.gguf")
    with pytest.raises(RequestError, match=r"^other.gguf: has no values for any tensor of the model"):
        quantize(float_gguf, out, "Q4_0", imatrix=stranger)
    assert not out.exists()


def test_a_tensor_that_the_matrix_lacks(wide_float: Path, wide_imatrix: Imatrix, out: Path, tmp_path: Path) -> None:
    """It is quantised as without a matrix, where its type allows; else it is named."""
    name = "blk.1.attn_output.weight"
    partial = replace(wide_imatrix, entries={k: v for k, v in wide_imatrix.entries.items() if k != name})
    with pytest.raises(RequestError, match=rf"^{name} would be IQ2_XXS, which needs an importance matrix"):
        quantize(wide_float, out, "IQ2_XXS", imatrix=partial)
    quantize(wide_float, out, "Q4_K_S", imatrix=partial)
    quantize(wide_float, tmp_path / "without.gguf", "Q4_K_S")
    with_it, without = (
        {t.name: t.data.tobytes() for t in GGUFReader(p).tensors} for p in (out, tmp_path / "without.gguf")
    )
    assert with_it[name] == without[name]
    assert with_it["blk.1.attn_q.weight"] != without["blk.1.attn_q.weight"]


# ------------------------------------------------------------------------------------------------ quantising


def weighted_error(path: Path, floats: Path, importance: dict[str, np.ndarray]) -> dict[str, float]:
    """For each quantised tensor, the sum over its values of importance times squared error."""
    original = {tensor.name: tensor.data for tensor in GGUFReader(floats).tensors}
    errors = {}
    for tensor in GGUFReader(path).tensors:
        if tensor.name in importance:
            matrices, columns = len(importance[tensor.name]), original[tensor.name].shape[-1]
            rows = np.ascontiguousarray(
                tensor.data.view(np.uint8).reshape(-1, tensor.data.shape[-1] * tensor.data.itemsize)
            )
            error = dequantize_rows(rows, tensor.tensor_type).reshape(matrices, -1, columns)
            error -= original[tensor.name].reshape(matrices, -1, columns)
            errors[tensor.name] = float((error**2 * importance[tensor.name][:, None]).sum())
    return errors


@pytest.mark.parametrize("name", ["Q4_K", "Q3_K", "IQ4_NL", "Q5_0", "Q2_K"])
def test_the_weighted_error_is_smaller(wide_float: Path, wide_imatrix: Imatrix, out: Path, name: str) -> None:
    part = [rf"blk\.[01]\.(attn|ffn)={name}"]
    importance = importance_for(wide_imatrix, open_model(wide_float).weights)
    measured = []
    for imatrix in (None, wide_imatrix):
        quantize(wide_float, out, "Q8_0", overrides=part, imatrix=imatrix, force=True)
        measured.append(weighted_error(out, wide_float, importance))
    without, with_it = ({k: v for k, v in one.items() if k.startswith(("blk.0", "blk.1"))} for one in measured)
    assert sum(with_it.values()) < sum(without.values())
    assert np.mean([with_it[key] < without[key] for key in without]) > 0.8


@pytest.mark.parametrize("name", ["IQ1_S", "IQ2_XXS", "IQ2_M", "IQ3_XXS", "Q2_K_S"])
def test_the_smallest_types_run(wide_float: Path, wide_imatrix: Imatrix, out: Path, name: str) -> None:
    """Those that cannot be made without a matrix, end to end; only the first layer, because they are slow to search."""
    assert any(tensor.needs_importance for tensor in plan(wide_float, name).tensors)
    quantize(wide_float, out, name, overrides=[r"blk\.[1-9]|exps=q8_0"], imatrix=wide_imatrix)
    with Engine(out, n_ctx=64) as engine:
        session = engine.session()
        session.prefill([2, 5, 9])
        assert np.isfinite(session.denoise(np.arange(16))).all()
        assert engine.info.file_type.startswith(name)


def test_the_file_says_what_it_was_quantised_with(
    wide_float: Path, wide_imatrix: Imatrix, out: Path, tmp_path: Path
) -> None:
    quantize(wide_float, out, "Q4_0", imatrix=wide_imatrix)

    def note(path: Path) -> dict[str, object]:
        fields = GGUFReader(path).fields
        return {name: field.contents() for name, field in fields.items() if name.startswith("quantize.")}

    assert note(out) == {
        "quantize.imatrix.file": "imatrix.gguf",
        "quantize.imatrix.dataset": "text.txt",
        "quantize.imatrix.entries_count": len(wide_imatrix.entries),
        "quantize.imatrix.chunks_count": 2,
    }
    again = tmp_path / "again.gguf"
    quantize(out, again, "Q4_0", allow_requantize=True)
    assert note(again) == {}
    other = replace(read_imatrix(wide_imatrix.source), datasets=("other.txt",))
    quantize(out, again, "Q5_0", allow_requantize=True, imatrix=other, force=True)
    assert note(again)["quantize.imatrix.dataset"] == "other.txt"
