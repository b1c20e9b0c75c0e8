"""The localization gate: what counts as the same boxes and peaks, and what does not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from msloc_edge.bundle import Bundle
from msloc_edge.export.precision.gate import ClassFigures, GateFilms, measure, refusal

FILMS = 6
Draw = Callable[[int], np.ndarray]


def blob(x: int, y: int, w: int, h: int, height: float = 10) -> np.ndarray:
    """A map [64, 64] that is far below any threshold, and above it in one box with a peak in the middle."""
    drawn = np.full((64, 64), -100, np.float32)
    drawn[y : y + h, x : x + w] = height
    drawn[y + h // 2, x + w // 2] = height + 1
    return drawn


def figures(bundle: Bundle, reference: Draw, candidate: Draw, labels: np.ndarray | None = None) -> ClassFigures:
    """Class 0 of engines that draw the map of the n-th film, with thresholds 0; logits are the maps' greatest value."""

    def engine(draw: Draw) -> Callable[..., tuple[np.ndarray, np.ndarray]]:
        def run(batch: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            maps = np.full((1, 8, 64, 64), -100, np.float32)
            maps[0, 0] = draw(int(batch[0, 0, 0, 0]))
            return maps.max(axis=(2, 3)), maps

        return run

    plain = replace(bundle, profiles={"zero": replace(bundle.profile(), map=(0.0,) * 8)}, default_profile="zero")
    films = [np.full((64, 64), at, np.float32) for at in range(FILMS)]
    if labels is None:
        labels = np.full(FILMS, np.nan)
    table = np.repeat(labels[:, None], 8, axis=1).astype(np.float32)
    return measure(plain, engine(reference), engine(candidate), GateFilms(films, table, "drawn"))[0]


def test_the_same_passes(opened: Bundle) -> None:
    found = figures(opened, lambda n: blob(10, 10 + n, 20, 20), lambda n: blob(10, 10 + n, 20, 20))
    assert found == ClassFigures(opened.classes[0], None, 1.0, 0.0, 2 * FILMS, 1.0, 0.0, 0.0)
    assert found.passes


def test_no_box_on_either_side_passes(opened: Bundle) -> None:
    found = figures(opened, lambda n: np.full((64, 64), -1.0), lambda n: np.full((64, 64), -2.0))
    assert (found.boxes, found.box_iou, found.peak_shift, found.passes) == (0, 1.0, 0.0, True)


def test_smaller_boxes(opened: Bundle) -> None:
    found = figures(opened, lambda n: blob(10, 10, 20, 20), lambda n: blob(10, 10, 20, 16))
    assert found.box_iou == pytest.approx(0.8)
    assert not found.passes


def test_a_lost_box_counts_as_nothing(opened: Bundle) -> None:
    found = figures(opened, lambda n: blob(10, 10, 20, 20), lambda n: blob(10, 10, 20, 20, 10 if n else -50))
    assert found.box_iou == pytest.approx(10 / 11)
    assert found.worst_iou == 0


def test_an_invented_box_counts_as_nothing(opened: Bundle) -> None:
    found = figures(opened, lambda n: blob(10, 10, 20, 20, 10 if n else -50), lambda n: blob(10, 10, 20, 20))
    assert found.box_iou == pytest.approx(10 / 11)


@pytest.mark.parametrize(("height", "counts"), [(0.5, False), (2.0, True)])
def test_a_box_that_hardly_rises_is_not_asked_for(opened: Bundle, height: float, counts: bool) -> None:
    """Films have a strong box at 10 + 1, and a second one that the candidate lacks."""

    def both(n: int) -> np.ndarray:
        return np.maximum(blob(40, 40, 12, 12, height - 1), blob(5, 5, 20, 20))

    found = figures(opened, both, lambda n: blob(5, 5, 20, 20))
    assert found.passes is not counts
    assert found.boxes == (3 if counts else 2) * FILMS


def test_a_peak_that_moves(opened: Bundle) -> None:
    def moved(n: int) -> np.ndarray:
        drawn = blob(10, 10, 20, 20)
        drawn[20, 20] = 10
        drawn[20, 23] = 11
        return drawn

    found = figures(opened, lambda n: blob(10, 10, 20, 20), moved)
    assert found.peak_shift == pytest.approx(3 / 64)
    assert (found.box_iou, found.passes) == (1.0, False)


def test_two_summits_of_one_height_are_one_peak(opened: Bundle) -> None:
    def summits(first: float, second: float) -> np.ndarray:
        return np.maximum(blob(5, 5, 12, 12, first), blob(40, 40, 12, 12, second))

    assert figures(opened, lambda n: summits(10, 9.99), lambda n: summits(9.99, 10)).peak_shift == 0
    assert figures(opened, lambda n: summits(10, 8), lambda n: summits(8, 10)).peak_shift == pytest.approx(
        np.hypot(35, 35) / 64
    )


def test_ranks_that_change(opened: Bundle) -> None:
    labels = np.array([0, 0, 0, 1, 1, 1])
    found = figures(
        opened, lambda n: blob(9, 9, 9, 9, 10 + n), lambda n: blob(9, 9, 9, 9, 10 + (n if n != 3 else 0.5)), labels
    )
    assert found.auroc_drop == pytest.approx(2 / 9)
    assert not found.passes


def test_nan_never_passes(opened: Bundle) -> None:
    found = figures(opened, lambda n: np.full((64, 64), -1.0), lambda n: np.full((64, 64), np.nan))
    assert not found.passes


def test_the_refusal_names_class_and_figures(opened: Bundle) -> None:
    bad = figures(opened, lambda n: blob(10, 10, 20, 20), lambda n: blob(10, 10, 20, 16))
    error = refusal("int8", [bad], "do this")
    assert error.reason == "parity"
    assert f"got {opened.classes[0]} (AUROC drop not known, box IoU 0.800, peak shift" in str(error)
    assert str(error).endswith("; do this")
