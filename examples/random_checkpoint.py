#!/usr/bin/env python3
"""Writes a DiffusionGemma checkpoint with random weights, laid out as Hugging Face publishes the real one.

It says nothing sensible, but it goes through every step that the real model goes through, in seconds:

    python examples/random_checkpoint.py /tmp/tiny
    dgemma convert /tmp/tiny -o tiny.gguf --type f32
    dgemma run -m tiny.gguf -p "Hello" -n 32

Sizes are small unless given. ``--real-widths`` makes every matrix as large as in the 26B model (two layers, five
gigabytes in bfloat16), for measuring speed and memory. The same arguments make the same files, on every machine.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, ClassVar

import random_weights
import toy_tokenizer


@dataclass(frozen=True)
class SamplerConfig:
    """The sampler's numbers in generation_config.json, under the names that ``transformers`` gives them."""

    max_denoising_steps: int = 48
    t_min: float = 0.4
    t_max: float = 0.8
    entropy_bound: float = 0.1
    stability_threshold: int = 1
    confidence_threshold: float = 0.005


@dataclass(frozen=True)
class CheckpointConfig:
    """Sizes of the network, and how its random weights are spread."""

    layers: int = 3
    full_every: int = 3  # every third layer sees all positions; the last one always does
    hidden: int = 64
    heads: int = 4
    kv_heads: int = 2
    kv_heads_full: int = 1
    head_dim: int = 16
    head_dim_full: int = 32
    window: int = 8
    ffn: int = 96
    experts: int = 8
    experts_used: int = 2
    expert_ffn: int = 32
    vocab: int = 512
    canvas: int = 16
    context: int = 4096
    end_tokens: tuple[int, ...] = (1, 106, 50)  # what generation_config.json calls eos_token_id
    logit_spread: float = 1.3  # standard deviation of the logits
    branch_gain: float = 1.0  # how much a layer adds to its input: small makes the output resemble the input
    sampler: SamplerConfig = field(default_factory=SamplerConfig)

    VISION_HIDDEN: ClassVar[int] = 16

    def is_sliding(self, layer: int) -> bool:
        return (layer + 1) % self.full_every != 0 and layer != self.layers - 1

    def sizes(self, layer: int | None) -> dict[str, int]:
        """The names that the table of tensors uses for sizes, for one layer (None: outside the layers)."""
        full = layer is not None and not self.is_sliding(layer)
        return {
            "vocab": self.vocab,
            "hidden": self.hidden,
            "heads": self.heads,
            "kv_heads": self.kv_heads_full if full else self.kv_heads,
            "head_dim": self.head_dim_full if full else self.head_dim,
            "ffn": self.ffn,
            "experts": self.experts,
            "expert_ffn": self.expert_ffn,
        }


REAL_WIDTHS = CheckpointConfig(
    layers=2,
    full_every=6,
    hidden=2816,
    heads=16,
    kv_heads=8,
    kv_heads_full=2,
    head_dim=256,
    head_dim_full=512,
    window=1024,
    ffn=2112,
    experts=128,
    experts_used=8,
    expert_ffn=704,
    vocab=262144,
    canvas=256,
    context=262144,
)


def text_config(config: CheckpointConfig, spelling: str) -> dict[str, Any]:
    """config.json's text_config. ``released``: as published; ``per_layer``: as newer ``transformers`` save it."""
    full = {"head_dim": config.head_dim_full, "num_key_value_heads": config.kv_heads_full}
    spellings: dict[str, dict[str, Any]] = {
        "released": {
            "global_head_dim": config.head_dim_full,
            "num_global_key_value_heads": config.kv_heads_full,
        },
        "per_layer": {"per_layer_config": {f"{i:02d}": full for i in range(config.layers) if not config.is_sliding(i)}},
    }
    return {
        "model_type": "diffusion_gemma_text",
        "vocab_size": config.vocab,
        "hidden_size": config.hidden,
        "intermediate_size": config.ffn,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "num_key_value_heads": config.kv_heads,
        "head_dim": config.head_dim,
        **spellings[spelling],
        "hidden_activation": "gelu_pytorch_tanh",
        "max_position_embeddings": config.context,
        "rms_norm_eps": 1e-6,
        "pad_token_id": 0,
        "bos_token_id": 2,
        "eos_token_id": 1,
        "tie_word_embeddings": True,
        "rope_parameters": {
            "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
            "full_attention": {"rope_type": "proportional", "partial_rotary_factor": 0.25, "rope_theta": 1000000.0},
        },
        "attention_bias": False,
        "attention_dropout": 0.0,
        "sliding_window": config.window,
        "layer_types": [
            "sliding_attention" if config.is_sliding(i) else "full_attention" for i in range(config.layers)
        ],
        "final_logit_softcapping": 30.0,
        "use_bidirectional_attention": "vision",
        "num_experts": config.experts,
        "top_k_experts": config.experts_used,
        "moe_intermediate_size": config.expert_ffn,
    }


def config_json(config: CheckpointConfig, dtype: str, spelling: str) -> dict[str, Any]:
    """config.json: the text network, a vision tower as small as can be, and the canvas."""
    return {
        "architectures": ["DiffusionGemmaForBlockDiffusion"],
        "model_type": "diffusion_gemma",
        "dtype": dtype,
        "canvas_length": config.canvas,
        "eos_token_id": [1, 106],
        "tie_word_embeddings": True,
        "text_config": text_config(config, spelling),
        "vision_config": {
            "model_type": "gemma4_vision",
            "hidden_size": config.VISION_HIDDEN,
            "intermediate_size": 16,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "num_key_value_heads": 2,
            "head_dim": 8,
            "patch_size": 2,
            "position_embedding_size": 8,
        },
    }


