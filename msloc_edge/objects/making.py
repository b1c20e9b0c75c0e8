"""From a result and its film to one DICOM object."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from pydicom import Dataset

from msloc_edge.errors import MslocError
from msloc_edge.imaging.checks import captured_warnings
from msloc_edge.objects import OF_FINDINGS, capture, parametric_map, presentation, report, segmentation
from msloc_edge.objects.identity import Identity, name_by_content
from msloc_edge.objects.outcome import NotAnalysed
from msloc_edge.objects.source import Source, read_source, refused
from msloc_edge.result import Result

if TYPE_CHECKING:
    from msloc_edge.objects import AnySource

logging.getLogger("highdicom").setLevel(logging.CRITICAL + 1)  # it logs UIDs, and a patient's name that it dislikes

_MAKERS: dict[str, Callable[[Result, Source, Identity], Dataset]] = {
    "sr": report.make,
    "seg": segmentation.make,
    "pm": parametric_map.make,
    "gsps": presentation.make,
    "sc": capture.make,
}
_REFUSAL_MAKERS: dict[str, Callable[[NotAnalysed, Source, Identity], Dataset]] = {
    "sr": report.make_refusal,
    "sc": capture.make_refusal,
}


def make(result: Result | NotAnalysed, film: AnySource, kind: str) -> Dataset:
    """Make an object of one kind. Raises OutputError (object_refused)."""
    if isinstance(result, Result) and result.refused:
        result = NotAnalysed.of_result(result)
    source = read_source(film, _texts(result))
    if isinstance(result, Result):
        _check_same_film(result, source)
        if kind in OF_FINDINGS and not result.positive:
            raise refused(f"{kind}: expected a result with a finding, got one without; sr and sc say so.")
        if kind == "sc" and result.film is None:
            result = replace(result, film=capture.read_film(source))
    try:
        identity = Identity.of(result, source, kind)
        with captured_warnings():
            return name_by_content(_make(result, source, identity, kind), source, identity)
    except MslocError:
        raise
    except Exception as error:  # highdicom's words may hold what is in the film's header
        raise refused(
            f"{kind}: expected a film that highdicom takes, got {type(error).__name__} from it; the other objects "
            "are written."
        ) from None


def _make(result: Result | NotAnalysed, source: Source, identity: Identity, kind: str) -> Dataset:
    if isinstance(result, NotAnalysed):
        if kind not in _REFUSAL_MAKERS:
            raise refused(f"{kind}: expected a film that was analysed, got one that was not; sr and sc say so.")
        return _REFUSAL_MAKERS[kind](result, source, identity)
    return _MAKERS[kind](result, source, identity)


def _check_same_film(result: Result, source: Source) -> None:
    """Refuse to put a result on another film, which may be another patient's."""
    size = result.geometry.image_width, result.geometry.image_height
    if (result.uids and result.uids != source.uids) or size != source.size:
        raise refused("expected the film that the result is of, got another one; name the film itself.")


def _texts(result: Result | NotAnalysed) -> list[str]:
    """What an object says in words of its own."""
    own = [result.model.name, result.model.version, result.operating_point.profile, result.program]
    if isinstance(result, NotAnalysed):
        return [*own, result.message]
    return [*own, *(finding.label for finding in result.findings)]
