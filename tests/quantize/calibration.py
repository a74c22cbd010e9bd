"""A text to calibrate with: four hundred words."""

from __future__ import annotations

import random

_WORDS = "the model answers every piece of a text and the engine looks into each product of weights".split()  # noqa: SIM905
TEXT = "\n".join(" ".join(random.Random(line).choices(_WORDS, k=10)) for line in range(40))
