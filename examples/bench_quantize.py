#!/usr/bin/env python3
"""Times ``dgemma quantize`` and measures its memory, on any checkpoint or GGUF file.

    python examples/random_checkpoint.py --real-widths /tmp/real      # 4.8 GB, two layers of the 26B model's widths
    python examples/bench_quantize.py /tmp/real Q4_K_M Q5_K_M Q8_0

Each type is quantised by a process of its own, to a file that is deleted afterwards. The last line is one JSON object.
The first type also pays for reading the source into the system's cache, unless --warm reads it once beforehand.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

CODE = "import sys; from dgemma.quantize import quantize; quantize(*sys.argv[1:4], threads=int(sys.argv[4]) or None)"


def measured(source: Path, type: str, folder: Path, threads: int) -> dict[str, object]:
    """Wall and processor seconds, the process's peak resident megabytes, and the size of the file made."""
    out = folder / f"{type}.gguf"
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    process = subprocess.Popen([sys.executable, "-c", CODE, str(source), str(out), type, str(threads)])
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    seconds = time.monotonic() - began
    if process.returncode:
        raise SystemExit(process.returncode)
    unit = 1 if sys.platform == "darwin" else 1024  # ru_maxrss: bytes there, kilobytes elsewhere
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    size = out.stat().st_size
    out.unlink()
    return {
        "type": type,
        "seconds": round(seconds, 1),
        "cpu_seconds": round(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, 1),
        "peak_mb": round(usage.ru_maxrss * unit / 1e6),
        "file_gb": round(size / 1e9, 3),
    }


def files_of(source: Path) -> list[Path]:
    return sorted(path for path in source.iterdir() if path.is_file()) if source.is_dir() else [source]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, metavar="SOURCE", help="checkpoint folder or GGUF file")
    parser.add_argument("types", nargs="*", default=["Q4_K_M"], metavar="TYPE", help="types to make (default Q4_K_M)")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="where to write (default: a temporary folder)")
    parser.add_argument("-t", "--threads", type=int, default=0, metavar="N", help="threads (default: all cores)")
    parser.add_argument("--warm", action="store_true", help="read the source once before the first type")
    args = parser.parse_args()
    files = files_of(args.source)
    read = sum(path.stat().st_size for path in files)
    if args.warm:
        for path in files:
            with path.open("rb") as file:
                while file.read(1 << 24):
                    pass
    print(f"{args.source}: {read / 1e9:.2f} GB, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} before")
    print(f"{'type':<8} {'seconds':>8} {'cpu s':>8} {'peak MB':>8} {'file GB':>8}")
    rows = []
    with tempfile.TemporaryDirectory(dir=args.out) as folder:
        for type in args.types:
            row = measured(args.source, type, Path(folder), args.threads)
            print("{type:<8} {seconds:>8} {cpu_seconds:>8} {peak_mb:>8} {file_gb:>8}".format(**row), flush=True)
            rows.append(row)
    print(json.dumps({"source_gb": round(read / 1e9, 3), "cores": os.cpu_count(), "runs": rows}))


if __name__ == "__main__":
    main()
