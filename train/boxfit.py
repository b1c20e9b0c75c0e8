"""Map thresholds fitted on true boxes, where somebody asks for it: on half of the patients, never on the others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.progress import Progress

from msloc_edge.errors import TrainError
from msloc_edge.imaging.geometry import Geometry
from msloc_edge.model import ModelConfig, build
from msloc_edge.train.calibration.map_thresholds import fit_to_masks, masked_maps
from msloc_edge.train.calibration.network import TorchNetwork
from msloc_edge.train.data import Films, load_films, open_collection
from msloc_edge.train.data.collection import in_fitting_half
from msloc_edge.train.data.names import speller
from msloc_edge.train.evaluate.truth import Truth, collection_boxes, read_boxes


def fit_to_boxes(
    state: Mapping[str, Any], data: str, split: str, boxes: Path | None, progress: Progress
) -> dict[str, Any]:
    """Fit the map thresholds of a calibrated checkpoint so that maps agree best (mean IoU) with true boxes.

    data, split   nih:DIR or csv:FILE, and which films of it; boxes: a csv in place of the collection's own

    Only films of the patients of the fitting half count: `msloc-edge eval` leaves these out for such a model. A finding
    without a box there keeps its threshold. Rates go: they were measured at the old ones. Raises TrainError when there
    is no box to fit on.
    """
    config = ModelConfig.from_dict(state["config"]["model"])
    collection = open_collection(data, split)
    records = tuple(record for record in collection.records if in_fitting_half(record.patient))
    truth = read_boxes(boxes, records) if boxes else collection_boxes(collection, records)
    truth = truth.spelled(speller(config.classes)).only([record.name for record in records], config.classes)
    if not truth.count:
        raise TrainError("data_invalid", f"{boxes or data}: expected boxes of {', '.join(config.classes)}, found none")
    kept = tuple(record for record in records if record.name in truth.regions)
    films = _with_masks(load_films(replace(collection, records=kept), config.size, config.classes, progress), truth)
    net = build(config)
    net.load_state_dict(state["model"])
    fits = fit_to_masks(masked_maps(TorchNetwork(net), [films], 1, progress))
    profiles = {
        name: {**profile, "map": [fits[k].threshold if k in fits else old for k, old in enumerate(profile["map"])]}
        for name, profile in state["profiles"].items()
    }
    for profile in profiles.values():
        profile.pop("rates", None)
    rules = {config.classes[k]: f"true boxes of {data}, half of the patients" for k in fits}
    calibration = state["calibration"]
    half = {"data": data, "patients": len(set(films.patients)), "boxes": truth.count}
    return {
        **state,
        "profiles": profiles,
        "calibration": {**calibration, "maps": {**calibration["maps"], **rules}, "fitting_half": half},
    }


def _with_masks(films: Films, truth: Truth) -> Films:
    """The films with the insides of their boxes as true regions, and labels that say so."""
    labels = np.zeros_like(films.labels)
    for row, name in enumerate(films.names):
        for label in truth.regions[name]:
            labels[row, films.classes.index(label)] = 1

    def masks(index: int) -> dict[str, NDArray[np.bool_]]:
        name = films.names[index]
        geometry = Geometry.fit(truth.sizes[name], (films.side, films.side))
        found = {}
        for label, regions in truth.regions[name].items():
            mask = np.zeros((films.side, films.side), np.bool_)
            for region in regions:
                x, y, w, h = region.box
                (x0, y0), (x1, y1) = np.rint(geometry.to_input(np.array([(x, y), (x + w, y + h)]))).astype(int).tolist()
                mask[max(0, y0) : y1, max(0, x0) : x1] = True
            found[label] = mask
        return found

    return replace(films, labels=labels, masks=masks)
