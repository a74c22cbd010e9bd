"""Sessions: what the cache keeps, what it refuses."""

from __future__ import annotations

import numpy as np
import pytest

from dgemma import ContextError, Engine, RequestError


def tokens(n: int, seed: int = 0) -> list[int]:
    return np.random.default_rng(seed).integers(200, 500, n).tolist()


CANVAS = tokens(16, seed=9)


def test_n_past_counts_encoded_tokens_only(engine: Engine) -> None:
    session = engine.session()
    assert session.n_past == 0
    session.prefill(tokens(5))
    session.denoise(CANVAS)
    assert session.n_past == 5


def test_denoising_leaves_the_cache_as_it_was(engine: Engine) -> None:
    """The canvas is scratch: encoding goes on as if it had never been there, across the ring's end too."""
    plain, disturbed = engine.session(), engine.session()
    for piece in (tokens(20, 1), tokens(30, 2), tokens(40, 3)):
        plain.prefill(piece)
        disturbed.prefill(piece)
        disturbed.denoise(CANVAS)
    np.testing.assert_array_equal(plain.denoise(CANVAS), disturbed.denoise(CANVAS))


def test_a_ring_that_wraps_equals_a_cache_that_does_not(model_path) -> None:
    """With n_ctx 256 the ring holds every position; with a longer context it wraps. Same prompt, same logits."""
    from oracle.cases import load_case

    case = load_case("crossing")  # window 24
    prompt, canvas = tokens(220, 4), case.canvas[0, 0]
    results = []
    for n_ctx in (256, 1024):
        session = Engine(model_path("crossing"), n_ctx=n_ctx, exact=True).session()
        session.prefill(prompt)
        results.append(session.denoise(canvas))
    np.testing.assert_allclose(results[0], results[1], atol=1e-4)

    long = tokens(900, 5)  # past the ring of 512 cells: only what the window and the full layer see may matter
    whole = Engine(model_path("crossing"), n_ctx=1024, exact=True).session()
    whole.prefill(long)
    pieces = Engine(model_path("crossing"), n_ctx=1024, exact=True, n_batch=33).session()
    pieces.prefill(long)
    np.testing.assert_allclose(whole.denoise(canvas), pieces.denoise(canvas), atol=1e-4)


def test_truncate_forgets(engine: Engine) -> None:
    session, fresh = engine.session(), engine.session()
    session.prefill(tokens(30))
    session.denoise(CANVAS)
    session.truncate(10)
    assert session.n_past == 10
    session.prefill(tokens(12, 7))
    fresh.prefill(tokens(30)[:10])
    fresh.prefill(tokens(12, 7))
    np.testing.assert_allclose(session.denoise(CANVAS), fresh.denoise(CANVAS), atol=1e-4)


def test_truncate_says_when_the_ring_has_moved_on(model_path) -> None:
    session = Engine(model_path("short"), n_ctx=1024).session()
    session.prefill(tokens(600))
    with pytest.raises(ContextError, match=r"ring of the sliding layers holds positions from \d+ on"):
        session.truncate(90)
    assert session.n_past == 600
    session.truncate(100)  # needs 93 on, and the ring of 512 has 88 on
    session.truncate(0)
    session.prefill(tokens(5))
    assert session.n_past == 5


@pytest.mark.parametrize("n", [-1, 31])
def test_truncate_outside_the_cache(engine: Engine, n: int) -> None:
    session = engine.session()
    session.prefill(tokens(30))
    with pytest.raises(ContextError, match="is not between 0 and the 30 positions"):
        session.truncate(n)


def test_sessions_do_not_disturb_each_other(engine: Engine) -> None:
    first, second = engine.session(), engine.session()
    first.prefill(tokens(9, 1))
    before = first.denoise(CANVAS)
    second.prefill(tokens(40, 2))
    second.denoise(CANVAS)
    np.testing.assert_array_equal(before, first.denoise(CANVAS))


def test_prompt_longer_than_the_context(engine: Engine) -> None:
    session = engine.session()
    session.prefill(tokens(100))
    with pytest.raises(ContextError, match="29 tokens do not fit: the context holds 128 and 100 are taken"):
        session.prefill(tokens(29))
    assert session.n_past == 100
    session.prefill(tokens(28))


def test_no_room_for_a_canvas(engine: Engine) -> None:
    session = engine.session()
    session.prefill(tokens(113))
    with pytest.raises(ContextError, match="a canvas of 16 does not fit"):
        session.denoise(CANVAS)


