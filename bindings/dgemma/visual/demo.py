"""A generation that never was: events that denoise given text, for ``python -m dgemma.visual`` and for tests."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from ..events import BlockEvent, DoneEvent, Event, GenerationStats, StepEvent
from ..tokenizer import Tokenizer

TEXT = """\
The sky is blue because air scatters short waves more than long ones. Sunlight holds all colours; on its way down, \
the blue part is thrown about in every direction, and so it reaches your eye from everywhere, while red goes almost \
straight through. At sunset the path is longer: 青 is used up, and what is left is orange. In Hebrew: השמיים כחולים. 🌈

1. Shorter waves scatter more, by the fourth power.
2. Violet scatters most, but there is less of it, and eyes see it worse.
"""

_CONTROL, _BYTE, _NORMAL = 3, 6, 1


def toy_tokenizer(text: str = TEXT) -> Tokenizer:
    """A tokenizer with two end tokens, the 256 bytes, and the words and characters of ``text``."""
    words = {("▁" if joined else "") + word for joined in (True, False) for word in text.split()}
    bytes_ = [f"<0x{byte:02X}>" for byte in range(256)]
    tokens = ["<pad>", "<eos>", "<bos>", "<unk>", "<turn|>", *bytes_, *sorted(words | set(text.replace(" ", "▁")))]
    kinds = [_CONTROL] * 5 + [_BYTE] * 256 + [_NORMAL] * (len(tokens) - 261)
    metadata = {
        "tokenizer.ggml.model": "gemma4",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": np.array(kinds, dtype=np.int32),
        "tokenizer.ggml.merges": [],
        "tokenizer.ggml.bos_token_id": 2,
        "tokenizer.ggml.eos_token_id": 1,
        "tokenizer.ggml.unknown_token_id": 3,
    }
    return Tokenizer.from_metadata(metadata, "toy vocabulary")


def toy_ids(tokenizer: Tokenizer, text: str = TEXT) -> list[int]:
    """``text`` as ids of ``toy_tokenizer``: whole words where it has them, else characters."""
    ids = []
    for line in text.splitlines(keepends=True):
        for index, word in enumerate(line.removesuffix("\n").split(" ")):
            spelled = "▁" + word if index else word
            id = tokenizer.token_to_id(spelled)
            ids += [id] if id is not None else tokenizer.encode(spelled.replace("▁", " "), add_bos=False)
        ids += tokenizer.encode("\n", add_bos=False) if line.endswith("\n") else []
    return ids


def scripted_events(
    tokenizer: Tokenizer, answer: Sequence[int], canvas_length: int = 64, steps: int = 48, seed: int = 1
) -> Iterator[Event]:
    """Events as an engine would give them for ``answer``: sure of the beginning first, of the end last."""
    random = np.random.default_rng(seed)
    blocks = [list(answer[start : start + canvas_length]) for start in range(0, len(answer), canvas_length)]
    end = tokenizer.eos_ids[0]
    total = 0
    for block, tokens in enumerate(blocks):
        target = np.array(tokens + [end] * (canvas_length - len(tokens)), dtype=np.int32)
        difficulty = 0.6 * np.linspace(0, 1, canvas_length) + 0.4 * random.random(canvas_length)
        for step in range(1, steps + 1):
            yield _step(random, target, difficulty, block, step, steps, tokenizer.vocab_size)
            total += 1
            if step > steps // 2 and step / steps > difficulty.max() + 0.1:
                break
        yield BlockEvent(block, tokens)
    stats = GenerationStats(8, len(answer), len(blocks), total, 0.1, 1.0, 1.1)
    yield DoneEvent("stop", end, stats)


def _step(
    random: np.random.Generator,
    target: np.ndarray[tuple[int], np.dtype[np.int32]],
    difficulty: np.ndarray[tuple[int], np.dtype[np.float64]],
    block: int,
    step: int,
    steps: int,
    vocab_size: int,
) -> StepEvent:
    """How far a position is depends on its difficulty; near its turning point it wavers."""
    ahead = step / steps - difficulty + 0.05 * random.standard_normal(len(target))
    entropy = (5.0 / (1.0 + np.exp(24 * ahead))).astype(np.float32)
    accepted = entropy < random.choice([0.1, 0.4, 1.5], size=len(target))
    noise = random.integers(0, vocab_size, len(target)).astype(np.int32)
    draft = np.where(entropy < 2.5, target, random.permutation(target)).astype(np.int32)
    canvas = np.where(accepted, draft, noise).astype(np.int32)
    return StepEvent(block, step, 0.4 + 0.4 * (steps - step + 1) / steps, canvas, accepted, entropy, draft)
