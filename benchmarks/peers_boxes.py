"""Do the maps of torch-cam or pytorch-grad-cam, of the same network, find the boxes better than ours?

    pip install as benchmarks/peers.py says
    python benchmarks/peers_boxes.py [--data nih:DIR] [--model cxr-edge] [--films 80] [--phantoms 80]

Both libraries' Grad-CAM (deepest stage) and LayerCAM (four stages) of the bundle's own network are written as heatmaps
of every finding with a box, and scored by `msloc-edge eval` beside our maps of the same films: test films of DIR with
boxes, evenly spread, and phantoms. Differences are paired over patients. The libraries stretch each map to [0, 1], so
that no threshold holds for two films; our maps are scored by half of each map's range, too, which is the fair partner.
Without DIR, phantoms alone.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from machine import environment, save
from peers import NIH, Contestant, libraries, open_all
from rich.progress import Progress
from testsets import PHANTOM_SEED

from msloc_edge._tables import cell
from msloc_edge.bundle import DEFAULT_MODEL
from msloc_edge.pipeline import Localizer
from msloc_edge.train.data import Collection, Record, open_collection
from msloc_edge.train.evaluate.heatmaps import HeatmapFolder
from msloc_edge.train.evaluate.run import Evaluation
from msloc_edge.train.evaluate.sources import HeatmapSource, ModelSource, Source
from msloc_edge.train.evaluate.summary import ROW_METRICS
from msloc_edge.train.evaluate.truth import Truth, read_truth

OURS = {"model": "ours", "model_half_range": "ours, half of each map's range"}
OTHERS = {"stages_last": "ours, the deepest stage alone (CAM)", "random": "random map"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default=f"nih:{NIH.parent}" if NIH.is_dir() else None)
    parser.add_argument("--model", default=DEFAULT_MODEL)
    parser.add_argument("--films", type=int, default=80)
    parser.add_argument("--phantoms", type=int, default=80)
    parser.add_argument("--resamples", type=int, default=1000)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch, Localizer(args.model, input_gate=False) as localizer:
        folder = Path(scratch)
        methods, absent = open_all(libraries(localizer.bundle))
        sets = {"phantoms": made_phantoms(folder / "phantoms", args.phantoms)}
        if args.data:
            collection = open_collection(args.data, "test")
            sets["test films"] = collection, read_truth(collection, collection.records, None, None)
        results = {}
        for name, (collection, truth) in sets.items():
            records = [record for record in collection.records if record.name in truth.regions]
            records = records[:: -(-len(records) // args.films)] if name == "test films" else records
            contest = Contest(localizer, collection, records, truth, args.resamples)
            results[name] = contest.result(methods, folder / name)
            print(table(name, results[name]["rows"]), end="\n\n", flush=True)
        about = f"{localizer.bundle.name} {localizer.bundle.version}"
    what = f"boxes found by maps of one network, {about}: figures are means of the findings with 95% over patients"
    result = {"what": what, "sets": results, "absent": absent, "environment": environment("torchcam", "grad-cam")}
    print("->", save("peers_boxes", result))


def made_phantoms(folder: Path, count: int) -> tuple[Collection, Truth]:
    """Unseen phantoms and their boxes."""
    numbers = ["--count", str(count), "--seed", str(PHANTOM_SEED), "--out", str(folder)]
    subprocess.run([sys.executable, "-m", "msloc_edge.train.phantom", *numbers], check=True)
    collection = open_collection(f"csv:{folder / 'films.csv'}", "all")
    return collection, read_truth(collection, collection.records, folder / "boxes.csv", None)


class Contest:
    """Our maps and others' of the same films."""

    def __init__(
        self,
        localizer: Localizer,
        collection: Collection,
        records: Sequence[Record],
        truth: Truth,
        resamples: int,
    ) -> None:
        self._localizer, self._collection, self._records, self._resamples = localizer, collection, records, resamples
        self._truth = truth.only([record.name for record in records], localizer.bundle.classes)

    def result(self, methods: Mapping[str, Contestant], folder: Path) -> dict[str, Any]:
        """Rows of figures, and how far each method is from ours."""
        ours = self._evaluation(ModelSource(self._localizer, "onnxruntime", {}, 1))
        metrics = self._measured(ours)
        rows = {
            name: macros(metrics["rows"][row]) for row, name in {**OURS, **OTHERS}.items() if row in metrics["rows"]
        }
        differences = {}
        for name, method in methods.items():
            self._write(method, folder / name)
            maps = HeatmapFolder(folder / name, [record.name for record in self._records])
            theirs = self._evaluation(HeatmapSource(maps, {}, self._truth.labels))
            rows[name] = macros(self._measured(theirs)["rows"]["heatmaps"])
            figures = ours.against(theirs)["figures"]
            differences[name] = {figure: table["difference"]["macro"] for figure, table in figures.items()}
        return {
            "films": metrics["run"]["films"],
            "patients": metrics["run"]["patients"],
            "boxes": metrics["run"]["boxes"],
            "rows": rows,
            "ours_less_theirs": differences,
        }

    def _evaluation(self, source: Source) -> Evaluation:
        return Evaluation(source, self._records, self._truth, self._collection.classes, self._resamples, 0)

    @staticmethod
    def _measured(evaluation: Evaluation) -> dict[str, Any]:
        with Progress(disable=True) as progress:
            return evaluation.metrics({"problems": []}, progress)

    def _write(self, method: Contestant, folder: Path) -> None:
        """Write NAME/LABEL.npy of every finding with a box, over the film's area."""
        classes = self._localizer.bundle.classes
        for record in self._records:
            film = self._localizer.prepare(record.path)
            labels = list(self._truth.regions[record.name])
            _, maps = method(film.batch, [classes.index(label) for label in labels])
            assert maps is not None
            at = folder / record.name
            at.mkdir(parents=True)
            for label, values in zip(labels, maps, strict=True):
                np.save(at / f"{label}.npy", values[film.geometry.content])


def macros(row: Mapping[str, Any]) -> dict[str, Any]:
    """Each figure's mean of the findings."""
    return {figure: row[figure]["macro"] for figure in ROW_METRICS}


def table(name: str, rows: Mapping[str, Mapping[str, Any]]) -> str:
    """Rows as Markdown."""
    lines = [(name, *ROW_METRICS), tuple("---" for _ in range(len(ROW_METRICS) + 1))]
    lines += [(row, *(cell(figures[figure]) for figure in ROW_METRICS)) for row, figures in rows.items()]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    main()
