"""What a bundle finds in phantoms that it has never seen: AUROC, pointing, and boxes against the exact truth.

    python benchmarks/phantoms.py [--model cxr-edge] [--films 500]

A film counts for pointing when the map's peak lies inside a true box of its class; only findings whose longer side
exceeds 40 px of 512 count, as a smaller one is about one cell of the deepest grid. Boxes: the strongest box of the
default profile against the true boxes of positive films. Intervals are 95%, by bootstrap over films (= patients).
"""

from __future__ import annotations

import argparse

import numpy as np
from machine import environment, save
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from msloc_edge.export.parity import iou
from msloc_edge.pipeline import Localizer
from msloc_edge.reading import frame_from_array
from msloc_edge.train.data.phantoms import TEST_SEED
from msloc_edge.train.phantom import Phantom, generate
from msloc_edge.types import Box, Finding

SIZE, LARGE, RESAMPLES = 512, 40, 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="cxr-edge")
    parser.add_argument("--films", type=int, default=500)
    parser.add_argument("--name", default="phantoms", help="of the result file")
    args = parser.parse_args()
    rows = []
    with Localizer(args.model, all_classes=True) as localizer:
        for seed in range(TEST_SEED, TEST_SEED + args.films):
            phantom = generate(seed, SIZE)
            film = frame_from_array(np.round(phantom.display() * 65535).astype(np.uint16), f"phantom {seed}")
            rows.append([judge(finding, phantom) for finding in localizer.localize(film).findings])
        bundle = localizer.bundle
    table = np.array(rows)  # [films, classes, (label, score, positive, pointing, box IoU)]
    rng = np.random.default_rng(0)
    draws = [rng.integers(0, len(table), len(table)) for _ in range(RESAMPLES)]
    findings = {label: figures(table[:, k], draws) for k, label in enumerate(bundle.classes)}
    result = {
        "what": f"{args.films} unseen phantoms of {SIZE} x {SIZE}, seeds from {TEST_SEED}",
        "model": {"name": bundle.name, "version": bundle.version, "sha256": bundle.sha256},
        "macro": {
            key: round(float(np.nanmean([f[key][0] for f in findings.values()])), 4)
            for key in ("auroc", "pointing", "box_iou")
        },
        "findings": findings,
        "environment": environment("onnxruntime", "numpy", "opencv-python-headless"),
    }
    for label, row in findings.items():
        print(f"{label:14} " + "  ".join(f"{key} {value}" for key, value in row.items()))
    print(result["macro"], "->", save(args.name, result))


def judge(finding: Finding, phantom: Phantom) -> tuple[float, ...]:
    """(label, score, called positive, peak inside a large true box, IoU of the strongest box); nan: does not apply."""
    truth = [Box(*region.box, score=1.0) for region in phantom.regions if region.label == finding.label]
    large = [box for box in truth if max(box.w, box.h) > LARGE]
    peak = finding.peak
    assert peak is not None
    inside = any(b.x <= peak.x <= b.x + b.w and b.y <= peak.y <= b.y + b.h for b in large)
    overlap = max((iou(box, finding.boxes[0]) for box in truth), default=np.nan) if finding.boxes else 0.0
    return (
        float(bool(truth)),
        finding.score,
        float(finding.positive),
        float(inside) if large else np.nan,
        overlap if truth else np.nan,
    )


def figures(rows: NDArray[np.float64], draws: list[NDArray[np.int64]]) -> dict[str, list[float]]:
    """[value, low, high] of each metric of one class: rows [N, 5] of `judge`."""

    def metrics(part: NDArray[np.float64]) -> dict[str, float]:
        label, score, positive, pointing, overlap = part.T
        return {
            "auroc": roc_auc_score(label, score) if 0 < label.sum() < len(label) else np.nan,
            "sensitivity": positive[label == 1].mean() if label.any() else np.nan,
            "specificity": 1 - positive[label == 0].mean(),
            "pointing": pointing[~np.isnan(pointing)].mean() if (~np.isnan(pointing)).any() else np.nan,
            "box_iou": overlap[~np.isnan(overlap)].mean() if (~np.isnan(overlap)).any() else np.nan,
        }

    samples = [metrics(rows[draw]) for draw in draws]
    return {
        key: [round(float(v), 4) for v in (value, *np.nanquantile([s[key] for s in samples], [0.025, 0.975]))]
        for key, value in metrics(rows).items()
    }


if __name__ == "__main__":
    main()
