"""The films that models are scored on, as options of `msloc-edge eval`. Imported by the benchmark scripts beside it."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

PHANTOM_SEED = 2_000_000
NORMALS = 60


def test_sets(data: str, folder: Path, phantoms: int) -> dict[str, list[Any]]:
    """Name -> options; phantoms and lesions are made in `folder` first, unless they are there.

    phantoms   unseen ones
    lesions    a lesion of each diameter in normal films of the validation patients, which training never sees
    test       the test films of `data` (nih:DIR) with their boxes
    """
    makers = {
        "phantoms": ["phantom", "--count", phantoms, "--seed", PHANTOM_SEED],
        "lesions": ["lesions", data, "--graded", "--limit", NORMALS],
    }
    for name, (module, *arguments) in makers.items():
        if not (folder / name / "boxes.csv").exists():
            python = [sys.executable, "-m", f"msloc_edge.train.{module}"]
            subprocess.run([*python, *map(str, arguments), "--out", str(folder / name)], check=True)
    tables = {name: folder / name for name in makers}
    made = {name: ["--data", f"csv:{at / 'films.csv'}", "--boxes", at / "boxes.csv"] for name, at in tables.items()}
    return {**made, "test": ["--data", data, "--split", "test"]}


def write_recipe(path: Path, options: Mapping[str, Any], model: Mapping[str, Any]) -> Path:
    """Write a recipe of `msloc-edge train`: options of the run, and of its network."""
    rows = [f"{name} = {json.dumps(value)}" for name, value in options.items()]  # of such values JSON is TOML, too
    rows += ["[model]", *(f"{name} = {json.dumps(value)}" for name, value in model.items())]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(rows) + "\n")
    return path


def run_command(*arguments: Any) -> None:
    """Run `msloc-edge`; its words go to stderr as they come, and how long it took after them."""
    words = [str(Path(sys.executable).with_name("msloc-edge")), *map(str, arguments)]
    started = time.perf_counter()
    subprocess.run(words, check=True)
    print(f"{time.perf_counter() - started:.0f} s: msloc-edge {' '.join(words[1:])}", file=sys.stderr, flush=True)
