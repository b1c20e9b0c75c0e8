"""The panel beside the film of an overlay: what was found, how sure the model is, and what was below threshold."""

from __future__ import annotations

import unicodedata
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from msloc_edge.result import Result
from msloc_edge.types import FilmGate, Finding, OperatingPoint

BACKGROUND = "#0b0d11"
TEXT, SOFT, FAINT, TRACK, _DIM_BAR = "#f1f3f5", "#a9b1bc", "#858e9b", "#252b34", "#5f6977"
_MAX_ROWS = 14  # classes that are listed by name

_Font = ImageFont.ImageFont | ImageFont.FreeTypeFont


@lru_cache(maxsize=32)
def font(size: int) -> _Font:
    """Pillow's own font: there on every device, with no file to find."""
    return ImageFont.load_default(size=size)


def panel(
    result: Result, colors: dict[str, str], em: int, min_height: int, show: int | None = None
) -> NDArray[np.uint8]:
    """Make the panel, [h, w, 3] uint8 RGB, h >= min_height; `em` is the size of its text in pixels.

    show  how many positive findings are drawn on the film, and get a number here; None: all

    It is drawn at twice its size and then halved: small text keeps its spacing, and every edge is soft.
    """
    em *= 2
    positive = result.positive
    drawn, listed = positive[:show], positive[len(positive[:show]) :]
    rest = [finding for finding in result.ranked if not finding.positive]
    rows = 4 * len(drawn) + 2 * (len(listed) + min(len(rest), _MAX_ROWS)) + len(result.warnings) + 28
    page = _Page(em, rows)

    page.text(result.input.replace("\\", "/").rsplit("/", 1)[-1], SOFT, 0.85)
    page.y += round(0.35 * em)
    page.text(_headline(result), TEXT, 1.25)
    if result.gate:
        page.text(_gate(result.gate), SOFT, 0.85)
    page.y += round(1.1 * em)
    for number, finding in enumerate(drawn, 1):
        page.positive(number, finding, colors[finding.label])
    for title, findings in (("Also found, not drawn", listed), ("Not positive", rest)):
        if findings:
            page.rule()
            page.text(title, FAINT, 0.85)
            page.y += round(0.5 * em)
        for finding in findings[:_MAX_ROWS]:
            page.negative(finding)
        if len(findings) > _MAX_ROWS:
            page.text(f"and {len(findings) - _MAX_ROWS} more", FAINT, 0.85)
    if result.warnings:
        page.rule()
        for warning in result.warnings:
            page.text(f"Note: {warning}", "#ffd479", 0.85)

    page.y += round(1.2 * em)
    footer = _Page(em, rows=9)
    footer.y = 0
    if any(f.label in result.maps for f in drawn):
        footer.text("Outlines: maps at their absolute thresholds", FAINT, 0.75)
    for line in operating_point(result.operating_point):
        footer.text(line, FAINT, 0.75)
    footer.text(f"{result.model.name} {result.model.version} {result.model.sha256[:12]}", FAINT, 0.75)
    footer.text("Research use, not a diagnosis", FAINT, 0.75)
    footer.y += em
    height = max(2 * min_height, (page.y + footer.y + 1) // 2 * 2)
    page.image = page.image.crop((0, 0, page.width, height))
    page.image.paste(footer.image.crop((0, 0, page.width, footer.y)), (0, height - footer.y))
    return np.asarray(page.image.reduce(2))


class _Page:
    """A column of text and bars with a cursor `y` that moves down."""

    def __init__(self, em: int, rows: int) -> None:
        self.em = em
        self.width = round(19 * em) // 2 * 2
        self.left, self.right = round(1.25 * em), self.width - round(1.25 * em)
        self.y = round(1.25 * em)
        self.image = Image.new("RGB", (self.width, round(rows * 1.6 * em)), BACKGROUND)
        self.draw = ImageDraw.Draw(self.image)

    def text(self, text: str, color: str, size: float) -> None:
        """One line at the cursor, which moves below it."""
        self._write(text, (self.left, self.y), color, size, self.right - self.left)
        self.y += round(1.35 * size * self.em)

    def positive(self, number: int, finding: Finding, color: str) -> None:
        """Number, label and score, then the bar, then what the map adds."""
        em, disc = self.em, round(0.62 * self.em)
        self.draw.ellipse((self.left, self.y, self.left + 2 * disc, self.y + 2 * disc), color)
        centre = (self.left + disc, self.y + disc)
        self.draw.text(centre, str(number), "#08090c", font(round(em * 0.85)), anchor="mm")
        indent = self.left + round(1.8 * em)
        self._write(_score(finding.score), (self.right, self.y), color, 1.15, 4 * em, anchor="ra")
        self._write(spaced(finding.label), (indent, self.y), TEXT, 1.15, self.right - indent - 3 * em)
        self.y += round(1.75 * em)
        self._bar(finding, color, indent, self.y, self.right, round(0.36 * em))
        self.y += round(0.85 * em)
        regions = len(finding.boxes)
        facts = f"threshold {_score(finding.threshold)} · {regions} region{'s' * (regions != 1)}"
        if finding.peak is not None:
            facts += f" · peak {finding.peak.value:.1f}"
        self._write(facts, (indent, self.y), SOFT, 0.8, self.right - indent)
        self.y += round(2.1 * em)

    def negative(self, finding: Finding) -> None:
        """Label, a short bar, score: all on one quiet line. A bar above its tick that is no finding says why."""
        em = self.em
        middle, right = self.left + round(9.2 * em), self.right - round(2.7 * em)
        self._write(spaced(finding.label), (self.left, self.y), SOFT, 0.85, middle - self.left - em)
        self._write(_score(finding.score), (self.right, self.y), SOFT, 0.85, 4 * em, anchor="ra")
        if finding.lacks_region:
            self._write("no region", (middle, self.y), FAINT, 0.85, 4 * em)
        else:
            self._bar(finding, _DIM_BAR, middle, self.y + round(0.45 * em), right, round(0.22 * em))
        self.y += round(1.4 * em)

    def rule(self) -> None:
        """A thin line across, with room around it."""
        self.y += round(0.1 * self.em)
        self.draw.line((self.left, self.y, self.right, self.y), TRACK, 2)
        self.y += round(0.7 * self.em)

    def _bar(self, finding: Finding, color: str, left: int, top: int, right: int, height: int) -> None:
        """The score from 0 to 1, with a tick at the threshold."""

        def x(value: float) -> int:
            return left + round((right - left - 1) * min(max(value, 0.0), 1.0))

        bottom, reach = top + height - 1, max(1, height // 2)
        self.draw.rectangle((left, top, right - 1, bottom), TRACK)
        self.draw.rectangle((left, top, x(finding.score), bottom), color)
        tick, half = x(finding.threshold), max(0, self.em // 24)
        self.draw.rectangle((tick - half - 1, top - reach, tick + half + 1, bottom + reach), BACKGROUND)
        self.draw.rectangle((tick - half, top - reach, tick + half, bottom + reach), TEXT)

    def _write(self, text: str, at: tuple[int, int], color: str, size: float, width: int, anchor: str = "la") -> None:
        mask, (left, top) = _written(text, round(size * self.em), width, anchor)
        self.image.paste(color, (at[0] + left, at[1] + top), mask)


@lru_cache(maxsize=512)
def _written(text: str, size: int, width: int, anchor: str) -> tuple[Image.Image, tuple[int, int]]:
    """A line of text as a mask, and where it lies from its anchor. Half of a panel's lines are those of the last."""
    face = font(size)
    text = fit(plain(text), face, width)
    left, top, right, bottom = map(round, face.getbbox(text, anchor=anchor))
    mask = Image.new("L", (max(right - left, 1), max(bottom - top, 1)))
    ImageDraw.Draw(mask).text((-left, -top), text, 255, face, anchor=anchor)
    return mask, (left, top)


def operating_point(point: OperatingPoint) -> list[str]:
    """Say which profile decided and how often it flags a normal film, a line each; nothing where neither is known."""
    lines = [f"Profile {point.profile}"] if point.profile else []
    if point.normals_flagged is not None:
        lines.append(f"It flags {share(point.normals_flagged)} (measured)")
    return lines


def share(normals_flagged: float) -> str:
    """Say a share of normal films as people count: 0.098 is "about 1 normal film in 10"."""
    if normals_flagged >= 0.35:
        return f"{normals_flagged * 100:.0f} of 100 normal films"
    return f"about 1 normal film in {1 / normals_flagged:.0f}" if normals_flagged >= 0.002 else "hardly any normal film"


def _headline(result: Result) -> str:
    """Say in a word what came out; a film that was refused has no finding, and is not without one either."""
    if result.refused:
        return f"Refused: {spaced(result.refused)}"
    count = len(result.positive)
    return f"{count} finding{'s' * (count > 1)}" if count else "No finding"


def _gate(gate: FilmGate) -> str:
    words = f"Film as a whole: {_score(gate.score)}"
    if gate.threshold is None:
        return words
    return f"{words}, {'above' if gate.positive else 'below'} {_score(gate.threshold)}"


def _score(value: float) -> str:
    return f"{value:.2f}" if value >= 0.1 else f"{value:.3f}"


def spaced(label: str) -> str:
    return label.replace("_", " ")


def plain(text: str) -> str:
    """The font has ASCII and little more: accents are dropped, and what is left over becomes a question mark."""
    if text.isascii() and text.isprintable():
        return text
    decomposed = unicodedata.normalize("NFKD", text)
    kept = (c for c in decomposed if not unicodedata.combining(c))
    return "".join(c if " " <= c <= "~" or c == "·" else "?" for c in kept)


def fit(text: str, face: _Font, width: int) -> str:
    """Shorten in the middle until it fits: both ends of a file name tell films apart."""
    if face.getlength(text) <= width:
        return text
    for kept in range(len(text) - 1, 1, -1):
        short = f"{text[: (kept + 1) // 2]}...{text[len(text) - kept // 2 :]}"
        if face.getlength(short) <= width:
            return short
    return ""
