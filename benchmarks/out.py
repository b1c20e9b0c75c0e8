"""The cost of `infer --out` beside JSON alone: processor time on films that have findings, without the program's start.

    python benchmarks/out.py FOLDER [--model cxr-edge] [--films 40]

One thread. json: read, network, boxes, result line. out: overlay, heatmap, report and the journal on top; bar: json and
out together at most three times json. Result: benchmarks/results/out.json.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

import cv2
from machine import environment, save

from msloc_edge.cli.inputs import Names, Search
from msloc_edge.cli.output import KINDS, OutputFolder
from msloc_edge.pipeline import Localizer
from msloc_edge.types import SHOWN


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", default="cxr-edge")
    parser.add_argument("--films", type=int, default=40)
    args = parser.parse_args()
    cv2.setNumThreads(1)
    names, alone, more = Names(), list[float](), list[float]()
    with (
        tempfile.TemporaryDirectory() as scratch,
        Localizer(args.model, threads=1) as localizer,
        OutputFolder(Path(scratch), KINDS, localizer, {}, SHOWN) as folder,
    ):
        for path in Search().films_in(args.folder):
            source, start = names.source(path), time.process_time()
            film = localizer.prepare(path)
            result = localizer.run([film])[0]
            line = json.dumps(result.to_dict())
            middle = time.process_time()
            if result.positive:
                folder.add(line, source, film, result, folder.write(source, film, result))
                alone.append(1e3 * (middle - start))
                more.append(1e3 * (time.process_time() - middle))
            if len(alone) > args.films:  # the first warms up
                break
    json_ms, out_ms = statistics.median(alone[1:]), statistics.median(more[1:])
    result = {
        "what": f"{len(alone) - 1} films with findings of {args.folder}, median, ms of processor time a film",
        "json_ms": round(json_ms, 1),
        "out_ms": round(out_ms, 1),
        "times_json": round(1 + out_ms / json_ms, 2),
        "environment": environment("onnxruntime", "numpy", "opencv-python-headless", "pillow"),
    }
    print(result["times_json"], "->", save("out", result))


if __name__ == "__main__":
    main()
