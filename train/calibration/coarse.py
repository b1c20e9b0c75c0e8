"""Films that are coarser than the network's input: whether they may have a say in its operating point."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from msloc_edge.bundle.profile import film_evidence
from msloc_edge.train.calibration.abnormal import abnormal_films, normal_films
from msloc_edge.train.calibration.observe import Observed
from msloc_edge.train.calibration.resample import Figure, patient_weights
from msloc_edge.train.calibration.thresholds import fit_temperature

MIN_FINE = 100
"""Normal films, and abnormal ones, of full resolution with which coarser ones can be done without."""

RATE, ALIKE = 0.10, (0.05, 0.15)
"""Share of the fine normal films above the threshold of comparison; between which the interval of the coarse films' own
share must lie, if they are to count as alike."""

RESAMPLES = 1000


def choose_films(observed: Observed) -> tuple[NDArray[np.bool_], dict[str, Any] | None]:
    """Choose the films that an operating point is fitted and measured on.

    Coarse films are left out unless their normal films are shown to look as abnormal as the fine ones do: measured is
    the share above the 90% quantile of the fine normals' summed evidence. Where fine films are too few, all count.

    returns  [N], and what was measured; None where all films are of one kind
    """
    fine = observed.fine
    if fine.all() or not fine.any():
        return np.ones(len(observed), np.bool_), None
    normal = normal_films(observed.labels)
    few = min((normal & fine).sum(), (abnormal_films(observed.labels) & fine).sum()) < MIN_FINE
    if not (normal & fine).any() or not (normal & ~fine).any():
        return fine | few, {"films": int((~fine).sum()), "used": bool(few)}
    temperature = fit_temperature(observed.logits[fine], observed.labels[fine])
    evidence = film_evidence(observed.logits, temperature).sum(axis=1)
    share = _share_above(evidence[normal], fine[normal], observed.patients[normal])
    used = bool(few or (ALIKE[0] <= share.low and share.high <= ALIKE[1]))
    about = {"films": int((~fine).sum()), "normals_above_fine_q90": share.to_dict(), "used": used}
    return fine | used, about


def _share_above(evidence: NDArray[np.float64], fine: NDArray[np.bool_], patients: NDArray[np.str_]) -> Figure:
    """Compute the share of the coarse films above the quantile of the fine ones, with its interval over patients."""
    _, numbers = np.unique(patients, return_inverse=True)
    weights = patient_weights(int(numbers.max()) + 1, RESAMPLES, 0)[:, numbers].astype(int)
    shares = np.full(len(weights), np.nan)
    for row, drawn in enumerate(weights):
        ours, theirs = (np.repeat(evidence[kind], drawn[kind]) for kind in (fine, ~fine))
        if ours.size and theirs.size:
            shares[row] = (theirs > np.quantile(ours, 1 - RATE)).mean()
    return Figure.of(shares, int((~fine).sum()))
