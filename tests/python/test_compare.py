"""``dgemma.compare``: what models are given, what is made of their answers, and what is refused."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gguf
import numpy as np
import pytest
from scripted import ScriptedEngine, ScriptedSession, step
from scripted import answer as script

from dgemma import BackendError, BlockEvent, FileError, GenerationConfig, ModelFileError, RequestError
from dgemma.compare import compare
from dgemma.compare import comparison as module
from dgemma.compare.damage import same_share
from dgemma.compare.headers import Header
from dgemma.compare.model_run import answer, noise_ladder, walk
from dgemma.convert import convert
from dgemma.events import Event
from dgemma.passages import Passage
from dgemma.quantize import quantize
from random_checkpoint import CheckpointConfig, write_checkpoint

C, V = 4, 3  # the canvas and the vocabulary of scripted models
CONFIG = GenerationConfig(t_min=0.5, t_max=1.5, max_denoising_steps=3)
PASSAGES = [Passage((2, 0), (1, 1, 1, 1)), Passage((2,), (0, 1, 2, 0))]


class TalkingSession(ScriptedSession):
    """Gives every canvas the same logits, and notes what it was asked."""

    def __init__(self, engine: TalkingEngine) -> None:
        super().__init__(engine)
        self.logits = engine.logits
        self.asked: list[tuple[list[int], np.ndarray | None]] = []
        self.prefixes: list[int] = []

    def prefill(self, tokens: Sequence[int]) -> None:
        super().prefill(tokens)
        self.prefixes.append(self.n_past)

    def denoise(self, canvas: Sequence[int], previous: np.ndarray | None = None) -> np.ndarray:
        self.asked.append((list(canvas), None if previous is None else previous.copy()))
        return self.logits.copy()


class TalkingEngine(ScriptedEngine):
    def __init__(self, logits: Sequence[float], *scripts: list[Event | BaseException], n_ctx: int = 100) -> None:
        super().__init__(*scripts, n_ctx=n_ctx)
        self.logits = np.tile(np.array(logits, np.float32), (C, 1))
        self.info: Any = SimpleNamespace(canvas_length=C, n_vocab=V, file_type="Q4_K_M")
        self.config = CONFIG
        self.sessions: list[TalkingSession] = []

    def session(self) -> TalkingSession:
        self.sessions.append(TalkingSession(self))
        return self.sessions[-1]


def scripted(monkeypatch: pytest.MonkeyPatch, **engines: TalkingEngine) -> None:
    """Models by the names of their files, in place of files."""

    def opened(path: str, n_ctx: int, **_: object) -> TalkingEngine:
        engines[path].n_ctx = n_ctx
        return engines[path]

    def header(path: str) -> Header:
        return Header(path, list("abc"), C, CONFIG, 1000, 4.5)

    monkeypatch.setattr(module, "Engine", opened)
    monkeypatch.setattr(module, "read_header", header)


def finished(*blocks: tuple[int, list[int]]) -> list[Event | BaseException]:
    """An answer of these blocks: steps taken, tokens."""
    *_, done = script()
    events: list[Event | BaseException] = []
    for number, (steps, tokens) in enumerate(blocks):
        events += [step(number, count + 1) for count in range(steps)] + [BlockEvent(number, tokens)]
    return [*events, done]


# What models are given.


def test_a_ladder_of_noise() -> None:
    clean = np.full(200, 7)
    levels = (1.0, 0.75, 0.1, 0.0)
    canvases = noise_ladder(clean, levels, 1000, np.random.default_rng(0))
    changed = [set(np.flatnonzero(canvas != 7).tolist()) for canvas in canvases]
    for level, places in zip(levels, changed, strict=True):
        assert round(level * 200) - 2 <= len(places) <= round(level * 200)  # noise may be the clean token by chance
    assert changed[2] <= changed[1] | set(np.flatnonzero(canvases[1] == 7).tolist())
    assert len(changed[2] & changed[1]) >= 18  # the same places
    assert any(canvases[0][place] != canvases[1][place] for place in changed[2])  # with other tokens
    assert len({*canvases[0].tolist()}) > 150
    again = noise_ladder(clean, levels, 1000, np.random.default_rng(0))
    assert all((a == b).all() for a, b in zip(canvases, again, strict=True))


def test_each_step_is_conditioned_on_the_models_own_last_one() -> None:
    engine = TalkingEngine([1, 2, 4])
    session = engine.session()
    session.n_past = 50  # of an earlier passage
    canvases = [np.full(C, value) for value in (0, 1, 2)]
    found = [z.copy() for z in walk(session, [2, 1], canvases, [2.0, 1.0, 0.5], "m.gguf")]
    assert session.prefixes == [2]
    assert [asked for asked, _ in session.asked] == [[0] * C, [1] * C, [2] * C]
    assert session.asked[0][1] is None
    for index, temperature in enumerate([2.0, 1.0]):
        expected = engine.logits / temperature
        assert (found[index] == expected).all()
        assert (session.asked[index + 1][1] == expected).all()


def test_logits_that_are_no_numbers() -> None:
    for bad in (math.nan, math.inf):
        session = TalkingEngine([1, bad, 0]).session()
        with pytest.raises(BackendError, match=r"^m\.gguf: logits are not finite"):
            next(walk(session, [2], [np.zeros(C, int)], [1.0], "m.gguf"))


def test_an_answer() -> None:
    engine = TalkingEngine([0, 0, 0], finished((3, [1, 2, 0, 1]), (2, [2])))
    found = answer(engine.session(), [2], 8, 5, CONFIG)
    assert found.blocks == ((1, 2, 0, 1), (2,))
    assert found.steps == (3, 2)
    assert found.tokens == (1, 2, 0, 1, 2)
    assert engine.calls == [{"n": 8, "seed": 5, "config": CONFIG}]


# What is made of it.


def test_figures_of_known_distributions(monkeypatch: pytest.MonkeyPatch) -> None:
    reference = TalkingEngine([0, 0, 0])
    candidate = TalkingEngine([math.log(2), 0, 0])
    scripted(monkeypatch, ref=reference, cand=candidate)
    found = compare("ref", ["cand"], PASSAGES, levels=[0.5, 1, 0.5], runs=0, seed=3)
    assert (found.passages, found.canvas_length, found.runs, found.seed) == (2, C, 0, 3)
    only = found.candidates[0]
    assert only.runs is None
    assert [(level.level, level.temperature) for level in only.levels] == [(1.0, 1.5), (0.5, 1.0)]
    for level in only.levels:
        weight = 2 ** (1 / level.temperature)  # against 1 and 1
        q = np.array([weight, 1, 1]) / (weight + 2)
        assert level.kl.mean == pytest.approx(-math.log(3) - np.log(q).mean(), rel=1e-6)
        assert level.entropy.mean == pytest.approx(math.log(3))
        assert level.entropy_shift.mean == pytest.approx(-(q * np.log(q)).sum() - math.log(3), rel=1e-5)
        assert (level.agreement.mean, level.agreement.error) == (1.0, 0.0)
    assert only.kl.mean == pytest.approx(np.mean([level.kl.mean for level in only.levels]))
    assert (only.model.path, only.model.file_type, only.model.bits_per_weight) == ("cand", "Q4_K_M", 4.5)


def test_all_models_get_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    engines = {name: TalkingEngine([0, 0, weight]) for name, weight in (("ref", 0), ("a", 1), ("b", 2))}
    scripted(monkeypatch, **engines)
    done: list[tuple[int, int, str]] = []
    compare("ref", ["a", "b"], PASSAGES, levels=[1, 0.5], runs=0, progress=lambda *part: done.append(part))
    asked = [[canvas for canvas, _ in engine.sessions[0].asked] for engine in engines.values()]
    assert asked[0] == asked[1] == asked[2]
    assert len(asked[0]) == 4
    assert done == [(i + 1, 12, name) for i, name in enumerate(["ref"] * 4 + ["a"] * 4 + ["b"] * 4)]
    compare("ref", ["a"], PASSAGES, levels=[1, 0.5], runs=0, seed=1)
    assert [canvas for canvas, _ in engines["ref"].sessions[1].asked] != asked[0]


def test_figures_of_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two passages, two seeds each; four steps' worth of arithmetic that can be done in the head."""
    reference = TalkingEngine(
        [0, 0, 0],
        finished((2, [1, 2, 0, 1])),  # first passage
        finished((3, [1, 1, 1, 1])),
        finished((1, [0, 0, 0, 0]), (2, [1, 1])),  # second passage
        finished((1, [])),
    )
    candidate = TalkingEngine(
        [0, 0, 0],
        finished((3, [1, 2, 0, 1])),  # all the same
        finished((3, [1, 1, 0])),  # two of four places
        finished((2, [0, 0, 0, 0]), (3, [1, 2])),  # five of six; the first block is the same
        finished((1, [])),  # nothing from either
    )
    scripted(monkeypatch, ref=reference, cand=candidate)
    runs = compare("ref", ["cand"], PASSAGES, levels=[1], runs=2, max_new_tokens=6, seed=9).candidates[0].runs
    assert runs is not None
    assert runs.reference_steps.mean == np.mean([(2 + 3) / 2, (1.5 + 1) / 2])
    assert runs.steps.mean == np.mean([(3 + 3) / 2, (2.5 + 1) / 2])
    assert runs.reference_unfinished.mean == np.mean([0.5, 0])
    assert runs.unfinished.mean == np.mean([1, 0.25])
    assert runs.same_tokens.mean == pytest.approx(np.mean([(1 + 0.5) / 2, (5 / 6 + 1) / 2]))
    assert runs.same_first_block.mean == np.mean([0.5, 1])
    assert runs.same_first_block.error == pytest.approx(0.25)
    for engine in (reference, candidate):
        assert [(call["n"], call["seed"]) for call in engine.calls] == [(6, 9), (6, 10)] * 2
        assert engine.n_ctx == 2 + 2 * C  # the longer prefix and two canvases


