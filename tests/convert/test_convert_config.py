"""config.json and generation_config.json: what is read, what is missing, what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from checkpoints import edit_json, leftovers, read_gguf

from dgemma import CheckpointError
from dgemma.convert import convert, plan
from dgemma.convert.config import read_config
from dgemma.convert.generation import Sampler, read_end_tokens, read_sampler

Json = dict[str, Any]

ROOT_REQUIRED = ["model_type", "text_config", "canvas_length"]
TEXT_REQUIRED = [
    "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "head_dim",
    "num_key_value_heads", "global_head_dim", "num_global_key_value_heads", "hidden_activation", "rms_norm_eps",
    "max_position_embeddings", "sliding_window", "layer_types", "rope_parameters", "num_experts", "top_k_experts",
    "moe_intermediate_size",
]  # fmt: skip


def set_text(**fields: object) -> Callable[[Json], object]:
    return lambda config: config["text_config"].update(fields)


def set_rope(kind: str, **fields: object) -> Callable[[Json], object]:
    return lambda config: config["text_config"]["rope_parameters"][kind].update(fields)


@pytest.mark.parametrize("field", [*ROOT_REQUIRED, *(f"text_config.{name}" for name in TEXT_REQUIRED)])
def test_missing_field(checkpoint: Path, out: Path, field: str) -> None:
    def drop(config: Json) -> None:
        *parents, name = field.split(".")
        for parent in parents:
            config = config[parent]
        del config[name]

    edit_json(checkpoint / "config.json", drop)
    with pytest.raises(CheckpointError) as error:
        convert(checkpoint, out)
    assert str(error.value).startswith(f"{checkpoint / 'config.json'}: {field} is missing")
    assert leftovers(out.parent) == []


REFUSED: list[tuple[Callable[[Json], object], str, str]] = [
    (lambda c: c.update(model_type="gemma4"), "model_type", "'gemma4'; dgemma converts 'diffusion_gemma'"),
    (lambda c: c.update(model_type=7), "model_type", "must be text"),
    (lambda c: c.update(text_config=[]), "text_config", "must be an object"),
    (lambda c: c.update(canvas_length=0), "canvas_length", "from 1 to"),
    (lambda c: c.update(tie_word_embeddings=False), "tie_word_embeddings", "not supported"),
    (set_text(tie_word_embeddings=False), "text_config.tie_word_embeddings", "not supported"),
    (set_text(use_bidirectional_attention="all"), "text_config.use_bidirectional_attention", "'all'"),
    (set_text(attention_bias=True), "text_config.attention_bias", "biases"),
    (set_text(hidden_activation="silu"), "text_config.hidden_activation", "'silu'"),
    (set_text(hidden_size="32"), "text_config.hidden_size", "whole number"),
    (set_text(hidden_size="3" * 10_000), "text_config.hidden_size", "3333…"),
    (set_text(hidden_size=32.0), "text_config.hidden_size", "whole number"),
    (set_text(hidden_size=True), "text_config.hidden_size", "whole number"),
    (set_text(hidden_size=-1), "text_config.hidden_size", "from 1 to"),
    (set_text(hidden_size=2**40), "text_config.hidden_size", "from 1 to"),
    (set_text(rms_norm_eps=0), "text_config.rms_norm_eps", "above 0"),
    (set_text(rms_norm_eps=float("inf")), "text_config.rms_norm_eps", "finite"),
    (set_text(final_logit_softcapping="no"), "text_config.final_logit_softcapping", "finite"),
    (set_text(head_dim=15), "text_config.head_dim", "even"),
    (set_text(num_attention_heads=3), "text_config.num_attention_heads", "no multiple"),
    (set_text(top_k_experts=4), "text_config.top_k_experts", "from 1 to 3"),
    (set_text(num_hidden_layers=4), "text_config.layer_types", "names 3 layers, but num_hidden_layers is 4"),
    (set_text(num_hidden_layers=10**9), "text_config.num_hidden_layers", "from 1 to"),
    (set_text(layer_types=["full_attention", "mamba", "full_attention"]), "layer_types[1]", "'mamba'"),
    (set_text(layer_types=["sliding_attention"] * 3), "text_config.layer_types", "the last layer"),
    (set_text(layer_types="full"), "text_config.layer_types", "array"),
    (set_rope("full_attention", rope_type="yarn"), "rope_parameters.full_attention.rope_type", "'yarn'"),
    (set_rope("sliding_attention", rope_type="linear"), "rope_parameters.sliding_attention.rope_type", "'linear'"),
    (set_rope("full_attention", factor=8.0), "rope_parameters.full_attention.factor", "scaled"),
    (set_rope("full_attention", partial_rotary_factor=1.5), "full_attention.partial_rotary_factor", "above 1"),
    (set_rope("sliding_attention", partial_rotary_factor=0.5), "sliding_attention.partial_rotary_factor", "every pair"),
    (set_rope("full_attention", rope_theta=None), "full_attention.rope_theta", "missing"),
    (set_text(per_layer_config={"3": {}}), "per_layer_config.3", "not the index of one of the 3 layers"),
    (set_text(per_layer_config={"-1": {}}), "per_layer_config.-1", "not the index"),
    (set_text(per_layer_config={"2": {}, "02": {}}), "per_layer_config.02", "at most once"),
    (set_text(per_layer_config={"2": {"sliding_window": 4}}), "per_layer_config.2.sliding_window", "cannot differ"),
    (set_text(per_layer_config={"0": {"head_dim": 32}}), "text_config.per_layer_config", "[16, 32]"),
]


@pytest.mark.parametrize(("edit", "field", "cause"), REFUSED)
def test_refused(checkpoint: Path, out: Path, edit: Callable[[Json], object], field: str, cause: str) -> None:
    edit_json(checkpoint / "config.json", edit)
    with pytest.raises(CheckpointError) as error:
        convert(checkpoint, out)
    message = str(error.value)
    assert message.startswith(f"{checkpoint / 'config.json'}: ")
    assert field in message
    assert cause in message
    assert leftovers(out.parent) == []


@pytest.mark.parametrize("name", ["config.json", "generation_config.json", "tokenizer.json"])
@pytest.mark.parametrize(
    ("content", "cause"),
    [(b"", "not valid JSON"), (b"{", "not valid JSON"), (b"[]", "not an object"), (b"\xff", "not UTF-8"),
     (b"[" * 100_000, "not valid JSON")],
)  # fmt: skip
def test_damaged_json(checkpoint: Path, out: Path, name: str, content: bytes, cause: str) -> None:
    (checkpoint / name).write_bytes(content)
    with pytest.raises(CheckpointError, match=cause) as error:
        convert(checkpoint, out)
    assert str(error.value).startswith(f"{checkpoint / name}: ")
    assert leftovers(out.parent) == []


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json"])
def test_missing_file(checkpoint: Path, out: Path, name: str) -> None:
    (checkpoint / name).unlink()
    with pytest.raises(CheckpointError, match="no such file") as error:
        convert(checkpoint, out)
    assert str(error.value).startswith(f"{checkpoint / name}: ")
    assert leftovers(out.parent) == []


def test_key_value_heads_may_differ_from_layer_to_layer(pristine: Path, tmp_path: Path) -> None:
    config = json.loads((pristine / "config.json").read_text())
    config["text_config"]["per_layer_config"] = {"1": {"num_key_value_heads": 4}, "02": {"head_dim": 64}}
    path = tmp_path / "config.json"
    path.write_text(json.dumps(config))
    read = read_config(path)
    assert read.kv_heads == (2, 4, 2)
    assert (read.head_dim_sliding, read.head_dim_full) == (16, 64)
    assert [read.sizes(i)["head_dim"] for i in range(3)] == [16, 16, 64]


def test_null_means_the_default(pristine: Path, tmp_path: Path) -> None:
    config = json.loads((pristine / "config.json").read_text())
    config["text_config"].update(num_global_key_value_heads=None, final_logit_softcapping=None)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(config))
    assert read_config(path).kv_heads == (2, 2, 2)
    assert read_config(path).softcap == 30.0


def test_a_network_of_full_layers_only(checkpoint: Path) -> None:
    edit_json(checkpoint / "config.json", set_text(layer_types=["full_attention"] * 3))
    read = read_config(checkpoint / "config.json")
    assert (read.head_dim_sliding, read.head_dim_full) == (16, 32)
    with pytest.raises(CheckpointError, match=r"self_attn\.q_proj\.weight.*\[64, 32\].*\[128, 32\]"):
        plan(checkpoint)


@pytest.mark.parametrize(("fraction", "pairs"), [(0.25, 4), (1.0, 16), (0.3, 4), (0.01, 0)])
def test_rotating_pairs(checkpoint: Path, fraction: float, pairs: int) -> None:
    edit_json(checkpoint / "config.json", set_rope("full_attention", partial_rotary_factor=fraction))
    assert read_config(checkpoint / "config.json").rotating_pairs == pairs


def test_the_sampler_comes_from_the_generation_config(checkpoint: Path, out: Path) -> None:
    numbers = {
        "max_denoising_steps": 24, "t_min": 0.5, "t_max": 0.75, "stability_threshold": 2,
        "confidence_threshold": 0.25, "sampler_config": {"entropy_bound": 0.5},
    }  # fmt: skip
    edit_json(checkpoint / "generation_config.json", lambda config: config.update(numbers))
    convert(checkpoint, out)
    metadata, _ = read_gguf(out)
    keys = ("max_steps", "t_min", "t_max", "stability_threshold", "confidence_threshold", "entropy_bound")
    assert [metadata[f"diffusion.eb_{key}"] for key in keys] == [24, 0.5, 0.75, 2, 0.25, 0.5]


def test_the_sampler_has_defaults(checkpoint: Path) -> None:
    nulls = dict.fromkeys(("max_denoising_steps", "t_min", "t_max", "sampler_config", "stability_threshold"))
    edit_json(checkpoint / "generation_config.json", lambda config: config.update(nulls))
    assert read_sampler(checkpoint) == Sampler()
    (checkpoint / "generation_config.json").unlink()
    assert read_sampler(checkpoint) == Sampler()


@pytest.mark.parametrize(
    ("fields", "cause"),
    [({"t_min": 0}, "t_min is 0"), ({"t_max": "hot"}, "t_max is 'hot'"), ({"max_denoising_steps": 0}, "from 1 to"),
     ({"stability_threshold": -1}, "from 0 to"), ({"sampler_config": {"entropy_bound": -1}}, "sampler_config.entropy"),
     ({"eos_token_id": [1, 512]}, "holds 512"), ({"eos_token_id": "<eos>"}, "holds '<eos>'")],
)  # fmt: skip
def test_senseless_generation_config(checkpoint: Path, out: Path, fields: Json, cause: str) -> None:
    edit_json(checkpoint / "generation_config.json", lambda config: config.update(fields))
    with pytest.raises(CheckpointError) as error:
        convert(checkpoint, out)
    assert str(error.value).startswith(f"{checkpoint / 'generation_config.json'}: ")
    assert cause in str(error.value)
    assert leftovers(out.parent) == []


def test_end_tokens_are_the_union_of_three_places(checkpoint: Path) -> None:
    assert read_end_tokens(checkpoint, 512) == (1, 106, 50)
    edit_json(checkpoint / "generation_config.json", lambda config: config.pop("eos_token_id"))
    assert read_end_tokens(checkpoint, 512) == (1, 106)
    edit_json(checkpoint / "config.json", lambda config: config.pop("eos_token_id"))
    assert read_end_tokens(checkpoint, 512) == (1,)
    edit_json(checkpoint / "config.json", set_text(eos_token_id=[7, 3]))
    edit_json(checkpoint / "generation_config.json", lambda config: config.update(eos_token_id=9))
    assert read_end_tokens(checkpoint, 512) == (9, 7, 3)
