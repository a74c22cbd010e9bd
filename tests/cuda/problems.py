"""Logits for the CUDA kernels, and what they may make of them: plain arithmetic in float64."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from engine import philox
from gguf import GGMLQuantizationType as Kind

from dgemma.quantize.rows import dequantize_rows, quantize_rows

SPREAD = {"flat": (0.0, 0.0), "sharp": (2.0, 2.0), "mixed": (-1.0, 2.0)}  # powers of ten


def rows_of(kind: str, n: int, vocab: int, random: np.random.Generator) -> np.ndarray:
    spread = 10.0 ** random.uniform(*SPREAD[kind], n)
    return (random.standard_normal((n, vocab)) * spread[:, None]).astype(np.float32)


@dataclass(frozen=True)
class Problem:
    """One step; its fields are the arguments of ``run_on_card``."""

    logits: np.ndarray
    before: np.ndarray | None = None
    soft_cap: float = 0.0
    temperature: float = 0.6
    entropy_bound: float = 0.5
    seed: int = 7
    step: int = 3
    block: int = 2
    embedding: np.ndarray | None = None
    type: str = "F32"
    n_cols: int = 8
    dropped_mass: float = 1e-4
    max_kept: int = 4096
    tokens: tuple[int, ...] = ()
    is_buffered: bool = False

    def with_embedding(self, type: str, n_cols: int) -> Problem:
        random = np.random.default_rng(n_cols)
        values = random.standard_normal((self.logits.shape[1], n_cols), dtype=np.float32)
        return replace(self, embedding=quantize_rows(values, Kind[type]), type=type, n_cols=n_cols)

    def solved_by(self, card: Any) -> dict[str, Any]:
        problem = self if self.embedding is not None else self.with_embedding("F32", 8)
        return card(**vars(problem))

    @property
    def u(self) -> np.ndarray:
        sites = range(len(self.logits))
        return np.array([philox.unit(self.seed, i, self.step, self.block, philox.SAMPLE) for i in sites])

    @property
    def noise(self) -> np.ndarray:
        sites = range(len(self.logits))
        units = np.array([philox.unit(self.seed, i, self.step, self.block, philox.NOISE) for i in sites])
        return (units * self.logits.shape[1]).astype(np.int32)

    @property
    def z(self) -> np.ndarray:
        """Soft-capped logits over the temperature, float64 [C, V]."""
        x = self.logits.astype(np.float64)
        return (self.soft_cap * np.tanh(x / self.soft_cap) if self.soft_cap else x) / self.temperature

    @property
    def softmax(self) -> np.ndarray:
        e = np.exp(self.z - self.z.max(axis=1, keepdims=True))
        return e / e.sum(axis=1, keepdims=True)

    @property
    def z_rounding(self) -> float:
        """How far a kernel's z may be from ``z`` beside the row's maximum: a tanh within a few 1e-7."""
        return 4e-7 * self.soft_cap / self.temperature

    @property
    def values(self) -> np.ndarray:
        """The embedding's rows, float64 [V, n_cols]."""
        return dequantize_rows(self.embedding, Kind[self.type]).astype(np.float64)
