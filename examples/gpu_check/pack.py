#!/usr/bin/env python3
"""Packs what a machine without network lacks for ``make gpu-check``: ``make gpu-pack GGML=ARCHIVE``.

    python3 examples/gpu_check/pack.py FOLDER --ggml ggml-….tar.xz

FOLDER holds the archive (ggml with CUDA: include/ and lib/) and the wheels of WHEELS, nothing else. The other packages
that dgemma needs must be on that machine: docs/gpu-check.md lists them.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Sequence
from pathlib import Path

WHEELS = ("gguf>=0.19", "prompt_toolkit>=3.0.36", "wcwidth")
NEEDED = ("lib/libggml-cuda.so", "lib/cmake/ggml/ggml-config.cmake", "include/ggml.h")
MOST_BYTES = 60_000_000  # a machine may take 64 MiB, the working tree among them


def check_archive(archive: Path) -> None:
    """SystemExit where this is no ggml with CUDA."""
    try:
        with tarfile.open(archive) as tar:
            names = set(tar.getnames())
    except (OSError, tarfile.TarError) as error:
        raise SystemExit(f"gpu-pack: {archive} cannot be read as an archive of ggml: {error}") from None
    if missing := [name for name in NEEDED if name not in names]:
        raise SystemExit(f"gpu-pack: {archive} is no ggml with CUDA: {missing[0]} is not in it")


def make_pack(folder: Path, archive: Path) -> int:
    """Writes the folder anew; its size in bytes."""
    check_archive(archive)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    shutil.copyfile(archive, folder / archive.name)
    command = [sys.executable, "-m", "pip", "download", "-q", "--disable-pip-version-check", "--no-deps"]
    done = subprocess.run([*command, "--only-binary=:all:", "-d", str(folder), *WHEELS], stdout=sys.stderr)
    if done.returncode:
        raise SystemExit("gpu-pack: pip could not download the wheels; its own words are above")
    return sum(file.stat().st_size for file in folder.iterdir())


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="written anew")
    parser.add_argument("--ggml", type=Path, required=True, metavar="ARCHIVE", help="a tar of ggml with CUDA")
    args = parser.parse_args(arguments)
    n_bytes = make_pack(args.folder, args.ggml)
    print(f"{args.folder}: {n_bytes / 1e6:.1f} MB")
    if n_bytes > MOST_BYTES:
        raise SystemExit(f"gpu-pack: {n_bytes / 1e6:.1f} MB are more than the {MOST_BYTES / 1e6:.0f} that may travel")


if __name__ == "__main__":
    main()
