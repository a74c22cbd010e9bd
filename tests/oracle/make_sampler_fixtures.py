"""Fixtures of the sampler alone, from the reference's own classes on made-up logits. Part of make_fixtures.py."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from types import SimpleNamespace

import numpy as np
import torch
from transformers.generation import EosTokenCriteria, StoppingCriteriaList
from transformers.models.diffusion_gemma.generation_diffusion_gemma import (
    DiffusionGemmaGenerationMixin,
    EntropyBoundSampler,
    LinearTemperatureScheduleLogitsProcessor,
    StableAndConfidentStoppingCriteria,
)

from oracle.cases import SAMPLER_CASES

Arrays = dict[str, np.ndarray]
# 0 is a limit case that the reference's config refuses, but not its sampler
BOUNDS = {"bound_0": 0.0, "mixed": 5.0, "sharp": 0.5}


def entropy(z: torch.Tensor) -> torch.Tensor:
    """Nats, for each row; as the reference computes it."""
    return torch.distributions.Categorical(logits=z).entropy()


def sample(probabilities: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Tokens [C] drawn from probabilities [C, V], the numbers u [C] that draw them, and u's distance to another token.

    u lies in the middle of its token's interval and is redrawn while that is narrow, so that rounding elsewhere does
    not draw the neighbour.
    """
    edges = np.cumsum(probabilities.astype(np.float64), axis=-1)
    edges = np.pad(edges / edges[:, -1:], ((0, 0), (1, 0)))  # [C, V + 1]
    row = np.arange(len(edges))
    best, gap = np.zeros(len(edges), dtype=np.int64), np.zeros(len(edges))
    for _ in range(32):
        drawn = (edges[:, 1:] <= rng.random(len(edges))[:, None]).sum(axis=-1)
        drawn_gap = (edges[row, drawn + 1] - edges[row, drawn]) / 2
        better = (gap < 1e-3) & (drawn_gap > gap)
        best, gap = np.where(better, drawn, best), np.where(better, drawn_gap, gap)
    return best, edges[row, best] + gap, gap


def accept_gap(h: np.ndarray, bound: float) -> np.ndarray:
    """How close the decision was for the closest position."""
    ordered = np.sort(h.astype(np.float64))
    before = np.cumsum(ordered) - ordered
    return np.float32(np.abs(before[1:] - bound).min(initial=np.inf))


def _made_up_logits(name: str, rng: np.random.Generator) -> np.ndarray:
    """Logits [C, V] of one sampler case."""
    normal = lambda *shape: rng.standard_normal(shape)  # noqa: E731
    scale = 10.0 ** rng.uniform(-1, 1.2, (64, 1))
    logits = {
        "flat": lambda: 0.3 * normal(16, 512),
        "sharp": lambda: 8 * normal(24, 701),
        "mixed": lambda: scale * normal(64, 257),
        "ties": lambda: np.tile(np.round(6 * normal(8, 64)), (4, 1)),  # equal rows, and equal logits within a row
        "bound_0": lambda: 2 * normal(16, 128),
        "one_position": lambda: 2 * normal(1, 96),
        "wide": lambda: 3 * normal(3, 20011),
    }[name]()
    return (30 * np.tanh(logits / 30)).astype(np.float32)


def sampler_case(name: str) -> Arrays:
    """One step of the reference's sampler. Arrays: see cases.py."""
    rng = np.random.default_rng(list(name.encode()))
    logits, temperature = _made_up_logits(name, rng), np.float32(rng.uniform(0.4, 0.8))
    z = torch.from_numpy(logits) / temperature
    bound = BOUNDS.get(name, 0.1)
    if name == "ties":  # three groups of four equal rows are accepted, and none of the fourth group
        ordered = np.sort(entropy(z).numpy().astype(np.float64))
        bound = ordered[:12].sum() - ordered[11] / 2
    sampler = EntropyBoundSampler(SimpleNamespace(entropy_bound=bound), *logits.shape, 48)
    sampled, u, _ = sample(torch.softmax(z, dim=-1).numpy(), rng)
    noise = torch.from_numpy(rng.integers(0, logits.shape[1], len(logits)))
    sampler.initialize_canvas = lambda *_: noise[None]
    canvas = sampler.accept_canvas(noise[None] * 0, torch.from_numpy(sampled)[None], z[None], 1)
    return {
        "logits": logits,
        "temperature": temperature,
        "entropy_bound": np.float32(bound),
        "u": u,
        "noise": noise.numpy().astype(np.int32),
        "argmax": z.argmax(dim=-1).numpy().astype(np.int32),
        "sampled": sampled.astype(np.int32),
        "entropy": entropy(z).numpy(),
        "accepted": sampler.accepted_token_mask[0].numpy(),
        "next_canvas": sampler.renoise_canvas(canvas, 1)[0].numpy().astype(np.int32),
    }


