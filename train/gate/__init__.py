"""Fit of the input gate (msloc_edge.imaging.gate): films that it must pass, and pictures that it must name."""
