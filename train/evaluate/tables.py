"""The figures as tables: the same for the terminal and for the page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console

from msloc_edge._tables import NONE, Grid, cell, counted
from msloc_edge.bundle.rates import points_grid

Metrics = Mapping[str, Any]

ROW_NAMES = {
    "model": "the model, its own thresholds",
    "model_half_range": "the model, half of each map's range",
    "heatmaps": "the heatmaps",
    "heatmaps_half_range": "the heatmaps, half of each map's range",
    "stages_last": "stages=last of the same weights",
    "random": "random map",
    "centre_prior": "centre prior",
    "class_mean_box": "class-mean box (other patients)",
    "box_frequency": "box frequency (other patients)",
}
_METRIC_NAMES = {
    "pointing": "pointing",
    "blob_iou_0.1": "blob IoU > .1",
    "mean_iou": "mean IoU",
    "maxboxaccv2": "MaxBoxAccV2",
    "wang_iou_0.1": "Wang IoU > .1",
    "wang_iobb_0.1": "Wang IoBB > .1",
}
_FIGURE_NAMES = {"auroc": "AUROC", "ap": "AP", "froc_mean": "FROC, mean of the rates", **_METRIC_NAMES}
_MACRO = "mean of the findings"


def grids(metrics: Metrics) -> list[Grid]:
    """Make all tables of a metrics.json that have something to show."""
    built = [
        _points(metrics),
        _findings(metrics),
        _rows(metrics),
        _wang(metrics),
        _profiles(metrics),
        _froc(metrics),
        _against(metrics),
        _faithfulness(metrics),
        _randomised(metrics),
        _stability(metrics),
    ]
    return [grid for grid in [*built, *_subgroups(metrics)] if grid is not None and grid.rows]


def print_grids(metrics: Metrics, console: Console) -> None:
    """Print the tables on a terminal."""
    for grid in grids(metrics):
        console.print(grid.table())


def markdown(metrics: Metrics) -> str:
    """Word the tables as the section of a model card."""
    run = metrics["run"]
    lines = [
        f"## On {run['data']}, split {run['split']}",
        "",
        f"{run['films']} films of {run['patients']} patients, {run['boxes']} {run['truth_kind']}. "
        f"Intervals: {run['intervals']}.",
    ]
    for grid in grids(metrics):
        lines += ["", *grid.markdown()]
    return "\n".join(lines)


def _points(metrics: Metrics) -> Grid | None:
    points, run = metrics.get("operating_points"), metrics["run"]
    if not points:
        return None
    told = {"protocol": f"intervals: {run['intervals']}", "data": [run["data"]]}
    profiles = {
        name: {"film": run["film_thresholds"].get(name), "rates": rates | told} for name, rates in points.items()
    }
    return points_grid(profiles, run["profile"])


def _findings(metrics: Metrics) -> Grid | None:
    columns = {
        "AUROC": metrics["auroc"],
        "AP": metrics["ap"],
        "ECE": (metrics.get("reliability") or {}).get("ece"),
        "pointing": metrics["pointing"],
        "blob IoU > .1": metrics["blob"]["iou"]["0.1"],
        "mean IoU": metrics["mean_iou"],
        "mask IoU": metrics["mask_iou"],
        "where found": metrics.get("mask_iou_found"),
        "MaxBoxAccV2": metrics["maxboxaccv2"],
    }
    shown = {name: table for name, table in columns.items() if table}
    labels = list(dict.fromkeys(label for table in shown.values() for label in table["per_class"]))
    counts = {
        label: (metrics["pointing"] or {"per_class": {}})["per_class"].get(label, {}).get("n", 0) for label in labels
    }
    rows = [
        (label, str(counts[label] or NONE), *(cell(table["per_class"].get(label)) for table in shown.values()))
        for label in labels
    ]
    if rows:
        rows.append((_MACRO, str(sum(counts.values()) or NONE), *(cell(table["macro"]) for table in shown.values())))
    note = "With 95% intervals by bootstrap over patients. Blob: the largest region at the map threshold."
    return Grid("Findings", note, ("finding", "boxed", *shown), tuple(rows), (_MACRO,))


def _rows(metrics: Metrics) -> Grid | None:
    rows = [
        (row_name(row), *(cell((table[name] or {}).get("macro")) for name in _METRIC_NAMES))
        for row, table in metrics["rows"].items()
    ]
    note = "Mean of the findings. Maps of stages and priors have no absolute threshold: half of each map's own range."
    return Grid("Beside maps that know less", note, ("map", *_METRIC_NAMES.values()), tuple(rows))


def _wang(metrics: Metrics) -> Grid | None:
    if not metrics["wang"]:
        return None
    wanted = (
        ("iou", "0.1", "accuracy"),
        ("iou", "0.3", "accuracy"),
        ("iobb", "0.1", "accuracy"),
        ("iobb", "0.1", "afp"),
    )
    head, columns = ["finding"], []
    for kind, threshold, figure in wanted:
        table = metrics["wang"][kind][threshold]
        name = f"{'AFP' if figure == 'afp' else 'Acc'}, {'IoU' if kind == 'iou' else 'IoBB'} > {threshold.lstrip('0')}"
        head += [name, "Wang 2017"]
        columns.append((table[figure], table["published"].get(figure, {})))
    rows = []
    for label in columns[0][0]["per_class"]:
        pairs = (
            (cell(table["per_class"][label]), f"{known[label]:.2f}" if label in known else NONE)
            for table, known in columns
        )
        rows.append((label, *(text for pair in pairs for text in pair)))
    same = list(columns[0][0]["per_class"])
    macro = (
        (
            cell(table["macro"]),
            f"{sum(known[label] for label in same) / len(same):.2f}" if all(label in known for label in same) else NONE,
        )
        for table, known in columns
    )
    rows.append((_MACRO, *(text for pair in macro for text in pair)))
    note = "Thresholds 60 and 180 of 255, any box counts. The published figures: other films, another training set."
    return Grid("The protocol of Wang et al. 2017", note, tuple(head), tuple(rows), (_MACRO,))


def _profiles(metrics: Metrics) -> Grid | None:
    names = [name for name, table in metrics["profiles"].items() if table["sensitivity"] or table["specificity"]]
    if not names:
        return None
    columns = [
        (metrics["profiles"][name][kind], f"{name}: {kind}")
        for name in names
        for kind in ("sensitivity", "specificity")
    ]
    labels = list(dict.fromkeys(label for table, _ in columns for label in (table or {"per_class": {}})["per_class"]))
    rows = [
        (label, *(cell((table or {"per_class": {}})["per_class"].get(label)) for table, _ in columns))
        for label in labels
    ]
    rows.append((_MACRO, *(cell((table or {}).get("macro")) for table, _ in columns)))
    note = "As infer decides at the bundle's profiles, which were fitted before on validation films."
    return Grid("Threshold profiles", note, ("finding", *(name for _, name in columns)), tuple(rows), (_MACRO,))


def _froc(metrics: Metrics) -> Grid | None:
    if not metrics["froc"]:
        return None
    curve, films = metrics["froc"]["false_boxes_per_film"], metrics["froc"]["films"]
    rows = [
        (
            label,
            f"{films[label]['with_boxes']} + {films[label]['without']}",
            *(cell(table["per_class"][label]) for table in curve.values()),
        )
        for label in films
    ]
    rows.append((_MACRO, "", *(cell(table["macro"]) for table in curve.values())))
    note = f"Share of true boxes found (IoU > {metrics['froc']['iou']:g}) at so many false boxes per film."
    return Grid("FROC", note, ("finding", "films with + without", *curve), tuple(rows), (_MACRO,))


def _against(metrics: Metrics) -> Grid | None:
    other = metrics.get("against")
    if not other:
        return None
    this, that = metrics["run"]["what"]["name"], other["what"]["name"]
    rows = [
        (_FIGURE_NAMES[name], cell(table["first"]), cell(table["second"]), cell(table["difference"]["macro"]))
        for name, table in other["figures"].items()
    ]
    note = (
        f"Mean of the findings that both have, on the same {other['films']} films; intervals of the difference by the "
        f"same resamples of patients. Regions of the other: {other['threshold_rule']}."
    )
    return Grid(f"Against {that}", note, ("figure", this, that, "difference"), tuple(rows))


def _faithfulness(metrics: Metrics) -> Grid | None:
    probe = metrics.get("probe")
    if not probe:
        return None
    kinds = {"deletion": "deletion, lower is better", "insertion": "insertion, higher is better"}
    rows = [(row_name(row), *(cell(probe[kind]["auc"][row]) for kind in kinds)) for row in probe["deletion"]["auc"]]
    note = f"Area under the score's curve. {_probed(probe)}"
    return Grid("Deletion and insertion", note, ("map", *kinds.values()), tuple(rows))


def _randomised(metrics: Metrics) -> Grid | None:
    probe = metrics.get("probe")
    if not probe or not probe["randomised_weights"]:
        return None
    rows = [(f"{float(share):.0%}", cell(found)) for share, found in probe["randomised_weights"].items()]
    note = f"Rank correlation with the model's own maps; near 0 is as it should be. {_probed(probe)}"
    return Grid("Randomised weights", note, ("layers shuffled, from the output", "correlation"), tuple(rows))


def _stability(metrics: Metrics) -> Grid | None:
    probe = metrics.get("probe")
    if not probe:
        return None
    rows = [(name, cell(table["box_iou"]), cell(table["score_change"])) for name, table in probe["stability"].items()]
    note = f"The largest region's box before and after, and how far the score goes. {_probed(probe)}"
    return Grid("Stability", note, ("change of the film", "IoU of the box", "score"), tuple(rows))


def _probed(probe: Metrics) -> str:
    return f"{counted(probe['findings'], 'finding')} with boxes on {counted(probe['films'], 'film')}."


def _subgroups(metrics: Metrics) -> list[Grid | None]:
    head = {
        "auroc": "AUROC",
        "pointing": "pointing",
        "blob_iou_0.1": "blob IoU > .1",
        "blob_iobb_0.1": "blob IoBB > .1",
        "mean_iou": "mean IoU",
    }
    grids: list[Grid | None] = []
    for name, groups in metrics["subgroups"].items():
        rows = tuple(
            (
                group,
                str(table.get("films", NONE)),
                str(table["boxed_findings"]),
                *(cell(table.get(key)) for key in head),
            )
            for group, table in groups.items()
        )
        note = "Longest side, pixels of 1024." if name == "box_size" else "Mean of the findings that the group has."
        title = f"By {name.replace('_', ' ')}"
        grids.append(Grid(title, note, (name.replace("_", " "), "films", "boxed", *head.values()), rows))
    return grids


def row_name(row: str) -> str:
    """A row of the tables in words."""
    return ROW_NAMES.get(row, row.replace("_", " "))
