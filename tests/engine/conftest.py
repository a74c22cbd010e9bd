"""Models for the engine's tests: the oracle's random checkpoints, converted once for each type."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from forge import Forged
from refusal import Refused
from safetensors.numpy import load_file, save_file

from dgemma import Engine
from dgemma.convert import convert
from oracle.cases import checkpoint_for, load_case

ModelPath = Callable[..., Path]

NO_END = 7  # a token that no answer has: its row of the embedding, and so its logit, is zero


@pytest.fixture(scope="session")
def model_path(tmp_path_factory: pytest.TempPathFactory) -> ModelPath:
    """``model_path(case_name, type="f32")`` -> the GGUF of that case's checkpoint."""
    folder = tmp_path_factory.mktemp("models")

    def path(name: str, type: str = "f32") -> Path:
        target = folder / f"{name}-{type}.gguf"
        if not target.exists():
            convert(checkpoint_for(load_case(name), folder), target, type=type)
        return target

    return path


@pytest.fixture(scope="session")
def tiny(model_path: ModelPath) -> Path:
    """A float32 model with a window of 8, a canvas of 16, 512 tokens, 3 layers of which the last is full."""
    return model_path("short")


@pytest.fixture
def engine(tiny: Path) -> Engine:
    return Engine(tiny, n_ctx=128, exact=True)


@pytest.fixture(scope="session")
def with_end_tokens(tmp_path_factory):
    """``with_end_tokens(ids)``: the "early" model with other end tokens, and a token that is never the argmax."""
    folder = tmp_path_factory.mktemp("ends")

    def path(ids: list[int]) -> Path:
        target = folder / f"{'-'.join(map(str, ids))}.gguf"
        source = checkpoint_for(load_case("early"), folder / target.stem)
        weights = load_file(source / "model.safetensors")
        weights["model.decoder.embed_tokens.weight"][NO_END] = 0
        save_file(weights, source / "model.safetensors")
        for name in ("generation_config.json", "config.json"):
            config = json.loads((source / name).read_text())
            config["eos_token_id"] = ids
            if "text_config" in config:
                config["text_config"]["eos_token_id"] = ids
            (source / name).write_text(json.dumps(config))
        convert(source, target, type="f32", force=True)
        return target

    return path


@pytest.fixture(scope="session")
def endless(with_end_tokens) -> Path:
    return with_end_tokens([NO_END])


@pytest.fixture(scope="session")
def genuine(tiny: Path) -> Forged:
    """The tiny model taken apart; not to be changed."""
    return Forged.read(tiny)


@pytest.fixture
def forged(genuine: Forged) -> Forged:
    """The tiny model taken apart, to lie about."""
    return genuine.copy()


@pytest.fixture
def refused(tmp_path: Path) -> Refused:
    return Refused(tmp_path)
