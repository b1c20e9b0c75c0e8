"""msloc-edge eval as a user runs it: a tiny bundle, a checkpoint and a folder of heatmaps, on a few phantoms."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

LABELS = ("Atelectasis", "Cardiomegaly", "Mass", "Nodule")
SIDE = 64


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """films.csv with eight phantoms of four patients, boxes.csv with a box of a mass on each of the first four."""
    from msloc_edge.train.phantom import generate, write_png

    folder = tmp_path_factory.mktemp("collection")
    lines = [f"image,patient,view,sex,age,{','.join(LABELS)}"]
    for number in range(8):
        write_png(generate(number, SIDE), folder / f"{number}.png")
        lines.append(
            f"{number}.png,w{number // 2},{'PA' if number % 2 else 'AP'},F,{30 + 10 * number},0,1,{int(number < 4)},"
        )
    (folder / "films.csv").write_text("\n".join(lines) + "\n")
    boxes = [f"{number}.png,Mass,{8 + number},10,20,24" for number in range(4)]
    (folder / "boxes.csv").write_text("\n".join(["image,label,x,y,w,h", *boxes]) + "\n")
    return folder


@pytest.fixture
def arguments(made: Path, tmp_path: Path) -> list[object]:
    return ["eval", "--data", f"csv:{made / 'films.csv'}", "--out", tmp_path / "out", "--resamples", 20]


def metrics(folder: Path) -> dict[str, Any]:
    text = (folder / "metrics.json").read_text()
    return json.loads(text, parse_constant=pytest.fail)


def test_a_bundle(msloc, arguments: list[object], made: Path, tmp_path: Path, tiny_bundle: Path) -> None:
    done = msloc(*arguments, "--model", tiny_bundle, "--boxes", made / "boxes.csv")
    assert (done.code, done.lines) == (0, [])
    found = metrics(tmp_path / "out")
    run = found["run"]
    manifest = json.loads((tiny_bundle / "manifest.json").read_text())
    assert run["command"].startswith("msloc-edge eval --data csv:")
    assert (run["films"], run["patients"], run["boxes"], run["boxes_by_class"]) == (8, 4, 4, {"Mass": 4})
    assert run["what"]["name"] == "tiny"
    assert len(run["what"]["sha256"]) == 64
    assert run["map_thresholds"]["Mass"] == pytest.approx(
        manifest["profiles"]["youden"]["map"][manifest["classes"].index("Mass")], abs=1e-5
    )
    assert (run["findings"], run["split"], run["problems"]) == (list(LABELS), "all", [])
    for key in ("auroc", "pointing", "maxboxaccv2", "mean_iou"):
        assert set(found[key]["macro"]) == {"value", "low", "high", "n"}
    assert list(found["auroc"]["per_class"]) == ["Mass"]  # the others have films of one kind only
    assert found["pointing"]["per_class"]["Mass"]["n"] == 4
    rows = ["model", "model_half_range", "stage_1", "stage_2", "stage_3", "stages_last"]
    assert list(found["rows"]) == [*rows, "random", "centre_prior", "class_mean_box", "box_frequency"]
    assert set(found["profiles"]) == {"youden", "sensitivity-90", "specificity-95"}
    assert found["froc"]["films"]["Mass"] == {"with_boxes": 4, "without": 4}
    page = (tmp_path / "out" / "eval.html").read_text()
    assert page.count("data:image/jpeg;base64,") == 3
    assert (tmp_path / "out" / "metrics.csv").read_text().startswith("metric,label,value,low,high,n\nauroc,macro,")
    assert "Beside maps that know less" in done.err


def test_a_table_that_nobody_filled_in(msloc, made: Path, tmp_path: Path, tiny_bundle: Path) -> None:
    for number in range(2):
        (tmp_path / f"{number}.png").write_bytes((made / f"{number}.png").read_bytes())
    (tmp_path / "films.csv").write_text("image,patient,Mass\n0.png,a,\n1.png,b,\n")
    done = msloc("eval", "--data", f"csv:{tmp_path / 'films.csv'}", "--model", tiny_bundle, "--out", tmp_path / "out")
    assert (done.code, done.reasons) == (1, ["option_invalid"])
    assert "expected labels or boxes, got films alone; fill in a column of 1 and 0" in done.err
    assert not (tmp_path / "out").exists()


def test_probes_and_another_method(
    msloc, arguments: list[object], made: Path, tmp_path: Path, tiny_bundle: Path, maps: Path
) -> None:
    options = ("--boxes", made / "boxes.csv", "--probe", 2, "--against", maps, "-q")
    done = msloc(*arguments, "--model", tiny_bundle, *options)
    assert done.code == 0, done.err
    found = metrics(tmp_path / "out")
    probe = found["probe"]
    assert (probe["films"], probe["findings"], probe["problems"]) == (2, 2, [])
    for kind in ("deletion", "insertion"):
        assert list(probe[kind]["auc"]) == ["model", "random"]
        assert probe[kind]["auc"]["model"]["n"] == 2
        assert len(probe[kind]["score"]["random"]) == len(probe[kind]["share"]) == 11
    # Both begin, and both end, with the same film, whatever the map.
    for kind in ("deletion", "insertion"):
        model, random = (probe[kind]["score"][row] for row in ("model", "random"))
        assert (model[0], model[-1]) == pytest.approx((random[0], random[-1]), abs=1e-5)
    assert probe["deletion"]["score"]["model"][0] == pytest.approx(probe["insertion"]["score"]["model"][-1], abs=1e-5)
    correlations = [figure["value"] for figure in probe["randomised_weights"].values()]
    assert all(-1 <= value < 0.99 for value in correlations)
    assert list(probe["stability"]) == ["shift", "noise", "narrower window", "wider window"]
    assert all(0 <= table["score_change"]["value"] < 1 for table in probe["stability"].values())

    against = found["against"]
    assert (against["what"]["name"], against["films"]) == (str(maps), 8)
    pointing = against["figures"]["pointing"]
    assert pointing["second"]["value"] == 0.75  # three of four maps are exact, the fourth is nonsense
    assert pointing["difference"]["macro"]["value"] == pytest.approx(pointing["first"]["value"] - 0.75)
    assert len([problem for problem in against["problems"] if "3.Mass.png" in problem]) == 1
    page = (tmp_path / "out" / "eval.html").read_text()
    assert page.count("data:image/svg+xml;base64,") == 6
    assert all(title in page for title in ("Deletion and insertion", "Randomised weights", "Stability", "Against "))
    assert "http://" not in page
    assert "https://" not in page


def test_a_model_against_itself_differs_in_nothing(
    msloc, arguments: list[object], made: Path, tmp_path: Path, tiny_bundle: Path
) -> None:
    boxes = ("--boxes", made / "boxes.csv", "--limit", 4)
    assert msloc(*arguments, "--model", tiny_bundle, "--against", tiny_bundle, *boxes, "-q").code == 0
    for table in metrics(tmp_path / "out")["against"]["figures"].values():
        figure = table["difference"]["macro"]
        assert (figure["value"], figure["low"], figure["high"]) == (0, 0, 0)


def test_the_models_own_row_is_what_infer_says(
    msloc, arguments: list[object], made: Path, tmp_path: Path, tiny_bundle: Path
) -> None:
    """The peak of every boxed film, by `infer`, against the pointing game's figure."""
    msloc(*arguments, "--model", tiny_bundle, "--boxes", made / "boxes.csv", "-q")
    inferred = msloc("infer", "--all-classes", "-q", "--model", tiny_bundle, *(made / f"{n}.png" for n in range(4)))
    hits = []
    for number, line in enumerate(inferred.lines):
        peak = next(finding["peak"] for finding in line["findings"] if finding["label"] == "Mass")
        hits.append(8 + number <= peak["x"] < 28 + number and 10 <= peak["y"] < 34)
    assert metrics(tmp_path / "out")["pointing"]["per_class"]["Mass"]["value"] == np.mean(hits)


