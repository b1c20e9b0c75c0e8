"""Every error that msloc-edge raises on purpose, and the reason codes that name them.

    MslocError
    ├── InputError     one film cannot be read or localized; the rest of a batch goes on
    ├── BundleError    the model bundle is missing, damaged, or newer than this program
    ├── BackendError   the engine is not installed or failed
    ├── ExportError    an export did not pass its checks
    ├── TrainError     a training run cannot start or go on
    ├── OutputError    a result cannot be written
    └── BenchError     a benchmark cannot be compared with another

An error carries `reason`, a short code that is stable across versions (docs/errors.md lists them all), and one
sentence that says what was expected, what came, and what to do.
"""

from __future__ import annotations


class MslocError(Exception):
    """Base of all expected errors: `reason` is a stable code, `str(error)` one clear sentence."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message

    def __reduce__(self) -> tuple[type[MslocError], tuple[str, str]]:
        return type(self), (self.reason, self.message)


class InputError(MslocError):
    """One film cannot be read or localized."""


class BundleError(MslocError):
    """A model bundle is missing, damaged, or of an unknown schema."""


class BackendError(MslocError):
    """An inference engine is not installed, or failed."""


class ExportError(MslocError):
    """An export did not pass its checks; nothing was written."""


class TrainError(MslocError):
    """A training run cannot start, resume or go on."""


class OutputError(MslocError):
    """A result cannot be written."""


class BenchError(MslocError):
    """A benchmark cannot be compared with another, or cannot be run."""
