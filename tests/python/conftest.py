"""A vocabulary small enough to check by hand, and the real one where it lies beside the repository."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dgemma import Tokenizer
from dgemma.convert import convert
from random_checkpoint import CheckpointConfig, write_checkpoint

CONTROL_TOKENS = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "<|turn>", "<turn|>", "<|think|>"]
USER_TOKENS = ["<|tool_response>", "<|channel>"]
MERGES = ["h e", "l l", "he ll", "hell o", "▁ hello", "\n \n", "▁ ▁"]
NORMAL, CONTROL, USER_DEFINED, BYTE = 1, 3, 4, 6
REAL_VOCABULARY = Path(__file__).parents[3] / "shared" / "data" / "ggml-vocab-gemma-4.gguf"


@pytest.fixture
def metadata() -> dict[str, Any]:
    """The tokenizer's keys of a GGUF file, as ``_core.read_gguf`` gives them."""
    byte_tokens = [f"<0x{byte:02X}>" for byte in range(256)]
    pieces = [*"▁abcdefghijklmnopqrstuvwxyzĠ\n", *(merge.replace(" ", "") for merge in MERGES)]
    kinds = [CONTROL] * len(CONTROL_TOKENS) + [USER_DEFINED] * len(USER_TOKENS) + [BYTE] * 256
    return {
        "tokenizer.ggml.model": "gemma4",
        "tokenizer.ggml.tokens": [*CONTROL_TOKENS, *USER_TOKENS, *byte_tokens, *pieces],
        "tokenizer.ggml.token_type": np.array(kinds + [NORMAL] * len(pieces), dtype=np.int32),
        "tokenizer.ggml.merges": list(MERGES),
        "tokenizer.ggml.bos_token_id": 2,
        "tokenizer.ggml.eos_token_id": 1,
        "tokenizer.ggml.unknown_token_id": 3,
        "tokenizer.chat_template": "{{ bos_token }}{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}",
    }


@pytest.fixture(scope="session")
def toy_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small random model with every special token of Gemma 4, as examples/random_checkpoint.py makes it."""
    pytest.importorskip("dgemma._core", reason="the engine is not built")
    folder = tmp_path_factory.mktemp("toy")
    checkpoint = write_checkpoint(folder / "checkpoint", CheckpointConfig(), vision=False)
    convert(checkpoint, folder / "toy.gguf", type="f32")
    return folder / "toy.gguf"


@pytest.fixture(scope="session")
def toy(toy_model: Path) -> Tokenizer:
    return Tokenizer.from_gguf(toy_model)


@pytest.fixture(scope="session")
def real_vocabulary() -> Path:
    """The path of Gemma 4's vocabulary, which is too large to commit."""
    pytest.importorskip("dgemma._core", reason="the engine is not built")
    if not REAL_VOCABULARY.exists():
        pytest.skip(f"{REAL_VOCABULARY.name} is not there: it comes with the sources of llama-cpp-python")
    return REAL_VOCABULARY


@pytest.fixture(scope="session")
def real_tokenizer(real_vocabulary: Path) -> Tokenizer:
    return Tokenizer.from_gguf(real_vocabulary)
