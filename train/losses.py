"""The loss of image-level labels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from msloc_edge.train.data import Films, real


def label_loss(
    logits: Tensor, labels: Tensor, positive_weight: Tensor | None = None, count: Tensor | None = None
) -> Tensor:
    """Compute the mean binary cross-entropy over known labels: logits and labels [B, K], nan where unknown.

    positive_weight [K]: how much a positive label counts against a negative one. count: what the sum is divided by, in
    place of the number of known labels. 0 when no label is known.
    """
    known = ~labels.isnan()
    loss = F.binary_cross_entropy_with_logits(
        logits, labels.nan_to_num(), pos_weight=positive_weight, weight=known.to(logits.dtype), reduction="sum"
    )
    return loss / (known.sum() if count is None else count).clamp(min=1)


def label_frequency(sources: Sequence[Films]) -> Tensor:
    """Compute each class's share of positives among known labels, [K] in [0.01, 0.99]; 0.5 where none is known."""
    labels = np.concatenate([source.labels for source in sources])
    known = ~np.isnan(labels)
    positives = np.nansum(labels, axis=0)
    share = np.where(known.any(axis=0), positives / np.maximum(known.sum(axis=0), 1), 0.5)
    return torch.from_numpy(share.clip(0.01, 0.99)).float()


def source_priors(sources: Sequence[Films]) -> list[Tensor]:
    """Compare each finding's frequency in a source with that in the real ones together: log-odds [K] for each source.

    0 where no film of a source has the finding: such a source says nothing of its frequency.

    Added to the logits in the loss, so that a network gains nothing from recognising the source: what it then says is
    meant for films with the frequencies of the real sources together.
    """
    mean = torch.logit(label_frequency(real(sources)))
    shown = [torch.from_numpy((source.labels == 1).any(axis=0)) for source in sources]
    return [
        torch.where(shows, torch.logit(label_frequency([source])) - mean, torch.zeros_like(mean))
        for source, shows in zip(sources, shown, strict=True)
    ]


def balanced_weight(frequency: Tensor, balance: float) -> Tensor:
    """Compute the weight of a positive label, (negatives / positives) ** balance.

    0 leaves them alike, 1 gives both kinds of film the same total weight (Wang et al. 2017, arXiv 1705.02315, eq. 1).

    balanced_weight(0.1, 0.5) -> 3
    """
    return ((1 - frequency) / frequency) ** balance
