"""Checkpoints that are all header: the released model's shapes, and others, without their 52 GB."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from dgemma.convert.checkpoint import Checkpoint
from dgemma.convert.model import Model, checkpoint_model
from dgemma.convert.safetensors_file import StoredTensor
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
