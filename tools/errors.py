"""Write docs/errors.md, the page of reason and warning codes, from the tables in msloc_edge/errors.py.

make pages        or: python tools/errors.py docs/errors.md
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

from msloc_edge._files import atomic_write
from msloc_edge.errors import REASONS, WARNINGS, MslocError

INTRODUCTION = """# Reason codes

An error carries `reason`, a code that stays the same across versions, and one sentence: what was
expected, what came, what to do. A code names what a caller can do; the class says where it arose.
A batch goes on after a film that failed; `msloc-edge` then exits with 1 and names each of them.
The C library has statuses of its own ([embedding.md](embedding.md)). `make pages` writes this page
from `REASONS` and `WARNINGS` in `msloc_edge/errors.py`.
"""

WARNING = """A warning is a code alone, in `Frame.warnings` and in the result line: something unusual that did not
stop the film from being read.
"""

FORMER_INTRODUCTION = """There were 98 reasons. One that told a caller nothing more than another did is part of that
one now; those that are not listed here are spelled as they were. `backend_missing` is of backends
alone: what else is not installed is `package_missing`.
"""

FORMER = {
    "truncated": ("empty",),
    "unreadable": ("is_directory",),
    "corrupt": ("no_pixels",),
    "too_small": ("zero_size",),
    "unsupported_pixels": ("not_finite",),
    "option_invalid": (
        *("frame_out_of_range", "model_name", "layer_unknown", "plugin_route", "data_unknown", "label_unknown"),
        *("lesion", "precision", "ranks", "recipe_missing", "recipe_invalid"),
    ),
    "package_missing": ("dicom_missing", "cryptography_missing"),
    "bundle_missing": ("archive_missing",),
    "bundle_damaged": ("archive_damaged",),
    "bundle_hash": ("archive_hash",),
    "bundle_rollback": ("versions_damaged",),
    "signature_wrong": ("signature_damaged",),
    "key_unusable": ("key_missing", "key_passphrase"),
    "archive_refused": ("archive_unknown", "archive_unsafe", "archive_too_large", "archive_contents"),
    "plan_missing": ("engine_missing",),
    "build_failed": ("engine", "kernel_refused"),
    "kernel_unusable": ("kernel_missing", "kernel_damaged"),
    "out_unwritable": ("engine_cache",),
    "out_occupied": ("model_taken", "run_exists"),
    "parity": ("gate", "onnx_invalid"),
    "figures_foreign": ("metrics_foreign", "metrics_unreadable", "bench_foreign", "bench_unreadable"),
    "data_missing": ("data_empty", "calibration", "heatmaps_missing"),
    "data_invalid": (
        *("table_columns", "table_unreadable", "split_overlap"),
        *("boxes_unusable", "masks_unreadable", "heatmap_unreadable"),
    ),
    "checkpoint_missing": ("run_missing", "init_missing"),
    "checkpoint_damaged": ("run_damaged", "init_unreadable"),
    "checkpoint_mismatch": ("run_schema", "init_mismatch"),
}
"""Reason -> the codes of earlier versions that are part of it."""


def page() -> str:
    """The whole page, in markdown."""
    kinds = [(f"`{kind.__name__}`", kind.__doc__ or "") for kind in MslocError.__subclasses__()]
    reasons = [
        (f"`{code}`", "<br>".join(f"`{kind.__name__}`" for kind in reason.errors), reason.came, reason.remedy)
        for code, reason in REASONS.items()
    ]
    former = [(f"`{old}`", f"`{new}`") for new, codes in FORMER.items() for old in codes]
    parts = [
        INTRODUCTION,
        "## Errors\n",
        table(("class", "means"), kinds),
        "## Reasons\n",
        table(("reason", "raised as", "what came", "what to do"), reasons),
        f"## Warnings\n\n{WARNING}",
        table(("code", "meaning"), [(f"`{code}`", meaning) for code, meaning in WARNINGS.items()]),
        f"## Former reasons\n\n{FORMER_INTRODUCTION}",
        table(("was", "is"), sorted(former)),
    ]
    return "\n".join(parts)


def table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    """A markdown table of rows of cells."""
    return "".join(f"| {' | '.join(row)} |\n" for row in (head, ("---",) * len(head), *rows))


if __name__ == "__main__":
    atomic_write(Path(sys.argv[1]), page().encode())
