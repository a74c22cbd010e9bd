#!/usr/bin/env python3
"""Lists the instructions of the CUDA kernels' loops around the tensor cores, which dgemma/bench/own_products.py counts
with. Needs no card.

    make cuda-compile
    python docs/count_instructions.py [--arch sm_90] [NAME]

A line for each such loop of a kernel whose name has NAME in it: its instructions, those of them that are products, and
the same between its branches, in order, of which a warp does not take all. Needs cuobjdump and nvdisasm on PATH, from
CUDA's toolkit or from PyPI (nvidia-cuda-cuobjdump and nvidia-cuda-nvdisasm).
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass

from make_cuda_table import BUILD, kernel_name

INSTRUCTION = re.compile(r"/\*(?P<address>[0-9a-f]{4,})\*/\s+(?P<text>[^;]+);")
BACK = re.compile(r"\bBRA\b.*0x(?P<address>[0-9a-f]+)")


@dataclass(frozen=True)
class Loop:
    instructions: list[str]

    @property
    def products(self) -> int:
        return sum("MMA" in text for text in self.instructions)

    def between_branches(self) -> list[int]:
        ends = [i + 1 for i, text in enumerate(self.instructions) if "BRA" in text]
        return [end - begin for begin, end in zip([0, *ends], ends, strict=False)]


def loops_of(listing: str) -> Iterator[Loop]:
    """Of one kernel's machine code: what lies between a branch back and where it goes, where that has products."""
    found = [(int(match["address"], 16), match["text"].strip()) for match in INSTRUCTION.finditer(listing)]
    places = {address: place for place, (address, _) in enumerate(found)}
    for place, (address, text) in enumerate(found):
        back = BACK.search(text)
        begin = int(back["address"], 16) if back else address + 1
        if begin <= address and begin in places:
            loop = Loop([text for _, text in found[places[begin] : place + 1]])
            if loop.products:
                yield loop


def kernels(arch: str) -> Iterator[tuple[str, str]]:
    """Name and machine code of each kernel that make cuda-compile left."""
    for path in sorted(BUILD.glob("cpp/**/dgemma_kernels.dir/src/cuda/*.o")):
        command = ["cuobjdump", "-sass", "-arch", arch, str(path)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        for listing in re.split(r"\n\s*Function : ", done.stdout)[1:]:
            mangled, _, code = listing.partition("\n")
            yield kernel_name(mangled.strip()), code


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", nargs="?", default="", metavar="NAME")
    parser.add_argument("--arch", default="sm_90")
    args = parser.parse_args()
    for tool in ("cuobjdump", "nvdisasm"):
        if shutil.which(tool) is None:
            raise SystemExit(f"{tool} is not on PATH (CUDA's toolkit, or nvidia-cuda-{tool} from PyPI)")
    for name, listing in kernels(args.arch):
        for loop in loops_of(listing) if args.name in name else ():
            between = " ".join(map(str, loop.between_branches()))
            print(f"{name}: {len(loop.instructions)}, {loop.products} products ({between})")


if __name__ == "__main__":
    main()
