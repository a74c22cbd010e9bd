"""The host side of the kernels as a card would have it, compiled against a CUDA runtime that is made up."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from emulation import build

CASES = [
    ("a_gpu", "available, at card 0"),
    ("no_driver", "the NVIDIA driver is missing, or older than the CUDA 13 that dgemma's kernels were built with"),
    ("no_gpu", "no NVIDIA card can be used (no CUDA-capable device is detected)"),
    ("no_code", "dgemma's CUDA kernels were not built for this card (-DCMAKE_CUDA_ARCHITECTURES=native)"),
    ("code_for_the_second", "available, at card 0"),
    ("device_of_memory", "1"),
    ("device_of_managed_memory", "1"),
    ("device_of_the_hosts_memory", "CUDA: what the kernels read is not in a card's memory"),
    ("device_of_no_memory", "CUDA: what the kernels read is not in a card's memory"),
    ("runs_on_both", "yes"),
    ("runs_on_the_second", "yes"),
    ("runs_on_the_first", "no"),
    ("runs_on_another_make", "no"),
    ("bf16_a100", "yes"),
    ("bf16_rtx_3090", "no"),
    ("bf16_rtx_4090", "no"),
    ("bf16_h200", "yes"),
    ("bf16_b200", "yes"),
    ("bf16_rtx_5090", "no"),
    # What failed says so once, and not again at the next launch.
    (
        "after_a_full_gpu",
        "CUDA: not enough memory on the card for 3 MiB of the kernels' buffers; a larger n_cpu_moe leaves more on the "
        "CPU",
    ),
    ("after_a_failed_call", "launched"),
    ("order", "ggml records, wait, record, ggml waits"),
    ("order_with_another_ggml", "synchronise ggml, synchronise"),
    ("two_streams", "urgent, record, wait"),
    ("end_of_a_stream", "synchronise, destroy event, destroy"),
]


@pytest.fixture(scope="module")
def host() -> Path:
    return build("cuda_host") / "bindings" / "cuda_host"


@pytest.mark.parametrize(("name", "said"), CASES, ids=[name for name, _ in CASES])
def test_what_comes_of_it(host: Path, name: str, said: str) -> None:
    assert subprocess.run([host, name], capture_output=True, text=True, check=True).stdout == said
