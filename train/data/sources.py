"""Sources of films as `--data` names them, phantoms or one of FORMS, in any number."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace
from pathlib import Path

from rich.progress import Progress

from msloc_edge.errors import TrainError
from msloc_edge.train.config import FORMS
from msloc_edge.train.data.chexpert import read_chexpert
from msloc_edge.train.data.coco import read_coco
from msloc_edge.train.data.collection import SPLITS, Collection, spelled
from msloc_edge.train.data.csv_table import read_table
from msloc_edge.train.data.films import Films, load_films
from msloc_edge.train.data.names import speller
from msloc_edge.train.data.nih import NIH_CLASSES, read_nih
from msloc_edge.train.data.phantoms import TRAINING_SEED, VALIDATION_SEED, phantom_films
from msloc_edge.train.data.rsna import read_rsna
from msloc_edge.train.data.vindr import read_vindr
from msloc_edge.train.phantom import FINDINGS

PHANTOM = "phantom"
READERS: Mapping[str, Callable[[Path, str], Collection]] = {
    "nih": read_nih,
    "csv": read_table,
    "rsna": read_rsna,
    "vindr": read_vindr,
    "chexpert": read_chexpert,
    "coco": read_coco,
}
"""Form of a collection -> what reads it, from a folder or a file."""

_WITHOUT_TEST = ("csv", "coco", "rsna")
"""Forms without an official test split."""


def open_collection(spec: str, split: str) -> Collection:
    """Open the films of one of FORMS in a split: "train", "validation", "train_val", "test" or "all".

    Validation films are of other patients than training films, decided by the patient's id. Raises TrainError for a
    collection that cannot be used.
    """
    kind, _, place = spec.partition(":")
    if kind not in READERS or not place:
        raise TrainError("option_invalid", f"expected data of {FORMS}, got {spec!r}")
    if split not in SPLITS:
        raise TrainError("option_invalid", f"expected a split of {', '.join(SPLITS)}, got {split!r}")
    return READERS[kind](Path(place), split)


def default_split(spec: str, where_official: str) -> str:
    """Choose the split of films to score or calibrate on: "all" of a collection without an official test split."""
    return "all" if spec.partition(":")[0] in _WITHOUT_TEST else where_official


def real(sources: Sequence[Films]) -> Sequence[Films]:
    """Choose the sources that count: real films where there are any, else phantoms."""
    return [source for source in sources if source.source != PHANTOM] or sources


def source_classes(specs: Sequence[str]) -> tuple[str, ...]:
    """List the findings of several sources together, in the order in which they are first met."""
    found: dict[str, None] = {}
    for spec in specs:
        kind = spec.partition(":")[0]
        own = FINDINGS if spec == PHANTOM else NIH_CLASSES if kind == "nih" else open_collection(spec, "all").classes
        if not own:
            raise TrainError("data_invalid", f"{spec}: expected a column of 1 and 0 for each finding, got none")
        found.update(dict.fromkeys(own))
    return tuple(found)


def training_films(
    specs: Sequence[str],
    classes: Sequence[str],
    side: int,
    phantoms: int,
    seed: int,
    progress: Progress,
    excluded: AbstractSet[str] = frozenset(),
) -> list[Films]:
    """Load the training films of each source, `phantoms` of the generator's, less those in `excluded`."""
    first = TRAINING_SEED * (seed + 1)
    return [_films(spec, "train", classes, side, (first, phantoms), progress, excluded) for spec in specs]


def validation_films(
    specs: Sequence[str],
    classes: Sequence[str],
    side: int,
    phantoms: int,
    progress: Progress,
    excluded: AbstractSet[str] = frozenset(),
) -> list[Films]:
    """Load the validation films of each source, of patients that no run trains on, less those in `excluded`."""
    return split_films(specs, "validation", classes, side, phantoms, progress, excluded)


def split_films(
    specs: Sequence[str],
    split: str,
    classes: Sequence[str],
    side: int,
    phantoms: int,
    progress: Progress,
    excluded: AbstractSet[str] = frozenset(),
) -> list[Films]:
    """Load the films of each source in a split, less those in `excluded`; of phantoms always those for validation."""
    return [_films(spec, split, classes, side, (VALIDATION_SEED, phantoms), progress, excluded) for spec in specs]


def excluded_names(files: Sequence[str]) -> frozenset[str]:
    """Read names of films from text files, one a line. Raises TrainError for a file that cannot be read."""
    names: set[str] = set()
    for file in files:
        try:
            names.update(filter(None, map(str.strip, Path(file).read_text(encoding="utf-8").splitlines())))
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "not a text"
            raise TrainError("data_missing", f"{file}: expected a text file with names of films ({reason})") from error
    return frozenset(names)


def _films(
    spec: str,
    split: str,
    classes: Sequence[str],
    side: int,
    phantoms: tuple[int, int],
    progress: Progress,
    excluded: AbstractSet[str],
) -> Films:
    if spec == PHANTOM:
        return phantom_films(*phantoms, side, progress, classes)
    found, spell = open_collection(spec, split), speller(classes)
    if not set(map(spell, found.classes)) & set(classes):
        got = ", ".join(found.classes) or "films alone"
        raise TrainError("data_invalid", f"{spec}: expected labels of {', '.join(classes)}, got {got}; rename them")
    kept = [record for record in found.records if record.name not in excluded]
    return load_films(replace(found, records=spelled(kept, spell)), side, classes, progress)
