"""`python -m msloc_edge` is `msloc-edge`, in the form that torchrun starts."""

from __future__ import annotations

from msloc_edge.cli import main

if __name__ == "__main__":
    main()