def test_a_checkpoint_and_a_mapped_finding(
    msloc, arguments: list[object], made: Path, tmp_path: Path, tiny_state: dict[str, Any]
) -> None:
    import torch

    (tmp_path / "run").mkdir()
    torch.save(tiny_state, tmp_path / "run" / "best.pt")
    boxes = tmp_path / "boxes.csv"
    boxes.write_text((made / "boxes.csv").read_text().replace("Mass", "Lesion"))
    mapping = ("--map", "Lesion=Mass+Nodule")
    done = msloc(*arguments, "--model", tmp_path / "run", "--boxes", boxes, *mapping, "--limit", 3, "-q")
    assert done.code == 0
    found = metrics(tmp_path / "out")
    assert found["run"]["boxes_by_class"] == {"Lesion": 3}
    assert found["run"]["labels_by"] == "Lesion = Mass + Nodule"
    assert "no such finding" not in done.err
    # One row of the box table names a film beyond the limit: counted, named, and no harm.
    assert len(found["run"]["problems"]) == 1
    assert "expected an image of the split, got '3.png'" in done.err


@pytest.fixture
def maps(tmp_path: Path) -> Path:
    """Maps of masses that hit the boxes of films 0 to 2 exactly; that of film 3 is nonsense."""
    folder = tmp_path / "maps"
    folder.mkdir()
    for number in range(3):
        values = np.zeros((SIDE, SIDE), np.float32)
        values[10:34, 8 + number : 28 + number] = 1
        np.save(folder / f"{number}.Mass.npy", values)
    cv2.imwrite(str(folder / "3.Mass.png"), np.zeros((9, 20), np.uint8))
    (folder / "scores.csv").write_text(
        "image,label,score\n" + "".join(f"{n}.png,Mass,{1 / (n + 1)}\n" for n in range(8))
    )
    return folder


