"""What a step should take on a card: the accounting against counts by hand, and against what others have measured."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import predict_step as script
import pytest

from dgemma._core import GgufInfo
from dgemma._native import core
from dgemma.bench.own_products import BF16, INT8, Launch, Tile, Tiles, product_launches
from dgemma.bench.passing import Passing
from dgemma.bench.prediction import CARDS, DENSE_RATE, Card, predict_step
from dgemma.bench.step_passing import step_passing, step_shapes
from dgemma.bench.work import step_work
from random_checkpoint import CheckpointConfig
from released import hollow_gguf

ROOT = Path(__file__).parents[2]
SMALL = CheckpointConfig()  # 3 layers, the last one full; 16 positions, hidden 64, 4 heads, 2 of 8 experts
PAGE = ROOT / "docs" / "cuda.md"
# Everything a second is a round number: a byte of memory, two int8 operations, and so on.
ROUND = Card("round", copy=1e9, int8=4e9, f16=2e9, f32=1e9, cache=0, multiprocessors=1, clock=1e9)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> GgufInfo:
    return core.read_gguf(str(hollow_gguf(tmp_path_factory.mktemp("small") / "q8_0.gguf", "Q8_0", SMALL)))


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> GgufInfo:
    return core.read_gguf(str(hollow_gguf(tmp_path_factory.mktemp("released") / "q4_k_m.gguf", "Q4_K_M")))


def test_parts_are_those_of_the_work(small: GgufInfo) -> None:
    assert step_passing(small).keys() == step_passing(small, own_layers=True).keys() == step_work(small, 10).keys()


def test_launches_of_our_layers(small: GgufInfo) -> None:
    """All products of a layer's projections are of one type here, and so one launch."""
    by_part = {name: part.launches for name, part in step_passing(small, own_layers=True).items()}
    assert by_part == {
        "attention": 3 * (1 + 1 + 2 + 3 + 3),
        "dense_ffn": 3 * 2,
        "router": 3 * 3,
        "experts": 3 * 3,
        "embedding": 1 + 2 + 1 + 2 + 1,
        "head": 1,
        "sampler": 3,
        "self_conditioning": 4,
    }


def test_launches(small: GgufInfo) -> None:
    """Norm; three for each product; norms and rotations, writes to the cache, attention, norm and residual."""
    by_part = {name: part.launches for name, part in step_passing(small).items()}
    sliding, full = 1 + 4 * 3 + 3 + 2 + 3 + 1, 1 + 3 * 3 + 3 + 2 + 3 + 1
    assert by_part == {
        "attention": 2 * sliding + full,
        "dense_ffn": 3 * (1 + 3 * 3 + 1),
        "router": 3 * (1 + 1 + 1 + 7),
        "experts": 3 * (1 + 4 + 1 + 4 + 1 + 4),
        "embedding": 1 + 1 + 10 + 1 + 1,
        "head": 1 + 3,
        "sampler": 3,
        "self_conditioning": 4,
    }


def test_values_between_kernels(small: GgufInfo) -> None:
    """Of one layer, counted in values of one position; a rounded value is 9/32 of an F32 one."""
    found = step_passing(small)
    one = 4 * SMALL.canvas
    hidden, ffn, rounded = SMALL.hidden, SMALL.ffn, 9 / 32
    dense = 2 * hidden + 2 * (hidden + 2 * hidden * rounded + ffn) + 3 * ffn + ffn + 2 * ffn * rounded + hidden
    assert sum(found["dense_ffn"].moved) == pytest.approx(SMALL.layers * one * dense)
    used, expert = SMALL.experts_used, SMALL.expert_ffn
    gate_up = hidden + 2 * used * hidden * rounded + used * 2 * expert
    gelu = used * 3 * expert
    down = used * expert * (1 + 2 * rounded) + used * hidden
    ends = used * hidden + hidden + 2 * hidden + 3 * hidden + 3 * hidden + 2 * hidden
    experts = 2 * hidden + gate_up + gelu + down + ends
    assert sum(found["experts"].moved) == pytest.approx(SMALL.layers * one * experts)
    assert sum(found["head"].moved) == one * (2 * hidden + hidden + 2 * hidden * rounded + SMALL.vocab)


