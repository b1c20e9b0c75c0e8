"""Do shallow stages help? The same backbone, start and films; stages all against stages last, three kinds of pooling.

    python benchmarks/multiscale.py --data nih:DIR --init RUN [--work DIR]

trains each variant for a few epochs from the backbone of RUN (a run folder or a weights file, `--backbone` its name) on
the training films of DIR, half of the normal ones with inserted lesions, and on phantoms. Each is then scored by
`msloc-edge eval` on unseen phantoms, on lesions of graded size in normal films that training never saw, and on the
boxes of the test films.

Writes benchmarks/results/NAME.json and .png. What --work holds already is not done again.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import matplotlib as mpl
from machine import RESULTS, environment, save
from safetensors.torch import save_file
from testsets import run_command, test_sets, write_recipe

from msloc_edge.model.weights import load_plain
from msloc_edge.train.checkpoint import weights_file

mpl.use("Agg")
from matplotlib import pyplot as plt

VARIANTS = {
    "all, avg": {"stages": "all", "pool": "avg"},
    "last, avg": {"stages": "last", "pool": "avg"},
    "all, lse": {"stages": "all", "pool": "lse"},
    "last, lse": {"stages": "last", "pool": "lse"},
    "all, pcam": {"stages": "all", "pool": "pcam"},
    "last, pcam": {"stages": "last", "pool": "pcam"},
    "all, lse, neck": {"stages": "all", "pool": "lse", "neck": "topdown"},
}
STAGE_LOSS = {"all, lse, neck": 0.5}
"""The paper's form is "all, avg"; the single-scale CAM that it is compared with "last, avg"."""

PHANTOMS = 200


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="nih:DIR")
    parser.add_argument("--init", required=True, type=Path, help="run folder or weights that all variants start from")
    parser.add_argument("--backbone", default="edge", help="that of --init")
    parser.add_argument("--work", type=Path, default=Path("run/multiscale"))
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--films", type=int, default=800, help="training phantoms")
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument(
        "--only", action="append", choices=VARIANTS, help="repeatable; all variants where it is left out"
    )
    parser.add_argument("--name", default="multiscale", help="of the results")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    start = backbone_alone(args.init, args.work / "start.safetensors")
    sets = test_sets(args.data, args.work, PHANTOMS)
    variants: dict[str, Any] = {}
    for name in args.only or VARIANTS:
        options = {**training(args, start), "stage_loss": STAGE_LOSS.get(name, 0.0)}
        run = args.work / name.replace(", ", "-")
        if not (run / "bundle").exists():
            recipe = write_recipe(
                run.with_suffix(".toml"), options, {**VARIANTS[name], "backbone": args.backbone, "size": args.size}
            )
            run_command("train", "--config", recipe, "--out", run, *(["--resume"] * (run / "last.pt").exists()))
        for kind, data in sets.items():
            if not (run / kind / "metrics.json").exists():
                run_command("eval", "--model", run / "bundle", *data, "--out", run / kind, "--quiet")
        found = {kind: json.loads((run / kind / "metrics.json").read_text()) for kind in sets}
        own = {**VARIANTS[name], "stage_loss": options["stage_loss"]}
        variants[name] = {"options": own, **{kind: figures(metrics) for kind, metrics in found.items()}}
        print(name, {kind: variants[name][kind]["findings"]["macro"]["pointing"] for kind in sets}, flush=True)
    result = {
        "what": "pointing game, IoBB and IoU of the largest region, [value, low, high, n]; sizes: longest side of 1024",
        "training": {**training(args, Path("start.safetensors")), "backbone": args.backbone, "size": args.size},
        "start": f"the backbone of {args.init} for every variant; head and neck are fresh",
        "variants": variants,
        "environment": environment("torch", "onnxruntime", "numpy"),
    }
    draw(variants, RESULTS / f"{args.name}.png")
    print(save(args.name, result))


def training(args: argparse.Namespace, start: Path) -> dict[str, Any]:
    """Options that all variants share."""
    films = {"data": [args.data, "phantom"], "films": args.films, "val_films": 150, "insert": 0.5}
    schedule = {"epochs": args.epochs, "progressive": False, "batch": 32, "lr": args.lr, "weight_decay": 0.05}
    return {**films, **schedule, "init": str(start)}


def backbone_alone(init: Path, out: Path) -> Path:
    """The backbone of a run as a file of its own: with head and neck in it, one variant would start further on."""
    if not out.exists():
        state = load_plain(weights_file(init))
        weights = state.get("model", state)
        own = {name: tensor.contiguous() for name, tensor in weights.items() if name.startswith("backbone.")}
        save_file(own, out)
    return out


def figures(metrics: dict[str, Any]) -> dict[str, Any]:
    """Each metric by finding and by size of the true box."""
    tables = {
        "pointing": metrics["pointing"],
        "blob_iobb_0.1": metrics["blob"]["iobb"]["0.1"],
        "blob_iou_0.1": metrics["blob"]["iou"]["0.1"],
        "mean_iou": metrics["mean_iou"],
    }
    labels = tables["pointing"]["per_class"]
    by_finding = {label: {key: brief(table["per_class"][label]) for key, table in tables.items()} for label in labels}
    by_finding["macro"] = {key: brief(table["macro"]) for key, table in tables.items()}
    sizes = metrics["subgroups"]["box_size"]
    by_size = {band: {key: brief(row[key]) for key in tables} for band, row in sizes.items() if row["boxed_findings"]}
    auroc = metrics["auroc"]
    return {"auroc": brief(auroc["macro"]) if auroc else None, "findings": by_finding, "sizes": by_size}


def brief(figure: dict[str, Any]) -> list[float]:
    return [figure[key] for key in ("value", "low", "high", "n")]


def draw(variants: dict[str, Any], out: Path) -> None:
    """Pointing of each variant on the three sets: by lesion size, by finding."""
    panels = [
        ("inserted lesions, by longest side (px of 1024)", "lesions", "sizes"),
        ("real boxes, by longest side (px of 1024)", "test", "sizes"),
        ("real boxes, by finding", "test", "findings"),
        ("phantoms, by finding", "phantoms", "findings"),
    ]
    figure, axes = plt.subplots(len(panels), 1, figsize=(11, 15), layout="constrained")
    colors = {"avg": "#0072b2", "lse": "#d55e00", "pcam": "#009e73", "neck": "#cc79a7"}
    for axis, (title, kind, group) in zip(axes, panels, strict=True):
        for at, (name, found) in enumerate(variants.items()):
            bars = found[kind][group]
            points = [bars[key]["pointing"] for key in bars]
            x = [place + (at - (len(variants) - 1) / 2) * 0.11 for place in range(len(bars))]
            low, high = ([abs(p[0] - p[side]) for p in points] for side in (1, 2))
            axis.bar(
                x, [p[0] for p in points], 0.1, yerr=[low, high], label=name, color=colors[name.split(", ")[-1]],
                alpha=1 if name.startswith("all") else 0.4, error_kw={"lw": 0.7},
            )  # fmt: skip
        names = [f"{key}\n(n={next(iter(variants.values()))[kind][group][key]['pointing'][3]})" for key in bars]
        axis.set_xticks(range(len(bars)), names, fontsize=8)
        axis.set(title=title, ylabel="pointing", ylim=(0, 1))
    axes[0].legend(ncols=4, fontsize=8)
    figure.savefig(out, dpi=80)


if __name__ == "__main__":
    main()
