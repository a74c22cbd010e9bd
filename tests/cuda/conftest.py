"""Where the CUDA kernels run: under an emulation of blocks and threads, always; on a card, where there is one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from emulation import Card, Emulation

from dgemma._core import (
    cuda_unavailable,
    run_dense_on_card,
    run_experts_on_card,
    run_heads_on_card,
    run_layer_rows_on_card,
    run_on_card,
)


@pytest.fixture(scope="session")
def emulation() -> Iterator[Emulation]:
    emulation = Emulation()
    yield emulation
    emulation.close()


def on_card(request: pytest.FixtureRequest, function: Card) -> Card:
    """A function of ``dgemma._core`` where its kernels run."""
    if request.param == "card":
        if why := cuda_unavailable():
            pytest.skip(why)
        return function
    emulation = request.getfixturevalue("emulation")
    return lambda **arguments: emulation.call(function.__name__, **arguments)


@pytest.fixture(params=["emulated", "card"])
def card(request: pytest.FixtureRequest) -> Card:
    return on_card(request, run_on_card)


@pytest.fixture(params=["emulated", "card"])
def card_experts(request: pytest.FixtureRequest) -> Card:
    return on_card(request, run_experts_on_card)


@pytest.fixture(params=["emulated", "card"])
def card_dense(request: pytest.FixtureRequest) -> Card:
    return on_card(request, run_dense_on_card)


@pytest.fixture(params=["emulated", "card"])
def card_rows(request: pytest.FixtureRequest) -> Card:
    return on_card(request, run_layer_rows_on_card)


@pytest.fixture(params=["emulated", "card"])
def card_heads(request: pytest.FixtureRequest) -> Card:
    return on_card(request, run_heads_on_card)
