"""What an engine answers, as plain values: the same functions run here and in the emulation's process."""

from __future__ import annotations

from typing import Any

import numpy as np

PROMPT = [2, 105, 300, 301, 302, 106]


def generate(model: str, seed: int, tokens: int = 48, layers: int = -1) -> list[dict[str, Any]]:
    """Every step of an answer."""
    from dgemma import Engine, GenerationConfig, StepEvent

    config = GenerationConfig(max_denoising_steps=12, entropy_bound=2.0, confidence_threshold=0.05)
    with Engine(model, n_ctx=128, n_threads=1, n_gpu_layers=layers) as engine:
        events = engine.generate(PROMPT, max_new_tokens=tokens, seed=seed, config=config)
        return [
            {name: getattr(event, name) for name in ("block", "step", "canvas", "argmax", "accepted", "entropy")}
            for event in events
            if isinstance(event, StepEvent)
        ]


def conditioned_logits(model: str, previous: np.ndarray) -> np.ndarray:
    """A decoder pass that is conditioned on logits of the caller's."""
    from dgemma import Engine

    with Engine(model, n_ctx=128, n_threads=1) as engine:
        session = engine.session()
        session.prefill(PROMPT)
        return session.denoise([300] * engine.info.canvas_length, previous)


def sampler_memory(model: str) -> tuple[int, int]:
    """The bytes of the sampler as planned, and once a session is there."""
    from dgemma import Engine

    with Engine(model, n_ctx=128, n_threads=1) as engine:
        planned = engine.memory["CPU"]["sampler"]
        session = engine.session()
        session.prefill(PROMPT)
        return planned, engine.memory["CPU"]["sampler"]


def expert_times(**layer: Any) -> dict[str, Any]:
    """What ``gpu_check.py`` measures, once."""
    from dgemma._core import time_experts

    return time_experts(**layer, n_runs=1)
