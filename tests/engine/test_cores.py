"""How many threads an engine gets when nobody says, on machines that are made of files."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from dgemma import RequestError, use_numa
from dgemma import _core as core

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /sys")


def machine(folder: Path, siblings: Mapping[int, str], **files: str) -> str:
    """A /sys with these processors, each with the list of its core's threads."""
    for processor, threads in siblings.items():
        topology = folder / f"devices/system/cpu/cpu{processor}/topology"
        topology.mkdir(parents=True)
        (topology / "thread_siblings_list").write_text(threads + "\n")
    for name, text in files.items():
        path = folder / {"performance": "devices/cpu_core/cpus", "quota": "fs/cgroup/cpu.max"}[name]
        path.parent.mkdir(parents=True)
        path.write_text(text + "\n")
    return str(folder)


def pairs(n_cores: int) -> dict[int, str]:
    """Two threads a core, numbered as most systems do."""
    return {i: f"{i % n_cores},{i % n_cores + n_cores}" for i in range(2 * n_cores)}


def test_a_core_counts_once(tmp_path: Path) -> None:
    sysfs = machine(tmp_path, pairs(8))
    assert core.usable_cores(sysfs, list(range(16))) == 8
    assert core.usable_cores(sysfs, [0, 8]) == 1
    assert core.usable_cores(sysfs, [0, 1, 8]) == 2


def test_efficiency_cores_do_not_count(tmp_path: Path) -> None:
    """Six performance cores of two threads, four efficiency cores."""
    siblings = {i: f"{i - i % 2}-{i - i % 2 + 1}" for i in range(12)} | {i: str(i) for i in range(12, 16)}
    sysfs = machine(tmp_path, siblings, performance="0-11")
    assert core.usable_cores(sysfs, list(range(16))) == 6
    assert core.usable_cores(sysfs, [12, 13, 14]) == 3  # all that the process may use


@pytest.mark.parametrize(("quota", "cores"), [("max 100000", 8), ("250000 100000", 3), ("10000 100000", 1), ("?", 8)])
def test_a_containers_share(tmp_path: Path, quota: str, cores: int) -> None:
    assert core.usable_cores(machine(tmp_path, pairs(8), quota=quota), list(range(16))) == cores


def test_a_system_that_says_nothing(tmp_path: Path) -> None:
    assert core.usable_cores(str(tmp_path), [3, 5]) == 2


def test_this_machine() -> None:
    assert 1 <= core.usable_cores() <= len(os.sched_getaffinity(0))


def test_memory_nodes() -> None:
    with pytest.raises(RequestError, match=r'^numa is "mirror"; it must be "distribute", "isolate" or "numactl"$'):
        use_numa("mirror")


def test_an_engine_whose_threads_are_bound(tiny: Path) -> None:
    """In a process of its own: what is bound stays. On one memory node it changes nothing."""
    program = (
        "import sys, dgemma; dgemma.use_numa(sys.argv[2]) if len(sys.argv) > 2 else None\n"
        "events = dgemma.Engine(sys.argv[1], n_ctx=64).generate([2, 5], max_new_tokens=4)\n"
        "print([e.canvas for e in events if isinstance(e, dgemma.StepEvent)])"
    )
    command = [sys.executable, "-c", program, str(tiny)]
    free, bound = (
        subprocess.run([*command, *words], capture_output=True, text=True, check=True).stdout
        for words in ((), ("distribute",))
    )
    assert free == bound
    assert len(free) > 20
