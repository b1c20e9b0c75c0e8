"""The film that an object is of: its header, as far as the object's own header is made of it.

Nothing of it goes into messages or logs: an error names the element that is missing, never what is in another.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pydicom
from highdicom import SpecificCharacterSetValues
from pydicom import config
from pydicom.charset import convert_encodings
from pydicom.datadict import keyword_for_tag
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.multival import MultiValue
from pydicom.tag import Tag
from pydicom.uid import ExplicitVRLittleEndian
from pydicom.valuerep import DA, TM, validate_value

from msloc_edge.errors import OutputError
from msloc_edge.imaging.checks import captured_warnings
from msloc_edge.types import SourceUids

if TYPE_CHECKING:
    from msloc_edge.objects import AnySource

_PIXELS = frozenset(map(Tag, ("PixelData", "FloatPixelData", "DoubleFloatPixelData")))
_NEEDED = ("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID", "Rows", "Columns")
_EMPTY = (  # type 2 in Patient and General Study (PS3.3 C.7.1.1, C.7.2.1): present, empty where nobody knows
    *("PatientName", "PatientID", "PatientBirthDate", "PatientSex"),
    *("StudyDate", "StudyTime", "StudyID", "AccessionNumber", "ReferringPhysicianName"),
    "Modality",  # highdicom looks at it; it is in no object
)
_WHO = ("PatientName", "PatientID")  # kept as they are: an object of nobody is worse than one against the standard
_CHECKS: dict[str, Callable[[str], Any]] = {
    **dict.fromkeys(("PatientBirthDate", "StudyDate"), DA),
    "StudyTime": TM,
    "PatientSex": {"": "", "M": "M", "F": "F", "O": "O"}.__getitem__,
}
_SPACINGS = ("PixelSpacing", "ImagerPixelSpacing")
_DATED = ("Content", "Acquisition", "Series", "Study")
_UTF_8 = "ISO_IR 192"
_DEFAULT_EXTENDED = "ISO 2022 IR 6"
_MULTI_BYTE = {"ISO 2022 IR 87", "ISO 2022 IR 159"}
_SETS = {known.value for known in SpecificCharacterSetValues}
_EXTENDING = {name for name in _SETS if name.startswith("ISO 2022")}
_CHINESE = "ISO 2022 IR 58"
_ALONE = {name for name in _SETS if not name.startswith("ISO 2022")} | {""}


@dataclass(frozen=True, slots=True, eq=False)
class Source:
    """A film's header without pixels, cleaned, and where the film itself is.

    date, time  of the film, as DICOM writes them; "" where it has none
    """

    film: AnySource
    header: Dataset
    uids: SourceUids
    date: str
    time: str

    @property
    def spacing(self) -> tuple[float, float] | None:
        """Millimetres between rows and between columns, at the patient or else at the detector; None where unknown."""
        for keyword in _SPACINGS:
            if values := self.header.get(keyword):
                return float(values[0]), float(values[1])
        return None

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) of the stored image, pixels."""
        return int(self.header.Columns), int(self.header.Rows)


def refused(sentence: str) -> OutputError:
    """Make the error of an object that cannot be made."""
    return OutputError("object_refused", sentence)


def read_source(film: AnySource, texts: Iterable[str]) -> Source:
    """Read a film's header for an object that will also hold `texts`, which decide its character set.

    Raises OutputError (object_refused) for what is no DICOM film, or lacks what every object needs in a legal form.
    """
    with captured_warnings() as caught:
        header = _clean(_read(film), caught)
        if not header.get("SOPClassUID"):
            raise _not_dicom()
        if missing := [keyword for keyword in _NEEDED if not header.get(keyword)]:
            raise refused(f"expected a DICOM film with {missing[0]}, got one without; send the film as it was stored.")
        uids = SourceUids(*(str(header[keyword].value) for keyword in _NEEDED[1:4]))
        if int(header.get("NumberOfFrames") or 1) > 1:
            raise refused("expected a film of one frame, got several; objects are of single films.")
        _fit_character_set(header, texts)
        date, time = _date_and_time(header)
    return Source(film, header, uids, date, time)


