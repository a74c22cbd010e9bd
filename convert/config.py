"""config.json of a DiffusionGemma checkpoint, in either of its spellings, as one checked record.

Released checkpoints give the full layers' sizes as ``global_head_dim`` and ``num_global_key_value_heads``; current
``transformers`` saves ``per_layer_config`` instead, an object from layer index (perhaps zero-padded) to overrides.
What the engine does not compute is refused here, by name: a file that runs but says something else is worse than none.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from .jsonfile import Fields, read_fields

MODEL_TYPE = "diffusion_gemma"
SLIDING, FULL = "sliding_attention", "full_attention"

# The engine's own caps: far above any real model, and no product of two overflows 64 bits.
MAX_LAYERS, MAX_WIDTH, MAX_HEADS, MAX_EXPERTS = 1024, 1 << 20, 1024, 4096
MAX_VOCAB, MAX_CONTEXT, MAX_CANVAS = 1 << 24, 1 << 26, 1 << 14


@dataclass(frozen=True)
class ModelConfig:
    """The numbers of one network. Tuples have one entry for each layer."""

    vocab: int
    hidden: int
    ffn: int
    heads: int
    experts: int
    experts_used: int
    expert_ffn: int
    context: int  # tokens
    window: int  # tokens a sliding layer sees, itself included
    canvas: int  # tokens
    eps: float
    softcap: float
    head_dim_sliding: int
    head_dim_full: int
    rope_base_sliding: float
    rope_base_full: float
    rotary_fraction: float  # share of the full layers' pairs that rotate
    sliding: tuple[bool, ...]
    kv_heads: tuple[int, ...]

    @property
    def layers(self) -> int:
        return len(self.sliding)

    @property
    def rope_pairs(self) -> int:
        """Pairs of a full layer's head, rotating or not."""
        return self.head_dim_full // 2

    @property
    def rotating_pairs(self) -> int:
        return int(self.rotary_fraction * self.head_dim_full // 2)

    def sizes(self, layer: int) -> Mapping[str, int]:
        """The names that the table of tensors uses for sizes, for one layer."""
        return {
            "vocab": self.vocab,
            "hidden": self.hidden,
            "ffn": self.ffn,
            "heads": self.heads,
            "kv_heads": self.kv_heads[layer],
            "head_dim": self.head_dim_sliding if self.sliding[layer] else self.head_dim_full,
            "experts": self.experts,
            "expert_ffn": self.expert_ffn,
            "rope_pairs": self.rope_pairs,
        }


def read_config(path: Path) -> ModelConfig:
    """Read config.json. Raises CheckpointError where a field is missing, senseless or beyond the engine."""
    root = read_fields(path)
    model_type = root.text("model_type")
    if model_type != MODEL_TYPE:
        root.fail("model_type", f"is {model_type!r}; dgemma converts {MODEL_TYPE!r} checkpoints only")
    text = root.object("text_config")
    _refuse_unsupported(root, text)
    sliding = _layer_types(text)
    head_dims, kv_heads = _heads(text, sliding)
    heads = text.integer("num_attention_heads", 1, MAX_HEADS)
    for layer, count in enumerate(kv_heads):
        if heads % count:
            text.fail("num_attention_heads", f"is {heads}, no multiple of layer {layer}'s {count} key/value heads")
    rope_sliding, rope_full, rotary_fraction = _rope(text)
    experts = text.integer("num_experts", 1, MAX_EXPERTS)
    return ModelConfig(
        vocab=text.integer("vocab_size", 1, MAX_VOCAB),
        hidden=text.integer("hidden_size", 1, MAX_WIDTH),
        ffn=text.integer("intermediate_size", 1, MAX_WIDTH),
        heads=heads,
        experts=experts,
        experts_used=text.integer("top_k_experts", 1, experts),
        expert_ffn=text.integer("moe_intermediate_size", 1, MAX_WIDTH),
        context=text.integer("max_position_embeddings", 1, MAX_CONTEXT),
        window=text.integer("sliding_window", 1, MAX_CONTEXT),
        canvas=root.integer("canvas_length", 1, MAX_CANVAS),
        eps=text.number("rms_norm_eps", above=0),
        # transformers never saves this one, so absent means its default.
        softcap=text.number("final_logit_softcapping", above=0, default=30.0),
        head_dim_sliding=_uniform(text, head_dims, sliding, of=True) or _head_dim(text, "head_dim"),
        head_dim_full=_uniform(text, head_dims, sliding, of=False),
        rope_base_sliding=rope_sliding,
        rope_base_full=rope_full,
        rotary_fraction=rotary_fraction,
        sliding=sliding,
        kv_heads=kv_heads,
    )


def _refuse_unsupported(root: Fields, text: Fields) -> None:
    activation = text.text("hidden_activation")
    if activation != "gelu_pytorch_tanh":
        text.fail("hidden_activation", f"is {activation!r}; only 'gelu_pytorch_tanh' is supported")
    if text.flag("attention_bias", default=False):
        text.fail("attention_bias", "is true; attention with biases is not supported")
    bidirectional = text.data.get("use_bidirectional_attention")
    if bidirectional not in (None, "vision"):
        text.fail("use_bidirectional_attention", f"is {bidirectional!r}; only 'vision' and null are supported")
    for fields in (root, text):
        if not fields.flag("tie_word_embeddings", default=True):
            fields.fail("tie_word_embeddings", "is false; an encoder with weights of its own is not supported")


def _layer_types(text: Fields) -> tuple[bool, ...]:
    """For each layer, whether it is a sliding one."""
    count = text.integer("num_hidden_layers", 1, MAX_LAYERS)
    types = text.array("layer_types")
    if len(types) != count:
        text.fail("layer_types", f"names {len(types)} layers, but num_hidden_layers is {count}")
    for layer, kind in enumerate(types):
        if kind not in (SLIDING, FULL):
            text.fail(f"layer_types[{layer}]", f"is {kind!r}, but must be {SLIDING!r} or {FULL!r}")
    if types[-1] != FULL:
        text.fail("layer_types", f"ends with {types[-1]!r}, but the last layer must be {FULL!r}")
    return tuple(kind == SLIDING for kind in types)


def _head_dim(fields: Fields, field: str) -> int:
    size = fields.integer(field, 2, MAX_WIDTH)
    if size % 2:
        fields.fail(field, f"is {size}, but must be even: RoPE turns pairs")
    return size


def _heads(text: Fields, sliding: tuple[bool, ...]) -> tuple[list[int], tuple[int, ...]]:
    """Head dimension and number of key/value heads, layer by layer, from whichever spelling the file has."""
    base = text.integer("num_key_value_heads", 1, MAX_HEADS)
    dims, kv_heads = [_head_dim(text, "head_dim")] * len(sliding), [base] * len(sliding)
    if text.has("per_layer_config"):
        for layer, fields in _overrides(text, len(sliding)).items():
            dims[layer] = _head_dim(fields, "head_dim") if fields.has("head_dim") else dims[layer]
            kv_heads[layer] = fields.integer("num_key_value_heads", 1, MAX_HEADS, default=base)
        return dims, tuple(kv_heads)
    if "global_head_dim" not in text.data:
        text.fail("global_head_dim", "is missing, and so is per_layer_config: one of them gives the full layers' sizes")
    if "num_global_key_value_heads" not in text.data:
        text.fail("num_global_key_value_heads", "is missing; null would mean as many as num_key_value_heads")
    full_dim = _head_dim(text, "global_head_dim")
    full_kv_heads = text.integer("num_global_key_value_heads", 1, MAX_HEADS, default=base)
    dims = [dim if slides else full_dim for dim, slides in zip(dims, sliding, strict=True)]
    return dims, tuple(base if slides else full_kv_heads for slides in sliding)


def _overrides(text: Fields, layers: int) -> dict[int, Fields]:
    per_layer = text.object("per_layer_config")
    found: dict[int, Fields] = {}
    for key in per_layer.data:
        layer = int(key) if key.isascii() and key.isdigit() and len(key) < 9 else -1
        if not 0 <= layer < layers or layer in found:
            per_layer.fail(key, f"is not the index of one of the {layers} layers, each at most once")
        found[layer] = per_layer.object(key)
        for name in found[layer].data:
            if name not in ("head_dim", "num_key_value_heads"):
                found[layer].fail(name, "cannot differ from layer to layer here")
    return found


def _uniform(text: Fields, dims: list[int], sliding: tuple[bool, ...], *, of: bool) -> int:
    """The one head dimension of all sliding (of=True) or full layers; 0 where there is no such layer."""
    values = {dim for dim, slides in zip(dims, sliding, strict=True) if slides == of}
    if len(values) > 1:
        kind = SLIDING if of else FULL
        text.fail("per_layer_config", f"gives {kind} layers the head dimensions {sorted(values)}; they must be one")
    return values.pop() if values else 0


def _rope(text: Fields) -> tuple[float, float, float]:
    """Base of the sliding layers, base of the full layers, share of the full layers' pairs that rotate."""
    rope = text.object("rope_parameters")
    sliding, full = rope.object(SLIDING), rope.object(FULL)
    for fields, kind in ((sliding, "default"), (full, "proportional")):
        if fields.text("rope_type") != kind:
            fields.fail("rope_type", f"is {fields.text('rope_type')!r}; only {kind!r} is supported here")
        if fields.number("factor", default=1.0) != 1.0:
            fields.fail("factor", "is not 1; scaled RoPE is not supported")
    if sliding.number("partial_rotary_factor", default=1.0) != 1.0:
        sliding.fail("partial_rotary_factor", "is not 1; sliding layers must turn every pair")
    fraction = full.number("partial_rotary_factor", above=0, default=1.0)
    if fraction > 1:
        full.fail("partial_rotary_factor", f"is {fraction}, but cannot be above 1")
    return sliding.number("rope_theta", above=0), full.number("rope_theta", above=0), fraction
