"""Simulated nodules, masses and opacities of known size and contrast in real films: docs/lesions.md."""

from msloc_edge.train.lesions.graded import DIAMETERS, graded, kind_of
from msloc_edge.train.lesions.insertion import KINDS, SIZES, Lesion, insert
from msloc_edge.train.lesions.labels import LABELS, Inserter
from msloc_edge.train.lesions.lungs import lung_fields

__all__ = ["DIAMETERS", "KINDS", "LABELS", "SIZES", "Inserter", "Lesion", "graded", "insert", "kind_of", "lung_fields"]
