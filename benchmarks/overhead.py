"""What localization costs beside the bare classifier: both backbones at 512 px, all classes, onnxruntime on the CPU.

    python benchmarks/overhead.py [--size 512] [--films 60] [--neck none] [--work run/overhead]

trains each backbone for a moment on a few phantoms (time does not depend on what it knows, but maps must have regions
above their thresholds), and runs `msloc-edge bench --all-classes --compare-classifier` on generated films of that size.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from machine import environment, save
from testsets import run_command, write_recipe

BACKBONES = ("edge", "densenet121")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--films", type=int, default=60)
    parser.add_argument("--neck", choices=("none", "topdown"), default="none")
    parser.add_argument("--work", type=Path, default=Path("run/overhead"))
    args = parser.parse_args()
    result = {
        "what": f"from model input to boxes of all classes over the bare classifier, {args.size} px, neck {args.neck}",
        "backbones": {backbone: _measure(backbone, args) for backbone in BACKBONES},
        "environment": environment("onnxruntime", "numpy", "opencv-python-headless"),
    }
    print({name: row["ratio"]["value"] for name, row in result["backbones"].items()}, "->", save("overhead", result))


def _measure(backbone: str, args: argparse.Namespace) -> dict[str, object]:
    run = args.work / f"{backbone}-{args.size}-{args.neck}"
    if not (run / "bundle").exists():
        moment = {"films": 32, "val_films": 40, "epochs": 4, "batch": 4, "lr": 3e-4}
        network = {"backbone": backbone, "size": args.size, "neck": args.neck}
        run_command("train", "--config", write_recipe(run.with_suffix(".toml"), moment, network), "--out", run)
    out = run / "bench.json"
    run_command(
        *("bench", "--model", run / "bundle", "--all-classes", "--compare-classifier", "--scope", "network"),
        *("--generate", f"{args.size}x{args.size}x8", "--films", args.films, "--cold", 0, "--json", out, "--quiet"),
    )
    row: dict[str, object] = json.loads(out.read_text())["classifier"]["network"]
    return row


if __name__ == "__main__":
    main()
