"""Class maps to boxes: fuse the stages, find the regions, compare rectangles."""
