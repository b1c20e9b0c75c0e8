"""Films to train and to score on: the NIH release, anyone's own by a csv, and digital phantoms."""

from msloc_edge.train.data.collection import SPLITS, Collection, LabelBox, Record
from msloc_edge.train.data.films import Films, load_films, require_films
from msloc_edge.train.data.names import FilmNames
from msloc_edge.train.data.nih import NIH_CLASSES
from msloc_edge.train.data.sources import (
    PHANTOM,
    excluded_names,
    open_collection,
    real,
    source_classes,
    split_films,
    training_films,
    validation_films,
)

__all__ = [
    "NIH_CLASSES",
    "PHANTOM",
    "SPLITS",
    "Collection",
    "FilmNames",
    "Films",
    "LabelBox",
    "Record",
    "excluded_names",
    "load_films",
    "open_collection",
    "real",
    "require_films",
    "source_classes",
    "split_films",
    "training_films",
    "validation_films",
]
