"""Writes the C++ form of convert/tensors.json, so that converter and loader share one table.

python tensor_table.py tensors.json tensor_table.inc
"""

import json
import sys

# The names that a size may use, and where the loader finds them: model-wide numbers, or the layer's own.
MODEL_NAMES = {"vocab", "hidden", "ffn", "heads", "experts", "expert_ffn", "rope_pairs"}
LAYER_NAMES = {"kv_heads", "head_dim"}


def product(size: str) -> str:
    """The C++ expression of a size such as "2*expert_ffn"."""
    factors = []
    for factor in size.split("*"):
        if factor in MODEL_NAMES:
            factors.append(f"h.{factor}")
        elif factor in LAYER_NAMES:
            factors.append(f"h.layers[i].{factor}")
        else:
            factors.append(f"int64_t{{{int(factor)}}}")
    return " * ".join(factors)


def row(tensor: dict) -> str:
    """One initialiser; the shape turns from PyTorch's order to ggml's, columns first."""
    shape = ", ".join(product(size) for size in reversed(tensor["shape"]))
    keep_f32 = "true" if tensor["floor"] == "f32" else "false"
    unused = "" if any(name in shape for name in MODEL_NAMES | LAYER_NAMES) else "(void)h; "
    layer = "i" if "[i]" in shape else "/*i*/"
    return (
        f'    {{"{tensor["gguf"]}", LayerSet::k{tensor["layers"].capitalize()}, /*keep_f32=*/{keep_f32},\n'
        f"     [](const Hparams& h, [[maybe_unused]] size_t {layer}) -> Shape {{ {unused}return {{{shape}}}; }}}},"
    )


def main() -> None:
    source, target = sys.argv[1:]
    with open(source, encoding="utf-8") as file:
        tensors = json.load(file)["tensors"]
    with open(target, "w", encoding="utf-8") as file:
        file.write("// Made from convert/tensors.json by cpp/cmake/tensor_table.py.\n")
        file.write("\n".join(row(tensor) for tensor in tensors) + "\n")


if __name__ == "__main__":
    main()
