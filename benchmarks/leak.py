"""Does a Localizer keep anything? Resident memory over many films, read at a few points, with nothing else recorded.

    python benchmarks/leak.py [--folder DIR] [--films 10000]

Without --folder the films are 32 phantoms of 512 px, as files; they repeat. Result: benchmarks/results/leak.json.
"""

from __future__ import annotations

import argparse
import tempfile
from itertools import cycle, islice
from pathlib import Path

from machine import environment, save

from msloc_edge import Localizer
from msloc_edge.bench.telemetry import resident_mb
from msloc_edge.cli.inputs import Search
from msloc_edge.train.phantom import generate, write_png

POINTS = 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--films", type=int, default=10_000)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch, Localizer(threads=1) as localizer:
        if not args.folder:
            for seed in range(32):
                write_png(generate(seed, 512), Path(scratch) / f"{seed}.png")
        files = Search().films_in(args.folder or Path(scratch))
        memory = []
        for number, file in enumerate(islice(cycle(files), args.films), 1):
            localizer.localize(file)
            if number % (args.films // POINTS) == 0:
                memory.append(resident_mb())
                print(number, memory[-1], flush=True)
    result = {
        "what": f"resident MB after each {args.films // POINTS} of {args.films} films ({len(files)} files)",
        "resident_mb": memory,
        "second_half_mb_per_1000": round((memory[-1] - memory[POINTS // 2 - 1]) / (args.films / 2000), 4),
        "environment": environment("onnxruntime", "numpy", "opencv-python-headless", "pillow"),
    }
    print(result["second_half_mb_per_1000"], "MB per 1000 films ->", save("leak", result))


if __name__ == "__main__":
    main()
