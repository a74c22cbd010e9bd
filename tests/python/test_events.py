"""The data types of a generation: defaults, legal ranges, rates."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from dgemma import GenerationConfig, GenerationStats, ModelFileError, RequestError, StepEvent

RELEASED = {
    "diffusion.eb_max_steps": 24,
    "diffusion.eb_t_max": 0.9,
    "diffusion.eb_t_min": 0.3,
    "diffusion.eb_entropy_bound": 0.25,
    "diffusion.eb_stability_threshold": 2,
    "diffusion.eb_confidence_threshold": 0.01,
}


def test_defaults_are_the_released_checkpoints() -> None:
    assert GenerationConfig() == GenerationConfig(48, 0.4, 0.8, 0.1, 1, 0.005)
    assert GenerationConfig.from_metadata({}) == GenerationConfig()


def test_from_metadata() -> None:
    assert GenerationConfig.from_metadata(RELEASED) == GenerationConfig(24, 0.3, 0.9, 0.25, 2, 0.01)
    for key in RELEASED:  # each key defaults by itself
        rest = {other: value for other, value in RELEASED.items() if other != key}
        assert GenerationConfig.from_metadata(rest) != GenerationConfig.from_metadata(RELEASED)


@pytest.mark.parametrize(
    "fields",
    [
        {"max_denoising_steps": 1, "t_min": 0, "t_max": 1, "entropy_bound": 0, "stability_threshold": 0},
        {"t_min": 0.8, "t_max": 0.8, "confidence_threshold": 0.0},
        {"t_max": np.float32(0.9), "stability_threshold": np.int64(3)},
    ],
)
def test_legal_edges(fields: dict[str, float]) -> None:
    GenerationConfig(**fields)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("field", "values", "range_"),
    [
        ("max_denoising_steps", [0, -1, 1.5, True, "3", None], "integer of at least 1"),
        ("stability_threshold", [-1, 0.5, False, None], "integer of at least 0"),
        ("t_max", [0.0, -1.0, float("inf"), float("nan"), "hot", True], "finite number above 0"),
        ("t_min", [-0.1, float("nan"), None], "finite number of at least 0"),
        ("t_min", [0.9], r"at most t_max \(0.8\)"),
        ("entropy_bound", [-0.1, float("inf")], "finite number of at least 0"),
        ("confidence_threshold", [-0.1, "x"], "finite number of at least 0"),
    ],
)
def test_illegal_values_name_the_field_and_its_range(field: str, values: list[object], range_: str) -> None:
    for value in values:
        with pytest.raises(RequestError, match=f"^{field} must be .*{range_}"):
            GenerationConfig(**{field: value})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("diffusion.eb_max_steps", 0, "max_denoising_steps must be an integer of at least 1, not 0"),
        ("diffusion.eb_max_steps", 2.0, "diffusion.eb_max_steps should be an integer, but holds the float 2.0"),
        ("diffusion.eb_t_min", "cold", "diffusion.eb_t_min should be a number, but holds the str 'cold'"),
        ("diffusion.eb_t_max", np.ones(2), "diffusion.eb_t_max should be a number, but holds a list of float64"),
        ("diffusion.eb_t_max", float("nan"), "t_max must be a finite number above 0, not nan"),
    ],
)
def test_a_file_with_illegal_values(key: str, value: object, words: str) -> None:
    with pytest.raises(ModelFileError) as caught:
        GenerationConfig.from_metadata({key: value}, "small.gguf")
    assert str(caught.value).startswith("small.gguf: ")
    assert words in str(caught.value)


def test_rates() -> None:
    stats = GenerationStats(9, 50, 2, 20, encode_seconds=1.0, denoise_seconds=4.0, wall_seconds=5.0)
    assert (stats.ms_per_step, stats.tokens_per_second) == (200.0, 10.0)
    nothing = GenerationStats(9, 0, 0, 0, 0.0, 0.0, 0.0)
    assert (nothing.ms_per_step, nothing.tokens_per_second) == (0.0, 0.0)


def test_events_are_frozen_and_compare_without_their_arrays() -> None:
    arrays = [np.zeros(2, np.int32), np.zeros(2, np.bool_), np.zeros(2, np.float32), np.zeros(2, np.int32)]
    event = StepEvent(0, 1, 0.8, *arrays)  # type: ignore[arg-type]
    assert event == event
    assert event != StepEvent(0, 1, 0.8, *arrays)  # type: ignore[arg-type]
    with pytest.raises(dataclasses.FrozenInstanceError):
        event.step = 2  # type: ignore[misc]
