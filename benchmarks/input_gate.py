"""How often the input gate names films and other pictures, by what they are.

    python benchmarks/input_gate.py --data nih:DIR --data nih:DIR2 --foreign DIR [--gate FILE]

Upright films of the validation and the test split, the former also turned, mirrored, inverted and cut; films that were
seen to be no upright frontal ones (nih-not-upright.txt); phantoms; pictures of --foreign (foreign_pictures.py), in a
folder for each kind. None of them was fitted on. Result: benchmarks/results/input_gate.json, and a table on stdout.
"""

from __future__ import annotations

import argparse
import math
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from machine import environment, save
from numpy.typing import NDArray

from msloc_edge.errors import InputError, TrainError
from msloc_edge.imaging.gate import REFUSED, InputGate, default_gate, read_gate
from msloc_edge.imaging.geometry import Geometry
from msloc_edge.imaging.reading import read_frame
from msloc_edge.train.data import open_collection
from msloc_edge.train.phantom import generate

Picture = NDArray[np.float32]

SIDE = 256
ASIDE = Path(__file__).with_name("nih-not-upright.txt")
CHANGES: dict[str, Callable[[Picture], Picture]] = {
    "upright": lambda film: film,
    "mirrored": lambda film: film[:, ::-1],
    "turned by 90 degrees": np.rot90,
    "turned by 180 degrees": lambda film: np.rot90(film, 2),
    "turned by 270 degrees": lambda film: np.rot90(film, 3),
    "negative": lambda film: 1 - film,
    "left half": lambda film: film[:, : film.shape[1] // 2],
    "upper half": lambda film: film[: film.shape[0] // 2],
    "lower half": lambda film: film[film.shape[0] // 2 :],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", action="append", required=True)
    parser.add_argument("--foreign", type=Path, required=True)
    parser.add_argument("--gate", type=Path)
    args = parser.parse_args()
    gate = read_gate(args.gate) if args.gate else default_gate()
    cv2.setNumThreads(1)
    sets = {name: _count(gate, pictures) for name, pictures in _sets(args.data, args.foreign)}
    result = {"sets": sets, "ms": _milliseconds(gate), "environment": environment("numpy", "opencv-python-headless")}
    print(f"{result['ms']:.2f} ms a film; {save('input_gate', result)}")
    print("| pictures | count | refused | 95% interval | named |\n| --- | --- | --- | --- | --- |")
    for name, found in sets.items():
        reasons = ", ".join(f"{code} {count}" for code, count in found["reasons"].items())
        low, high = found["interval"]
        print(f"| {name} | {found['count']} | {found['refused']} | {low:.1%} to {high:.1%} | {reasons} |")


def _sets(data: list[str], foreign: Path) -> Iterator[tuple[str, Iterable[tuple[str, Picture]]]]:
    kinds = _aside()
    for split in ("validation", "test"):
        paths = [record.path for spec in data for record in _records(spec, split) if record.name not in kinds]
        for change, changed in CHANGES.items() if split == "validation" else islice(CHANGES.items(), 1):
            yield f"{split} films, {change}", ((name, changed(film)) for name, film in _read(paths))
    for kind in dict.fromkeys(kinds.values()):
        found = {record.name: record.path for spec in data for record in _records(spec, "all")}
        yield f"NIH films, {kind}", _read(found[name] for name, own in kinds.items() if own == kind and name in found)
    yield "phantoms", ((str(seed), generate(seed, SIDE).display()) for seed in range(2_000_000, 2_000_200))
    for folder in sorted(path for path in foreign.iterdir() if path.is_dir()):
        yield f"other sources, {folder.name}", _read(sorted(folder.iterdir()))


def _records(spec: str, split: str) -> tuple[Any, ...]:
    try:
        return open_collection(spec, split).records
    except TrainError:  # a collection without films of this split
        return ()


def _aside() -> dict[str, str]:
    """Name of a film -> what it is, by the headings of the list."""
    kinds, kind = {}, ""
    for line in ASIDE.read_text().splitlines():
        if line.startswith("#"):
            kind = line[2:]
        else:
            kinds[line] = kind
    return kinds


def _read(paths: Iterable[Path]) -> Iterator[tuple[str, Picture]]:
    """Films as the model's input has them; those that no film can be are left out."""
    for path in paths:
        try:
            shown = read_frame(path).display()
        except InputError:
            continue
        geometry = Geometry.fit(shown.shape, (SIDE, SIDE))
        yield path.name, geometry.letterbox(shown)[geometry.content]


def _count(gate: InputGate, pictures: Iterable[tuple[str, Picture]]) -> dict[str, Any]:
    judged = {name: gate.judge(np.ascontiguousarray(picture)) for name, picture in pictures}
    refused = [name for name, codes in judged.items() if set(codes) & set(REFUSED)]
    return {
        "count": len(judged),
        "refused": len(refused),
        "interval": _wilson(len(refused), len(judged)),
        "reasons": dict(Counter(code for codes in judged.values() for code in codes).most_common()),
        "names_refused": refused if len(refused) <= 40 else [],
        "names_passed": [name for name in judged if name not in refused] if len(judged) - len(refused) <= 40 else [],
    }


def _wilson(hits: int, count: int) -> tuple[float, float]:
    """Wilson's 95% interval of a share (J. Am. Stat. Assoc. 22, 1927)."""
    z, share = 1.959964, hits / count
    middle = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count)) / (1 + z * z / count)
    return max(0.0, middle - half), min(1.0, middle + half)


def _milliseconds(gate: InputGate, rounds: int = 200) -> float:
    film = generate(1, SIDE).display()
    spent = []
    for _ in range(rounds):
        begun = time.perf_counter()
        gate.judge(film)
        spent.append(time.perf_counter() - begun)
    return float(np.median(spent)) * 1e3


if __name__ == "__main__":
    main()
