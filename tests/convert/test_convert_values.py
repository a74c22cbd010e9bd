"""Every converted tensor against a slow, obvious twin, and the file as other readers see it."""

from __future__ import annotations

import math
import struct
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from checkpoints import SMALL, Values, edit_json, edit_weights, load_file, read_gguf, write_checkpoint

from dgemma.convert import convert, plan, safetensors_file

# MODEL.md section 2, written out once more by hand.
MODEL_NAMES = {
    "model.decoder.embed_tokens.weight": "token_embd.weight",
    "model.decoder.norm.weight": "output_norm.weight",
    "model.decoder.self_conditioning.pre_norm.weight": "self_cond_pre_norm.weight",
    "model.decoder.self_conditioning.gate_proj.weight": "self_cond_gate.weight",
    "model.decoder.self_conditioning.up_proj.weight": "self_cond_up.weight",
    "model.decoder.self_conditioning.down_proj.weight": "self_cond_down.weight",
}
LAYER_NAMES = {
    "input_layernorm.weight": "attn_norm.weight",
    "self_attn.q_proj.weight": "attn_q.weight",
    "self_attn.k_proj.weight": "attn_k.weight",
    "self_attn.v_proj.weight": "attn_v.weight",
    "self_attn.o_proj.weight": "attn_output.weight",
    "self_attn.q_norm.weight": "attn_q_norm.weight",
    "self_attn.k_norm.weight": "attn_k_norm.weight",
    "post_attention_layernorm.weight": "post_attention_norm.weight",
    "pre_feedforward_layernorm.weight": "ffn_norm.weight",
    "mlp.gate_proj.weight": "ffn_gate.weight",
    "mlp.up_proj.weight": "ffn_up.weight",
    "mlp.down_proj.weight": "ffn_down.weight",
    "post_feedforward_layernorm_1.weight": "post_ffw_norm_1.weight",
    "pre_feedforward_layernorm_2.weight": "pre_ffw_norm_2.weight",
    "router.proj.weight": "ffn_gate_inp.weight",
    "router.scale": "ffn_gate_inp.scale",
    "router.per_expert_scale": "ffn_down_exps.scale",
    "experts.gate_up_proj": "ffn_gate_up_exps.weight",
    "experts.down_proj": "ffn_down_exps.weight",
    "post_feedforward_layernorm_2.weight": "post_ffw_norm_2.weight",
    "post_feedforward_layernorm.weight": "post_ffw_norm.weight",
    "layer_scalar": "layer_output_scale.weight",
}
FLOAT32_ALWAYS = ("norm", "scale", "ffn_gate_inp", "rope_freqs")


def gguf_name(hf: str) -> str | None:
    """The GGUF name of a tensor of the checkpoint; None for the vision tower."""
    if hf in MODEL_NAMES:
        return MODEL_NAMES[hf]
    tower, _, rest = hf.partition(".layers.")
    layer, _, part = rest.partition(".")
    if tower == "model.decoder":
        return f"blk.{layer}.{LAYER_NAMES[part]}"
    if tower == "model.encoder.language_model" and part == "layer_scalar":
        return f"blk.{layer}.enc_layer_output_scale.weight"
    return None


def nearest_bf16(value: float) -> float:
    """Of the two bfloat16 around a float32, the nearer one; the even one at a tie."""
    bits = int(np.float32(value).view(np.uint32))
    low, high = (np.uint32(bits & 0xFFFF0000), np.uint32((bits & 0xFFFF0000) + 0x10000))
    below, above = (abs(float(end.view(np.float32)) - value) for end in (low, high))
    chosen = low if below < above or (below == above and bits & 0x10000 == 0) else high
    return float(chosen.view(np.float32))


def q8_0_block(values: np.ndarray[Any, Any]) -> bytes:
    """32 float32 as ggml's reference quantizer packs them: the F16 scale, then 32 signed bytes."""
    scale = np.float32(np.abs(values).max()) / np.float32(127)
    inverse = np.float32(1) / scale if scale else np.float32(0)
    scaled = [float(np.float32(value) * inverse) for value in values]
    rounded = [math.copysign(math.floor(abs(x) + 0.5), x) for x in scaled]  # in double, where the sum is exact
    return struct.pack("<e32b", float(scale), *map(int, rounded))


def expected_type(name: str, row: int, target: str) -> str:
    if target == "f32" or any(part in name for part in FLOAT32_ALWAYS):
        return "F32"
    return "F16" if target == "q8_0" and row % 32 else target.upper()


