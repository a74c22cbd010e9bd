"""Where the CUDA kernels run: under an emulation of blocks and threads, always; on a card, where there is one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from emulation import Emulation

from dgemma._core import cuda_unavailable, run_on_card

Card = Callable[..., dict[str, Any]]


@pytest.fixture(scope="session")
def emulation() -> Iterator[Emulation]:
    emulation = Emulation()
    yield emulation
    emulation.close()


@pytest.fixture(params=["emulated", "card"])
def card(request: pytest.FixtureRequest) -> Card:
    """``dgemma._core.run_on_card`` where its kernels run."""
    if request.param == "card":
        if why := cuda_unavailable():
            pytest.skip(why)
        return run_on_card
    emulation = request.getfixturevalue("emulation")
    return lambda **arguments: emulation.call("run_on_card", **arguments)