def _read(film: AnySource) -> Dataset:
    if isinstance(film, Dataset):
        tags = [tag for tag in film.keys() if tag not in _PIXELS]  # noqa: SIM118 - a Dataset iterates elements
        header = Dataset({tag: copy.deepcopy(film.get_item(tag)) for tag in tags})  # the caller's stays as it is
        header.file_meta = copy.deepcopy(getattr(film, "file_meta", None)) or FileMetaDataset()
        implicit, little = film.original_encoding
        header.set_original_encoding(implicit, little, film.original_character_set)
    else:
        try:
            opened = BytesIO(film) if isinstance(film, bytes) else Path(film)
            header = pydicom.dcmread(opened, force=True, stop_before_pixels=True)
        except Exception:  # pydicom's words may hold what is in the file
            raise _not_dicom() from None
    if "TransferSyntaxUID" not in header.file_meta:
        header.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return header


def _not_dicom() -> OutputError:
    return refused("expected a DICOM film, got something else or a damaged one; DICOM objects need one.")


def _clean(header: Dataset, caught: list[Any]) -> Dataset:
    """Leave out the pixels, and elements that are not legal, so that they are not copied; add those that must be."""
    for tag in list(header.keys()):
        before = len(caught)
        try:
            _check(header[tag])
            legal = len(caught) == before
        except Exception:  # pydicom's converters raise all kinds of errors
            legal = False
        if tag in _PIXELS or (not legal and keyword_for_tag(tag) not in _WHO):
            del header[tag]
    for keyword in _EMPTY:
        if keyword not in header:
            setattr(header, keyword, "")
    for keyword in _SPACINGS:
        if keyword in header and not _is_spacing(header[keyword].value):
            delattr(header, keyword)
    return header


def _check(element: DataElement) -> None:
    values = element.value if isinstance(element.value, MultiValue) else [element.value]
    for value in values:
        if isinstance(value, str):
            validate_value(element.VR, value, config.RAISE)
        if value and (check := _CHECKS.get(element.keyword)):
            check(str(value))


def _is_spacing(values: Any) -> bool:
    return isinstance(values, Sequence) and len(values) == 2 and all(float(value) > 0 for value in values)


def _fit_character_set(header: Dataset, texts: Iterable[str]) -> None:
    """Keep the film's character set where highdicom writes it and it can spell what is added; else take UTF-8.

    An empty first value, usual in Japan, is written as the default repertoire that it stands for.
    Raises OutputError (object_refused) where the text cannot be read.
    """
    first, *extensions = _character_sets(header)
    if extensions and not first:
        first = _DEFAULT_EXTENDED
        header.SpecificCharacterSet = [first, *extensions]
    if _CHINESE in extensions:  # pydicom leaves its escape sequences in the text, so that names would be spoilt
        raise refused(
            f"expected characters that can be carried over, got {_CHINESE}; send the film in GB18030 or UTF-8."
        )
    try:
        if not _is_known([first, *extensions]):
            raise LookupError
        encoding = convert_encodings(first or "ISO_IR 6")[0]
        for text in texts:
            text.encode("ascii" if encoding == "iso8859" else encoding)  # pydicom's name of the default repertoire
    except (UnicodeEncodeError, LookupError):
        header.decode()
        header.SpecificCharacterSet = _UTF_8


def _character_sets(header: Dataset) -> list[str]:
    """Values of Specific Character Set, at least one, which is empty for the default repertoire."""
    values = header.get("SpecificCharacterSet") or ""
    return [str(value) for value in (values if isinstance(values, MultiValue) else [values])]


def _is_known(sets: Sequence[str]) -> bool:
    """Whether highdicom writes it: a set that stands alone, or several that extend one of single bytes (C.12.1.1.2)."""
    if len(sets) == 1:
        return sets[0] in _ALONE
    return set(sets) <= _EXTENDING and sets[0] not in _MULTI_BYTE


def _date_and_time(header: Dataset) -> tuple[str, str]:
    """The first date that the film has, of the image itself or else of its series or study, with its time."""
    for level in _DATED:
        date, time = (str(header.get(f"{level}{part}") or "") for part in ("Date", "Time"))
        try:
            if date and DA(date) and (not time or TM(time)):
                return date, time or "000000"
        except ValueError:
            continue
    return "", ""
