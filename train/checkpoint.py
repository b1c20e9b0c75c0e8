"""A run on disk: its configuration, its last and its best state, and the table of its epochs."""

from __future__ import annotations

import csv
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from msloc_edge.errors import OutputError, TrainError
from msloc_edge.model.weights import load_plain
from msloc_edge.train.config import TrainConfig

SCHEMA = "msloc-edge/run/3"


class Run:
    """A run folder: config.json, last.pt (to resume), best.pt (to export), history.csv."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def best(self) -> Path:
        return self.folder / "best.pt"

    @property
    def last(self) -> Path:
        return self.folder / "last.pt"

    def start(self, config: TrainConfig) -> None:
        """Make the folder and save the resolved configuration; refuses a folder that holds another run."""
        if self.last.exists():
            raise OutputError(
                "out_occupied", f"{self.folder}: holds a run already; add --resume, or choose another --out"
            )
        self.folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps({"schema": SCHEMA, **config.to_dict()}, indent=2) + "\n"
        (self.folder / "config.json").write_text(text)
        (self.folder / "history.csv").unlink(missing_ok=True)

    def config(self) -> TrainConfig:
        """Read the configuration that the run was started with."""
        path = self.folder / "config.json"
        if not path.is_file():
            raise TrainError("checkpoint_missing", f"{self.folder}: no run to resume here (config.json is missing)")
        try:
            values = json.loads(path.read_text())
            schema = values.pop("schema", None)
            if schema != SCHEMA:
                raise TrainError(
                    "checkpoint_mismatch", f"{path}: expected schema {SCHEMA}, got {schema}; start a new run"
                )
            return TrainConfig.from_dict(values)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise TrainError("checkpoint_damaged", f"{path}: not a run's configuration ({error})") from error

    @staticmethod
    def save(state: Mapping[str, Any], path: Path) -> None:
        """Save a state as `best` or `last`; a crash while writing leaves the earlier one."""
        scratch = path.with_suffix(".part")
        torch.save(dict(state), scratch)
        os.replace(scratch, path)

    def log(self, row: Mapping[str, float]) -> None:
        """Write one epoch to history.csv, in place of rows of this or a later epoch that a stopped run left."""
        path = self.folder / "history.csv"
        rows: list[Mapping[str, Any]] = []
        if path.exists():
            with path.open(newline="") as file:
                rows = [old for old in csv.DictReader(file) if int(old["epoch"]) < row["epoch"]]
        scratch = path.with_suffix(".part")
        with scratch.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(row))
            writer.writeheader()
            writer.writerows([*rows, row])
        os.replace(scratch, path)


def weights_file(path: Path) -> Path:
    """Find the file that weights are read from: of a run folder its best state, else the path itself."""
    return Run(path).best if path.is_dir() else path


def model_name(state: Mapping[str, Any], path: Path) -> str:
    """Name the model of a checkpoint at `path` (a file or a run folder): as its run says, or like the run folder."""
    folder = (path if path.is_dir() else path.parent).resolve().name
    return state["config"].get("name") or re.sub(r"[^A-Za-z0-9._-]+", "-", folder).strip("-._")[:64] or "model"


def load_state(path: Path) -> dict[str, Any]:
    """Load a checkpoint file, or the best one of a run folder. Raises TrainError when it is not one of ours."""
    file = weights_file(path)
    if not file.is_file():
        raise TrainError(
            "checkpoint_missing", f"{path}: expected a checkpoint or a run folder with best.pt, found none"
        )
    try:
        state = load_plain(file)
    except Exception as error:  # on bytes that are not its own, the unpickler raises anything at all
        raise TrainError("checkpoint_damaged", f"{file}: not a readable checkpoint; train again or resume") from error
    schema = state.get("schema") if isinstance(state, dict) else None
    if schema != SCHEMA:
        if isinstance(schema, str):
            raise TrainError(
                "checkpoint_mismatch",
                f"{file}: expected schema {SCHEMA}, got {schema}; its weights can start a new run (--init)",
            )
        raise TrainError("checkpoint_damaged", f"{file}: expected a checkpoint of schema {SCHEMA}")
    return state
