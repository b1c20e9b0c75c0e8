"""A digital chest phantom: synthetic X-ray films with exact ground truth, for training, tests and demos."""

from msloc_edge.train.phantom.film import MAX_SIDE, MIN_SIDE, Phantom, Region, generate
from msloc_edge.train.phantom.findings import FINDINGS
from msloc_edge.train.phantom.write import write_dicom, write_png

__all__ = ["FINDINGS", "MAX_SIDE", "MIN_SIDE", "Phantom", "Region", "generate", "write_dicom", "write_png"]
