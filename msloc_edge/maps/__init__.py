"""Class maps to boxes: fuse the stages, find the regions, make boxes of them and compare boxes."""

from msloc_edge.maps.boxes import iobb, iou, to_boxes, to_peak
from msloc_edge.maps.fuse import Maps, fuse_cams
from msloc_edge.maps.regions import Located, Region, locate, regions

__all__ = ["Located", "Maps", "Region", "fuse_cams", "iobb", "iou", "locate", "regions", "to_boxes", "to_peak"]
