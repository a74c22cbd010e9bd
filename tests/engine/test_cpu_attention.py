"""The CPU's own attention against plain arithmetic on what it says it computes."""

from __future__ import annotations

import numpy as np
import pytest

from dgemma import Engine, RequestError
from dgemma._core import attend_rows, has_own_attention

pytestmark = pytest.mark.skipif(not has_own_attention(), reason="no kernel of ours for this processor")

HIDDEN = np.float32(-np.inf)


def bf16(x: np.ndarray) -> np.ndarray:
    """The nearest BF16 values, ties to even."""
    bits = np.ascontiguousarray(x, np.float32).view(np.uint32)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) & np.uint32(0xFFFF0000)).view(np.float32)


def plain(q: np.ndarray, k: np.ndarray, v: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """softmax(k q + mask) v in F64 from rounded queries, keys and values; 0 where the mask hides every key."""
    group = q.shape[1] // k.shape[1]
    q, k, v = (bf16(x).astype(np.float64) for x in (q, k.astype(np.float16), v.astype(np.float16)))
    out = np.zeros_like(q)
    for head in range(q.shape[1]):
        scores = q[:, head] @ k[:, head // group].T + mask
        seen = np.isfinite(mask).any(axis=1)
        weights = np.exp(scores[seen] - scores[seen].max(axis=1, keepdims=True))
        out[seen, head] = weights / weights.sum(axis=1, keepdims=True) @ v[:, head // group]
    return out


Problem = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def problem(width: int, heads: int, kv_heads: int, n: int, keys: int, seen: str = "all") -> Problem:
    random = np.random.default_rng([width, heads, n, keys])
    q = random.standard_normal((n, heads, width), dtype=np.float32) * np.float32(2 / np.sqrt(width))
    k, v = random.standard_normal((2, keys, kv_heads, width), dtype=np.float32)
    return q, k, v, mask_of(seen, n, keys)


def mask_of(seen: str, n: int, keys: int) -> np.ndarray:
    query, key = np.arange(n)[:, None], np.arange(keys)
    position = query + max(0, keys - n)  # the queries are the last positions
    visible = {
        "all": np.ones((n, keys), bool),
        "causal": key <= position,
        "window": (key <= position) & (key > position - 70),
        "ring": (key + 90) % keys <= query % keys,  # wraps round the end
        "tail hidden": np.broadcast_to(key < max(1, keys - 140), (n, keys)),
        "rows hidden": np.broadcast_to(query % 3 == 1, (n, keys)),
    }[seen]
    return np.where(visible, np.float32(0), HIDDEN).astype(np.float32)


def check(parts: Problem, threads: int = 1) -> None:
    # The weights of the values are rounded too: 2^-9 each, which may lean one way at worst.
    np.testing.assert_allclose(attend_rows(*parts, threads), plain(*parts), atol=0.012, rtol=2**-8)


@pytest.mark.parametrize("keys", [1, 2, 7, 127, 128, 129, 300])
@pytest.mark.parametrize("width", [32, 64, 128, 256, 512])
def test_it_is_attention_with_rounded_factors(width: int, keys: int) -> None:
    check(problem(width, 4, 2, 9, keys))


@pytest.mark.parametrize("seen", ["all", "causal", "window", "ring", "tail hidden", "rows hidden"])
@pytest.mark.parametrize(("n", "keys"), [(1, 1), (1, 515), (17, 256), (64, 333), (300, 300), (256, 512), (33, 5)])
def test_masks(seen: str, n: int, keys: int) -> None:
    check(problem(64, 4, 2, n, keys, seen))


@pytest.mark.parametrize(("heads", "kv_heads"), [(1, 1), (4, 4), (6, 2), (16, 8), (16, 2), (5, 1), (48, 1)])
def test_groups_of_heads(heads: int, kv_heads: int) -> None:
    check(problem(64, heads, kv_heads, 37, 200, "causal"))


def test_the_released_models_layers() -> None:
    check(problem(256, 16, 8, 96, 1279, "causal"), threads=2)
    check(problem(512, 16, 2, 96, 1280), threads=2)


def test_a_mask_that_weighs() -> None:
    """Not only 0 and -inf: what it holds is added to the scores."""
    q, k, v, mask = problem(64, 2, 1, 20, 150, "causal")
    mask += (np.arange(150, dtype=np.float32) % 7 - 3) / 4
    check((q, k, v, mask))


@pytest.mark.parametrize("threads", [2, 3, 7])
@pytest.mark.parametrize("seen", ["causal", "window", "tail hidden"])
def test_the_number_of_threads_does_not_matter(threads: int, seen: str) -> None:
    parts = problem(256, 8, 2, 150, 700, seen)
    np.testing.assert_array_equal(attend_rows(*parts, threads), attend_rows(*parts, 1))


def test_a_query_does_not_depend_on_its_neighbours() -> None:
    q, k, v, mask = problem(128, 4, 2, 70, 400, "window")
    together = attend_rows(q, k, v, mask, 2)
    alone = [attend_rows(q[i : i + 1], k, v, mask[i : i + 1], 1)[0] for i in range(70)]
    np.testing.assert_array_equal(together, np.stack(alone))


def test_hidden_keys_do_not_matter() -> None:
    """The same bits whatever stands in a hidden cell, in tiles that are read and in tiles that are passed over."""
    q, k, v, mask = problem(64, 2, 2, 40, 600, "window")
    hidden = ~np.isfinite(mask).any(axis=0)
    assert hidden.any()
    other_k, other_v = k.copy(), v.copy()
    other_k[hidden], other_v[hidden] = 100, -100
    np.testing.assert_array_equal(attend_rows(q, other_k, other_v, mask, 1), attend_rows(q, k, v, mask, 1))


def test_equal_values_come_out_as_they_are() -> None:
    q, k, v, mask = problem(64, 4, 2, 30, 500, "causal")
    v[:] = 0.75
    np.testing.assert_allclose(attend_rows(q, k, v, mask, 1), 0.75, rtol=1e-6)


def test_sharp_and_wide_scores() -> None:
    """Scores of some hundreds: one key takes all, and none of the exponentials overflows."""
    q, k, v, mask = problem(64, 2, 1, 33, 260)
    q *= 60
    rounded = np.einsum("nhd,kd->nhk", bf16(q), bf16(k[:, 0].astype(np.float16)))
    assert np.abs(rounded).max() > 300
    check((q, k, v, mask))


@pytest.mark.parametrize("operand", ["q", "k", "v"])
def test_what_is_no_number_stays_none(operand: str) -> None:
    """Damaged weights are found by it: nothing may turn a NaN into a number that looks like any other."""
    q, k, v, mask = problem(64, 4, 2, 40, 300, "causal")
    {"q": q, "k": k, "v": v}[operand][7, 1, 5] = np.nan
    found = np.isnan(attend_rows(q, k, v, mask, 1))
    if operand == "q":
        assert found[7, 1].all()
        found[7, 1] = False
        assert not found.any()
    elif operand == "k":
        assert found[:, 2:].all()  # KV head 1 is that of heads 2 and 3
        assert not found[:, :2].any()
    else:
        assert found[:, 2:, 5].all()
        found[:, 2:, 5] = False
        assert not found.any()


def test_what_cannot_be_attended_is_refused() -> None:
    q, k, v, mask = problem(64, 4, 2, 3, 5)
    with pytest.raises(RequestError, match="multiple of 32"):
        attend_rows(q[..., :40].copy(), k[..., :40].copy(), v[..., :40].copy(), mask, 1)
    with pytest.raises(RequestError, match="multiple of the KV heads"):
        attend_rows(q[:, :3].copy(), k, v, mask, 1)
    with pytest.raises(ValueError, match="keys and values"):
        attend_rows(q, k, v[:-1].copy(), mask, 1)
    with pytest.raises(ValueError, match="the mask is not"):
        attend_rows(q, k, v, mask[:, :-1].copy(), 1)


@pytest.mark.parametrize("threads", [1, 2])
def test_threads_in_the_engine(model_path, threads: int) -> None:
    path = model_path("long", "f32")
    found = []
    for n in (threads, 3):
        with Engine(path, n_ctx=512, n_threads=n) as engine:
            session = engine.session()
            session.prefill(list(range(2, 90)))
            found.append(session.denoise(np.arange(engine.info.canvas_length) % 97))
    np.testing.assert_array_equal(found[0], found[1])