def test_a_prompt_is_measured_on_the_references_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its first canvas as it ended, what follows the end token included."""
    draft = np.array([2, 1, 0, 2], np.int32)
    events = [replace(step(0), argmax=draft), BlockEvent(0, [2]), script()[-1]]
    for runs in (0, 1):
        reference = TalkingEngine([0, 0, 0], list(events))
        candidate = TalkingEngine([0, 0, 0], *([list(events)] if runs else []))
        scripted(monkeypatch, ref=reference, cand=candidate)
        compare("ref", ["cand"], [Passage((2, 1))], levels=[0], runs=runs)
        assert candidate.sessions[0].asked[0][0] == draft.tolist()
        assert len(reference.calls) == 1
        assert len(candidate.calls) == runs


def test_shares_of_the_same() -> None:
    assert same_share([], []) == 1
    assert same_share([1], []) == 0
    assert same_share([1, 2, 3], [1, 5]) == pytest.approx(1 / 3)


# The disk.


def test_nothing_is_left_behind(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    scripted(monkeypatch, ref=TalkingEngine([0, 0, 0]), cand=TalkingEngine([0, 0, math.nan]))
    with pytest.raises(BackendError):
        compare("ref", ["cand"], PASSAGES, runs=0)
    compare("ref", ["ref"], PASSAGES, runs=0)
    assert list(tmp_path.iterdir()) == []


def test_a_small_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    scripted(monkeypatch, ref=TalkingEngine([0, 0, 0]))
    with monkeypatch.context() as patch:
        patch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=2 * 5 * C * V * 4 - 1))
        with pytest.raises(FileError, match=r"distributions need 0\.0 GB there and .* fewer passages .* TMPDIR"):
            compare("ref", ["ref"], PASSAGES, runs=0)

    def full(*_: object) -> None:
        raise OSError("96 requested and 12 written")

    monkeypatch.setattr(np, "save", full)
    with pytest.raises(FileError, match=r"distributions cannot be written: the disk is perhaps full$"):
        compare("ref", ["ref"], PASSAGES, runs=0)


# What is refused.


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"levels": [0.5, 1.5]}, r"^a noise level is a share of the canvas between 0 and 1, not 1\.5$"),
        ({"levels": [-0.1]}, r"between 0 and 1, not -0\.1$"),
        ({"levels": [math.nan]}, r"between 0 and 1, not nan$"),
        ({"levels": []}, "^give at least one noise level$"),
        ({"runs": -1}, "^runs must be at least 0, not -1$"),
        ({"max_new_tokens": 0}, "^max_new_tokens must be at least 1, not 0$"),
        ({"seed": -1}, "^seed must be between 0 and"),
        ({"candidates": []}, "^candidates must be a list of at least one file$"),
        ({"candidates": "ref"}, "^candidates must be a list of at least one file$"),
        ({"passages": []}, "^give at least one passage$"),
        ({"passages": [Passage(())]}, "^a passage needs a prefix of at least one token$"),
        ({"passages": [Passage((2,), (1, 2, 3))]}, "^a passage has 3 tokens on its canvas, the models have 4$"),
    ],
)
def test_arguments(monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], sentence: str) -> None:
    scripted(monkeypatch, ref=TalkingEngine([0, 0, 0]))
    with pytest.raises(RequestError, match=sentence):
        compare(**{"reference": "ref", "candidates": ["ref"], "passages": PASSAGES, **options})


def test_models_that_cannot_be_compared(toy_model: Path, tmp_path: Path) -> None:
    small = CheckpointConfig(layers=1)
    for name, config in {"vocab": replace(small, vocab=513), "canvas": replace(small, canvas=8)}.items():
        convert(write_checkpoint(tmp_path / name, config, vision=False), tmp_path / f"{name}.gguf", type="bf16")
    with pytest.raises(RequestError, match=r"vocab\.gguf and .*toy\.gguf have different vocabularies, so they cannot"):
        compare(toy_model, [tmp_path / "vocab.gguf"])
    with pytest.raises(RequestError, match=r"canvas\.gguf has a canvas of 8 tokens and .*toy\.gguf one of 16"):
        compare(toy_model, [toy_model, tmp_path / "canvas.gguf"])
    writer = gguf.GGUFWriter(tmp_path / "llama.gguf", "llama")
    for write in (writer.write_header_to_file, writer.write_kv_data_to_file, writer.close):
        write()
    with pytest.raises(ModelFileError, match=r"llama\.gguf: general\.architecture is 'llama', not 'diffusion-gemma'"):
        compare(toy_model, [tmp_path / "llama.gguf"])
    with pytest.raises(ModelFileError, match=r"none\.gguf"):
        compare(toy_model, [tmp_path / "none.gguf"])


# Real files.


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Files of a random model whose every row divides by 256, by type."""
    folder = tmp_path_factory.mktemp("compare")
    config = CheckpointConfig(
        layers=2, hidden=256, heads=4, head_dim=64, head_dim_full=64, ffn=256, experts=4, expert_ffn=256, canvas=16
    )
    checkpoint = write_checkpoint(folder / "checkpoint", config, vision=False)
    files = {}
    for kind in ("F32", "Q8_0", "Q4_K_M", "Q2_K"):
        files[kind] = folder / f"{kind}.gguf"
        quantize(checkpoint, files[kind], kind)
    return files


