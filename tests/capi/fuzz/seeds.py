"""Writes the seeds of the fuzzers: seeds.py FOLDER. Standard library only."""

from __future__ import annotations

import json
import struct
import sys
from pathlib import Path
from typing import Any

BUNDLE = Path(__file__).parents[3] / "msloc_edge" / "bundle" / "models" / "cxr-edge"


TOKENS = ("\\n", "\\u0000", "1e300", "-1", "0.5", "null", "[]", "{}", ",", ":")


def manifest_of_one_class() -> dict[str, Any]:
    """The smallest manifest with every key that the library reads: a change of almost any byte matters."""
    manifest = json.loads((BUNDLE / "manifest.json").read_text("utf-8"))
    needed = ("schema", "name", "version", "input", "temperature", "default_profile", "thresholds_for")
    label = manifest["classes"][0]
    return {key: manifest[key] for key in needed} | {
        "classes": [label],
        "stages": manifest["stages"][:2],
        "relevance": [[0.5, 0.5]],
        "abnormal": {"weights": [0.5], "bias": -1},
        "regions": {"min_area": 20, "min_share": 0.5},
        "profiles": {manifest["default_profile"]: {"film": 0.5, "score": [0.5], "map": [1]}},
        "files": {"model.onnx": manifest["thresholds_for"]},
        "golden": {
            "film": "a",
            "abnormal": 0.5,
            "findings": {label: {"logit": 1, "peak": [1, 2, 3], "boxes": [[1, 2, 3, 4]]}},
        },
    }


def words(value: Any) -> set[str]:
    """Every key and string of a JSON value."""
    if isinstance(value, dict):
        return set(value).union(*map(words, value.values()))
    if isinstance(value, list):
        return set().union(*map(words, value))
    return {value} if isinstance(value, str) else set()


def films() -> dict[str, bytes]:
    """A film of each depth and window, packed and with padded rows, as fuzz_pixels.cpp reads it."""
    gradient = bytes(range(256)) * 16
    heads = {
        f"{bits}.{voi}.{stride}": struct.pack(
            "<4H8B4f", 36, 34, stride, 256, bits, 8, 0, voi % 2, voi, 0, 0, 0, 60, 100, 1, 0
        )
        for bits, strides in ((8, (0, 40)), (16, (0, 80)))
        for stride in strides
        for voi in range(5)
    }
    return {name: head + gradient[: 34 * 80] for name, head in heads.items()}


def main(folder: Path) -> None:
    manifest = manifest_of_one_class()
    for kind, seeds in (("manifest", {"small": json.dumps(manifest).encode()}), ("pixels", films())):
        (folder / kind).mkdir(parents=True, exist_ok=True)
        for name, data in seeds.items():
            (folder / kind / name).write_bytes(data)
    tokens = (*map(json.dumps, sorted(words(manifest))), *TOKENS)
    (folder / "manifest.dict").write_text("".join(f"{json.dumps(token)}\n" for token in tokens), "utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