def test_a_folder_of_heatmaps(msloc, arguments: list[object], made: Path, tmp_path: Path, maps: Path) -> None:
    options = ("--heatmaps", maps, "--scores", maps / "scores.csv", "--boxes", made / "boxes.csv")
    done = msloc(*arguments, *options)
    assert done.code == 0
    found = metrics(tmp_path / "out")
    assert found["mean_iou"]["macro"]["value"] == 0.75
    assert found["wang"]["iou"]["0.7"]["accuracy"]["per_class"]["Mass"]["value"] == 0.75
    assert found["auroc"]["macro"]["value"] == 1
    assert list(found["rows"])[:2] == ["heatmaps", "random"]
    assert "3.Mass.png: expected the shape of its film" in done.err
    assert "4.png: no map of Mass" in done.err  # films without boxes are asked for false boxes
    assert msloc(*arguments, *options, "--thresholds", "Mass=2").code == 0
    found = metrics(tmp_path / "out")
    assert found["mean_iou"]["macro"]["value"] == 0  # nothing exceeds 2
    assert found["rows"]["heatmaps_half_range"]["mean_iou"]["macro"]["value"] == 1  # of the three that could be read


def numbers(figures: Any) -> list[float | None]:
    """All numbers of nested figures, in their order."""
    if isinstance(figures, dict):
        return [number for key in figures for number in numbers(figures[key])]
    if isinstance(figures, list):
        return [number for part in figures for number in numbers(part)]
    return [] if isinstance(figures, str) else [figures]


