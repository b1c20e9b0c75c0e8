"""Model cards: training films, figures on validation films, limits of use."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from msloc_edge._tables import cell
from msloc_edge.bundle.profile import parse_profile
from msloc_edge.bundle.rates import rate_grids


@dataclass(frozen=True, slots=True)
class Measured:
    """A section of the card (Markdown) with figures of the network whose ONNX file has this hash."""

    onnx_sha256: str
    text: str


def model_card(manifest: Mapping[str, Any], measured: Sequence[Measured] = ()) -> str:
    """Write Markdown from the manifest, so that the card and the manifest cannot disagree, and what was measured."""
    validation = manifest["training"].get("validation", {"auroc": {}, "map_iou": {}})
    profile = manifest["profiles"][manifest["default_profile"]]
    maps = [f"  - {rule}: {', '.join(labels)}" for rule, labels in _by_rule(manifest["calibration"]["maps"]).items()]
    synthetic = set(manifest["training"].get("config", {}).get("data", ())) == {"phantom"}
    relevance = " | ".join(f"w{stage + 1} (1/{s['stride']})" for stage, s in enumerate(manifest["stages"]))
    rows = [
        f"| {label} | {_figure(validation['auroc'].get(label))} | {_figure(validation['map_iou'].get(label))} "
        f"| {profile['score'][k]:.3f} | {profile['map'][k]:.3f} | {_weights(manifest['relevance'][k])} |"
        for k, label in enumerate(manifest["classes"])
    ]
    columns = "|".join([" --- "] * (5 + len(manifest["stages"])))
    return "\n".join(
        [
            f"# {manifest['name']} {manifest['version']}",
            "",
            manifest["intended_use"],
            "",
            *_network(manifest),
            f"- **Score thresholds and temperature**: fitted on {manifest['calibration']['scores']}.",
            *_calibration(manifest),
            *_input_gate(manifest),
            "- **Map thresholds**: absolute, fitted on",
            *maps,
            "",
            *_operating_points(manifest),
            "## On the validation films",
            "",
            "AUROC; mean IoU of the thresholded map with the true mask, where there are masks; the default profile's",
            "score threshold (on the calibrated probability) and map threshold (logit units); layer relevance weights,",
            "shallow to deep.",
            "",
            f"| finding | AUROC | map IoU | score threshold | map threshold | {relevance} |",
            f"|{columns}|",
            *rows,
            "",
            *(line for section in measured for line in (section.text, "")),
            "## Limits",
            "",
            *(["- Trained on synthetic films alone: on real radiographs it has no known validity."] * synthetic),
            "- **Not for diagnosis, triage or any decision about a patient.** No clinical validation of any kind.",
            "- Frontal films of the chest (PA, AP) only; findings outside its list are not looked for.",
            "- A box is the region whose map exceeds an absolute threshold. It was never trained on a box.",
            "",
        ]
    )


def _network(manifest: Mapping[str, Any]) -> list[str]:
    """Write what the network is, and what it was trained on."""
    training, architecture, size = manifest["training"], manifest["architecture"], manifest["input"]["height"]
    if "wrapped" in architecture:
        mean, std = architecture["normalisation"].values()
        return [
            f"- **Network**: {architecture['wrapped']} (sha256 {training['wrapped'][:12]}...), {size} x {size} px, "
            f"{len(manifest['stages'])} stages; input normalised by mean {_list(mean)} and deviation {_list(std)}.",
            "- **Training films**: its author knows.",
        ]
    config = training["config"]
    return [
        f"- **Network**: {architecture['backbone']}, {size} x {size} px, {architecture['stages']} stages, "
        f"{architecture['pool']} pooling; logits are a convex combination over stages (docs/method.md).",
        f"- **Training films**: {', '.join(f'{count} of {name}' for name, count in training['films'].items())}; "
        f"simulated lesions in {config['insert']:.0%} of the normal real ones; {_start(config)}; epoch "
        f"{training['epoch']} of {config['epochs']} kept, seed {config['seed']}, image-level labels only.",
    ]


def _list(values: Sequence[float]) -> str:
    return ", ".join(f"{value:g}" for value in values)


def _operating_points(manifest: Mapping[str, Any]) -> list[str]:
    """Write the section of the measured rates; none where nobody measured."""
    grids = rate_grids(manifest)
    if not grids:
        return []
    return [
        "## Operating points",
        "",
        "A finding is positive if the film's probability of showing anything reaches the film threshold, the finding's",
        "own probability its score threshold, and its map has a box. Every film was judged by numbers that were fitted",
        "without any film of its patient.",
        "",
        *(line for grid in grids for line in (*grid.markdown(), "")),
    ]


def _input_gate(manifest: Mapping[str, Any]) -> list[str]:
    """Write what the bundle asks of a film before it is localized; nothing where it asks nothing."""
    if not manifest.get("input_gate"):
        return []
    refused = ", ".join(
        parse_profile(manifest["profiles"][manifest["default_profile"]], len(manifest["classes"])).refuse
    )
    return [f"- **Input gate**: films that are refused, by their header or their look: {refused} (docs/input-gate.md)."]


def _calibration(manifest: Mapping[str, Any]) -> list[str]:
    """Write what else `calibration` tells, a line each."""
    told = manifest["calibration"]
    lines = []
    if about := told.get("abnormal"):
        lines.append(
            f"- **Film gate**: a logistic regression on all logits, regularised towards equal weights "
            f"({about['regularisation']}); cross-validated AUROC {_figure(about['auroc_weighted'])} with free weights, "
            f"{_figure(about['auroc_sum'])} with equal ones."
        )
    if about := told.get("coarse"):
        figure = about.get("normals_above_fine_q90")
        share = f": of their normal films {cell(figure)} lie above the 90% quantile of the others'" if figure else ""
        used = "used" if about["used"] else "left out"
        lines.append(f"- **Films coarser than the input**: {about['films']}, {used}{share}.")
    if about := told.get("regions"):
        rule = manifest["regions"]
        lines.append(
            f"- **Boxes**: regions of at least {rule['min_area']} pixels of the input and {rule['min_share']:.0%} of "
            f"the strongest one's excess; F1 on {about['lesions']} inserted lesions {_figure(about['f1'])}, without "
            f"this rule {_figure(about['f1_without_rule'])}."
        )
    if guessed := told.get("guessed"):
        lines.append(f"- **Thresholds that are guesses**, for want of films: {', '.join(guessed)}.")
    return lines


def _by_rule(maps: Mapping[str, str]) -> dict[str, list[str]]:
    rules: dict[str, list[str]] = {}
    for label, rule in maps.items():
        rules.setdefault(rule, []).append(label)
    return rules


def _start(config: Mapping[str, Any]) -> str:
    return f"weights from {config['init']} to start with" if config["init"] else "no weights to start with"


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _weights(row: list[float]) -> str:
    return " | ".join(f"{w:.2f}" for w in row)
