"""Fit the input gate: python -m msloc_edge.train.gate --data nih:DIR --foreign DIR --out msloc_edge/imaging/gate.json

Films are those of the training split, with phantoms beside them; thresholds are found on those of the validation split.
--foreign has pictures that are no chest film, in two folders: not_chest (radiographs) and not_xray.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.progress import Progress

from msloc_edge.train.data.sources import PHANTOM, excluded_names, split_films
from msloc_edge.train.gate.drawn import SIDE
from msloc_edge.train.gate.fit import fit, gate_of
from msloc_edge.train.gate.pictures import Pictures, read_foreign
from msloc_edge.train.phantom import FINDINGS


def main(arguments: list[str] | None = None) -> None:
    """Fit, and write the numbers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", action="append", required=True, help="nih:DIR or csv:FILE; repeatable")
    parser.add_argument("--foreign", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument(
        "--exclude", action="append", default=[], help="file with names of films that are not upright; repeatable"
    )
    parser.add_argument("--phantoms", type=int, default=400)
    parser.add_argument("--drawings", type=int, default=600, help="drawn pictures of each kind")
    parser.add_argument("--epochs", type=int, default=14)
    parser.add_argument("--count", type=int, default=20_000, help="thumbnails of an epoch")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(arguments)
    specs, excluded = [*args.data, PHANTOM], excluded_names(args.exclude)
    with Progress(transient=True) as progress:
        sources = [
            split_films(specs, split, FINDINGS, SIDE, args.phantoms, progress, excluded)
            for split in ("train", "validation")
        ]
    train, validation = ([film for source in split for film in source.pixels] for split in sources)
    pictures = Pictures(train, read_foreign(args.foreign), args.drawings, args.seed)
    net = fit(pictures, args.epochs, args.count, args.seed, lambda line: print(line, file=sys.stderr))
    shown = [film.astype(np.float32) / 255 for film in validation]
    gate = gate_of(net, shown, clipped=largest_ends(train))
    args.out.write_text(json.dumps(gate.numbers, indent=1) + "\n")
    named = [gate.judge(film) for film in shown]
    print(f"{args.out}: {len(train)} films fitted on, {sum(map(bool, named))} of {len(named)} others named")


def largest_ends(films: Sequence[NDArray[np.uint8]]) -> float:
    """Find the share of black and white pixels that one film [h, w] in a thousand exceeds."""
    return float(np.quantile([np.isin(film, (0, 255)).mean() for film in films], 0.999))


if __name__ == "__main__":
    main()
