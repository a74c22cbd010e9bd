"""The decoding loop in plain numpy: MODEL.md section 5 as something that runs.

C canvas · V vocabulary · N the most steps. Random numbers come from outside, so that two samplers
can be given the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from oracle.reference import Array, Cache, Reference
from random_checkpoint import SamplerConfig


class Random(Protocol):
    """Where random numbers come from."""

    def noise(self) -> Array:
        """C tokens, uniform over the vocabulary: a canvas to start from, or the tokens for renoising."""

    def uniform(self) -> Array:
        """C numbers in [0, 1): what the samples of one step are drawn with."""


class Recorded:
    """The random numbers of a trace, in the order in which they were used."""

    def __init__(self, trace: Any) -> None:
        self._uniform: Iterator[Array] = iter(trace.u)
        first = np.diff(trace.block, prepend=-1) > 0  # a block's first canvas is noise as well
        noise: list[Array] = []
        for new, canvas, tokens in zip(first, trace.canvas, trace.noise, strict=True):
            noise += [canvas, tokens] if new else [tokens]
        self._noise = iter(noise)

    def noise(self) -> Array:
        return next(self._noise)

    def uniform(self) -> Array:
        return next(self._uniform)


class Step(NamedTuple):
    """What one step decided, position by position."""

    argmax: Array  # [C]
    sampled: Array  # [C]
    entropy: Array  # [C] nats
    accepted: Array  # [C] bool
    next_canvas: Array  # [C]


def temperature(sampling: SamplerConfig, remaining: int) -> float:
    """For the step with ``remaining`` steps to go, itself included: N on the first, 1 on the last."""
    span = sampling.t_max - sampling.t_min
    return sampling.t_min + span * remaining / sampling.max_denoising_steps


def log_softmax(z: Array) -> Array:
    shifted = z - z.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def entropy(z: Array) -> Array:
    """Entropy in nats of softmax(z), for each row."""
    log_p = log_softmax(z)
    return -(np.exp(log_p) * log_p).sum(axis=-1)


def sample(z: Array, u: Array) -> Array:
    """For each row the first token at which the cumulative probability exceeds u."""
    cumulative = np.cumsum(np.exp(log_softmax(z)), axis=-1)
    last = z.shape[-1] - 1  # rounding can leave the sum below u
    return np.minimum((cumulative <= u[:, None]).sum(axis=-1), last)


def accept(h: Array, bound: float) -> Array:
    """From the surest position on: accept while the entropies of those before it add up to no more than the bound."""
    order = np.argsort(h, kind="stable")
    before = np.cumsum(h[order]) - h[order]
    accepted = np.zeros(len(h), dtype=bool)
    accepted[order] = before <= bound
    return accepted


def entropy_bound_step(z: Array, entropy_bound: float, u: Array, noise: Array) -> Step:
    """One step on z = logits / temperature [C, V]. Computed in float64."""
    z = z.astype(np.float64)
    h, sampled = entropy(z), sample(z, u)
    accepted = accept(h, entropy_bound)
    return Step(z.argmax(axis=-1), sampled, h, accepted, np.where(accepted, sampled, noise))


class StopRule:
    """Stop when the argmax has not changed for ``stability_threshold`` comparisons and the mean entropy is small."""

    def __init__(self, sampling: SamplerConfig) -> None:
        self.sampling = sampling
        self.history: list[Array] = []

    def __call__(self, step: Step) -> bool:
        threshold = self.sampling.stability_threshold
        last = self.history[-threshold:] if threshold else []
        stable = len(last) == threshold and all(np.array_equal(step.argmax, before) for before in last)
        self.history.append(step.argmax)
        return bool(stable and step.entropy.mean() < self.sampling.confidence_threshold)


def first_end(canvas: Array, end_tokens: Sequence[int]) -> int:
    """Where the canvas ends: the index of its first end token, or its length."""
    hits = np.flatnonzero(np.isin(canvas, end_tokens))
    return int(hits[0]) if len(hits) else len(canvas)


class Denoised(NamedTuple):
    """One step of one block, as ``generate`` went through it."""

    block: int
    canvas: Array  # [C] what the decoder read
    temperature: float
    logits: Array  # [C, V]
    step: Step
    last: bool  # the block ends here: step.argmax is its result


def denoise(
    decode: Callable[[Array, Array | None], Array], sampling: SamplerConfig, random: Random, block: int
) -> Iterator[Denoised]:
    """The steps of one canvas. decode: (canvas, previous) -> logits."""
    canvas, previous, stop = random.noise(), None, StopRule(sampling)
    for remaining in range(sampling.max_denoising_steps, 0, -1):
        t = temperature(sampling, remaining)
        logits = decode(canvas, previous)
        previous = logits / logits.dtype.type(t)
        step = entropy_bound_step(previous, sampling.entropy_bound, random.uniform(), random.noise())
        last = stop(step) or remaining == 1
        yield Denoised(block, canvas, t, logits, step, last)
        if last:
            return
        canvas = step.next_canvas  # nothing is frozen: the next step may renoise any position


def generate(
    model: Reference, prompt: Array, sampling: SamplerConfig, random: Random, *, blocks: int, end_tokens: Sequence[int]
) -> Iterator[Denoised]:
    """Canvas after canvas; each finished one is encoded once, and an end token in it ends everything."""
    cache = Cache()
    model.encode(prompt, cache)
    for block in range(blocks):
        for denoised in denoise(lambda canvas, z: model.decode(canvas, cache, z), sampling, random, block):
            yield denoised
        finished = denoised.step.argmax
        if first_end(finished, end_tokens) < len(finished):
            return
        if block + 1 < blocks:
            model.encode(finished, cache)