@pytest.mark.parametrize("target", ["f32", "f16", "bf16", "q8_0"])
def test_every_tensor_equals_its_slow_twin(pristine: Path, out: Path, target: str) -> None:
    convert(pristine, out, target)
    _, tensors = read_gguf(out)
    stored = load_file(pristine / "model.safetensors")
    sources = {name: values for hf, values in stored.items() if (name := gguf_name(hf))}
    assert set(tensors) == {*sources, "rope_freqs.weight"}
    for name, source in sources.items():
        tensor = tensors[name]
        kind = expected_type(name, source.shape[-1], target)
        assert tensor.tensor_type.name == kind, name
        assert tensor.shape.tolist() == list(reversed(source.shape)), name
        if kind == "F32":
            np.testing.assert_array_equal(tensor.data, source)
        elif kind == "F16":
            np.testing.assert_array_equal(tensor.data, source.astype(np.float16))
        elif kind == "BF16":
            twin = [nearest_bf16(float(value)) for value in source.ravel()[:200]]
            values = gguf.dequantize(tensor.data, gguf.GGMLQuantizationType.BF16)
            np.testing.assert_array_equal(values.ravel()[:200], twin)
            assert np.abs(values.reshape(source.shape) - source).max() <= np.abs(source).max() / 256
        else:
            blocks = source.reshape(-1, 32)
            assert tensor.data.tobytes() == b"".join(q8_0_block(block) for block in blocks), name


def test_rope_factors_are_ones_for_the_rotating_pairs(pristine: Path, out: Path) -> None:
    convert(pristine, out, "q8_0")
    factors = read_gguf(out)[1]["rope_freqs.weight"].data
    # head dimension 32, a quarter of it rotates: 4 of 16 pairs
    np.testing.assert_array_equal(factors, np.array([1.0] * 4 + [1e30] * 12, dtype=np.float32))


@pytest.mark.parametrize(("source", "target"), [("bfloat16", "bf16"), ("float16", "f16")])
def test_a_type_converted_to_itself_keeps_its_bits(tmp_path: Path, out: Path, source: str, target: str) -> None:
    if source == "bfloat16":
        folder = write_checkpoint(tmp_path / "model", SMALL, dtype="bfloat16")
    else:
        folder = write_checkpoint(tmp_path / "model", SMALL)
        edit_weights(folder, lambda values: values.update({k: v.astype(np.float16) for k, v in values.items()}))
    convert(folder, out, target)
    stored = safetensors_file.read_header(folder / "model.safetensors")["model.decoder.embed_tokens.weight"]
    data = (folder / "model.safetensors").read_bytes()[stored.begin : stored.begin + stored.bytes]
    assert read_gguf(out)[1]["token_embd.weight"].data.tobytes() == data


def test_bfloat16_to_float32_is_exact(tmp_path: Path, out: Path) -> None:
    folder = write_checkpoint(tmp_path / "model", SMALL, dtype="bfloat16")
    convert(folder, out, "f32")
    values = read_gguf(out)[1]["blk.1.ffn_up.weight"].data
    stored = safetensors_file.read_header(folder / "model.safetensors")["model.decoder.layers.1.mlp.up_proj.weight"]
    raw = (folder / "model.safetensors").read_bytes()[stored.begin : stored.begin + stored.bytes]
    twin = np.frombuffer(b"".join(b"\0\0" + raw[i : i + 2] for i in range(0, len(raw), 2)), np.float32)
    np.testing.assert_array_equal(values.ravel(), twin)