def test_what_infer_wrote_is_scored_as_the_model_itself(
    msloc, arguments: list[object], made: Path, tmp_path: Path, tiny_bundle: Path, models: Path
) -> None:
    """Films under other names in another order: the results say by hash which is which."""
    assert msloc("models", "add", tiny_bundle).code == 0
    boxes = ("--boxes", made / "boxes.csv")
    assert msloc(*arguments, "--model", "tiny", *boxes, "-q").code == 0
    of_model = metrics(tmp_path / "out")
    films = [tmp_path / f"film{number}" for number in range(8)]
    for number, film in enumerate(films):
        film.write_bytes((made / f"{7 - number}.png").read_bytes())
    infer = ("infer", *films, "--model", "tiny", "--out", tmp_path / "maps", "--write", "json,heatmap", "-q")
    assert msloc(*infer, "--all-classes").code == 0
    done = msloc(*arguments, "--heatmaps", tmp_path / "maps", *boxes)
    assert done.code == 0, done.err
    of_maps = metrics(tmp_path / "out")
    assert (of_maps["run"]["problems"], of_maps["run"]["what"]["sha256"]) == ([], of_model["run"]["what"]["sha256"])
    measured = ("auroc", "ap", "pointing", "wang", "blob", "mean_iou", "maxboxaccv2", "froc")
    assert sum(map(bool, numbers({key: of_maps[key] for key in measured}))) > 100
    for key in measured:
        assert numbers(of_maps[key]) == pytest.approx(numbers(of_model[key]), abs=1e-5), key
    for key in ("profiles", "operating_points"):
        (profile,) = of_maps[key]
        assert numbers(of_maps[key]) == pytest.approx(numbers(of_model[key][profile]), abs=1e-5), key

    (tmp_path / "maps" / "film0.heatmap.npy").write_bytes(b"no numbers")
    lines = (tmp_path / "maps" / "results.jsonl").read_text().splitlines()
    (tmp_path / "maps" / "results.jsonl").write_text("\n".join(lines[:-1]) + "\n")
    some = msloc(*arguments, "--heatmaps", tmp_path / "maps", *boxes, "--thresholds", "Mass=99")
    assert some.code == 1
    assert "[data_missing] 0.png: not among the films of" in some.err  # the last line's
    assert "film0.heatmap.npy: expected maps in an .npy file" in some.err
    assert metrics(tmp_path / "out")["mean_iou"]["macro"]["value"] == 0  # nothing exceeds 99
    (tmp_path / "maps" / "results.jsonl").write_text(lines[0][:99])
    assert "results.jsonl, line 1: " in msloc(*arguments, "--heatmaps", tmp_path / "maps").err


def test_masks(msloc, arguments: list[object], tmp_path: Path, maps: Path) -> None:
    content = {
        "images": [{"id": n, "file_name": f"{n}.png", "height": SIDE, "width": SIDE} for n in range(3)],
        "categories": [{"id": 1, "name": "Mass"}],
        "annotations": [
            {"image_id": n, "category_id": 1, "segmentation": [[8 + n, 10, 28 + n, 10, 28 + n, 34, 8 + n, 34]]}
            for n in range(3)
        ],
    }
    (tmp_path / "masks.json").write_text(json.dumps(content))
    assert msloc(*arguments, "--heatmaps", maps, "--masks", tmp_path / "masks.json").code == 0
    found = metrics(tmp_path / "out")
    assert found["run"]["truth_kind"] == "masks"
    assert (found["mask_iou"]["macro"]["value"], found["pointing"]["macro"]["value"]) == (1, 1)
    assert found["auroc"] is None  # no scores were given
    assert found["profiles"] == {}