def test_values_between_our_kernels(small: GgufInfo) -> None:
    """The same; rows for products are rounded once, by the kernel that makes them."""
    found = step_passing(small, own_layers=True)
    one, hidden, rounded, used = 4 * SMALL.canvas, SMALL.hidden, 9 / 32, SMALL.experts_used
    dense = hidden * rounded + 2 * SMALL.ffn * rounded + hidden
    assert sum(found["dense_ffn"].moved) == pytest.approx(SMALL.layers * one * dense)
    products = used * (hidden * rounded + 2 * SMALL.expert_ffn * rounded + hidden)
    end = used * hidden + 3 * hidden + hidden * rounded
    assert sum(found["experts"].moved) == pytest.approx(SMALL.layers * one * (products + end))
    theirs = step_passing(small)
    for name in ("attention", "dense_ffn", "router", "experts", "embedding", "head"):
        assert sum(found[name].moved) < sum(theirs[name].moved)


def test_a_cache_keeps_what_is_small() -> None:
    passing = Passing(1, (10.0, 20.0, 20.0)) + Passing(2, (30.0,))
    assert passing.launches == 3
    assert [passing.bytes_beyond(cache) for cache in (0, 10, 20, 30)] == [80, 70, 30, 0]


def test_seconds(small: GgufInfo) -> None:
    """The head of a card whose rates are round: 16 positions by 512 x 64 weights of 34 bytes for 32."""
    part = predict_step(small, 10, ROUND)["head"]
    operations, weights = 2 * 16 * 512 * 64, 512 * 64 * 34 / 32
    passed = sum(step_passing(small)["head"].moved)
    assert part.bytes == weights + passed
    assert part.floor == pytest.approx(max(operations / 4e9, (weights + passed) / 1e9))
    memory, products = (weights + passed) / 1e9 / 0.9, operations / (DENSE_RATE * 1e9)
    assert part.expected == pytest.approx(max(memory, products) + 4 * 2e-6)
    ours = predict_step(small, 10, replace(ROUND, copy=1e15), own_layers=True)["head"]
    (launch,) = product_launches(*step_shapes(small), INT8, 1)["head"]
    assert ours.expected == pytest.approx(launch.seconds(1, 1e9) + 2e-6)
    cached = replace(ROUND, cache=1e9)
    assert predict_step(small, 10, cached)["head"].bytes == weights


def test_a_multiprocessor_computes_whole_blocks() -> None:
    assert Launch(264, 1000).seconds(132, 1e9) == pytest.approx(2 * Launch(132, 1000).seconds(132, 1e9))
    assert Launch(133, 1000).seconds(132, 1e9) == Launch(264, 1000).seconds(132, 1e9)


ONE = {"q8_0": 100}  # instructions of a turn
DENSE = Tile(64, 8, 32, ONE, 50)
TILES = Tiles(dense=(DENSE,), gated=DENSE, experts=Tile(16, 32, 16, ONE, 70), shares=2)