def test_same_checkpoint_same_bytes_however_it_is_cut(
    pristine: Path, tmp_path: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One file or shards, either spelling of config.json, pieces large or small: all the same file."""
    convert(pristine, out, "q8_0")
    first = out.read_bytes()
    write_checkpoint(tmp_path / "model", SMALL, shards=3, spelling="per_layer")
    assert not (tmp_path / "model" / "model.safetensors").exists()
    monkeypatch.setattr(safetensors_file, "CHUNK_BYTES", 1000)
    convert(tmp_path / "model", out, "q8_0", force=True)
    assert out.read_bytes() == first


def test_per_layer_keys_as_current_transformers_writes_them(pristine: Path, checkpoint: Path, out: Path) -> None:
    def respell(config: dict[str, Any]) -> None:
        text = config["text_config"]
        full = {"head_dim": text.pop("global_head_dim"), "num_key_value_heads": text.pop("num_global_key_value_heads")}
        text["per_layer_config"] = {"2": full}

    convert(pristine, out, "f16")
    first = out.read_bytes()
    edit_json(checkpoint / "config.json", respell)
    convert(checkpoint, out, "f16", force=True)
    assert out.read_bytes() == first


def test_metadata(pristine: Path, out: Path) -> None:
    convert(pristine, out, "bf16")
    metadata, _ = read_gguf(out)
    arch = "diffusion-gemma."
    expected = {
        "general.architecture": "diffusion-gemma",
        "general.type": "model",
        "general.name": "Model",  # of the folder
        "general.license": "mit",
        "general.tags": ["random-weights", "text-generation"],
        "general.file_type": gguf.LlamaFileType.MOSTLY_BF16,
        "general.quantization_version": 2,
        arch + "context_length": 4096,
        arch + "embedding_length": 32,
        arch + "block_count": 3,
        arch + "feed_forward_length": 64,
        arch + "expert_feed_forward_length": 20,
        arch + "expert_count": 3,
        arch + "expert_used_count": 2,
        arch + "attention.head_count": 4,
        arch + "attention.head_count_kv": [2, 2, 1],
        arch + "attention.key_length": 32,
        arch + "attention.value_length": 32,
        arch + "attention.key_length_swa": 16,
        arch + "attention.value_length_swa": 16,
        arch + "attention.sliding_window": 8,
        arch + "attention.sliding_window_pattern": [True, True, False],
        arch + "attention.causal": False,
        arch + "attention.shared_kv_layers": 0,
        arch + "attention.layer_norm_rms_epsilon": pytest.approx(1e-6),
        arch + "embedding_length_per_layer_input": 0,
        arch + "rope.dimension_count": 32,
        arch + "rope.dimension_count_swa": 16,
        arch + "rope.freq_base": 1e6,
        arch + "rope.freq_base_swa": 1e4,
        arch + "final_logit_softcapping": 30.0,
        "diffusion.canvas_length": 16,
        "diffusion.eb_max_steps": 48,
        "diffusion.eb_t_max": pytest.approx(0.8),
        "diffusion.eb_t_min": pytest.approx(0.4),
        "diffusion.eb_entropy_bound": pytest.approx(0.1),
        "diffusion.eb_stability_threshold": 1,
        "diffusion.eb_confidence_threshold": pytest.approx(0.005),
        "diffusion.eos_token_ids": [1, 106, 50],
    }
    assert {key: metadata.get(key) for key in expected} == expected


@pytest.mark.parametrize("target", ["f32", "q8_0"])
def test_the_plan_is_what_gets_written(pristine: Path, out: Path, target: str) -> None:
    planned = plan(pristine, target)
    calls: list[tuple[int, int, str]] = []
    report = convert(pristine, out, target, progress=lambda *call: calls.append(call))
    tensors = read_gguf(out)[1].values()
    assert [(t.name, list(t.shape), t.type, t.bytes) for t in planned.tensors] == [
        (t.name, t.shape.tolist()[::-1], t.tensor_type.name, t.n_bytes) for t in tensors
    ]
    assert report.plan == planned
    assert report.bytes == out.stat().st_size
    assert (planned.vision_tensors, planned.vision_bytes) == (3, 4 * (32 * 16 + 16 * 12 + 16))
    assert calls[0] == (0, planned.bytes, "token_embd.weight")
    assert calls[-1][:2] == (planned.bytes, planned.bytes)


def test_duplicates_of_tied_weights_are_ignored(pristine: Path, checkpoint: Path, out: Path) -> None:
    convert(pristine, out, "f16")
    first = out.read_bytes()

    def duplicate(values: Values) -> None:
        embeddings, norm = values["model.decoder.embed_tokens.weight"], values["model.decoder.norm.weight"]
        values["lm_head.weight"] = values["model.encoder.language_model.embed_tokens.weight"] = embeddings.copy()
        values["model.encoder.language_model.norm.weight"] = norm.copy()

    edit_weights(checkpoint, duplicate)
    assert convert(checkpoint, out, "f16", force=True).plan.duplicates == 3
    assert out.read_bytes() == first


def test_memory_stays_bounded_by_the_piece_not_the_tensor() -> None:
    """The real model's largest expert tensor, 1 GB of bfloat16, is read 1 MB at a time."""
    shape = (128, 1408, 2816)
    tensor = safetensors_file.StoredTensor("experts", "file", "BF16", shape, 0, 2 * math.prod(shape))
    assert 0 < safetensors_file.chunk_rows(tensor) * 2816 * 2 <= safetensors_file.CHUNK_BYTES == 1 << 20