def test_masks_of_chexlocalize(msloc, tmp_path: Path) -> None:
    """Its hit rate and mIoU, by hand: two films with the finding, on one of which nothing is found."""
    folder, names = tmp_path / "chexpert", [f"patient{n}_study1_view1_frontal" for n in (1, 2, 3)]
    rows = ["Path,Sex,Age,Frontal/Lateral,AP/PA,No Finding,Lung Opacity"]
    for name, label in zip(names, ("1.0", "1.0", "0.0"), strict=True):
        file = folder / "valid" / Path(*name.split("_", 2)).with_suffix(".jpg")
        file.parent.mkdir(parents=True)
        cv2.imwrite(str(file), np.arange(SIDE * SIDE, dtype=np.uint16).reshape(SIDE, SIDE).astype(np.uint8))
        rows.append(f"CheXpert-v1.0/{file.relative_to(folder)},Male,50,Frontal,AP,,{label}")
    (folder / "valid.csv").write_text("\n".join(rows))
    truth, found = (np.zeros((SIDE, SIDE), np.uint8) for _ in range(2))
    truth[10:20, 10:30], found[10:20, 20:40] = 1, 1
    masks = [truth, truth, np.zeros_like(truth)]
    runs = [{"size": [SIDE, SIDE], "counts": run_lengths(mask)} for mask in masks]
    content = {name: {"Lung Opacity": run} for name, run in zip(names, runs, strict=True)}
    (tmp_path / "gt_segmentations_val.json").write_text(json.dumps(content))
    maps = (found * 0.5 + truth * found * 0.5, np.roll(found, SIDE // 2, axis=0) * 0.3, found * 0.3)
    for name, values in zip(names, maps, strict=True):
        (tmp_path / "maps").mkdir(exist_ok=True)
        path = tmp_path / "maps" / "valid" / Path(*name.split("_", 2)) / "Lung_Opacity.npy"
        path.parent.mkdir(parents=True)
        np.save(path, values.astype(np.float32))
    ran = msloc(
        *("eval", "--data", f"chexpert:{folder}", "--split", "validation", "--out", tmp_path / "out", "-q"),
        *("--heatmaps", tmp_path / "maps", "--thresholds", 0.4, "--masks", tmp_path / "gt_segmentations_val.json"),
    )
    assert ran.code == 0, ran.err
    of = metrics(tmp_path / "out")
    assert of["run"]["problems"] == []
    assert of["pointing"]["per_class"]["Lung Opacity"]["value"] == 0.5
    assert of["pointing"]["per_class"]["Lung Opacity"]["n"] == 2
    assert of["mask_iou_found"]["per_class"]["Lung Opacity"] == pytest.approx(
        {"value": 1 / 3, "low": 1 / 3, "high": 1 / 3, "n": 1}, abs=1e-4
    )
    assert of["mask_iou"]["per_class"]["Lung Opacity"]["value"] == pytest.approx(1 / 6, abs=1e-4)


def run_lengths(mask: np.ndarray) -> list[int]:
    """COCO's plain run lengths, column by column, zeros first."""
    flat = mask.T.ravel()
    ends = [*(np.flatnonzero(np.diff(flat)) + 1).tolist(), flat.size]
    lengths = np.diff([0, *ends]).tolist()
    return lengths if not flat[0] else [0, *lengths]


def test_a_film_that_cannot_be_read_is_named(msloc, made: Path, tmp_path: Path, tiny_bundle: Path) -> None:
    table = tmp_path / "films.csv"
    table.write_text("image,Mass\ngood.png,1\nbad.png,0\ngone.png,1\n")
    (tmp_path / "good.png").write_bytes((made / "0.png").read_bytes())
    (tmp_path / "bad.png").write_bytes(b"no picture")
    done = msloc("eval", "--data", f"csv:{table}", "--model", tiny_bundle, "--out", tmp_path / "out", "-q")
    assert done.code == 1
    assert "[not_an_image]" in done.err
    assert "gone.png: no picture" in done.err
    found = metrics(tmp_path / "out")
    assert (found["run"]["films"], found["pointing"], found["auroc"]) == (1, None, None)


@pytest.mark.parametrize(
    ("table", "says"),
    [
        (
            "image, patient, Mass\n0.png, p, True\n",
            "(1 left out; the first: films.csv, line 2: expected 1, 0 or nothing",
        ),
        ("image,Mass\n\n\nnone.png,1\n", "(1 left out; the first: none.png: no picture)"),
        ("image,split,Mass\n0.png,train,1\n", "(choose another split)"),
    ],
)
def test_why_no_film_is_left(msloc, made: Path, tmp_path: Path, table: str, says: str) -> None:
    (tmp_path / "films.csv").write_text(table)
    (tmp_path / "0.png").write_bytes((made / "0.png").read_bytes())
    data = f"csv:{tmp_path / 'films.csv'}"
    done = msloc("eval", "--model", "cxr-edge", "--data", data, "--split", "test", "--out", tmp_path / "out")
    assert done.code == 1
    assert f"[data_missing] {data}: expected films in this split, found none {says}" in done.err


def test_labels_with_blanks_are_the_models(msloc, made: Path, tmp_path: Path) -> None:
    lines = [
        "image, patient, Pleural Thickening, Mass, Fracture",
        *(f"{n}.png, p{n}, {n % 2}, {n // 4}, 0" for n in range(8)),
    ]
    (made / "blanks.csv").write_text("\n".join(lines) + "\n")
    (tmp_path / "boxes.csv").write_text("image,label,x,y,w,h\n1,Pleural Thickening,8,10,20,24\n")
    data = ("--data", f"csv:{made / 'blanks.csv'}", "--boxes", tmp_path / "boxes.csv", "--resamples", 0)
    assert msloc("eval", "--model", "cxr-edge", *data, "--out", tmp_path / "out", "-q").code == 0
    found = metrics(tmp_path / "out")
    assert found["run"]["findings"] == ["Pleural_Thickening", "Mass"]
    assert found["run"]["boxes_by_class"] == {"Pleural_Thickening": 1}
    assert set(found["auroc"]["per_class"]) == {"Pleural_Thickening", "Mass"}
    assert found["run"]["problems"] == ["Fracture: labels, and no such findings among those scored"]


@pytest.mark.parametrize(
    ("options", "code", "says"),
    [
        ([], 2, "expected one of --model and --heatmaps"),
        (["--model", "cxr-edge", "--heatmaps", "."], 2, "expected one of --model and --heatmaps"),
        (["--model", "cxr-edge", "--scores", "s.csv"], 2, "belong to --heatmaps"),
        (["--heatmaps", ".", "--probe", "2"], 2, "belongs to --model"),
        (["--model", "cxr-edge", "--against", "none"], 1, "[bundle_missing]"),
        (["--model", "cxr-edge", "--boxes", "b", "--masks", "m"], 2, "expected one of --boxes and --masks"),
        (["--model", "cxr-edge", "--map", "Opacity"], 2, 'expected "New=A+B"'),
        (["--heatmaps", ".", "--thresholds", "high"], 2, "expected numbers, as 0.4 or Mass=0.4,Nodule=0.3, got 'high'"),
        (["--model", "cxr-edge", "--map", "X=Fracture"], 1, "[option_invalid] --map X: expected findings of"),
        (["--model", "cxr-edge", "--split", "test"], 1, "[data_missing]"),
        (["--model", "cxr-edge", "--profile", "x"], 1, "[profile_unknown]"),
        (["--model", "none"], 1, "[bundle_missing]"),
        (["--heatmaps", "none"], 1, "[data_missing]"),
        (["--model", "cxr-edge", "--boxes", "none.csv"], 1, "none.csv: cannot be read"),
    ],
)
def test_bad_input_is_one_sentence(msloc, arguments: list[object], options: list[str], code: int, says: str) -> None:
    done = msloc(*arguments, *options)
    assert (done.code, done.lines) == (code, [])
    assert says in done.err


def test_boxes_of_another_vocabulary(msloc, arguments: list[object], made: Path, tmp_path: Path) -> None:
    boxes = tmp_path / "boxes.csv"
    boxes.write_text((made / "boxes.csv").read_text().replace("Mass", "Lung Opacity"))
    done = msloc(*arguments, "--model", "cxr-edge", "--boxes", boxes)
    assert done.code == 1
    assert f"[option_invalid] {boxes}: expected boxes of " in done.err
    assert 'got Lung Opacity; rename them, or add --map "Lung Opacity=A+B"' in done.err
    with boxes.open("a") as file:
        file.write("0.png,Mass,8,10,20,24\n")
    assert msloc(*arguments, "--model", "cxr-edge", "--boxes", boxes, "-q").code == 0
    found = metrics(tmp_path / "out")
    assert found["run"]["boxes_by_class"] == {"Mass": 1}
    assert any(
        problem.startswith("Lung Opacity: boxes on 4 films, and no such") for problem in found["run"]["problems"]
    )


def test_boxes_that_come_with_films_ask_for_nothing(msloc, made: Path, tmp_path: Path, tiny_bundle: Path) -> None:
    """A collection whose boxes are of findings that the model lacks is scored by its labels."""
    told = {
        "images": [{"id": n, "file_name": f"{n}.png"} for n in range(4)],
        "annotations": [
            *({"image_id": n, "category_id": 1, "bbox": [8, 10, 20, 24]} for n in (0, 1)),
        ],
        "categories": [{"id": 1, "name": "Fracture"}, {"id": 2, "name": "Mass"}],
    }
    (made / "other.json").write_text(json.dumps(told))
    done = msloc(
        "eval", "--data", f"coco:{made / 'other.json'}", "--model", tiny_bundle, "--out", tmp_path / "out", "-q"
    )
    assert done.code == 0, done.err
    found = metrics(tmp_path / "out")
    assert (found["run"]["boxes"], found["run"]["findings"]) == (0, ["Mass"])
    assert "Fracture: boxes on 2 films, and no such finding" in done.err
    assert "box_size" not in found["subgroups"]


def test_films_without_any_label_column(msloc, made: Path, tmp_path: Path, tiny_bundle: Path) -> None:
    table = made / "bare.csv"
    table.write_text("\n".join(["image", *(f"{number}.png" for number in range(8))]) + "\n")
    arguments = ["eval", "--data", f"csv:{table}", "--out", tmp_path / "out", "--resamples", 0, "--model", tiny_bundle]
    done = msloc(*arguments, "--boxes", made / "boxes.csv")
    assert done.code == 0, done.err
    found = metrics(tmp_path / "out")
    assert (found["auroc"], found["pointing"]["per_class"]["Mass"]["n"]) == (None, 4)
    nothing = msloc(*arguments)
    assert nothing.code == 1
    assert "[option_invalid] expected labels or boxes, got films alone; fill in a column of 1 and 0" in nothing.err
    trained = msloc("train", "--data", f"csv:{table}", "--out", tmp_path / "run")
    assert trained.code == 1
    assert "expected a column of 1 and 0 for each finding" in trained.err


def test_thresholds_on_boxes_are_scored_on_other_patients(
    msloc, tiny_state: dict[str, Any], made: Path, tmp_path: Path
) -> None:
    torch = pytest.importorskip("torch")
    from msloc_edge.train.data.collection import in_fitting_half

    half = {f"w{number}" for number in range(4) if in_fitting_half(f"w{number}")}
    assert 0 < len(half & {"w0", "w1"}) < 2  # boxes are on films of w0 and w1
    torch.save(tiny_state, tmp_path / "best.pt")
    data = f"csv:{made / 'films.csv'}"
    fit = ["--fit-boxes", data, "--boxes", made / "boxes.csv"]
    done = msloc("export", "bundle", tmp_path / "best.pt", tmp_path / "bundle", *fit)
    assert done.code == 0, done.err
    manifest = json.loads((tmp_path / "bundle" / "manifest.json").read_text())
    assert manifest["calibration"]["fitting_half"] == {"data": data, "patients": 1, "boxes": 2}
    assert "true boxes of csv:" in manifest["calibration"]["maps"]["Mass"]
    mass, nodule = (manifest["classes"].index(label) for label in ("Mass", "Nodule"))
    before, after = (state["profiles"]["youden"]["map"] for state in (tiny_state, manifest))
    assert after[mass] != before[mass]
    assert after[nodule] == before[nodule]
    card = (tmp_path / "bundle" / "model_card.md").read_text()
    assert f"true boxes of {data}, half of the patients: Mass" in card

    out = tmp_path / "out"
    scored = msloc("eval", "--model", tmp_path / "bundle", "--data", data, "--boxes", made / "boxes.csv", "--out", out)
    assert scored.code == 0, scored.err
    run = metrics(out)["run"]
    assert (run["films"], run["boxes"]) == (2 * (4 - len(half)), 2)
    assert any(f"{2 * len(half)} films left out" in problem for problem in run["problems"])

    assert "--boxes belongs to --fit-boxes" in msloc("export", "bundle", "a", tmp_path / "b", "--boxes", "c").err
    none = msloc("export", "bundle", tmp_path / "best.pt", tmp_path / "b", "--fit-boxes", data)
    assert none.code == 1
    assert "[data_invalid]" in none.err


def test_metrics_become_part_of_the_card(msloc, tiny_state: dict[str, Any], made: Path, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    torch.save(tiny_state, tmp_path / "best.pt")
    export = ["export", "bundle", tmp_path / "best.pt", tmp_path / "bundle", "--name", "mine"]
    assert msloc(*export).code == 0
    data = ["--data", f"csv:{made / 'films.csv'}", "--boxes", made / "boxes.csv", "--resamples", 20]
    assert msloc("eval", "--model", tmp_path / "bundle", *data, "--out", tmp_path / "out").code == 0
    figures = tmp_path / "out" / "metrics.json"
    done = msloc(*export, "--metrics", figures)
    assert done.code == 0, done.err
    card = (tmp_path / "bundle" / "model_card.md").read_text()
    assert f"## On csv:{made / 'films.csv'}, split all" in card
    assert "8 films of 4 patients, 4 boxes." in card
    assert "### Beside maps that know less" in card
    assert "| box frequency (other patients) |" in card
    tables = [line for line in card.splitlines() if line.startswith("| --- |")]
    assert len(tables) >= 5

    other = {**tiny_state, "model": {**tiny_state["model"], "head.bias": tiny_state["model"]["head.bias"] + 1}}
    torch.save(other, tmp_path / "best.pt")
    refused = msloc(*export, "--metrics", figures)
    assert refused.code == 1
    assert "[figures_foreign] expected metrics of the network" in refused.err
    assert "### Beside" in (tmp_path / "bundle" / "model_card.md").read_text()  # what was there stays
    for content, says in (("{}", "expected schema msloc-edge/eval/1, got None"), ("{", "expected a metrics.json")):
        figures.write_text(content)
        bad = msloc(*export, "--metrics", figures)
        assert bad.code == 1
        assert f"[figures_foreign] {figures}: {says}" in bad.err


FORMS = {
    "rsna": {
        "stage_2_train_labels.csv": "patientId,x,y,width,height,Target\na,8,10,20,24,1\nb,,,,,0\n",
        "stage_2_train_images/a.dcm": "",
        "stage_2_train_images/b.dcm": "",
    },
    "vindr": {
        "annotations/annotations_test.csv": "image_id,class_name,x_min,y_min,x_max,y_max\n"
        "a,Lung Opacity,8,10,28,34\nb,No finding,,,,\n",
        "test/a.dicom": "",
        "test/b.dicom": "",
    },
    "chexpert": {
        "test.csv": "Path,Sex,Age,Frontal/Lateral,AP/PA,No Finding,Lung Opacity\n"
        "C/test/patient1/study1/view1_frontal.jpg,Male,5,Frontal,AP,,1.0\n"
        "C/test/patient2/study1/view1_frontal.jpg,Male,5,Frontal,AP,1.0,\n",
        "test/patient1/study1/view1_frontal.jpg": "",
        "test/patient2/study1/view1_frontal.jpg": "",
    },
    "coco": {
        "truth.json": json.dumps(
            {
                "images": [{"id": 1, "file_name": "a.png"}, {"id": 2, "file_name": "b.png"}],
                "annotations": [{"image_id": 1, "category_id": 1, "bbox": [8, 10, 20, 24]}],
                "categories": [{"id": 1, "name": "Lung Opacity"}],
            }
        ),
        "images/a.png": "",
        "images/b.png": "",
    },
}
"""Two films in each published form, with the finding and without it: file -> text, or a film."""


@pytest.mark.parametrize("form", FORMS)
def test_the_fields_forms(msloc, tmp_path: Path, tiny_bundle: Path, form: str) -> None:
    from msloc_edge.train.phantom import generate, write_dicom, write_png

    for number, (name, text) in enumerate(FORMS[form].items()):
        file = tmp_path / form / name
        file.parent.mkdir(parents=True, exist_ok=True)
        if text:
            file.write_text(text)
        else:
            write = write_dicom if file.suffix in (".dcm", ".dicom") else write_png
            write(generate(number, SIDE), file)
    place = tmp_path / form / ("truth.json" if form == "coco" else "")
    films = ("--data", f"{form}:{place}", "--map", "Lung Opacity=Mass+Nodule")
    ran = msloc("eval", *films, "--model", tiny_bundle, "--out", tmp_path / "out", "--resamples", 20, "-q")
    assert ran.code == 0, ran.err
    found = metrics(tmp_path / "out")
    assert (found["run"]["films"], found["run"]["problems"]) == (2, [])
    assert found["auroc"]["per_class"]["Lung Opacity"]["n"] == 2
    assert (found["pointing"] is None) == (form == "chexpert")  # which has no boxes
