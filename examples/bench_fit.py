#!/usr/bin/env python3
"""What ``--fit`` chooses, beside the named mixes: on a checkpoint, and for the shapes of the 26B model.

python examples/random_checkpoint.py --real-widths /tmp/real      # 4.8 GB, two layers
python examples/bench_fit.py /tmp/real                            # each mix, and a fit of the same bytes
python examples/bench_fit.py /tmp/real --released 24 18 16 12     # 30 layers, whose weights are those of the two
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import tempfile
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np

from dgemma import RequestError
from dgemma.cli.fitting import as_text
from dgemma.convert.checkpoint import Checkpoint, open_checkpoint
from dgemma.convert.model import Model, checkpoint_model
from dgemma.quantize import Recipe, fit_model, plan_model
from dgemma.quantize.memory import memory_beside_weights
from dgemma.quantize.quantizer import open_model
from random_checkpoint import REAL_WIDTHS, config_json

MIXES = ("Q8_0", "Q6_K", "Q5_K_M", "Q5_K_S", "Q4_K_M", "Q4_K_S", "IQ4_XS", "Q3_K_L", "Q3_K_M", "Q3_K_S")


def released(two_layers: Path, folder: Path) -> Model:
    """The 26B model's tensors: a sliding layer reads the data of the first layer, a full one the second's."""
    config = replace(REAL_WIDTHS, layers=30)
    for file in two_layers.glob("*"):
        if file.suffix in (".json", ".jinja") and "index" not in file.name:
            shutil.copy(file, folder)
    (folder / "config.json").write_text(json.dumps(config_json(config, "bfloat16", "released")))
    tensors = {}
    for name, tensor in open_checkpoint(two_layers, None, weights=True).tensors.items():
        found = re.search(r"\.layers\.(\d+)\.", name)
        layers = [i for i in range(config.layers) if config.is_sliding(i) == (found[1] == "0")] if found else []
        names = [name.replace(f".layers.{found[1]}.", f".layers.{i}.") for i in layers] if found else [name]
        tensors.update({copy: replace(tensor, name=copy) for copy in names})
    return checkpoint_model(Checkpoint(folder, tensors))


def beside_mixes(model: Model) -> None:
    _, beside = memory_beside_weights(model, None)
    print(f"{'mix':<8} {'bytes':>14} {'damage':>9} {'fitted':>9} {'ratio':>6}  what most of the fitted values are")
    for name in MIXES:
        size = plan_model(model, Recipe.named(name)).bytes
        fitted = fit_model(model, size + sum(beside.values()), reserve=0)
        values: Counter[str] = Counter()
        for tensor in fitted.chosen:
            values[tensor.type] += tensor.values
        most = ", ".join(f"{type} {count / values.total():.0%}" for type, count in values.most_common(4))
        mix = fitted.mix
        assert mix is not None
        ratio = fitted.damage / mix.damage
        print(f"{mix.name:<8} {size:>14,} {mix.damage:>9.2g} {fitted.damage:>9.2g} {ratio:>6.2f}  {most}")


def fit_released(model: Model, budgets: list[float], importance: bool) -> None:
    ones = {weight.name: np.ones(weight.shape[-1], np.float32) for weight in model.weights if weight.fixed is None}
    for budget in budgets:
        began = time.monotonic()
        try:
            print(as_text(fit_model(model, round(budget * 1e9), importance=ones if importance else None)))
        except RequestError as error:
            print(error)
        print(f"({time.monotonic() - began:.0f} s)\n", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", metavar="SOURCE", help="checkpoint folder or GGUF file")
    parser.add_argument("--released", type=float, nargs="+", metavar="GB", help="budgets for the 26B model's shapes")
    parser.add_argument("--importance", action="store_true", help="with an importance matrix of ones, to see its types")
    args = parser.parse_args()
    if not args.released:
        beside_mixes(open_model(args.source))
        return
    with tempfile.TemporaryDirectory() as folder:
        fit_released(released(Path(args.source), Path(folder)), args.released, args.importance)


if __name__ == "__main__":
    main()
