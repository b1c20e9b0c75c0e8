"""boxes: the connected regions of localization maps, as a small table (README.md says how)."""
