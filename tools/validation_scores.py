"""Score the films that a model was validated on, into the dataset that `score` compares archives with.

    python tools/validation_scores.py cxr-edge --data nih:../shared/data/nih --data nih:../shared/data/nih2 \\
        --exclude ../shared/data/nih2/from_rsna.txt

Writes msloc_edge/score/validation/NAME: scores and pixel statistics, and nothing that names a film.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pyarrow as pa
from pyarrow import parquet

from msloc_edge._files import atomic_write
from msloc_edge.score.dataset import DATASET, FILMS, Dataset
from msloc_edge.score.summary import VALIDATION, columns_of
from msloc_edge.train.data.collection import Record
from msloc_edge.train.data.sources import excluded_names, open_collection


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--data", action="append", required=True)
    parser.add_argument("--exclude", action="append", default=[])
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        films, out = Path(scratch) / "films.txt", Path(scratch) / "scores"
        records = validation_records(args.data, args.exclude)
        films.write_text("".join(f"{os.path.abspath(record.path)}\n" for record in records))
        subprocess.run([sys.executable, "-m", "msloc_edge", "score", films, out, "--model", args.model], check=True)
        print(keep(Dataset.open(out)))


def validation_records(specs: list[str], exclude: list[str]) -> list[Record]:
    """List the films that `train` and `calibrate` validate on."""
    excluded = excluded_names(exclude)
    records = [record for spec in specs for record in open_collection(spec, "validation").records]
    return [record for record in records if record.name not in excluded]


def keep(scored: Dataset) -> Path:
    """Write a dataset's scores, flags and pixel statistics as one part, in the order of their values."""
    columns = columns_of(scored)
    table = pa.concat_tables(scored.read(FILMS, [*columns, "refused", "warnings", "flagged", "findings"]))
    table = table.sort_by([(name, "ascending") for name in columns])
    table = pa.Table.from_pylist(table.to_pylist(), scored.schema(FILMS))  # the other columns are null
    folder = VALIDATION / scored.about["model"]["name"]
    (folder / FILMS).mkdir(parents=True, exist_ok=True)
    parquet.write_table(table, folder / FILMS / "part-0001-of-0001-000000.parquet", compression="zstd")
    atomic_write(folder / DATASET, (scored.folder / DATASET).read_bytes())
    return folder


if __name__ == "__main__":
    main()
