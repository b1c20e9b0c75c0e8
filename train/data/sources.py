"""What `--data` names: phantom, nih:DIR, csv:FILE, in any number."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.progress import Progress

from msloc_edge.errors import TrainError
from msloc_edge.train.data.collection import SPLITS, Collection
from msloc_edge.train.data.films import Films, load_films
from msloc_edge.train.data.nih import NIH_CLASSES, read_nih
from msloc_edge.train.data.phantoms import TRAINING_SEED, VALIDATION_SEED, phantom_films
from msloc_edge.train.data.tables import read_table
from msloc_edge.train.phantom import FINDINGS

PHANTOM = "phantom"
_READERS = {"nih": read_nih, "csv": read_table}


def open_collection(spec: str, split: str) -> Collection:
    """The films of "nih:DIR" or "csv:FILE" in a split: "train", "validation", "train_val", "test" or "all".

    Validation films are of other patients than training films, decided by the patient's id. Raises TrainError for a
    collection that cannot be used.
    """
    kind, _, place = spec.partition(":")
    if kind not in _READERS or not place:
        raise TrainError("data_unknown", f"expected data of nih:DIR or csv:FILE, got {spec!r}")
    if split not in SPLITS:
        raise TrainError("data_unknown", f"expected a split of {', '.join(SPLITS)}, got {split!r}")
    return _READERS[kind](Path(place), split)


def real(sources: Sequence[Films]) -> Sequence[Films]:
    """The sources that count: real films where there are any, else phantoms."""
    return [source for source in sources if source.source != PHANTOM] or sources


def source_classes(specs: Sequence[str]) -> tuple[str, ...]:
    """The findings of several sources together, in the order in which they are first met."""
    found: dict[str, None] = {}
    for spec in specs:
        kind = spec.partition(":")[0]
        own = FINDINGS if spec == PHANTOM else NIH_CLASSES if kind == "nih" else open_collection(spec, "all").classes
        if not own:
            raise TrainError("table_columns", f"{spec}: expected a column of 1 and 0 for each finding, got none")
        found.update(dict.fromkeys(own))
    return tuple(found)


def training_films(
    specs: Sequence[str], classes: Sequence[str], side: int, phantoms: int, seed: int, progress: Progress
) -> list[Films]:
    """The training films of each source, `phantoms` of them where the source is the generator."""
    first = TRAINING_SEED * (seed + 1)
    return [_films(spec, "train", classes, side, (first, phantoms), progress) for spec in specs]


def validation_films(
    specs: Sequence[str], classes: Sequence[str], side: int, phantoms: int, progress: Progress
) -> list[Films]:
    """The validation films of each source, of patients that no run trains on."""
    return [_films(spec, "validation", classes, side, (VALIDATION_SEED, phantoms), progress) for spec in specs]


def _films(
    spec: str, split: str, classes: Sequence[str], side: int, phantoms: tuple[int, int], progress: Progress
) -> Films:
    if spec == PHANTOM:
        return phantom_films(*phantoms, side, progress, classes)
    return load_films(open_collection(spec, split), side, classes, progress)
