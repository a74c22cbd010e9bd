"""What lies between a layer's products on a card, beside numpy in F64: norms, residuals, the router."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from dgemma import RequestError

EPS = 1e-6
ROUNDING = 4e-6  # of an F32 value, by the largest of its row: sums of squares and a few products
BF16_ROUNDING = 2.0**-8
SHAPES = [(1, 32), (5, 96), (2, 2816), (1, 8192)]
# Value i of a group is at PLACES[i] of it (product_rows.h).
PLACES = np.array([i // 4 % 4 * 8 + i // 16 * 4 + i % 4 for i in range(32)])

Arrays = dict[str, np.ndarray]


def rms(x: np.ndarray) -> np.ndarray:
    return x / np.sqrt((x**2).mean(axis=1, keepdims=True) + EPS)


class Problem:
    """Rows and weights of one function, in F32 that F64 arithmetic reads."""

    def __init__(self, n: int, hidden: int, rows: list[str], weights: list[str]) -> None:
        self.n, self.hidden = n, hidden
        random = np.random.default_rng(n * hidden)
        self.inputs: Arrays = {name: random.normal(size=(n, hidden)) for name in rows}
        self.inputs |= {name: random.normal(size=hidden) + 1 for name in weights}
        self.inputs = {name: values.astype(np.float32).astype(float) for name, values in self.inputs.items()}

    def solved_by(self, card: Any, function: str, is_bf16: bool, **more: Any) -> dict[str, np.ndarray]:
        flat = {name: values.ravel().tolist() for name, values in self.inputs.items()}
        arguments = {"name": function, "n": self.n, "hidden": self.hidden, "inputs": flat}
        return card(**arguments, eps=EPS, is_bf16=is_bf16, **more)

    def shared(self, name: str, shares: int) -> None:
        """These rows come in parts."""
        parts = np.random.default_rng(shares).normal(size=(shares, self.n, self.hidden))
        self.inputs[name] = parts.astype(np.float32).astype(float)

    def rows(self, found: Arrays, name: str) -> np.ndarray:
        return found[name].reshape(self.n, -1)


def check_rows(found: np.ndarray, expected: np.ndarray) -> None:
    bound = ROUNDING * np.abs(expected).max(axis=1, keepdims=True)
    assert (np.abs(found - expected) <= bound).all()


def check_products(found: Arrays, name: str, expected: np.ndarray, is_bf16: bool) -> None:
    """Rows for products, put back in order: half a step from the exact ones, and F32's rounding."""
    groups = expected.reshape(-1, 32)
    rounding = ROUNDING * np.repeat(np.abs(expected).max(axis=1), expected.shape[1] // 32)[:, None]
    if is_bf16:
        bits = found[name + "_bytes"].view(np.uint16).astype(np.uint32) << 16
        values = bits.view(np.float32).reshape(-1, 32)[:, PLACES]
        assert (np.abs(values - groups) <= BF16_ROUNDING * np.abs(groups) + rounding).all()
        return
    q = found[name + "_bytes"].view(np.int8).reshape(-1, 32)[:, PLACES].astype(float)
    d, d_sum = found[name + "_scales"].reshape(-1, 2).T.astype(float)
    np.testing.assert_allclose(d[:, None], np.abs(groups).max(axis=1, keepdims=True) / 127, atol=rounding.max() / 127)
    np.testing.assert_allclose(d_sum, d * q.sum(axis=1), rtol=1e-6)
    assert (np.abs(q * d[:, None] - groups) <= d[:, None] / 2 + rounding).all()


@pytest.mark.parametrize("is_bf16", [False, True])
@pytest.mark.parametrize(("n", "hidden"), SHAPES)
def test_norm(card_rows, n: int, hidden: int, is_bf16: bool) -> None:
    problem = Problem(n, hidden, ["x"], ["weight"])
    found = problem.solved_by(card_rows, "norm_rows", is_bf16)
    check_products(found, "rows", rms(problem.inputs["x"]) * problem.inputs["weight"], is_bf16)


@pytest.mark.parametrize("is_bf16", [False, True])
@pytest.mark.parametrize(("n", "hidden"), SHAPES)
def test_a_decoder_pass_begins(card_rows, n: int, hidden: int, is_bf16: bool) -> None:
    problem = Problem(n, hidden, ["embedded", "soft"], ["next_norm"])
    problem.shared("soft", 2)
    found = problem.solved_by(card_rows, "begin_decoder", is_bf16)
    residual = rms(problem.inputs["embedded"] + problem.inputs["soft"].sum(axis=0))
    check_rows(problem.rows(found, "residual"), residual)
    check_products(found, "next", rms(residual) * problem.inputs["next_norm"], is_bf16)


@pytest.mark.parametrize("is_bf16", [False, True])
@pytest.mark.parametrize(("x", "shares"), [("x", 1), ("residual", 3)])
@pytest.mark.parametrize(("n", "hidden"), SHAPES)
def test_the_end_of_attention(card_rows, n: int, hidden: int, x: str, shares: int, is_bf16: bool) -> None:
    weights = ["post_norm", "router_scale", "dense_norm", "expert_norm"]
    problem = Problem(n, hidden, [x], weights)
    problem.shared("attention", shares)
    given = problem.inputs
    found = problem.solved_by(card_rows, "end_attention", is_bf16)
    residual = given[x] + rms(given["attention"].sum(axis=0)) * given["post_norm"]
    check_rows(problem.rows(found, "residual"), residual)
    check_rows(problem.rows(found, "router_rows"), rms(residual) * given["router_scale"] / np.sqrt(hidden))
    check_products(found, "dense", rms(residual) * given["dense_norm"], is_bf16)
    check_products(found, "experts", rms(residual) * given["expert_norm"], is_bf16)


LAYER_WEIGHTS = ["dense_norm", "expert_norm", "ffn_norm", "next_norm"]


def end_of_layer(n: int, hidden: int, used: int) -> Problem:
    problem = Problem(n, hidden, ["dense", "residual"], LAYER_WEIGHTS)
    random = np.random.default_rng(used)
    problem.inputs["products"] = random.normal(size=(n * used, hidden)).astype(np.float32).astype(float)
    problem.inputs["weights"] = random.uniform(size=(n, used)).astype(np.float32).astype(float)
    return problem


@pytest.mark.parametrize("is_bf16", [False, True])
@pytest.mark.parametrize("used", [1, 2, 8])
@pytest.mark.parametrize(("n", "hidden"), SHAPES)
def test_the_end_of_a_layer(card_rows, n: int, hidden: int, used: int, is_bf16: bool) -> None:
    problem = end_of_layer(n, hidden, used)
    problem.shared("dense", used)
    given = problem.inputs
    found = problem.solved_by(card_rows, "end_layer", is_bf16, used=used, scale=0.625)
    moe = np.einsum("nk,nkh->nh", given["weights"], given["products"].reshape(n, used, hidden))
    ffn = rms(given["dense"].sum(axis=0)) * given["dense_norm"] + rms(moe) * given["expert_norm"]
    residual = (given["residual"] + rms(ffn) * given["ffn_norm"]) * 0.625
    check_rows(problem.rows(found, "residual"), residual)
    check_products(found, "next", rms(residual) * given["next_norm"], is_bf16)


@pytest.mark.parametrize("is_bf16", [False, True])
def test_rows_of_zeros(card_rows, is_bf16: bool) -> None:
    problem = end_of_layer(3, 96, 2)
    for name in ["dense", "residual", "products"]:
        problem.inputs[name][:] = 0
    found = problem.solved_by(card_rows, "end_layer", is_bf16, used=2)
    assert not found["residual"].any()
    if is_bf16:
        assert not (found["next_bytes"].view(np.uint16) & 0x7FFF).any()  # -0 where the weight is negative
    else:
        assert not found["next_bytes"].any()
        assert not found["next_scales"].any()


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("is_bf16", [False, True])
def test_what_is_no_number_stays_in_its_row(card_rows, is_bf16: bool, value: float) -> None:
    problem = Problem(3, 96, ["x", "attention"], ["post_norm", "router_scale", "dense_norm", "expert_norm"])
    before = problem.solved_by(card_rows, "end_attention", is_bf16)
    problem.inputs["attention"][1, 40] = value
    after = problem.solved_by(card_rows, "end_attention", is_bf16)
    assert np.isnan(problem.rows(after, "residual")[1, 40])
    assert np.isnan(problem.rows(after, "router_rows")[1]).all()
    if not is_bf16:
        assert np.isnan(problem.rows(after, "experts_scales")[1]).all()
    for name in ["residual", "router_rows", "dense_bytes", "experts_bytes"]:
        others, same = problem.rows(after, name)[[0, 2]], problem.rows(before, name)[[0, 2]]
        np.testing.assert_array_equal(others, same)


@pytest.mark.parametrize(
    ("n", "experts", "hidden"),
    [(1, 1, 32), (5, 128, 96), (17, 5, 64), (16, 16, 160), (33, 18, 64), (2, 20, 2816), (3, 256, 32), (1, 17, 8192)],
)
def test_the_router(card_rows, n: int, experts: int, hidden: int) -> None:
    problem = Problem(n, hidden, ["rows"], [])
    router = np.random.default_rng(experts).normal(size=(experts, hidden)).astype(np.float32).astype(float)
    problem.inputs["router"] = router
    found = problem.solved_by(card_rows, "multiply_router", False, experts=experts)
    rows = problem.inputs["rows"]
    error = np.abs(problem.rows(found, "logits") - rows @ router.T)
    assert (error <= 1e-6 * (np.abs(rows) @ np.abs(router).T)).all()


def test_the_router_keeps_rows_apart(card_rows) -> None:
    """Beside a row and an expert that are no numbers, all other logits are the same."""
    problem = Problem(6, 64, ["rows"], [])
    problem.inputs["router"] = np.random.default_rng(1).normal(size=(21, 64))
    before = problem.rows(problem.solved_by(card_rows, "multiply_router", False, experts=21), "logits")
    problem.inputs["rows"][5, 3] = np.nan
    problem.inputs["router"][20, 60] = np.nan
    after = problem.rows(problem.solved_by(card_rows, "multiply_router", False, experts=21), "logits")
    np.testing.assert_array_equal(after[:5, :20], before[:5, :20])
    assert np.isnan(after[5]).all()
    assert np.isnan(after[:, 20]).all()


@pytest.mark.parametrize(("n", "hidden"), [(1, 48), (1, 8224), (8193, 32)])
def test_what_does_not_fit(card_rows, n: int, hidden: int) -> None:
    problem = Problem(n, hidden, ["x"], ["weight"])
    with pytest.raises(RequestError):
        problem.solved_by(card_rows, "norm_rows", False)
