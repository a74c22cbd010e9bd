"""What the CPU's own product computes, step by step in numpy: the same integers, scales and roundings."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

GROUP = 32
_IQ4_NL = np.array([-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113])
BYTES = {
    "Q4_0": 18,
    "Q4_1": 20,
    "Q5_0": 22,
    "Q5_1": 24,
    "Q8_0": 34,
    "IQ4_NL": 18,
    "Q4_K": 144,
    "Q5_K": 176,
    "Q6_K": 210,
}


@dataclass(frozen=True)
class Weights:
    """w = scales q - mins, a scale for each 16 or 32 values, a minimum for each 32."""

    q: NDArray[np.int64]  # [rows, k]
    scales: NDArray[np.float32]  # [rows, k / 16 or k / 32]
    mins: NDArray[np.float32]  # [rows, k / 32]


def take_apart(rows: NDArray[np.uint8], kind: str) -> Weights:
    """Rows of bytes, of a type whose blocks have 32 or 256 values."""
    blocks = rows.reshape(len(rows), -1, BYTES[kind])
    q, scales, mins = (_small if BYTES[kind] < 100 else _large)(blocks, kind)
    flat = [np.ascontiguousarray(x).reshape(len(rows), -1) for x in (q, scales, mins)]
    return Weights(flat[0].astype(np.int64), flat[1], flat[2])


def multiply(w: Weights, x: NDArray[np.int64], d: NDArray[np.float32]) -> NDArray[np.float32]:
    """Columns d x, x integers [n, k] and d [n, k / 32], times the rows: float32 [n, rows]."""
    n, sub = len(x), w.q.shape[1] // w.scales.shape[1]
    total = np.zeros((n, len(w.q)), np.float32)
    for group in range(w.q.shape[1] // GROUP):
        scaled = np.zeros_like(total)
        for first in range(group * GROUP, (group + 1) * GROUP, sub):
            dot = (x[:, first : first + sub] @ w.q[:, first : first + sub].T).astype(np.float32)
            scaled = _fused(dot, w.scales[:, first // sub], scaled)
        total = _fused(scaled, d[:, group, None], total)
        sums = x[:, group * GROUP : (group + 1) * GROUP].sum(axis=1).astype(np.float32)
        total = _fused(-w.mins[:, group], (d[:, group] * sums)[:, None], total)
    return total


def _fused(a: NDArray[np.float32], b: NDArray[np.float32], c: NDArray[np.float32]) -> NDArray[np.float32]:
    """a b + c, rounded once: the product of two float32 is exact in float64."""
    return (a.astype(np.float64) * b.astype(np.float64) + c.astype(np.float64)).astype(np.float32)


def _half(blocks: NDArray[np.uint8], at: int) -> NDArray[np.float32]:
    return np.ascontiguousarray(blocks[..., at : at + 2]).view(np.float16).astype(np.float32)


def _small(b: NDArray[np.uint8], kind: str) -> tuple[NDArray[np.generic], NDArray[np.float32], NDArray[np.float32]]:
    d = _half(b, 0)
    m = _half(b, 2) if kind in ("Q4_1", "Q5_1") else np.zeros_like(d)
    if kind == "Q8_0":
        return b[..., 2:].view(np.int8), d, m
    nibbles = np.concatenate([b[..., -16:] & 15, b[..., -16:] >> 4], axis=-1).astype(np.int64)
    if kind in ("Q5_0", "Q5_1"):
        nibbles |= np.unpackbits(b[..., -20:-16], axis=-1, bitorder="little").astype(np.int64) << 4
    if kind == "IQ4_NL":
        return _IQ4_NL[nibbles], d, m
    return nibbles - {"Q4_0": 8, "Q5_0": 16}.get(kind, 0), d, -m


def _large(b: NDArray[np.uint8], kind: str) -> tuple[NDArray[np.generic], NDArray[np.float32], NDArray[np.float32]]:
    if kind == "Q6_K":
        return _q6_k(b)
    s, d, d_min = b[..., 4:16], _half(b, 0), _half(b, 2)
    scales = np.concatenate([s[..., :4] & 63, (s[..., 8:] & 15) | (s[..., :4] >> 6 << 4)], axis=-1)
    mins = np.concatenate([s[..., 4:8] & 63, (s[..., 8:] >> 4) | (s[..., 4:8] >> 6 << 4)], axis=-1)
    pairs = b[..., -128:].reshape(*b.shape[:2], 4, 1, 32)
    q = np.concatenate([pairs & 15, pairs >> 4], axis=-2).reshape(*b.shape[:2], 8, 32)
    if kind == "Q5_K":
        q = q | ((b[..., None, 16:48] >> np.arange(8, dtype=np.uint8)[:, None]) & 1) << 4
    return q, d * scales, d_min * mins


def _q6_k(b: NDArray[np.uint8]) -> tuple[NDArray[np.generic], NDArray[np.float32], NDArray[np.float32]]:
    halves = (*b.shape[:2], 2)
    low = b[..., :128].reshape(*halves, 1, 2, 32)
    low = np.concatenate([low & 15, low >> 4], axis=-3).reshape(*halves, 4, 32)
    high = (b[..., 128:192].reshape(*halves, 1, 32) >> (2 * np.arange(4, dtype=np.uint8)[:, None])) & 3
    q = (low | high << 4).astype(np.int64) - 32
    scales = _half(b, 208) * b[..., 192:208].view(np.int8)
    return q, scales, np.zeros((*b.shape[:2], 8), np.float32)
