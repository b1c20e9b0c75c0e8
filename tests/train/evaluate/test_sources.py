"""True boxes and masks, heatmap folders, findings put together from others: as they come, and broken in every way."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image, TiffImagePlugin
from pycocotools import mask as coco

from msloc_edge.errors import TrainError
from msloc_edge.train.data import LabelBox, Record
from msloc_edge.train.data.names import speller
from msloc_edge.train.evaluate.evidence import Evidence, parse_mapping, resolve_labels
from msloc_edge.train.evaluate.heatmaps import HeatmapFolder, parse_thresholds, read_heatmap
from msloc_edge.train.evaluate.masks import decode_mask
from msloc_edge.train.evaluate.truth import collection_boxes, read_boxes, read_masks, whole_mask

SIZE = (48, 64)
HEAD = "image,label,x,y,w,h\n"


def csv(folder: Path, text: str) -> Path:
    path = folder / "boxes.csv"
    path.write_text(text)
    return path


def test_boxes_of_a_csv(table: Path, records: tuple[Record, ...]) -> None:
    text = HEAD + "a.png,Mass,1,2,3,4\na.png,Mass,10,10,5,5\na.jpg,Nodule,0,0,64,48\nf.png,Mass,1.5,1,2,2\n"
    truth = read_boxes(csv(table.parent, text), records)
    assert [region.box for region in truth.regions["a.png"]["Mass"]] == [(1, 2, 3, 4), (10, 10, 5, 5)]
    assert truth.regions["a.png"]["Nodule"][0].box == (0, 0, 64, 48)  # named by its stem
    assert truth.regions["sub/f.png"]["Mass"][0].box == (1.5, 1, 2, 2)
    assert (truth.count, truth.labels, truth.sizes["a.png"], truth.problems) == (4, ("Mass", "Nodule"), SIZE, ())
    only = truth.only(["a.png", "b.png"], ["Nodule"])
    assert (list(only.regions), only.count) == (["a.png"], 1)


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ("a.png,Mass,60,2,10,4", "line 3: expected a box within a.png, 64 x 48, got 60, 2, 10, 4"),
        ("a.png,Mass,-9,2,10,4", "expected a box within"),
        ("a.png,Mass,1,2,0,4", "expected a box within"),
        ("a.png,Mass,nan,2,3,4", "expected a box within"),
        ("a.png,Mass,1,2,3,", "expected four numbers x, y, w, h"),
        ("a.png,Mass,1,2,3", "line 3: expected 6 cells, got 5"),
        ("a.png,Mass,one,2,3,4", "expected four numbers x, y, w, h, got one, 2, 3, 4"),
        ("z.png,Mass,1,2,3,4", "expected an image of the split, got 'z.png'"),
        ("a.png,,1,2,3,4", "expected a label, got ''"),
    ],
)
def test_a_bad_row_is_named_and_left_out(table: Path, records: tuple[Record, ...], row: str, says: str) -> None:
    truth = read_boxes(csv(table.parent, HEAD + f"a.png,Mass,1,2,3,4\n{row}\n"), records)
    assert truth.count == 1
    assert len(truth.problems) == 1
    assert says in truth.problems[0]
    with pytest.raises(TrainError, match="none of its 1 boxes can be used") as caught:
        read_boxes(csv(table.parent, HEAD + f"{row}\n"), records)
    assert caught.value.reason == "data_invalid"


def test_a_region_that_comes_twice_counts_once(table: Path, records: tuple[Record, ...], tmp_path: Path) -> None:
    rows = "a.png,Mass,1,2,3,4\na.png,Mass,1.0,2,3,4\na,Nodule,1,2,3,4\n"
    truth = read_boxes(csv(table.parent, HEAD + rows), records)
    assert {label: len(found) for label, found in truth.regions["a.png"].items()} == {"Mass": 1, "Nodule": 1}
    assert truth.problems == ("boxes.csv, line 3: a.png has the same Mass already; it counts once",)
    square = {"image_id": 1, "category_id": 1, "segmentation": [[2, 2, 8, 2, 8, 8, 2, 8]]}
    corner = {"image_id": 1, "category_id": 1, "segmentation": [[2, 2, 8, 2, 8, 8, 4, 8, 4, 4, 2, 4]]}
    content = {
        "images": [{"id": 1, "file_name": "a.png", "height": 48, "width": 64}],
        "categories": [{"id": 1, "name": "Mass"}],
        "annotations": [square, square, corner],
    }
    (tmp_path / "masks.json").write_text(json.dumps(content))
    masks = read_masks(tmp_path / "masks.json", records)
    first, second = masks.regions["a.png"]["Mass"]
    assert first.box == second.box
    assert masks.problems == ("masks.json, annotation 1: a.png has the same Mass already; it counts once",)


def test_uids_are_names_of_their_own(table: Path) -> None:
    """The last number of a UID is no suffix: "1.2.3.1" and "1.2.3.2" are two films."""
    films = [
        Record(name, table.parent / "a.png", name, {}) for name in ("1.2.3.1", "in/1.2.3.4.dcm", "in/7.dcm", "on/7")
    ]
    rows = [
        f"{name},Mass,1,2,3,4" for name in ("1.2.3.1", "1.2.3.2", "1.2.3", "1.2.3.4", "7", "up/1.2.3.1", "in/7.png")
    ]
    truth = read_boxes(csv(table.parent, HEAD + "\n".join(rows) + "\n"), films)
    assert set(truth.regions) == {"1.2.3.1", "in/1.2.3.4.dcm", "in/7.dcm"}
    assert [problem.partition("got ")[2] for problem in truth.problems] == [
        "'1.2.3.2'",
        "'1.2.3'",
        "'7'",
        "'up/1.2.3.1'",
    ]


def test_lines_are_counted_with_those_that_are_empty(table: Path, records: tuple[Record, ...]) -> None:
    rows = '\n\n"a.png","Ma\nss",1,2,3,4\na.png,Mass,1,2,3,4\n\nz.png,Mass,1,2,3,4\n'
    truth = read_boxes(csv(table.parent, HEAD + rows), records)
    assert truth.count == 2
    assert truth.problems == ("boxes.csv, line 8: expected an image of the split, got 'z.png'",)


@pytest.mark.parametrize("orientation", [1, 6, 8])
def test_a_turned_tiff_has_its_boxes_as_it_is_stored(tmp_path: Path, orientation: int) -> None:
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[0x0112] = orientation
    grey = np.random.default_rng(0).integers(0, 255, (96, 64), np.uint8)
    Image.fromarray(grey).save(tmp_path / "a.tif", tiffinfo=tags)
    truth = read_boxes(csv(tmp_path, HEAD + "a,Mass,4,60,60,36\n"), [Record("a.tif", tmp_path / "a.tif", "p", {})])
    assert (truth.count, truth.sizes["a.tif"], truth.problems) == (1, (96, 64), ())


def test_a_table_without_its_columns(table: Path, records: tuple[Record, ...]) -> None:
    with pytest.raises(TrainError, match="expected the columns image, label, x, y, w, h"):
        read_boxes(csv(table.parent, "image,label,x,y,width,height\n"), records)
    with pytest.raises(TrainError, match="cannot be read"):
        read_boxes(table.parent / "none.csv", records)


def test_boxes_of_a_collection(collection: Any) -> None:
    from dataclasses import replace

    boxed = replace(
        collection, boxes={"a.png": (LabelBox("Mass", 1, 2, 3, 4),), "b.png": (LabelBox("Mass", 0, 0, 1, 1),)}
    )
    truth = collection_boxes(boxed, boxed.records[:1])
    assert (truth.count, truth.regions["a.png"]["Mass"][0].box) == (1, (1, 2, 3, 4))


def coco_file(folder: Path, segmentations: list[Any], **image: Any) -> Path:
    content = {
        "images": [{"id": 7, "file_name": "a.png", "height": 48, "width": 64} | image],
        "categories": [{"id": 2, "name": "Mass"}],
        "annotations": [{"image_id": 7, "category_id": 2, "segmentation": part} for part in segmentations],
    }
    path = folder / "masks.json"
    path.write_text(json.dumps(content))
    return path


def test_a_polygon_may_pass_the_edge_by_rounding(table: Path, records: tuple[Record, ...]) -> None:
    truth = read_masks(coco_file(table.parent, [[[-1, -0.5, 65, 0, 65, 49, 0, 48]]]), records)
    assert truth.regions["a.png"]["Mass"][0].box == (0, 0, 64, 48)


def test_masks_of_every_form(table: Path, records: tuple[Record, ...]) -> None:
    true = np.zeros(SIZE, np.uint8)
    true[10:20, 30:50] = 1
    code = coco.encode(np.asfortranarray(true))
    runs = np.diff(np.flatnonzero(np.diff(true.T.ravel(), prepend=2, append=2)))  # column by column, zeros first
    forms = [
        [[30, 10, 50, 10, 50, 20, 30, 20]],
        {"size": [48, 64], "counts": code["counts"].decode()},
        {"size": [48, 64], "counts": runs.tolist()},
    ]
    truth = read_masks(coco_file(table.parent, forms), records)
    assert truth.kind == "masks"
    for region in truth.regions["a.png"]["Mass"]:
        assert region.box == (30, 10, 20, 10)
        assert region.mask.shape == (10, 20)
        assert (whole_mask([region], SIZE) == true.astype(bool)).all()


def test_compressed_codes_are_those_of_pycocotools() -> None:
    rng = np.random.default_rng(0)
    for density in (0.0, 0.02, 0.5, 1.0):
        true = np.asfortranarray(cv2.resize((rng.random((6, 9)) < density).astype(np.uint8), (300, 200)))
        code = coco.encode(true)
        assert (
            decode_mask({"size": [200, 300], "counts": code["counts"].decode()}, (200, 300)) == true.astype(bool)
        ).all()


@pytest.mark.parametrize(
    ("segmentation", "image", "says"),
    [
        ("nonsense", {}, "neither polygons nor"),
        ([], {}, "neither polygons nor"),
        ({"size": [48, 64], "counts": [5, 5]}, {}, "counts add up to 10"),
        ({"size": [8, 8], "counts": "0"}, {}, "a code of size"),
        ({"size": [48, 64], "counts": "zzzz"}, {}, "counts add up to"),
        ({"size": [48, 64], "counts": [3072]}, {}, "a mask without any pixel"),
        ({"size": [48, 64], "counts": [2**62] * 4 + [3072]}, {}, "counts add up to"),  # in 64 bits: to 3072
        ({"size": [48, 64], "counts": [3072.0]}, {}, "counts add up to"),
        ({"size": [48, 64], "counts": "P" * 1_000_000}, {}, "a run that is longer than any picture"),
        ([[]], {}, "a polygon of fewer than three points"),
        ([[28.5, 44.4], [28.5, 44.4]], {}, "a polygon of fewer than three points"),
        ([[[20, 15], [30, 15], [30, 21]]], {}, "a polygon of fewer than three points"),
        ([[1, 1, 9, 1, 9, 9, 4]], {}, "a polygon of fewer than three points"),
        ([[0, 0, 1e9, 0, 1e9, 1e9]], {}, "a polygon beyond the picture of 64 x 48, at 1e+09"),
        ([[0, 0, 9, -2, 9, 9]], {}, "a polygon beyond the picture of 64 x 48, at -2"),
        ([[0, 0, 9, float("nan"), 9, 9]], {}, "a polygon beyond the picture"),
        ([[1, 1, 9, 1, 9, 9]], {"id": 8}, "expected an image, a category"),
        ([[1, 1, 9, 1, 9, 9]], {"width": float("inf")}, "expected an image, a category"),
        ([[1, 1, 9, 1, 9, 9]], {"file_name": "z.png"}, "expected an image of the split, got 'z.png'"),
        ([[1, 1, 9, 1, 9, 9]], {"width": 640}, "expected a mask of the picture's size 64 x 48, got 640 x 48"),
    ],
)
def test_a_bad_mask_is_named(
    table: Path, records: tuple[Record, ...], segmentation: Any, image: dict[str, Any], says: str
) -> None:
    with pytest.raises(TrainError, match="none of its 1 masks can be used") as caught:
        read_masks(coco_file(table.parent, [segmentation], **image), records)
    assert says in caught.value.message


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"images": 3}', "[" * 100_000])
def test_a_file_that_is_no_coco(tmp_path: Path, text: str) -> None:
    (tmp_path / "masks.json").write_text(text)
    with pytest.raises(TrainError) as caught:
        read_masks(tmp_path / "masks.json", ())
    assert caught.value.reason == "data_invalid"


def test_mapped_findings() -> None:
    assert parse_mapping(["Lung Opacity=Mass+ Nodule", "X=Mass"]) == {
        "Lung Opacity": ("Mass", "Nodule"),
        "X": ("Mass",),
    }
    for rule in ("Mass", "=Mass", "New=", "New=A++B"):
        with pytest.raises(ValueError, match="expected"):
            parse_mapping([rule])
    with pytest.raises(ValueError, match="once"):
        parse_mapping(["X=A", "X=B"])
    found = resolve_labels(("Mass", "Nodule"), {"X": ("Mass", "Nodule")})
    assert found == {"Mass": ("Mass",), "Nodule": ("Nodule",), "X": ("Mass", "Nodule")}
    with pytest.raises(TrainError, match="expected findings of Mass, got 'Edema'"):
        resolve_labels(("Mass",), {"X": ("Edema",)})


def test_a_mapped_finding_keeps_the_thresholds_of_its_parts() -> None:
    first = Evidence.above(np.array([[1, 5, 0]], np.float32), 4)
    second = Evidence.above(np.array([[3, 1, 1]], np.float32), 2)
    both = Evidence.union([first, second])
    assert both.values.tolist() == [[3, 5, 1]]
    assert (both.margin > 0).tolist() == [[True, True, False]]  # though 3 is below the first threshold


def test_labels_with_blanks() -> None:
    spell = speller(("Pleural_Thickening", "Lung Opacity"))
    labels = ("Pleural Thickening", "Pleural_Thickening", "Lung_Opacity", "Mass")
    assert [spell(label) for label in labels] == ["Pleural_Thickening"] * 2 + ["Lung Opacity", "Mass"]


def test_half_of_the_range() -> None:
    assert (Evidence.half_range(np.array([[-1, 0.9, 1.1, 3]], np.float32)).margin > 0).tolist() == [
        [False] * 2 + [True] * 2
    ]
    assert not (Evidence.half_range(np.full((3, 3), 7, np.float32)).margin > 0).any()


def test_heatmaps_of_every_form(tmp_path: Path) -> None:
    values = np.arange(48 * 64, dtype=np.float64).reshape(SIZE)
    np.save(tmp_path / "plain.npy", values)
    np.save(tmp_path / "one.npy", values[None].astype(np.int32))
    cv2.imwrite(str(tmp_path / "deep.png"), values.astype(np.uint16))
    for name in ("plain.npy", "one.npy", "deep.png"):
        read = read_heatmap(tmp_path / name, SIZE)
        assert read.dtype == np.float32
        np.testing.assert_array_equal(read, values)
    cv2.imwrite(str(tmp_path / "grey.png"), np.full((48, 64, 3), 9, np.uint8))
    assert set(read_heatmap(tmp_path / "grey.png", SIZE).ravel()) == {9}
    np.save(tmp_path / "large.npy", np.zeros((96, 128)))
    assert read_heatmap(tmp_path / "large.npy", SIZE).shape == (96, 128)


def test_a_coarse_map_is_enlarged_over_the_whole_film(tmp_path: Path) -> None:
    np.save(tmp_path / "cam.npy", np.eye(7, 9))  # 48 x 64 rounded: 7 rows where 6.75 would fit
    assert read_heatmap(tmp_path / "cam.npy", SIZE).shape == SIZE
    assert read_heatmap(tmp_path / "cam.npy", (1500, 2000)).shape == (384, 512)


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.npy", b"", "expected an .npy array or a grey .png"),
        ("a.npy", b"not numbers", "expected an .npy array or a grey .png"),
        ("a.npy", np.array([{}], object), "expected an .npy array or a grey .png"),
        ("a.npy", np.zeros((2, 48, 64)), r"expected numbers \[h, w\], got float64 \[2, 48, 64\]"),
        ("a.npy", np.zeros((48, 64), complex), "expected numbers"),
        ("a.npy", np.zeros((0, 0)), "expected numbers"),
        ("a.npy", np.full((48, 64), np.nan), "expected finite numbers, got 3072 that are NaN or infinite"),
        ("a.npy", np.full((48, 64), 1e300), "expected finite numbers"),
        ("a.npy", np.zeros((64, 48)), "expected the shape of its film, 48 x 64 or that scaled, got 64 x 48"),
        ("a.png", b"", "something that is no picture"),
        ("a.png", b"GIF8", "something that is no picture"),
        ("a.png", np.dstack([np.zeros(SIZE), np.ones(SIZE), np.ones(SIZE)]), "a picture in colours"),
    ],
)
def test_a_heatmap_that_cannot_be_used(tmp_path: Path, name: str, content: Any, says: str) -> None:
    path = tmp_path / name
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif name.endswith(".npy"):
        np.save(path, content, allow_pickle=True)
    else:
        cv2.imwrite(str(path), content)
    with pytest.raises(TrainError, match=says) as caught:
        read_heatmap(path, SIZE)
    assert caught.value.reason == "data_invalid"


def test_a_folder_of_heatmaps(tmp_path: Path, records: tuple[Record, ...]) -> None:
    folder = tmp_path / "maps"
    (folder / "sub" / "f").mkdir(parents=True)
    (folder / "a").mkdir()
    for number, name in enumerate(("a/Mass.npy", "b.png.Mass.npy", "c.Lung_Opacity.npy", "sub/f/Mass.npy")):
        np.save(folder / name, np.full(SIZE, number, np.float32))
    (folder / "scores.csv").write_text("image,label,score\na.png,Mass,0.5\nb,Mass,0.25\nc.png,Mass,high\na,Mass,0.75\n")
    source = HeatmapFolder(folder, [record.name for record in records], {"": 0.5, "Mass": 1.5}, folder / "scores.csv")
    assert source.labels(("Mass", "Nodule", "Lung Opacity")) == ("Mass", "Lung Opacity")
    parts = resolve_labels(("Mass", "Lung Opacity"), {"Both": ("Mass", "Lung Opacity")})
    films = {record.name: source.film(record, parts) for record in records}
    found = {name: film.main("Mass") for name, film in films.items()}
    assert [name for name, evidence in found.items() if evidence] == ["a.png", "b.png", "sub/f.png"]
    assert found["sub/f.png"].margin[0, 0] == 1.5
    assert films["c.png"].main("Lung Opacity").margin[0, 0] == 1.5  # threshold of every finding
    assert films["c.png"].main("Both") is None  # a part is missing
    assert films["a.png"].scores == {"Mass": 0.5}
    assert films["b.png"].scores == {"Mass": 0.25}
    assert list(films["a.png"].others("Mass")) == ["heatmaps_half_range"]
    assert "expected a number as score, got 'high'" in source.problems[0]
    assert any("c.png: no map of Mass" in problem for problem in source.problems)


def test_maps_and_scores_of_uids(tmp_path: Path) -> None:
    """Each film has its own; one film's are never taken for another's."""
    names = [f"1.2.3.{number}" for number in range(4)]
    (tmp_path / names[0]).mkdir()
    np.save(tmp_path / names[0] / "Mass.npy", np.zeros(SIZE, np.float32))
    np.save(tmp_path / f"{names[1]}.Mass.npy", np.ones(SIZE, np.float32))
    (tmp_path / "scores.csv").write_text("image,label,score\n1.2.3.0,Mass,0.5\n1.2.3,Mass,0.25\n")
    cv2.imwrite(str(tmp_path / "film.png"), np.arange(48 * 64, dtype=np.uint16).reshape(SIZE))
    source = HeatmapFolder(tmp_path, names, {}, tmp_path / "scores.csv")
    films = [source.film(Record(name, tmp_path / "film.png", name, {}), {"Mass": ("Mass",)}) for name in names]
    assert [film.scores for film in films] == [{"Mass": 0.5}, {}, {}, {}]
    found = [film.main("Mass") for film in films]
    assert [evidence and evidence.values[0, 0] for evidence in found] == [0, 1, None, None]


def test_a_folder_without_maps(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "none"):
        with pytest.raises(TrainError, match="found none") as caught:
            HeatmapFolder(folder, ["a.png"])
        assert caught.value.reason == "data_missing"


def test_thresholds_of_heatmaps() -> None:
    assert parse_thresholds("0.4") == {"": 0.4}
    assert parse_thresholds("Mass=0.4, Nodule=-1") == {"Mass": 0.4, "Nodule": -1}
    for text in ("", "Mass", "Mass=", "nan"):
        with pytest.raises(ValueError, match="expected numbers, as "):
            parse_thresholds(text)