def test_blocks_and_their_instructions(small: GgufInfo) -> None:
    """Of a layer: 16 positions are two tiles of 8. Queries, keys and values are 64, 32 and 32 rows of 64 columns, in a
    sliding layer; eight warps take two turns each, or one where the columns are shared out."""
    found = product_launches(*step_shapes(small), TILES, 4)
    both, shared = 8 * (2 * 100 + 50), 8 * (1 * 100 + 50)
    assert found["attention"][:2] == [Launch(2 * 3, both), Launch(2 * 2, shared)]
    assert found["head"] == [Launch(2 * 8, both)]
    gated, down = found["dense_ffn"][:2]
    assert gated == Launch(2 * 2 * -(-SMALL.ffn // 64), both)
    assert down.blocks == 2 * 2
    assert found["experts"][:2] == [
        Launch(2 * SMALL.expert_ffn / 16 * 8, 8 * (4 * 100 + 70)),
        Launch(64 / 16 * 8, 8 * (SMALL.expert_ffn / 16 * 100 + 70)),
    ]
    assert len(found["experts"]) == 2 * SMALL.layers


def test_every_type_with_a_kernel_has_its_instructions() -> None:
    """And dense products of Q6_K."""
    of_experts = {"q4_k", "q5_k", "q8_0", "q5_0", "q5_1", "q4_0", "q4_1", "iq4_xs", "iq4_nl"}
    for tiles in (INT8, BF16):
        assert tiles.experts.turn.keys() == of_experts
        for tile in (*tiles.dense, tiles.gated):
            assert tile.turn.keys() == of_experts | {"q6_k"}


def test_the_quicker_tile_is_taken(small: GgufInfo) -> None:
    """The head's 512 rows by 16 tokens: 16 blocks of 64 rows in three rounds on six multiprocessors, or 32 smaller."""
    few, many = Tile(32, 8, 32, {"q8_0": 45}, 0), Tile(64, 8, 32, {"q8_0": 100}, 0)
    for multiprocessors, tile in ((6, few), (16, many)):
        tiles = replace(TILES, dense=(replace(many, turn={"q8_0": 80}), few) if tile is many else (many, few))
        (launch,) = product_launches(*step_shapes(small), tiles, multiprocessors)["head"]
        assert launch.blocks == 2 * 512 / tile.rows


def test_what_bounds_a_part(small: GgufInfo) -> None:
    for changed, bound in (({"copy": 1.0}, "memory"), ({"clock": 1.0}, "products"), ({"copy": 1e15}, "launches")):
        part = predict_step(small, 10, replace(ROUND, **changed))["head"]
        assert part.bound == bound


@pytest.mark.parametrize("own", [False, True])
def test_nothing_is_expected_below_its_floor(released: GgufInfo, own: bool) -> None:
    for card in CARDS.values():
        for part in predict_step(released, 1024, card, own_layers=own).values():
            assert 0 < part.floor < part.expected


def test_the_weights_are_read_once(released: GgufInfo) -> None:
    """All but a few vectors of the file, and the embedding's rows of one canvas."""
    parts = predict_step(released, 1024, CARDS["H200"])
    read = sum(part.work.bytes for name, part in parts.items() if name != "sampler")
    kv = (5 * 1280 * 2 * 512 + 25 * 1279 * 8 * 256) * 2 * 2
    weights = sum(tensor.n_bytes for tensor in released.tensors)
    assert read - kv == pytest.approx(weights, rel=2e-3)


def test_ggmls_layers_as_others_measured_them(released: GgufInfo) -> None:
    """Gemma 4 26B-A4B, Q4_K_M, which has the same layers: 2661 tokens/s with microbatches of 256 on an RTX 3090
    (llama.cpp, pull request 22298)."""
    parts = predict_step(released, 1024, CARDS["RTX 3090"])
    layers = sum(parts[name].expected for name in ("attention", "dense_ffn", "router", "experts"))
    assert layers == pytest.approx(256 / 2661, rel=0.03)


@pytest.mark.parametrize(
    ("card", "tokens_per_second"),
    [("RTX 3090", 3376.0), ("RTX 3090", 3459.0), ("RTX 4090", 8555.0), ("RTX 4090", 9040.0)],
)
def test_dense_products_as_others_measured_them(card: str, tokens_per_second: float) -> None:
    """Llama 3 8B, 6.98 G weights in its layers, microbatches of 256, Q5_K, Q6_K, Q4_K and Q5_1 (llama.cpp, pull
    requests 7860 and 8062)."""
    clocks = CARDS[card].multiprocessors * CARDS[card].clock
    assert 2 * 6.98e9 * tokens_per_second / clocks == pytest.approx(DENSE_RATE, rel=0.12)


def test_the_page_has_this_table() -> None:
    text = PAGE.read_text()
    assert script.page(text, script.released_table(list(CARDS.values()))) == text, (
        "python examples/predict_step.py --write docs/cuda.md"
    )


def test_the_script(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    model = hollow_gguf(tmp_path / "small.gguf", "Q8_0", SMALL)
    monkeypatch.setattr("sys.argv", ["predict_step.py", "--card", "L4", "--model", str(model), "-p", "20"])
    script.main()
    *lines, last = capsys.readouterr().out.strip().splitlines()
    assert lines[0] == "| part | MB | Gop | launches | L4 |"
    report = json.loads(last)
    assert report["n_past"] == 20
    head = report["layers_by"]["own"]["L4"]["head"]
    assert head["launches"] == 1
    assert head["floor_ms"] < head["expected_ms"]


def test_files_that_our_layers_do_not_take(tmp_path: Path) -> None:
    for type, own in (("Q8_0", True), ("F16", False), ("MXFP4", False)):
        model = hollow_gguf(tmp_path / f"{type}.gguf", type, SMALL)
        found = script.predictions(model, 10, [CARDS["L4"]])
        assert ("own" in found) == own
        assert ("ours" in script.table(found)) == own


def test_a_page_without_a_place() -> None:
    with pytest.raises(SystemExit, match="the page has no place for the table"):
        script.page("# CUDA\n", "")
