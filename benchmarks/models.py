"""What `msloc-edge eval` measures of a bundle; a run becomes a bundle whose card holds it.

    python benchmarks/models.py msloc_edge/bundle/models/cxr-edge --data nih:DIR [--run run/cxr-edge] [--sets test ...]

scores the bundle on the test films and the validation films of DIR, on lesions of graded size in normal films, and on
phantoms (benchmarks/testsets.py); of the test films some are probed, too. Each metrics.json is kept as
benchmarks/results/BUNDLE.SET.json. With --run that run is exported to the bundle first, and once more with the figures
in its card. Test films are looked at here, and nowhere before.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from machine import RESULTS
from testsets import run_command, test_sets

SETS = ("test", "validation", "lesions", "phantoms")
PROBED = 30
"""Test films that the model is run on again: deletion, insertion, randomised weights, stability."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path, help="folder to score, and with --run to write")
    parser.add_argument("--data", required=True, help="nih:DIR")
    parser.add_argument("--run", type=Path, help="run folder to export")
    parser.add_argument("--sets", nargs="+", choices=SETS, default=SETS)
    parser.add_argument("--work", type=Path, default=Path("run/scores"))
    parser.add_argument("--phantoms", type=int, default=500)
    parser.add_argument("--model-version", default="0.2")
    args = parser.parse_args()
    export = ["export", "bundle", args.run, args.bundle, "--name", args.bundle.name]
    export += ["--model-version", args.model_version]
    if args.run:
        run_command(*export)
    sets = test_sets(args.data, args.work, args.phantoms)
    sets["test"] += ["--probe", PROBED]
    sets["validation"] = ["--data", args.data, "--split", "validation"]
    for name in args.sets:
        out = args.work / args.bundle.name / name
        run_command("eval", "--model", args.bundle, *sets[name], "--out", out)
        shutil.copy(out / "metrics.json", RESULTS / f"{args.bundle.name}.{name}.json")
    if args.run:
        kept = [RESULTS / f"{args.bundle.name}.{name}.json" for name in SETS]
        run_command(*export, *(word for path in kept for word in ("--metrics", path)))


if __name__ == "__main__":
    main()
