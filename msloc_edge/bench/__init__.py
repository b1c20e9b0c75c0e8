"""Measuring: backends on the device at hand, and the bare classifier they are compared with."""

SCOPES = ("kernel", "network", "device", "end-to-end")
"""Parts of a film's way that are timed; see `scopes`."""
