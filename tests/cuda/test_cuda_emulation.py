"""The emulation against broken kernels: what a card would punish does not pass there."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path

import pytest
from emulation import build

ENDED = {-signal.SIGILL, -signal.SIGTRAP, -signal.SIGABRT}  # how a compiler ends a process


@pytest.fixture(scope="module")
def faults() -> Path:
    return build("cuda_faults") / "bindings" / "cuda_faults"


def run(faults: Path, name: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([faults, name], capture_output=True, text=True)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("barrier_of_half", "a barrier that not all threads of the block or warp reach"),
        ("shuffle_of_some_lanes", "a barrier that not all threads of the block or warp reach"),
        ("barrier_at_two_places", "threads that wait for each other at different places: faults.cpp:"),
        ("shuffles_at_two_places", "threads that wait for each other at different places: faults.cpp:"),
        ("unaligned_matrix", "a matrix that the tensor cores cannot take"),
        ("unaligned_rows_of_matrix", "a matrix that the tensor cores cannot take"),
        ("different_matrices", "lanes that load or store different matrices together"),
        ("unaligned_copy", "an asynchronous copy of addresses that it cannot take"),
        ("no_blocks", "a kernel could not be launched: 1 x 0 blocks of 256 threads"),
        ("too_many_rows", "a kernel could not be launched: 1 x 65536 blocks of 256 threads"),
        ("half_a_warp", "a kernel could not be launched: 1 x 1 blocks of 272 threads"),
    ],
)
def test_a_sentence(faults: Path, name: str, said: str) -> None:
    found = run(faults, name)
    assert found.returncode == 0
    assert found.stdout.startswith(said)


@pytest.mark.parametrize("name", ["misaligned_vector", "misaligned_word", "past_shared_memory", "overflow"])
def test_the_end_of_the_process(faults: Path, name: str) -> None:
    assert run(faults, name).returncode in ENDED


def test_past_the_end_of_an_allocation(faults: Path) -> None:
    assert run(faults, "past_the_end").returncode == -signal.SIGSEGV


def test_the_most_blocks(faults: Path) -> None:
    found = run(faults, "most_rows")
    assert (found.returncode, found.stdout) == (0, "")


def test_what_is_queued_is_done_when_it_is_waited_for(faults: Path) -> None:
    """A result that is read too early is not there, and a copy reads what its source has become."""
    found = {name: run(faults, name).stdout for name in ("result", "result_too_early", "source", "source_changed")}
    assert found == {"result": "1", "result_too_early": "0", "source": "1", "source_changed": "2"}


def test_a_queue_that_does_not_wait_for_another_is_too_early(faults: Path) -> None:
    """What it finds is what fresh memory holds."""
    assert run(faults, "result_beside").stdout == "1"
    assert run(faults, "result_beside_too_early").stdout == "-1"


def test_a_queue_that_follows_another_is_early_unless_it_is_urgent(faults: Path) -> None:
    """So that between two queues both orders come up, where nothing says which."""
    assert run(faults, "follower").stdout == "1"
    assert run(faults, "urgent_follower").stdout == "0"


def test_a_block_that_needs_another_gets_another_result_each_time(faults: Path) -> None:
    assert run(faults, "needs_the_block_before").stdout == "8 1 "


@pytest.mark.parametrize("name", ["wrong_sums", "wrong_bf16_sums"])
def test_values_lie_in_the_lanes_as_the_ptx_isa_says(faults: Path, name: str) -> None:
    """The emulation and the kernels could share a mistake that a card would not."""
    assert run(faults, name).stdout == "0"