def temperature_schedule() -> Arrays:
    """steps, t_min, t_max [k]; temperature [k, 48]: of the first step, the second, …, NaN after the last."""
    settings = [(1, 0.4, 0.8), (6, 0.4, 0.8), (24, 0.4, 0.8), (48, 0.4, 0.8), (48, 0.1, 1.5)]
    temperature = np.full((len(settings), 48), np.nan, dtype=np.float32)
    for row, (steps, low, high) in enumerate(settings):
        schedule = LinearTemperatureScheduleLogitsProcessor(low, high, steps)
        for step in range(steps):
            temperature[row, step] = 1 / schedule(None, torch.ones(1), steps - step).item()
    steps, low, high = (np.array(column) for column in zip(*settings, strict=True))
    return {"steps": steps.astype(np.int32), "t_min": low, "t_max": high, "temperature": temperature}


def stop_rule() -> Arrays:
    """z [T, C, V], already divided by temperature; thresholds [3] (stability); confidence; stopped [3, T].

    The rule is asked at every step, also after it first said stop. T = 10: the argmax holds still for runs of one, two
    and three steps, and is sometimes sure, sometimes not.
    """
    rng = np.random.default_rng(5)
    canvases = rng.integers(0, 32, (4, 6))
    shown, sure = [0, 1, 1, 1, 2, 2, 3, 3, 3, 3], [1, 1, 1, 0, 1, 1, 0, 1, 1, 1]
    z = rng.standard_normal((10, 6, 32))
    for step, (canvas, confident) in enumerate(zip(shown, sure, strict=True)):
        z[step, np.arange(6), canvases[canvas]] = 20 if confident else 6
    z = z.astype(np.float32)
    thresholds, confidence = np.array([0, 1, 2], dtype=np.int32), 0.005
    stopped = np.zeros((3, 10), dtype=bool)
    for row, threshold in enumerate(thresholds):
        rule = StableAndConfidentStoppingCriteria(int(threshold), confidence)
        for step in range(10):
            logits = torch.from_numpy(z[step])[None]
            stopped[row, step] = rule(logits.argmax(dim=-1), logits).item()
    return {"z": z, "thresholds": thresholds, "confidence": np.float32(confidence), "stopped": stopped}


def end_tokens() -> Arrays:
    """canvas [k, C]; end_tokens [3]; finished [k]; padded [k, C]: all after the first end token is <pad> (0)."""
    ends, length = np.array([1, 106, 50]), 8
    canvas = np.random.default_rng(6).integers(200, 300, (8, length))
    for row, places in enumerate([{}, {0: 1}, {7: 106}, {3: 50}, {2: 106, 5: 1}, {3: 1, 4: 1}, {6: 50, 7: 50}, {}]):
        for place, token in places.items():
            canvas[row, place] = token
    canvas[7, 2] = 0  # <pad> is no end
    padded, finished = canvas.copy(), np.zeros(len(canvas), dtype=bool)
    config = SimpleNamespace(pad_token_id=0, eos_token_id=ends.tolist())
    for row in range(len(canvas)):
        # an end token in the prompt, as every chat prompt has, must not count
        ids = torch.from_numpy(np.concatenate([[2, 106], canvas[row]]))[None]
        result, done = DiffusionGemmaGenerationMixin._finalize_canvas(
            ids,
            torch.zeros(1, dtype=torch.bool),
            config,
            StoppingCriteriaList([EosTokenCriteria(ends.tolist())]),
            length,
            torch.from_numpy(ends),
        )
        padded[row], finished[row] = result[0, 2:].numpy(), done.item()
    as_ids = {name: a.astype(np.int32) for name, a in {"canvas": canvas, "end_tokens": ends, "padded": padded}.items()}
    return as_ids | {"finished": finished}


FIXTURES: dict[str, Callable[[], Arrays]] = {
    **{name: partial(sampler_case, name) for name in SAMPLER_CASES},
    "temperature": temperature_schedule,
    "stop_rule": stop_rule,
    "end_tokens": end_tokens,
}
