"""The small DiffusionGemma that solves Sudoku: its sizes, its tokenizer and the files around its weights.

Everything of the official architecture is there. What is small is chosen so that ggml's K-quants fit as they fit the
released model: rows of 256 numbers everywhere but in the experts' down matrices, which there as here take a type with
blocks of 32. The window is shorter than the prompt, so sliding layers really slide.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import toy_tokenizer
from dgemma.sudoku import CELLS, SIZE
from random_checkpoint import CheckpointConfig, config_json, generation_config_json

HELD_OUT = Path(__file__).with_name("heldout.jsonl")

# Six rows of six cells, each followed by a line end; after the last row the end of the turn takes its place.
CANVAS = CELLS + SIZE
CONFIG = CheckpointConfig(
    layers=4,
    full_every=2,
    hidden=256,
    heads=4,
    kv_heads=1,
    kv_heads_full=1,
    head_dim=64,
    head_dim_full=64,
    window=32,
    ffn=128,
    experts=8,
    experts_used=2,
    expert_ffn=64,
    vocab=512,
    canvas=CANVAS,
    context=512,
)
ROLES = "user model system " * 2  # what the tokenizer learns its merges from: each role is one token, as officially


def write_files(folder: Path, dtype: str) -> None:
    """Everything of the checkpoint but its weights and its model card."""
    tokens, merges = toy_tokenizer.toy_vocabulary(CONFIG.vocab, ROLES)
    folder.mkdir(parents=True, exist_ok=True)

    def write_json(name: str, content: dict[str, Any]) -> None:
        (folder / name).write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")

    write_json("config.json", config_json(CONFIG, dtype, "released"))
    write_json("generation_config.json", generation_config_json(CONFIG))
    write_json("tokenizer.json", toy_tokenizer.tokenizer_json(tokens, merges, sorted(toy_tokenizer.SPECIAL)))
    write_json("tokenizer_config.json", toy_tokenizer.TOKENIZER_CONFIG)
    (folder / "chat_template.jinja").write_text(toy_tokenizer.CHAT_TEMPLATE, encoding="utf-8")
