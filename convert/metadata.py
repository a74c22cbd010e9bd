"""The keys of a DiffusionGemma GGUF file, under the names that other loaders expect."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import gguf
from gguf import GGUFValueType

from ..errors import CheckpointError
from .config import ModelConfig
from .generation import Sampler
from .tokenizer import Vocabulary

ARCHITECTURE = "diffusion-gemma"
QUANTIZATION_VERSION = 2
COMMIT = re.compile(r"[0-9a-f]{40}")


def add_network(writer: gguf.GGUFWriter, config: ModelConfig) -> None:
    """Everything under ``diffusion-gemma.``, and the canvas."""
    prefix = ARCHITECTURE + "."
    for key, count in {
        "context_length": config.context,
        "embedding_length": config.hidden,
        "block_count": config.layers,
        "feed_forward_length": config.ffn,
        "expert_feed_forward_length": config.expert_ffn,
        "expert_count": config.experts,
        "expert_used_count": config.experts_used,
        "attention.head_count": config.heads,
        "attention.key_length": config.head_dim_full,
        "attention.value_length": config.head_dim_full,
        "attention.key_length_swa": config.head_dim_sliding,
        "attention.value_length_swa": config.head_dim_sliding,
        "attention.sliding_window": config.window,
        "rope.dimension_count": config.head_dim_full,
        "rope.dimension_count_swa": config.head_dim_sliding,
        # Gemma 4 has these two; loaders that share its code ask for them.
        "attention.shared_kv_layers": 0,
        "embedding_length_per_layer_input": 0,
    }.items():
        writer.add_uint32(prefix + key, count)
    for key, value in {
        "attention.layer_norm_rms_epsilon": config.eps,
        "rope.freq_base": config.rope_base_full,
        "rope.freq_base_swa": config.rope_base_sliding,
        "final_logit_softcapping": config.softcap,
    }.items():
        writer.add_float32(prefix + key, value)
    writer.add_array(prefix + "attention.head_count_kv", list(config.kv_heads))
    writer.add_array(prefix + "attention.sliding_window_pattern", list(config.sliding))
    writer.add_bool(prefix + "attention.causal", False)
    writer.add_uint32("diffusion.canvas_length", config.canvas)


def add_generation(
    writer: gguf.GGUFWriter, sampler: Sampler, vocabulary: Vocabulary, end_tokens: Sequence[int]
) -> None:
    """The sampler's numbers, the tokenizer, and every token that ends an answer."""
    sampler.add_to(writer)
    ends = list(end_tokens) or [vocabulary.special_ids["eos"]]
    writer.add_key_value("diffusion.eos_token_ids", ends, GGUFValueType.ARRAY, sub_type=GGUFValueType.UINT32)
    vocabulary.add_to(writer)


def add_general(writer: gguf.GGUFWriter, folder: Path, file_type: gguf.LlamaFileType) -> None:
    """What the model card says, by gguf's own reading of it, and the file's type. The tensors must be known."""
    writer.add_type(gguf.GGUFType.MODEL)
    before = set(writer.kv_data[0])
    try:
        _add_model_card(writer, folder)
        for key in set(writer.kv_data[0]) - before:
            entry = writer.kv_data[0][key]
            if entry.type == GGUFValueType.STRING:
                entry.value = _as_text(entry.value)
            elif entry.type == GGUFValueType.ARRAY:
                entry.value = [_as_text(item) for item in entry.value]
    except Exception as error:  # the card is free text: yaml and gguf raise whatever it provokes
        reason = " ".join(str(error).split())
        raise CheckpointError(f"{folder / 'README.md'}: the front matter cannot be read ({reason})") from None
    writer.add_file_type(file_type)
    writer.add_quantization_version(QUANTIZATION_VERSION)


def _add_model_card(writer: gguf.GGUFWriter, folder: Path) -> None:
    # Not Metadata.load: it would also copy top_k, temperature and the like, which this model's sampler does not have.
    card = gguf.Metadata.load_model_card(folder)
    config = gguf.Metadata.load_hf_parameters(folder)
    total, shared, expert, count = writer.get_total_parameter_count()
    metadata = gguf.Metadata.apply_metadata_heuristic(gguf.Metadata(), card, config, _named_path(folder), total)
    metadata.name = metadata.name or ARCHITECTURE
    metadata.size_label = metadata.size_label or gguf.size_label(total, shared, expert, count)
    metadata.set_gguf_meta_model(writer)


def _named_path(folder: Path) -> Path:
    """A path whose last part names the model: the hub's cache has models--OWNER--NAME/snapshots/COMMIT."""
    if COMMIT.fullmatch(folder.name) and folder.parent.name == "snapshots":
        return Path(folder.parent.parent.name.rpartition("--")[2])
    return folder


def _as_text(value: object) -> str:
    """Text as it is, and what YAML took for a number or a date as the text it was. The writer itself does not look."""
    if isinstance(value, list | dict):
        raise TypeError(f"text was expected, not {value!r}")
    text = str(value)
    text.encode("utf-8")  # half of a surrogate pair is no text
    return text
