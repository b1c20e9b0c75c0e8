"""Pictures of an evaluation's curves, each an SVG for a page that may load nothing."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from cycler import cycler
from matplotlib import colormaps, rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from msloc_edge.train.evaluate.curves import BINS

Metrics = Mapping[str, Any]

_STYLE: Any = {
    "axes.edgecolor": "#aeb6c1",
    "axes.facecolor": "#12151b",
    "axes.labelcolor": "#eef1f4",
    "axes.prop_cycle": cycler(color=colormaps["tab20"](range(20))),
    "axes.titlecolor": "#eef1f4",
    "figure.facecolor": "#12151b",
    "font.size": 9,
    "grid.color": "#262c36",
    "legend.facecolor": "#12151b",
    "legend.labelcolor": "#eef1f4",
    "lines.linewidth": 1,
    "savefig.facecolor": "#12151b",
    "svg.hashsalt": "msloc-edge",
    "xtick.color": "#aeb6c1",
    "ytick.color": "#aeb6c1",
}
"""Colours of the pages, and names in the SVG that are the same each time."""

_MEAN: dict[str, Any] = {"color": "#ffffff", "linewidth": 2.2, "label": "mean of the findings"}
_CHANCE: dict[str, Any] = {"color": "#8b94a1", "linewidth": 1, "linestyle": ":"}


def figures(metrics: Metrics) -> list[tuple[str, bytes]]:
    """Draw every curve of a metrics.json that has something to show: (title, SVG)."""
    drawn: list[tuple[str, Any, Callable[[Axes, Any], None]]] = [
        ("ROC", metrics["roc"], _roc),
        ("FROC", metrics["froc"], _froc),
        ("Reliability", metrics["reliability"], _reliability),
    ]
    if probe := metrics.get("probe"):
        drawn += [
            ("Deletion", probe["deletion"], _replacement),
            ("Insertion", probe["insertion"], _replacement),
            ("Randomised weights", probe["randomised_weights"], _randomised),
        ]
    return [(title, _svg(title, table, draw)) for title, table, draw in drawn if table]


def _svg(title: str, table: Any, draw: Callable[[Axes, Any], None]) -> bytes:
    file = io.BytesIO()
    with rc_context(_STYLE):
        figure = Figure((5, 4), layout="constrained")
        axes = figure.add_subplot(title=title, ylim=(0, 1))
        axes.grid(True)
        draw(axes, table)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(fontsize=6, framealpha=0.6)
        figure.savefig(file, format="svg", metadata={"Date": None})
    return file.getvalue()


def _roc(axes: Axes, table: Metrics) -> None:
    rates = table["false_positive_rate"]
    for label, curve in table["per_class"].items():
        axes.plot(rates, curve, label=label)
    axes.plot(rates, table["macro"], **_MEAN)
    axes.plot([0, 1], [0, 1], **_CHANCE)
    axes.set(xlabel="1 - specificity", ylabel="sensitivity")


def _froc(axes: Axes, table: Metrics) -> None:
    curve = table["false_boxes_per_film"]
    rates = [float(rate) for rate in curve]
    for label in table["films"]:
        axes.plot(rates, _values(point["per_class"][label] for point in curve.values()), label=label)
    macro = [point["macro"] for point in curve.values()]
    _with_band(axes, rates, macro, **_MEAN)
    axes.set_xscale("log", base=2)
    axes.set_xticks(rates, list(curve))
    axes.set(xlabel="false boxes per film", ylabel=f"share of true boxes found, IoU > {table['iou']:g}")


def _reliability(axes: Axes, table: Metrics) -> None:
    for label, bins in table["bins"].items():
        axes.plot([one["score"] for one in bins], [one["positive"] for one in bins], marker=".", label=label)
    axes.plot([0, 1], [0, 1], **_CHANCE)
    axes.set(xlabel=f"mean score of a bin of {1 / BINS:g}", ylabel="share of positives", xlim=(0, 1))


def _replacement(axes: Axes, table: Metrics) -> None:
    for (row, curve), style in zip(table["score"].items(), ("-", ":"), strict=True):
        axes.plot(table["share"], curve, style, color="#56b4e9", label=f"{row}: area {table['auc'][row]['value']:.2f}")
    axes.set(xlabel="share of the film's pixels, the highest of the map first", ylabel="score of the finding")


def _randomised(axes: Axes, table: Metrics) -> None:
    _with_band(axes, [float(share) for share in table], list(table.values()), color="#56b4e9", marker=".")
    axes.axhline(0, **_CHANCE)
    axes.set(
        xlabel="share of the layers with shuffled weights, from the output", ylabel="rank correlation", ylim=(-1, 1)
    )


def _with_band(axes: Axes, x: Sequence[float], points: Sequence[Metrics], **style: Any) -> None:
    """Draw a line of figures with the band of their intervals."""
    axes.plot(x, _values(points), **style)
    low, high = (np.array([point[side] for point in points], np.float64) for side in ("low", "high"))
    axes.fill_between(x, low, high, color=style["color"], alpha=0.2, linewidth=0)


def _values(points: Any) -> list[float]:
    return [float("nan") if point["value"] is None else point["value"] for point in points]
