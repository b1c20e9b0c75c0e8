"""Executes the kernels of a folder in numpy and says of each how right it is, and what it executes by the pixel.

    python -m msloc_edge.kernels.aot --out build/aot --sm all
    python tools/ptx_report.py build/aot

A line is one form on one launch: the devices whose PTX is the same, the error (RMS, relative), races, and by the pixel
the PTX instructions that warps issue, loads of threads, and bytes that threads read and write. Pixels are those of the
maps, of the stored film (of the input, where it is enlarged); for peaks, keys. Exit status 1 if a kernel is wrong or
has a race. docs/gpu.md says what this shows, and what it cannot.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "ptx"))

from shipped import Outcome, Shipped, of_compiled
from shipped.figures import measured

from msloc_edge.cuda.compiled import Compiled, read_index
from msloc_edge.errors import MslocError

COLUMNS = "{:<30} {:<14} {:<36} {:>8} {:>5} {:>12} {:>6} {:>6}"
HEADER = ("form", "launch", "sm", "error", "races", "instructions", "loads", "bytes")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="kernels.json and the PTX that it names")
    try:
        found = distinct(parser.parse_args().folder)
    except (MslocError, OSError) as error:
        sys.exit(f"ptx_report: {error}")
    print(COLUMNS.format(*HEADER))
    wrong = 0
    for form, devices, partners in found:
        for launch, outcome in measured(form, partners).items():
            print(line(form, launch, devices, outcome), flush=True)
            wrong += not outcome.right
    sys.exit(wrong > 0)


def distinct(folder: Path) -> list[tuple[Shipped, str, dict[str, Shipped]]]:
    """List the forms of a folder that differ, the devices of each, and by variant the other forms of the first device.

    Raises BackendError or OSError when the folder cannot be read.
    """
    kernels = [(kernel, of_compiled(folder, kernel)) for kernel in read_index(folder)]
    devices: dict[Shipped, list[str]] = {}
    partners: dict[Shipped, dict[str, Shipped]] = {}
    for kernel, form in kernels:
        devices.setdefault(form, []).append(device(kernel))
        others = (other for it, other in kernels if device(it) == device(kernel) and it.operation == kernel.operation)
        partners.setdefault(form, {other.variant: other for other in others})
    return [(form, " ".join(names), partners[form]) for form, names in devices.items()]


def device(kernel: Compiled) -> str:
    """Name the device of a kernel as the table does."""
    return "portable" if kernel.portable else str(kernel.sm)


def line(form: Shipped, launch: str, devices: str, outcome: Outcome) -> str:
    """Format one line of the table."""
    did, pixels = outcome.executed, outcome.pixels
    numbers = (
        f"{did.instructions / pixels:.1f}",
        f"{did.loads / pixels:.2f}",
        f"{(did.read + did.written) / pixels:.2f}",
    )
    name = f"{form.operation}.{form.variant}.{form.dtype}"
    return COLUMNS.format(name, launch, devices, f"{outcome.error:.1e}", len(did.races), *numbers)


if __name__ == "__main__":
    main()
