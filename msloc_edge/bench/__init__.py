"""Measuring: engines on the device at hand, and the bare classifier they are compared with."""

SCENARIOS = ("single-stream", "multi-stream", "offline", "fixed-rate")
"""How films arrive; `scenarios` has what each means."""

SCOPES = ("kernel", "network", "end-to-end")
"""What of a film's way is timed; `scopes` has what each means."""
