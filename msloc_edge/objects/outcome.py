"""A refusal as a result of its own, so that an archive sees that a film came and was not analysed."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timezone

from msloc_edge.errors import REASONS, WARNINGS, MslocError
from msloc_edge.result import PROGRAM, Result
from msloc_edge.types import ModelId, OperatingPoint


@dataclass(frozen=True, slots=True)
class NotAnalysed:
    """A film that was refused: it has no findings, and is not normal.

    reason           code of the refusal (docs/errors.md)
    message          its sentence, without the film's name
    model            that would have analysed it
    operating_point  that would have decided
    time             of the refusal, UTC, ISO 8601
    program          what refused it, with its version
    """

    reason: str
    message: str
    model: ModelId
    operating_point: OperatingPoint
    time: str
    program: str = PROGRAM

    @classmethod
    def of(
        cls, error: MslocError, model: ModelId, operating_point: OperatingPoint, time: str | None = None
    ) -> NotAnalysed:
        """Make one of the error that refused a film. Of its sentence, the film's name goes: it may be a patient's.

        time  None takes now
        """
        _, _, said = error.message.rpartition("expected ")
        known = REASONS.get(error.reason)
        message = f"expected {said}" if said != error.message else known.came if known else error.reason
        time = time or datetime.now(timezone.utc).isoformat(timespec="seconds")
        return cls(error.reason, message, model, operating_point, time)

    @classmethod
    def of_result(cls, result: Result) -> NotAnalysed:
        """Make one of the result of a film that the input gate refused."""
        reason = str(result.refused)
        message = f"expected an upright frontal film of the chest, but {WARNINGS.get(reason, reason)}"
        return cls(reason, message, result.model, result.operating_point, result.time, result.program)
