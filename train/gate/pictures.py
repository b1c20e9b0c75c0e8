"""Thumbnails to fit the gate on: films as they are varied, turned, inverted, cut; other pictures, found and drawn."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from msloc_edge.errors import InputError
from msloc_edge.imaging.gate import REASONS, SIDE, thumbnail
from msloc_edge.imaging.reading import read_frame
from msloc_edge.train.gate import drawn

Picture = NDArray[np.float32]

KINDS = ("film", *REASONS)
"""What a picture is: the outputs of the gate's network."""

SHARES = {"film": 0.4, "rotated": 0.13, "polarity_suspect": 0.13, "not_chest": 0.1, "not_xray": 0.16, "cut_off": 0.08}
"""Shares of the kinds in an epoch: a film that is refused costs more than a picture that is not."""

_TURN = 5.0  # degrees, one deviation


class Pictures:
    """A supply of thumbnails of each kind.

    films    [N, side, side] uint8 displayed chest films, upright
    foreign  kind -> other pictures [side, side] in [0, 1]: "not_chest" and "not_xray"
    drawings how many drawn ones are added to each of these
    """

    def __init__(
        self, films: Sequence[NDArray[np.uint8]], foreign: dict[str, list[Picture]], drawings: int, seed: int
    ) -> None:
        rng = np.random.default_rng(seed)
        self._films = films
        self._foreign = {
            "not_chest": foreign["not_chest"] + [drawn.bones(rng) for _ in range(drawings)],
            "not_xray": foreign["not_xray"]
            + [draw(rng) for draw in (drawn.page, drawn.plot, drawn.texture) for _ in range(drawings // 3)],
        }

    def epoch(self, count: int, rng: np.random.Generator) -> tuple[Picture, NDArray[np.int64]]:
        """Draw `count` thumbnails [N, 1, SIDE, SIDE] and the index of each one's kind [N], in random order."""
        kinds = rng.choice(len(KINDS), count, p=[SHARES[kind] for kind in KINDS])
        made = np.empty((count, 1, SIDE, SIDE), np.float32)
        for at, kind in enumerate(kinds):
            made[at, 0] = thumbnail(self._draw(KINDS[kind], rng))
        return made, kinds

    def _draw(self, kind: str, rng: np.random.Generator) -> Picture:
        if kind in self._foreign:
            found = self._foreign[kind]
            picture = vary(_window(found[int(rng.integers(len(found)))], rng), rng)
            picture = np.rot90(picture, int(rng.integers(4))) if rng.random() < 0.3 else picture
            return np.asarray(1 - picture if rng.random() < 0.15 else picture)
        film: Picture = self._films[int(rng.integers(len(self._films)))].astype(np.float32) / np.float32(255)
        if kind == "cut_off":
            return vary(cut(film, rng), rng)
        film = vary(film, rng)
        if kind == "rotated":
            film = np.rot90(film, int(rng.integers(1, 4)))
        elif kind == "polarity_suspect":
            film = np.asarray(1 - film)
        return _framed(np.ascontiguousarray(film), rng)


def cut(film: Picture, rng: np.random.Generator) -> Picture:
    """Cut a third to two thirds off one side of a film [h, w], so that a lung is not whole on it, or two of them."""
    height, width = film.shape
    rows, columns = [0, height], [0, width]
    for side in rng.permutation(4)[: rng.integers(1, 3)]:
        edges = (rows, columns)[side // 2]
        off = int(rng.uniform(0.35, 0.65) * (edges[1] - edges[0]))
        edges[side % 2] += off if side % 2 == 0 else -off
    return np.asarray(cv2.resize(film[slice(*rows), slice(*columns)], (width, height), interpolation=cv2.INTER_LINEAR))


def _window(picture: Picture, rng: np.random.Generator) -> Picture:
    """Look at a part of a picture [h, w], down to a half of each side, half of the time."""
    if rng.random() < 0.5:
        return picture
    height, width = picture.shape
    rows, columns = (rng.uniform(0.5, 1, 2) * (height, width)).astype(int)
    top, left = rng.integers(height - rows + 1), rng.integers(width - columns + 1)
    part = picture[top : top + rows, left : left + columns]
    return np.asarray(cv2.resize(part, (width, height), interpolation=cv2.INTER_LINEAR))


def vary(picture: Picture, rng: np.random.Generator) -> Picture:
    """Turn a picture [h, w] a little, stretch, shift and mirror it, and change its tones, as other devices would."""
    height, width = picture.shape
    size = rng.uniform(0.45, 0.9) if rng.random() < 0.25 else rng.uniform(0.85, 1.12)
    across, down = size * np.exp(rng.normal(0, 0.06, 2))
    angle = np.deg2rad(rng.normal(0, _TURN))
    mirror = -1 if rng.random() < 0.5 else 1
    linear = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) @ np.diag(
        [mirror * across, down]
    )
    middle, room = np.array([width, height]) / 2, max(0.0, 1 - size) / 2
    shift = middle - linear @ middle + (rng.normal(0, 0.03, 2) + rng.uniform(-room, room, 2)) * (width, height)
    fill = cv2.BORDER_REPLICATE if size > 0.9 and rng.random() < 0.5 else cv2.BORDER_CONSTANT
    beside = 1.0 if rng.random() < 0.15 else 0.0
    map = np.column_stack([linear, shift])
    warped = cv2.warpAffine(picture, map, (width, height), borderMode=fill, borderValue=beside)
    low, high = np.quantile(warped, [rng.uniform(0, 0.03), 1 - rng.uniform(0, 0.03)])
    if rng.random() < 0.6 and high > low:
        warped = np.clip((warped - low) / (high - low), 0, 1)
    warped = np.clip(warped, 0, 1) ** np.exp(rng.normal(0, 0.35))
    if rng.random() < 0.3:
        warped = cv2.GaussianBlur(warped, (0, 0), rng.uniform(0.5, 2))
    noisy = warped + rng.uniform(0, 0.04) * rng.normal(0, 1, warped.shape)
    return np.clip(noisy, 0, 1).astype(np.float32)


def _framed(film: Picture, rng: np.random.Generator) -> Picture:
    """Put a black, white or grey frame around some films, as screens and scanners do."""
    if rng.random() < 0.15:
        height, width = film.shape
        top, bottom = (rng.uniform(0, 0.12, 2) * height).astype(int)
        left, right = (rng.uniform(0, 0.12, 2) * width).astype(int)
        inner = film[top : height - bottom, left : width - right]
        shade = float(rng.choice([0.0, 0.0, 1.0, rng.random()]))
        return np.asarray(cv2.copyMakeBorder(inner, top, bottom, left, right, cv2.BORDER_CONSTANT, value=shade))
    return film


def read_foreign(folder: Path, side: int = drawn.SIDE) -> dict[str, list[Picture]]:
    """Read the pictures of FOLDER/not_chest and FOLDER/not_xray, each stretched to `side` x `side`.

    Those that no film can be, such as one of a single colour, are left out: they never reach the gate.
    """
    return {kind: list(_readable(folder / kind, side)) for kind in ("not_chest", "not_xray")}


def _readable(folder: Path, side: int) -> Iterator[Picture]:
    for path in sorted(folder.iterdir()):
        with contextlib.suppress(InputError):
            yield stretched(read_frame(path).display(), side)


def stretched(picture: Picture, side: int = drawn.SIDE) -> Picture:
    """Scale a picture [h, w] to [side, side]."""
    return np.asarray(cv2.resize(picture, (side, side), interpolation=cv2.INTER_AREA))
