"""Checkpoints that are all header: the released model's shapes, and others, without their 52 GB."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import gguf
import numpy as np

from dgemma.convert.checkpoint import Checkpoint
from dgemma.convert.model import Model, checkpoint_model
from dgemma.convert.safetensors_file import StoredTensor
from dgemma.quantize.quantizer import plan_model
from dgemma.quantize.recipes import Recipe
from random_checkpoint import REAL_WIDTHS, CheckpointConfig, config_json
from random_weights import plan as random_tensors

RELEASED = replace(REAL_WIDTHS, layers=30)


def header_only(folder: Path, config: CheckpointConfig = RELEASED) -> Path:
    """A checkpoint folder whose weights are a hole: headers can be read, and nothing else."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config_json(config, "bfloat16", "released")))
    header: dict[str, object] = {}
    end = 0
    for tensor in random_tensors(config):
        begin, end = end, end + 2 * tensor.count
        header[tensor.name] = {"dtype": "BF16", "shape": list(tensor.shape), "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    with (folder / "model.safetensors").open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + end)
    return folder


def model_of(folder: Path, config: CheckpointConfig) -> Model:
    """The same for recipes, without any weights file."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config_json(config, "bfloat16", "released")))
    tensors = [StoredTensor(t.name, "none", "BF16", t.shape, 0, 2 * t.count) for t in random_tensors(config)]
    return checkpoint_model(Checkpoint(folder, {tensor.name: tensor for tensor in tensors}))


def hollow_gguf(path: Path, type: str, config: CheckpointConfig = RELEASED) -> Path:
    """A GGUF file of the released model's shapes in a type of file, whose weights are a hole: enough to plan with."""
    tensors = plan_model(model_of(path.with_suffix(""), config), Recipe.named(type)).tensors
    sliding = [(i + 1) % config.full_every != 0 for i in range(config.layers - 1)] + [False]
    writer = gguf.GGUFWriter(path, "diffusion-gemma")
    for key, value in {
        "context_length": config.context,
        "embedding_length": config.hidden,
        "block_count": config.layers,
        "feed_forward_length": config.ffn,
        "attention.head_count": config.heads,
        "attention.key_length": config.head_dim_full,
        "attention.value_length": config.head_dim_full,
        "attention.key_length_swa": config.head_dim,
        "attention.value_length_swa": config.head_dim,
        "attention.sliding_window": config.window,
        "rope.dimension_count": config.head_dim_full,
        "rope.dimension_count_swa": config.head_dim,
        "expert_count": config.experts,
        "expert_used_count": config.experts_used,
        "expert_feed_forward_length": config.expert_ffn,
    }.items():
        writer.add_uint32(f"diffusion-gemma.{key}", value)
    writer.add_uint32("diffusion.canvas_length", config.canvas)
    for key, number in {
        "attention.layer_norm_rms_epsilon": 1e-6,
        "rope.freq_base": 1e6,
        "rope.freq_base_swa": 1e4,
        "final_logit_softcapping": 30.0,
    }.items():
        writer.add_float32(f"diffusion-gemma.{key}", number)
    writer.add_array(
        "diffusion-gemma.attention.head_count_kv",
        [config.kv_heads if is_sliding else config.kv_heads_full for is_sliding in sliding],
    )
    writer.add_array("diffusion-gemma.attention.sliding_window_pattern", sliding)
    for tensor in tensors:
        writer.add_tensor_info(tensor.name, tensor.shape, np.dtype(np.float32), tensor.bytes, raw_dtype=tensor.kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    writer.close()
    with path.open("r+b") as file:
        begin = -(-path.stat().st_size // 32) * 32
        file.truncate(begin + sum(-(-tensor.bytes // 32) * 32 for tensor in tensors))
    return path
