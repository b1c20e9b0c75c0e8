"""Files and programs of the system, which may be missing, unreadable or hanging."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Sequence
from pathlib import Path


def text(file: Path) -> str:
    """Text of a file; "" where it cannot be read."""
    try:
        return file.read_text(errors="replace")
    except OSError:
        return ""


def number(file: Path) -> float | None:
    """Number that a file holds; None where it holds none, or cannot be read."""
    try:
        return float(text(file))
    except ValueError:
        return None


def output_of(command: Sequence[str], patience: float) -> tuple[int, str, str]:
    """Exit status, stdout and stderr of a command that may hang.

    Raises OSError if it cannot be started, TimeoutError after `patience` seconds.
    """
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
    )
    try:
        out, err = process.communicate(timeout=patience)
    except BaseException as error:
        process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(1)  # and no longer: inside a driver that hangs, even a killed process stays
        for pipe in (process.stdout, process.stderr):
            if pipe:
                pipe.close()
        if isinstance(error, subprocess.TimeoutExpired):
            raise TimeoutError(f"{command[0]} gave no answer within {patience:g} s") from None
        raise
    return process.returncode, out, err
