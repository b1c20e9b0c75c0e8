"""One colour per label, the same in every picture and report.

The hues follow Okabe and Ito (2008), made bright enough for a dark film. A film is grey, so any hue stands out from it;
telling two findings apart never rests on hue alone, because each also has a number.
"""

from __future__ import annotations

from collections.abc import Iterable
from zlib import crc32

# The eight findings that can be boxed in NIH ChestX-ray14 come first: they differ most from each other.
_NAMED = {
    "Atelectasis": "#56b4e9",
    "Cardiomegaly": "#f5a300",
    "Effusion": "#12b886",
    "Infiltration": "#e58fc4",
    "Mass": "#ef5b2b",
    "Nodule": "#f2e64b",
    "Pneumonia": "#5f84f2",
    "Pneumothorax": "#b8f2e0",
    "Consolidation": "#c9e6ff",
    "Edema": "#c4a3ff",
    "Emphysema": "#ffcb94",
    "Fibrosis": "#b9ab4f",
    "Pleural_Thickening": "#ffc9e6",
    "Hernia": "#cd8a6c",
}
_RING = tuple(_NAMED.values())
# From almost the background to almost white over blue and green, each step as much lighter as the one before.
_HEAT = ("#161b26", "#2f2f5e", "#395d9c", "#3497a9", "#60ceac", "#def5e5")
_DARK, _LIGHT = "#08090c", "#f1f3f5"


def palette(labels: Iterable[str]) -> dict[str, str]:
    """Label -> "#rrggbb". A known label always has its own colour; an unknown one starts at a slot given by its
    name and moves on to the next free one, so that a class list is told apart until the colours run out."""
    labels = list(dict.fromkeys(labels))
    colors = {label: _NAMED[label] for label in labels if label in _NAMED}
    for label in labels:
        if label not in colors:
            slot = crc32(label.encode("utf-8", "surrogatepass")) % len(_RING)
            ring = _RING[slot:] + _RING[:slot]
            colors[label] = next((color for color in ring if color not in colors.values()), ring[0])
    return colors


def rgb(color: str) -> tuple[int, int, int]:
    """Red, green, blue in 0..255 of a colour.

    >>> rgb("#ff8000")
    (255, 128, 0)
    """
    red, green, blue = bytes.fromhex(color[1:])
    return red, green, blue


def heat(share: float) -> str:
    """Colour of a share in 0..1, as "#rrggbb": dark to bright on one absolute scale."""
    place = min(max(share, 0.0), 1.0) * (len(_HEAT) - 1)
    step = min(int(place), len(_HEAT) - 2)
    ends = zip(rgb(_HEAT[step]), rgb(_HEAT[step + 1]), strict=True)
    return "#" + "".join(f"{round(low + (place - step) * (high - low)):02x}" for low, high in ends)


def ink(color: str) -> str:
    """Colour of a text, dark or light, that can be read on a colour (by its luma, ITU-R BT.601)."""
    red, green, blue = rgb(color)
    return _DARK if 0.299 * red + 0.587 * green + 0.114 * blue > 115 else _LIGHT
