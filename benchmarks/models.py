"""A run becomes a bundle whose card holds what `msloc-edge eval` measured of it.

    python benchmarks/models.py run/cxr-edge msloc_edge/bundle/models/cxr-edge --data nih:DIR [--work DIR]

exports the run, scores it on the test films and the validation films of DIR, on lesions of graded size in normal films,
and on phantoms (benchmarks/testsets.py), and exports it again with these figures. Each metrics.json is kept as
benchmarks/results/BUNDLE.SET.json. Test films are looked at here, and nowhere before.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from machine import RESULTS
from testsets import run_command, test_sets


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="run folder")
    parser.add_argument("bundle", type=Path, help="folder to write")
    parser.add_argument("--data", required=True, help="nih:DIR")
    parser.add_argument("--work", type=Path, default=Path("run/scores"))
    parser.add_argument("--phantoms", type=int, default=500)
    parser.add_argument("--model-version", default="0.2")
    args = parser.parse_args()
    export = ["export", "bundle", args.run, args.bundle, "--name", args.bundle.name]
    export += ["--model-version", args.model_version]
    run_command(*export)
    sets = test_sets(args.data, args.work, args.phantoms)
    sets["validation"] = ["--data", args.data, "--split", "validation"]
    kept = []
    for name in ("test", "validation", "lesions", "phantoms"):
        out = args.work / args.bundle.name / name
        run_command("eval", "--model", args.bundle, *sets[name], "--out", out)
        kept.append(shutil.copy(out / "metrics.json", RESULTS / f"{args.bundle.name}.{name}.json"))
    run_command(*export, *(word for path in kept for word in ("--metrics", path)))


if __name__ == "__main__":
    main()