def test_a_model_beside_itself(wide: dict[str, Path]) -> None:
    for kind in ("F32", "Q4_K_M"):
        found = compare(wide[kind], [wide[kind]], levels=[1, 0.3], max_new_tokens=20, n_threads=1)
        same = found.candidates[0]
        for figures in (same, *same.levels):
            assert (figures.kl.mean, figures.kl.error) == (0.0, 0.0)
            assert (figures.agreement.mean, figures.entropy_shift.mean) == (1.0, 0.0)
        assert same.runs is not None
        assert (same.runs.same_tokens.mean, same.runs.same_first_block.mean) == (1.0, 1.0)
        assert same.runs.steps == same.runs.reference_steps


def test_fewer_bits_cost_more(wide: dict[str, Path]) -> None:
    found = compare(wide["F32"], [wide["Q2_K"], wide["Q8_0"], wide["Q4_K_M"]], runs=0, n_threads=1)
    q2, q8, q4 = found.candidates
    assert 0 < q8.kl.mean < q4.kl.mean < q2.kl.mean
    for a, b, c in zip(q8.levels, q4.levels, q2.levels, strict=True):
        assert 0 < a.kl.mean < b.kl.mean < c.kl.mean
    assert q8.agreement.mean >= q2.agreement.mean  # both may keep every token
    assert found.reference.bits_per_weight == 32
    assert 8.5 <= q8.model.bits_per_weight < 9
    assert 4.5 < q4.model.bits_per_weight < 6
    assert q2.model.n_bytes == wide["Q2_K"].stat().st_size
    again = compare(wide["F32"], [wide["Q2_K"]], runs=0, n_threads=2).candidates[0]
    assert again == q2  # the same on any number of threads
