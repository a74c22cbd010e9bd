"""Engines on stand-in cards, in a process of their own: what is registered with ggml stays registered.

    standin_worker.py LIBRARY MODEL JOB

Prints what the job found out as JSON. The jobs are the functions below whose name begins with ``job_``.
"""

from __future__ import annotations

import ctypes
import json
import sys
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

import dgemma
import dgemma._core

RESERVE = 500_000_000
ROOM = 400_000_000
CONTEXT = 600  # more than one round of 256 keys


class Cards:
    """The stand-ins, "CARD0" and "CARD1", or of another name."""

    def __init__(self, library: str, sizes: list[int], name: str = "CARD") -> None:
        self._library = ctypes.CDLL(library)
        for count in ("card_used", "card_peak", "card_graphs", "card_repeated", "card_moved"):
            getattr(self._library, count).restype = ctypes.c_uint64
        self._library.register_card.restype = ctypes.c_bool
        for index, size in enumerate(sizes):
            if not self._library.register_card(f"{name}{index}".encode(), ctypes.c_uint64(size)):
                print(json.dumps("other ggml"))
                sys.exit(0)

    def used(self, card: int) -> int:
        return int(self._library.card_used(card))

    def graphs(self, card: int) -> int:
        return int(self._library.card_graphs(card))

    def repeated(self, card: int) -> int:
        return int(self._library.card_repeated(card))

    def moved(self, card: int) -> int:
        return int(self._library.card_moved(card))

    def lose(self, card: int, passes: int) -> None:
        self._library.lose_card(card, ctypes.c_int64(passes))

    def unstartable(self, card: int) -> None:
        self._library.break_card(card)

    def overstate(self, card: int, size: int) -> None:
        self._library.overstate_card(card, ctypes.c_uint64(size))

    def register_empty(self, backend: str) -> None:
        self._library.register_empty(backend.encode())

    def resize(self, card: int, size: int) -> None:
        self._library.resize_card(card, ctypes.c_uint64(size))


def passes(engine: dgemma.Engine) -> list[Any]:
    """Two encodings and after each two steps, the second conditioned: every logit."""
    session, found = engine.session(), []
    rng = np.random.default_rng(5)
    n, vocab = engine.info.canvas_length, engine.info.n_vocab
    for length in (21, 290):
        session.prefill(rng.integers(0, vocab, length).tolist())
        canvas = rng.integers(0, vocab, n).tolist()
        first = session.denoise(canvas)
        found += [first, session.denoise(rng.integers(0, vocab, n).tolist(), previous=first / 0.7)]
    found.append(session.denoise(canvas))  # the same n_past again: what is kept from run to run is still there
    return found


def compare(model: str, exact: bool, reference: dict[str, Any], cards: Cards) -> dict[str, Any]:
    """By placement: the largest difference from the reference's logits, and what took how much memory."""
    options: dict[str, Any] = {"n_ctx": CONTEXT, "n_threads": 2, "exact": exact, "n_batch": 64}
    with dgemma.Engine(model, **options, **reference) as engine:
        expected = passes(engine)
    report: dict[str, Any] = {"scale": max(float(np.abs(logits).max()) for logits in expected)}
    for name, placement in PLACEMENTS.items():
        before, ran = [cards.used(i) for i in (0, 1)], [cards.graphs(i) for i in (0, 1)]
        with dgemma.Engine(model, **options, **placement) as engine:
            session = engine.session()
            memory, plan = engine.memory, engine.plan
            used = [cards.used(i) - before[i] for i in (0, 1)]
            del session
            logits = passes(engine)
        report[name] = {
            "error": max(float(np.abs(a - b).max()) for a, b in zip(logits, expected, strict=True)),
            "memory": memory,
            "plan": plan.memory,
            "layers": [[layer.device, layer.experts] for layer in plan.layers],
            "head": plan.head,
            "used": used,
            "graphs": [cards.graphs(i) - ran[i] for i in (0, 1)],
            "left": [cards.used(i) - before[i] for i in (0, 1)],
        }
    return report


PLACEMENTS: dict[str, dict[str, Any]] = {
    "what fits": {},
    "split": {"tensor_split": [1, 1]},
    "one card": {"main_gpu": 1},
    "last layers": {"n_gpu_layers": 2},
    "head alone": {"n_gpu_layers": 1},
    "experts on the CPU": {"n_cpu_moe": -1},
    "some experts": {"n_cpu_moe": 2, "tensor_split": [2, 1]},
    "by pattern": {"override_tensor": ["blk\\.1\\.ffn_gate_up_exps=CPU", "attn_q=CARD1", "token_embd=CPU"]},
    "experts on the other card": {"main_gpu": 0, "override_tensor": "exps=CARD1"},
    "conditioning on the other card": {"main_gpu": 0, "override_tensor": "self_cond_down=CARD1"},
}


def job_exact(model: str, cards: Cards) -> Any:
    return compare(model, True, {"n_gpu_layers": 0}, cards)


def job_fast(model: str, cards: Cards) -> Any:
    return compare(model, False, PLACEMENTS["one card"], cards)


