"""`python -m msloc_edge.train` is `msloc-edge train`, in the form that torchrun starts."""

from __future__ import annotations

import sys

from msloc_edge.cli import main

if __name__ == "__main__":
    sys.argv.insert(1, "train")
    main()
