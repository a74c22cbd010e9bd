"""How far restored weights are from the original ones, in a few numbers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Distortion:
    """rms, largest: of the error, relative to the original's root mean square. The others count values."""

    rms: float
    largest: float
    exact: int
    sign_flips: int  # positive became negative or the other way round
    rounded_to_zero: int  # not zero before
    count: int

    @classmethod
    def between(cls, original: np.ndarray, restored: np.ndarray) -> Distortion:
        x, y = original.astype(np.float64).ravel(), restored.astype(np.float64).ravel()
        if x.shape != y.shape or not np.isfinite(y).all():
            raise ValueError("restored values are too many, too few, or no numbers")
        scale = float(np.sqrt((x**2).mean())) or 1.0
        error = y - x
        return cls(
            rms=float(np.sqrt((error**2).mean())) / scale,
            largest=float(np.abs(error).max()) / scale,
            exact=int((error == 0).sum()),
            sign_flips=int((x * y < 0).sum()),
            rounded_to_zero=int(((x != 0) & (y == 0)).sum()),
            count=x.size,
        )
