"""A refusal as a result of its own, so that an archive sees that a film came and was not analysed."""

from __future__ import annotations

from dataclasses import dataclass

from msloc_edge.errors import MslocError
from msloc_edge.result import PROGRAM
from msloc_edge.types import ModelId, OperatingPoint


@dataclass(frozen=True, slots=True)
class NotAnalysed:
    """A film that was refused: it has no findings, and is not normal.

    reason           code of the refusal (docs/errors.md)
    message          its sentence, without the film's name
    model            that would have analysed it
    operating_point  that would have decided
    time             of the refusal, UTC, ISO 8601
    """

    reason: str
    message: str
    model: ModelId
    operating_point: OperatingPoint
    time: str
    program: str = PROGRAM

    @classmethod
    def of(cls, error: MslocError, model: ModelId, operating_point: OperatingPoint, time: str) -> NotAnalysed:
        """Make one of the error that refused a film; the film's name goes, as it may be a patient's."""
        _, _, sentence = error.message.rpartition(": expected ")
        message = f"expected {sentence}" if sentence != error.message else error.message
        return cls(error.reason, message, model, operating_point, time)