def generation_config_json(config: CheckpointConfig) -> dict[str, Any]:
    """generation_config.json; unlike config.json it names all three tokens that end an answer."""
    numbers = asdict(config.sampler)
    bound = numbers.pop("entropy_bound")
    return {
        "bos_token_id": 2,
        "eos_token_id": list(config.end_tokens),
        "pad_token_id": 0,
        **numbers,
        "sampler_config": {"_cls_name": "EntropyBoundSamplerConfig", "entropy_bound": bound},
    }


def model_card(config: CheckpointConfig, seed: int) -> str:
    front = "license: mit\nlibrary_name: transformers\npipeline_tag: text-generation\ntags:\n- random-weights\n"
    sizes = "\n".join(f"- {name}: {value}" for name, value in asdict(config).items())
    return (
        f"---\n{front}---\n\n# Random DiffusionGemma\n\n"
        f"Random weights (seed {seed}) in DiffusionGemma's layout, for tests. It says nothing sensible.\n\n{sizes}\n"
    )


def write_checkpoint(
    path: str | Path,
    config: CheckpointConfig,
    *,
    seed: int = 0,
    dtype: str = "float32",
    shards: int = 1,
    spelling: str = "released",
    vision: bool = True,
    vocab_from: str | Path | None = None,
) -> Path:
    """Write a checkpoint folder and return its path.

    dtype: float32 or bfloat16. shards: 1, or more files with an index. spelling: see ``text_config``. vision: add a
    few tensors of the vision tower. vocab_from: a GGUF file whose vocabulary is used in place of the small one; its
    size must be ``config.vocab``.
    """
    folder = Path(path)
    folder.mkdir(parents=True, exist_ok=True)
    if vocab_from:
        tokens, merges, special, template = toy_tokenizer.real_vocabulary(Path(vocab_from))
    else:
        tokens, merges = toy_tokenizer.toy_vocabulary(config.vocab)
        special, template = sorted(toy_tokenizer.SPECIAL), toy_tokenizer.CHAT_TEMPLATE
    if len(tokens) != config.vocab:
        raise ValueError(f"{vocab_from}: {len(tokens)} tokens, but the network has {config.vocab}")

    def write_json(name: str, content: dict[str, Any]) -> None:
        (folder / name).write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")

    write_json("config.json", config_json(config, dtype, spelling))
    write_json("generation_config.json", generation_config_json(config))
    write_json("tokenizer.json", toy_tokenizer.tokenizer_json(tokens, merges, special))
    write_json("tokenizer_config.json", toy_tokenizer.TOKENIZER_CONFIG)
    (folder / "chat_template.jinja").write_text(template, encoding="utf-8")
    (folder / "README.md").write_text(model_card(config, seed), encoding="utf-8")
    random_weights.write_weights(
        folder, random_weights.plan(config, vision=vision), seed=seed, dtype=dtype, shards=shards
    )
    return folder


HELP = {
    "layers": "number of layers",
    "full_every": "every how many layers one sees all positions",
    "hidden": "width of the residual stream",
    "heads": "attention heads",
    "kv_heads": "key/value heads of a sliding layer",
    "kv_heads_full": "key/value heads of a full layer",
    "head_dim": "head size of a sliding layer",
    "head_dim_full": "head size of a full layer",
    "window": "how far back a sliding layer sees, in tokens",
    "ffn": "width of the dense feed-forward part",
    "experts": "number of experts",
    "experts_used": "experts that a token goes through",
    "expert_ffn": "width of one expert",
    "vocab": "number of tokens, at least 512",
    "canvas": "tokens written at a time",
    "context": "longest sequence that the model claims to read",
    "logit_spread": "standard deviation of the logits; about 1.3 is vague, 4 is sure of itself",
    "branch_gain": "how much a layer adds to its input",
}


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", metavar="OUT", help="folder to write")
    parser.add_argument("--seed", type=int, default=0, help="another seed, other weights (default 0)")
    parser.add_argument("--dtype", choices=sorted(random_weights.BYTES), default=None, help="default float32")
    parser.add_argument("--shards", type=int, default=1, help="number of safetensors files (default 1)")
    parser.add_argument("--spelling", choices=["released", "per_layer"], default="released", help="form of config.json")
    parser.add_argument("--no-vision", action="store_true", help="leave the vision tensors out")
    parser.add_argument("--real-widths", action="store_true", help="the 26B model's sizes, 2 layers, bfloat16: 5 GB")
    parser.add_argument("--vocab-from", metavar="VOCAB.gguf", help="use the vocabulary and chat template of this file")
    sizes = parser.add_argument_group("sizes")
    for entry in fields(CheckpointConfig):
        if entry.name in HELP:
            flag = "--" + entry.name.replace("_", "-")
            text = f"{HELP[entry.name]} (default {entry.default})"
            sizes.add_argument(flag, type=type(entry.default), default=None, metavar="N", help=text)
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    args = parser().parse_args(arguments)
    given = {name: getattr(args, name) for name in HELP if getattr(args, name) is not None}
    config = replace(REAL_WIDTHS if args.real_widths else CheckpointConfig(), **given)
    folder = write_checkpoint(
        args.out,
        config,
        seed=args.seed,
        dtype=args.dtype or ("bfloat16" if args.real_widths else "float32"),
        shards=args.shards,
        spelling=args.spelling,
        vision=not args.no_vision,
        vocab_from=args.vocab_from,
    )
    size = sum(file.stat().st_size for file in folder.iterdir())
    print(f"{folder}: {size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
