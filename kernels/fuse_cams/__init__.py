"""fuse_cams: per-stage class maps, upsampled, weighted by relevance and summed (README.md has the maths)."""
