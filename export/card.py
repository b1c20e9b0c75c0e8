"""Model cards: training films, figures on validation films, limits of use."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Measured:
    """A section of the card (Markdown) with figures of the network whose ONNX file has this hash."""

    onnx_sha256: str
    text: str


def model_card(manifest: Mapping[str, Any], measured: Sequence[Measured] = ()) -> str:
    """Write Markdown from the manifest, so that the card and the manifest cannot disagree, and what was measured."""
    training, architecture = manifest["training"], manifest["architecture"]
    validation, config = training["validation"], training["config"]
    profile = manifest["profiles"][manifest["default_profile"]]
    maps = [f"  - {rule}: {', '.join(labels)}" for rule, labels in _by_rule(manifest["calibration"]["maps"]).items()]
    synthetic = set(config["data"]) == {"phantom"}
    size = manifest["input"]["height"]
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
            f"- **Network**: {architecture['backbone']}, {size} x {size} px, {architecture['stages']} stages, "
            f"{architecture['pool']} pooling; logits are a convex combination over stages (docs/method.md).",
            f"- **Training films**: {', '.join(f'{count} of {name}' for name, count in training['films'].items())}; "
            f"simulated lesions in {config['insert']:.0%} of the normal real ones; {_start(config)}; epoch "
            f"{training['epoch']} of {config['epochs']} kept, seed {config['seed']}, image-level labels only.",
            f"- **Score thresholds and temperature**: fitted on {manifest['calibration']['scores']}.",
            "- **Map thresholds**: absolute, fitted on",
            *maps,
            "",
            "## On the validation films",
            "",
            "AUROC; mean IoU of the thresholded map with the true mask, where there are masks; the default profile's",
            "score threshold (on the calibrated probability) and map threshold (logit units); layer relevance weights,",
            "shallow to deep. Thresholds were fitted on these same films.",
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
