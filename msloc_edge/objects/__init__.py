"""DICOM objects of a result: what an archive stores beside the film, and a viewer shows with it.

    sr     structured report: findings, probabilities, thresholds, measured rates, boxes
    seg    segmentation: the regions, one segment a finding
    pm     parametric map: the localization maps themselves, logit units
    gsps   presentation state: contours, boxes and labels over the film
    sc     secondary capture: a picture, for viewers that show nothing else

They belong to the study of their film, each kind in a series of its own. Nothing random and no clock goes into them:
the same result on the same film is the same file under the same UID, and another content has another UID.
pydicom and highdicom are imported when an object is made.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Union

from msloc_edge._files import atomic_write
from msloc_edge.errors import DependencyError, MslocError
from msloc_edge.objects.encoding import encode
from msloc_edge.objects.outcome import NotAnalysed
from msloc_edge.result import Result

if TYPE_CHECKING:
    from pydicom import Dataset

__all__ = ["KINDS", "AnySource", "NotAnalysed", "Written", "make_object", "write_objects"]

KINDS = ("sr", "seg", "pm", "gsps", "sc")
OF_FINDINGS = ("seg", "pm", "gsps")
"""Kinds that a film without a positive finding does not have."""

AnySource = Union[str, Path, bytes, "Dataset"]
"""The DICOM film that a result is of: a path, the file's content, or a pydicom Dataset."""


class Written(NamedTuple):
    """Files of one film's objects.

    files     kind -> path of the object
    left_out  kind that could not be made -> why: an error of one sentence
    """

    files: dict[str, Path]
    left_out: dict[str, MslocError]


def make_object(result: Result | NotAnalysed, source: AnySource, kind: str) -> Dataset:
    """Make one DICOM object of a result and the film that it is of.

    result  with its maps for seg, pm and the contours of gsps; one read from a result line has none
    kind    one of KINDS; of a film without a finding, or that was refused, there are sr and sc

    Raises OutputError (object_refused) where it cannot be made, DependencyError (package_missing).
    """
    require_highdicom()
    from msloc_edge.objects.making import make

    return make(result, source, kind)


def require_highdicom() -> None:
    """Raise DependencyError (package_missing) where objects cannot be made for lack of a package."""
    try:
        import highdicom  # noqa: F401
    except ImportError as error:
        raise DependencyError(
            "package_missing",
            f"expected highdicom, to make DICOM objects, got {error}; install it with: "
            "pip install 'msloc-edge[objects]'.",
        ) from error


def write_objects(
    result: Result | NotAnalysed, source: AnySource, kinds: Iterable[str], folder: str | Path, stem: str
) -> Written:
    """Write objects of a result as `folder/STEM.KIND.dcm`, each whole or not at all. Safe in any thread.

    result  as for `make_object`
    source  the film that the result is of
    kinds   some of KINDS
    folder  is made where it is missing

    An object that cannot be made does not keep the others away: `left_out` says why. A film without a positive finding
    has an sr and an sc, and nothing is left out.
    Raises OSError where a file cannot be written.
    """
    written = Written({}, {})
    found = isinstance(result, Result) and result.positive
    for kind in [kind for kind in kinds if found or kind not in OF_FINDINGS]:
        path = Path(folder) / f"{stem}.{kind}.dcm"
        try:
            made = make_object(result, source, kind)
        except MslocError as error:
            written.left_out[kind] = error
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(path, encode(made))
        written.files[kind] = path
    return written