def job_answers(model: str, cards: Cards) -> Any:
    """Whole answers of several blocks, by placement."""
    answers = {}
    for name, placement in {"cpu": {"n_gpu_layers": 0}, **PLACEMENTS}.items():
        with dgemma.Engine(model, n_ctx=256, n_threads=2, exact=True, **placement) as engine:
            events = list(engine.generate(list(range(2, 30)), max_new_tokens=48, seed=3))
        answers[name] = [event.tokens for event in events if isinstance(event, dgemma.BlockEvent)]
    return answers


def job_lost(model: str, cards: Cards) -> Any:
    """A card that fails in the middle, and another session on it; then one that is too small; then memory that is gone
    between plan and allocation."""
    said = {}
    engine = dgemma.Engine(model, n_ctx=256, tensor_split=[1, 1])
    session = engine.session()
    session.prefill([2, 3, 4])
    cards.lose(1, 1)
    said["lost"] = sentence(lambda: [session.prefill([5]) for _ in range(3)])
    said["held"] = session.n_past
    cards.lose(1, -1)
    session.prefill([5])
    said["again"] = session.n_past
    cards.resize(1, 1)
    said["no room"] = sentence(lambda: [engine.session() for _ in range(1)])
    return said


def job_small(model: str, cards: Cards) -> Any:
    """What cards with less and less room get, and what is refused."""
    need = sum(dgemma.plan_devices(model, 256, device_memory=[1 << 40, 1]).memory["GPU0"].values())
    cards.resize(1, 1)
    report: dict[str, Any] = {"need": need, "placed": []}
    for share in (1.0, 0.9, 0.6, 0.0):
        room = RESERVE + int((need - RESERVE) * share)
        cards.resize(0, room)
        with warnings.catch_warnings(record=True) as caught, dgemma.Engine(model, n_ctx=256) as engine:
            layers = [[layer.device, layer.experts] for layer in engine.plan.layers]
            session = engine.session()
            fits = cards.used(0) <= room - RESERVE
            report["placed"].append([layers, engine.plan.head, fits, [str(warning.message) for warning in caught]])
            del session
    cards.resize(0, RESERVE + int((need - RESERVE) * 0.8))
    report["refused"] = sentence(lambda: dgemma.Engine(model, n_ctx=256, n_gpu_layers=99))
    return report


def job_unstartable(model: str, cards: Cards) -> Any:
    cards.unstartable(1)
    return sentence(lambda: dgemma.Engine(model, n_ctx=256, main_gpu=1))


def job_taken(model: str, cards: Cards) -> Any:
    """A card whose memory another program takes after the plan: what is said, from nothing left to enough left."""
    cards.overstate(0, RESERVE + ROOM)
    said: list[str] = []
    for left in range(0, 6_000_000, 20_000):
        cards.resize(0, left)
        words = sentence(lambda: dgemma.Engine(model, n_ctx=2048, main_gpu=0).session())
        if not said or said[-1] != words:
            said.append(words)
    return said


def job_commands(model: str, cards: Cards) -> Any:
    """The command line where a card is lost after so many passes: exit code, what was answered and what was said."""
    said = {}
    answer = ["run", "-m", model, "-p", "hello", "-n", "32", "-s", "1", "-ts", "1,1"]
    for name, passes, command in (
        ("run", -1, answer),
        ("run, lost at once", 0, answer),
        ("run, lost in the second block", 52, answer),
        ("bench", 3, ["bench", "-m", model, "-p", "20", "--steps", "2", "-r", "1", "-ts", "1,1"]),
    ):
        cards.lose(1, passes)
        said[name] = command_line(*command)
    return said


def job_named_cuda(model: str, cards: Cards) -> Any:
    """Where dgemma may have been built without kernels: what engines warn of, by their arguments."""
    said: dict[str, Any] = {"why": dgemma._core.cuda_unavailable(), "list": command_line("run", "--list-devices")}
    requests: dict[str, dict[str, Any]] = {
        "all": {},
        "layers on the CPU": {"n_gpu_layers": 1},
        "head on the CPU": {"override_tensor": "token_embd=CPU"},
        "none": {"n_gpu_layers": 0},
        "exact": {"exact": True},
    }
    for name, request in requests.items():
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            dgemma.Engine(model, n_ctx=256, **request).close()
        said[name] = [str(warning.message) for warning in caught]
    return said


def job_empty(model: str, cards: Cards) -> Any:
    """A backend of ggml's that finds no card."""
    said: dict[str, Any] = {"before": dgemma._core.why_no_gpu()}
    cards.register_empty("CUDA")
    said["list"] = command_line("run", "--list-devices")
    said["-ngl 3"] = command_line("run", "-m", model, "-p", "hello", "-n", "1", "-ngl", "3")
    return said


def command_line(*arguments: str) -> list[Any]:
    from typer.testing import CliRunner

    from dgemma.cli import app

    done = CliRunner().invoke(app, list(arguments))
    return [done.exit_code, done.stdout, done.stderr]


def sentence(call: Callable[[], object]) -> str:
    try:
        call()
    except dgemma.Error as error:
        return f"{type(error).__name__}: {error}"
    return "nothing was raised"


if __name__ == "__main__":
    library, model, job = sys.argv[1:4]
    dgemma.list_devices()  # ggml is loaded and has its CPU
    number = 0 if job == "empty" else 2
    cards = Cards(library, [RESERVE + ROOM] * number, "CUDA" if job == "named_cuda" else "CARD")
    print(json.dumps(globals()[f"job_{job}"](model, cards)))