def test_empty_prompt(engine: Engine) -> None:
    with pytest.raises(RequestError, match="no tokens"):
        engine.session().prefill([])
    with pytest.raises(RequestError, match="prompt is empty"):
        next(engine.generate([]))
    with pytest.raises(ContextError, match="cache is empty"):
        engine.session().denoise(CANVAS)


@pytest.mark.parametrize("bad", [-1, 512, 2**31 - 1])
def test_token_out_of_range(engine: Engine, bad: int) -> None:
    session = engine.session()
    with pytest.raises(RequestError, match=rf"token {bad} at index 1 is not in the vocabulary \(0 to 511\)"):
        session.prefill([5, bad])
    with pytest.raises(RequestError, match=f"token {bad} at index 1"):
        engine.generate([5, bad])
    session.prefill([5])
    with pytest.raises(RequestError, match=f"token {bad} at index 3"):
        session.denoise([*CANVAS[:3], bad, *CANVAS[4:]])


def test_things_that_are_no_tokens(engine: Engine) -> None:
    with pytest.raises(RequestError, match="no token id"):
        engine.session().prefill([2**40])
    with pytest.raises(RequestError, match="sequence of token ids"):
        engine.session().prefill("hello")  # type: ignore[arg-type]


def test_canvas_of_the_wrong_length(engine: Engine) -> None:
    session = engine.session()
    session.prefill([5])
    with pytest.raises(RequestError, match="the canvas has 15 tokens, the model's has 16"):
        session.denoise(CANVAS[:15])


def test_previous_logits_of_the_wrong_shape(engine: Engine) -> None:
    session = engine.session()
    session.prefill([5])
    with pytest.raises(RequestError, match=r"previous must have the shape \[16, 512\], not \[16, 511\]"):
        session.denoise(CANVAS, np.zeros((16, 511), np.float32))


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"n_ctx": 16}, "larger than the model's canvas of 16"),
        ({"n_ctx": 100_000}, "made for at most 4096 positions"),
        ({"n_ctx": 0}, "n_ctx must be at least 1"),
        ({"n_ctx": 2**40}, "n_ctx must be at most"),
        ({"n_threads": 0}, "n_threads must be at least 1"),
        ({"n_batch": 0}, "n_batch must be at least 1"),
        ({"n_gpu_layers": -2}, "n_gpu_layers must be -1"),
        ({"kv_type": "q4_0"}, 'kv_type must be "f16" or "f32"'),
    ],
)
def test_options_out_of_range(tiny, options: dict, sentence: str) -> None:
    with pytest.raises(RequestError, match=sentence):
        Engine(tiny, **options)


def test_the_context_is_8192_or_what_the_model_was_made_for(tiny) -> None:
    assert Engine(tiny).n_ctx == 4096


def test_a_closed_engine_says_so(tiny) -> None:
    with Engine(tiny, n_ctx=64) as engine:
        session = engine.session()
        session.prefill([5])
    with pytest.raises(RequestError, match="closed"):
        engine.session()
    assert session.denoise(CANVAS).shape == (16, 512)  # what a session holds lives on


def test_memory_is_planned_and_kept(tiny) -> None:
    """One session takes what was planned before it, and the plan has the sizes that the shapes give."""
    engine = Engine(tiny, n_ctx=512, n_threads=2)
    planned = engine.memory["CPU"]
    session = engine.session()
    session.prefill(tokens(300))
    session.denoise(CANVAS)
    assert engine.memory["CPU"] == planned
    full, ring = 512, 256 + 256  # round_up(window 8 - 1 + chunk 256, 256)
    kv_bytes = sum(2 * 2 * cells * kv * dim for cells, kv, dim in [(ring, 2, 16), (ring, 2, 16), (full, 1, 32)])
    assert planned["kv"] == kv_bytes
    # Logits; then of conditioning the mass, and sums and unpacked tokens of 256 columns.
    assert planned["sampler"] == 4 * 16 * 512 + 16 * 512 // 64 + 2 * 4 * 256 * (16 + 64)
    assert planned["compute"] > 0
    assert planned["weights"] <= tiny.stat().st_size


def test_the_cache_of_sliding_layers_does_not_grow_with_the_context(tiny) -> None:
    def kv(n_ctx: int) -> int:
        return Engine(tiny, n_ctx=n_ctx).memory["CPU"]["kv"]

    full_layer = 2 * 2 * 32  # keys and values, F16, one head of 32
    assert kv(4096) - kv(2048) == 2048 * full_layer
