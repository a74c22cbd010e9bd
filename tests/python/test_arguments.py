"""Arguments by name: the sampler's own, and what to use in place of those of other samplers."""

from __future__ import annotations

from typing import Any

import pytest

from dgemma import GenerationConfig, RequestError
from dgemma.arguments import sampler_config, stop_strings

BASE = GenerationConfig(t_max=0.7)

REFUSED = {
    "temperature": "give t_max and t_min",
    "top_p": "give entropy_bound",
    "top_k": "give entropy_bound",
    "repeat_penalty": "a lower entropy_bound",
    "logprobs": "neither changed nor kept",
    "response_format": "cannot be held to a grammar",
    "functions": "give tools",
    "n": "another seed",
    "max_new_tokens": "give max_tokens",
    "steps": "give max_denoising_steps",
    "nonsense": "has no argument 'nonsense'",
}


@pytest.mark.parametrize("name", REFUSED)
def test_foreign_arguments_name_what_to_use(name: str) -> None:
    with pytest.raises(RequestError, match=REFUSED[name]) as caught:
        sampler_config(BASE, {name: 1}, "create_completion")
    assert "\n" not in str(caught.value)


def test_own_arguments() -> None:
    names = ["max_denoising_steps", "t_min", "t_max", "entropy_bound", "stability_threshold", "confidence_threshold"]
    values: list[Any] = [3, 0.2, 0.5, 0.2, 2, 0.1]
    arguments = dict(zip(names, values, strict=True))
    assert sampler_config(BASE, arguments, "f") == GenerationConfig(**arguments)
    assert sampler_config(BASE, {"t_min": None, "temperature": None}, "f") is BASE
    with pytest.raises(RequestError, match="has no argument 'nonsense'"):
        sampler_config(BASE, {"nonsense": None}, "f")
    with pytest.raises(RequestError, match="t_min must be at most t_max"):
        sampler_config(BASE, {"t_min": 0.9}, "f")


def test_stop_strings() -> None:
    assert stop_strings(None) == stop_strings([]) == []
    assert stop_strings("a") == stop_strings(["a"]) == stop_strings(("a",)) == ["a"]
    for stop in (3, [3], "", ["a", ""], {"a"}):
        with pytest.raises(RequestError, match="stop must be a string or a list of strings, none of them empty"):
            stop_strings(stop)
