"""Command line: `python -m msloc_edge.train.phantom --out DIR --count N --seed S`."""

from __future__ import annotations

import json
from pathlib import Path

import click

from msloc_edge.train.phantom import FINDINGS, Phantom, generate, write_dicom, write_png
from msloc_edge.train.phantom.film import MAX_SIDE, MIN_SIDE, PHOTOMETRIC
from msloc_edge.train.tables import write_tables

WRITERS = {"png": (write_png, ".png"), "dicom": (write_dicom, ".dcm")}


def truth(phantom: Phantom, file: str) -> dict[str, object]:
    """One line of truth.jsonl: what is on the film, boxes in pixels from the top left."""
    regions = [{"label": r.label, "box": dict(zip("xywh", r.box, strict=True))} for r in phantom.regions]
    return {
        "file": file,
        "seed": phantom.seed,
        "view": phantom.view,
        "labels": sorted(phantom.labels),
        "regions": regions,
    }


@click.command()
@click.option("--out", required=True, type=click.Path(file_okay=False, path_type=Path), help="Folder to write to.")
@click.option("--count", default=1, show_default=True, type=click.IntRange(1), help="How many films.")
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0), help="Seed of the first film.")
@click.option("--size", default=512, show_default=True, type=click.IntRange(MIN_SIDE, MAX_SIDE), help="Pixels a side.")
@click.option("--format", "formats", default="png", show_default=True, help="png, dicom or png,dicom.")
@click.option("--photometric", default="MONOCHROME2", show_default=True, type=click.Choice(PHOTOMETRIC))
def main(out: Path, count: int, seed: int, size: int, formats: str, photometric: str) -> None:
    """Write films of digital chest phantoms, with their findings in OUT/truth.jsonl, and in films.csv and boxes.csv
    for `msloc-edge eval`."""
    wanted = formats.split(",")
    for name in wanted:
        if name not in WRITERS:
            raise click.BadParameter(f"expected png, dicom or png,dicom, got {formats!r}", param_hint="--format")
    out.mkdir(parents=True, exist_ok=True)
    films, boxes = [], []
    with (out / "truth.jsonl").open("w", encoding="utf-8") as lines:
        for number in range(seed, seed + count):
            phantom = generate(number, size, photometric=photometric)
            for name in wanted:
                write, suffix = WRITERS[name]
                file = f"phantom{number:06d}{suffix}"
                write(phantom, out / file)
                lines.write(json.dumps(truth(phantom, file)) + "\n")
                labels = dict(zip(FINDINGS, phantom.label_vector().tolist(), strict=True))
                films.append((file, f"phantom {number}", labels))
                boxes += [(file, region.label, *region.box) for region in phantom.regions]
    write_tables(out, FINDINGS, films, boxes)


if __name__ == "__main__":
    main()
