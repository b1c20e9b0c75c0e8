"""Films that are coarser than the network's input: measured, and used only where they are alike."""

from __future__ import annotations

import numpy as np
import pytest

from msloc_edge.train.calibration.coarse import MIN_FINE, choose_films
from msloc_edge.train.calibration.observe import Observed


def observed(fine: int, coarse: int, shift: float) -> Observed:
    """As many normal films as abnormal ones of either kind; the coarse ones' logits are shifted."""
    rng = np.random.default_rng(0)
    is_fine = np.arange(2 * (fine + coarse)) < 2 * fine
    labels = (np.arange(len(is_fine)) % 2).astype(np.float32)[:, None]
    logits = (rng.normal(-1, 1, labels.shape) + 2 * labels + shift * ~is_fine[:, None]).astype(np.float32)
    patients = np.array([f"patient {at}" for at in range(len(is_fine))])
    groups = {"source": np.where(is_fine, "fine", "coarse").astype(object)}
    return Observed(("Mass",), logits, logits, logits, labels, patients, groups, is_fine)


def test_films_of_one_kind_all_count() -> None:
    for films in (observed(20, 0, 0), observed(0, 20, 0)):
        chosen, about = choose_films(films)
        assert chosen.all()
        assert about is None


def test_coarse_films_that_are_alike_count() -> None:
    chosen, about = choose_films(observed(2000, 1000, 0))
    assert chosen.all()
    assert about is not None
    assert about["used"]
    assert about["films"] == 2000
    assert about["normals_above_fine_q90"]["value"] == pytest.approx(0.1, abs=0.03)
    assert about["normals_above_fine_q90"]["n"] == 1000


def test_coarse_films_that_differ_are_left_out() -> None:
    films = observed(2000, 1000, 1)
    chosen, about = choose_films(films)
    assert (chosen == films.fine).all()
    assert about is not None
    assert not about["used"]
    assert about["normals_above_fine_q90"]["low"] > 0.15


def test_coarse_films_that_are_not_shown_to_be_alike_are_left_out() -> None:
    films = observed(MIN_FINE, 50, 0)  # too few for an interval of 5% to 15%
    chosen, about = choose_films(films)
    assert (chosen == films.fine).all()
    assert about is not None
    assert not about["used"]


def test_with_few_fine_films_all_count() -> None:
    chosen, about = choose_films(observed(MIN_FINE - 1, 50, 1))
    assert chosen.all()
    assert about is not None
    assert about["used"]
