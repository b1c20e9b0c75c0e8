"""The secondary capture: the overlay as a picture, its purpose burned in, for viewers that show nothing else."""

from __future__ import annotations

import textwrap
from dataclasses import replace

import numpy as np
from highdicom.sc import SCImage
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from pydicom import Dataset
from pydicom.uid import ExplicitVRLittleEndian

from msloc_edge.imaging.reading import decode_frame, read_frame
from msloc_edge.objects.encoding import encode
from msloc_edge.objects.identity import Identity
from msloc_edge.objects.outcome import NotAnalysed
from msloc_edge.objects.source import Source, refused
from msloc_edge.render.overlay import overlay
from msloc_edge.render.panel import BACKGROUND, SOFT, TEXT, font, plain
from msloc_edge.result import Result
from msloc_edge.types import Frame

BANNER = "RESEARCH USE, NOT FOR DIAGNOSIS"
_BANNER_COLORS = "#ffd479", "#08090c"
_MAX_SIDE = 1400


def make(result: Result, source: Source, identity: Identity) -> Dataset:
    """Make the picture of a film that was analysed: film, outlines, boxes, the panel of findings."""
    if result.film is None:
        raise refused("sc: expected a result with its film, got one without; localize the film again.")
    anonymous = replace(result, input=identity.program)  # a file's name is chance, and may be a patient's
    bgr = overlay(result.film.display(), anonymous, _MAX_SIDE, result.map_thresholds)
    return _capture(_with_banner(bgr[:, :, ::-1]), source, identity)


def make_refusal(refusal: NotAnalysed, source: Source, identity: Identity) -> Dataset:
    """Make a card that says that the film was not analysed, and why."""
    card = Image.new("RGB", (1000, 500), BACKGROUND)
    draw = ImageDraw.Draw(card)
    draw.text((60, 60), "Not analysed", TEXT, font(44))
    words = textwrap.fill(plain(f"[{refusal.reason}] {refusal.message}"), 70)
    draw.multiline_text((60, 150), words, SOFT, font(24), spacing=10)
    draw.text((60, 420), plain(f"{identity.program}, {identity.model}: nothing is said about findings"), SOFT, font(20))
    return _capture(_with_banner(np.asarray(card)), source, identity)


def read_film(source: Source) -> Frame:
    """Read the film of a result that came without it. Raises InputError."""
    film = encode(source.film) if isinstance(source.film, Dataset) else source.film
    return decode_frame(film, "film") if isinstance(film, bytes) else read_frame(film)


def _with_banner(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Add a strip above a picture [h, w, 3] RGB that says what it is for."""
    width = picture.shape[1]
    size = max(18, width // 45)
    paper, ink = _BANNER_COLORS
    strip = Image.new("RGB", (width, round(1.8 * size)), paper)
    ImageDraw.Draw(strip).text((width / 2, strip.height / 2), BANNER, ink, font(size), anchor="mm")
    return np.concatenate([np.asarray(strip), picture])


def _capture(picture: NDArray[np.uint8], source: Source, identity: Identity) -> Dataset:
    made = SCImage.from_ref_dataset(
        ref_dataset=source.header,
        pixel_array=np.ascontiguousarray(picture),
        photometric_interpretation="RGB",
        bits_allocated=8,
        coordinate_system="PATIENT",
        patient_orientation=("L", "F"),
        transfer_syntax_uid=ExplicitVRLittleEndian,
        content_date=identity.date,
        content_time=identity.time,
        **identity.arguments(),
    )
    made.BurnedInAnnotation = "NO"  # no words that identify the patient (PS3.3 C.7.6.1)
    return made
