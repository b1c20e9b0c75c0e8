"""Released collections of other people, each by a few films in the published form; what is missing is one sentence."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from msloc_edge.errors import TrainError
from msloc_edge.train.data import LabelBox, open_collection

Write = Callable[[str, str], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes a text, or a small picture where there is none, under the test's folder."""

    def make(name: str, text: str = "") -> Path:
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        if text:
            file.write_text(text)
        else:
            Image.fromarray(np.zeros((10, 10), np.uint8)).save(file, "PNG")  # read by what it is, not by its name
        return file

    return make


def labels(spec: str, split: str = "all") -> dict[str, dict[str, float]]:
    return {record.name: dict(record.labels) for record in open_collection(spec, split).records}


def test_rsna(write: Write, tmp_path: Path) -> None:
    write(
        "stage_2_train_labels.csv",
        "patientId,x,y,width,height,Target\na,,,,,0\nb,264.0,152.0,213.0,379.0,1\nb,562,152,256,453,1\nc,,,,,1\nd,,,,,0\n",
    )
    for name in "abc":
        write(f"stage_2_train_images/{name}.dcm")
    found = open_collection(f"rsna:{tmp_path}", "all")
    assert found.classes == ("Lung Opacity",)
    assert labels(f"rsna:{tmp_path}") == {"a": {"Lung Opacity": 0.0}, "b": {"Lung Opacity": 1.0}}
    boxes = (LabelBox("Lung Opacity", 264, 152, 213, 379), LabelBox("Lung Opacity", 562, 152, 256, 453))
    assert found.boxes == {"b": boxes}
    assert found.problems == (
        "stage_2_train_labels.csv, line 5: expected Target 0, or 1 and a box, got , , , , 1",
        "d: no picture",
    )


VINDR = "image_id,rad_id,class_name,x_min,y_min,x_max,y_max\n"


def test_vindr(write: Write, tmp_path: Path) -> None:
    write(
        "annotations/annotations_train.csv",
        VINDR + "n,R1,No finding,,,,\nn,R2,No finding,,,,\nn,R3,No finding,,,,\n"
        "m,R2,Mass,1,2,5,8\nm,R1,Mass,2,2,6,8\nm,R3,Nodule/Mass,1,1,3,3\nm,R1,Other lesion,5,5,4,4\n",
    )
    write("annotations/annotations_test.csv", "image_id,class_name,x_min,y_min,x_max,y_max\nt,Mass,0,0,2,3\n")
    for name in ("train/n", "train/m", "test/t"):
        write(f"{name}.dicom")
    found = open_collection(f"vindr:{tmp_path}", "all")
    assert found.classes == ("Mass", "Nodule/Mass", "Other lesion")
    assert labels(f"vindr:{tmp_path}") == {
        "n": dict.fromkeys(found.classes, 0.0),
        "m": {"Mass": 1.0},  # by two of three; the others by one: unknown
        "t": {"Mass": 1.0, "Nodule/Mass": 0.0, "Other lesion": 0.0},
    }
    assert found.boxes == {"m": (LabelBox("Mass", 2, 2, 4, 6),), "t": (LabelBox("Mass", 0, 0, 2, 3),)}
    assert found.problems == ("annotations_train.csv, line 8: expected the corners of a box, got 5, 5, 4, 4",)
    assert list(labels(f"vindr:{tmp_path}", "test")) == ["t"]
    assert sorted(labels(f"vindr:{tmp_path}", "train_val")) == ["m", "n"]


CHEXPERT = "Path,Sex,Age,Frontal/Lateral,AP/PA,No Finding,Cardiomegaly,Edema\n"


def test_chexpert(write: Write, tmp_path: Path) -> None:
    view = "CheXpert-v1.0-small/train/patient0000"
    write(
        "train.csv",
        CHEXPERT + f"{view}1/study1/view1_frontal.jpg,Female,68,Frontal,AP,1.0,,\n"
        f"{view}2/study1/view1_frontal.jpg,Male,41,Frontal,PA,,1.0,-1.0\n"
        f"{view}2/study1/view2_lateral.jpg,Male,41,Lateral,,,1.0,-1.0\n"
        f"{view}3/study1/view1_frontal.jpg,Male,41,Frontal,PA,,yes,\n"
        f"{view}4/study1/view1_frontal.jpg,Male,41,Frontal,PA,,0.0,1.0\n",
    )
    for n in (1, 2, 3):
        write(f"train/patient0000{n}/study1/view1_frontal.jpg")
    spec = f"chexpert:{tmp_path}"
    found = open_collection(spec, "all")
    assert found.classes == ("Cardiomegaly", "Edema")
    names = [f"train/patient0000{n}/study1/view1_frontal.jpg" for n in (1, 2, 4)]
    assert labels(spec) == {names[0]: {"Cardiomegaly": 0.0, "Edema": 0.0}, names[1]: {"Cardiomegaly": 1.0}}
    record = found.records[1]
    assert (record.patient, record.view, record.sex, record.age) == ("patient00002", "PA", "M", 41)
    assert found.problems == (
        "train.csv, line 5: expected 1, 0, -1 or nothing, and a patient, got Cardiomegaly 'yes'",
        f"{names[2]}: no picture",
        "1 lateral films are left out",
    )
    write(
        "valid.csv",
        CHEXPERT + "CheXpert-v1.0-small/valid/patient64541/study1/view1_frontal.jpg,Male,73,Frontal,AP,0.0,1.0,0.0\n",
    )
    write("valid/patient64541/study1/view1_frontal.jpg")
    assert list(labels(spec, "validation").values()) == [{"Cardiomegaly": 1.0, "Edema": 0.0}]
    assert list(labels(spec, "train")) == names[:2]


def coco(**changes: object) -> str:
    told = {
        "images": [{"id": 7, "file_name": "a.png", "width": 10, "height": 10}, {"id": 8, "file_name": "b.png"}],
        "annotations": [{"image_id": 7, "category_id": 2, "bbox": [1, 2, 3, 4]}],
        "categories": [{"id": 1, "name": "Mass"}, {"id": 2, "name": "Nodule"}],
    }
    return json.dumps({**told, **changes})


def test_coco(write: Write) -> None:
    file = write("truth.json", coco())
    write("images/a.png")
    found = open_collection(f"coco:{file}", "all")
    assert found.classes == ("Mass", "Nodule")
    assert labels(f"coco:{file}") == {"a.png": {"Mass": 0.0, "Nodule": 1.0}}
    assert found.boxes == {"a.png": (LabelBox("Nodule", 1, 2, 3, 4),)}
    assert found.problems == ("b.png: no picture",)


@pytest.mark.parametrize(
    ("kind", "name", "text", "words"),
    [
        ("rsna", "stage_2_train_labels.csv", "patientId,x,y,width,Target\n", "add 'height'"),
        ("vindr", "annotations/annotations_train.csv", VINDR.replace("class_name", "class"), "add 'class_name'"),
        ("chexpert", "train.csv", CHEXPERT.replace("Frontal/Lateral", "View"), "add 'Frontal/Lateral'"),
    ],
)
def test_a_column_that_is_missing(write: Write, tmp_path: Path, kind: str, name: str, text: str, words: str) -> None:
    write(name, text)
    for folder in ("stage_2_train_images", "train"):
        write(f"{folder}/a.dcm")
    with pytest.raises(TrainError, match=words) as caught:
        open_collection(f"{kind}:{tmp_path}", "all")
    assert caught.value.reason == "data_invalid"


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"categories": [{"id": 1}]}, "(no entry 'name')"),
        ({"annotations": [{"image_id": 7, "category_id": 2}]}, "(no entry 'bbox')"),
        ({"images": 3}, "(an entry of another form)"),
    ],
)
def test_a_coco_file_that_lacks_something(write: Write, changes: dict[str, object], why: str) -> None:
    file = write("truth.json", coco(**changes))
    with pytest.raises(TrainError) as caught:
        open_collection(f"coco:{file}", "all")
    expected = "expected COCO's images, annotations with a bbox, and categories"
    assert (caught.value.reason, caught.value.message) == ("data_invalid", f"{file}: {expected} {why}")


def test_films_that_are_named_twice(write: Write, tmp_path: Path) -> None:
    """The first row counts, the others are named: no film is scored twice, or under two labels."""
    path = "CheXpert-v1.0-small/train/patient00001/study1/view1_frontal.jpg"
    write("train.csv", CHEXPERT + f"{path},Male,41,Frontal,PA,,1.0,0.0\n{path},Male,41,Frontal,PA,,0.0,0.0\n")
    film = write("train/patient00001/study1/view1_frontal.jpg").relative_to(tmp_path).as_posix()
    chexpert = open_collection(f"chexpert:{tmp_path}", "all")
    assert labels(chexpert.name) == {film: {"Cardiomegaly": 1.0, "Edema": 0.0}}
    assert chexpert.problems == (f"{film}: named again; the first counts",)
    images = [{"id": 7, "file_name": "a.png"}, {"id": 8, "file_name": "a.png"}]
    boxes = [{"image_id": id, "category_id": 2, "bbox": [1, 2, 3, 4]} for id in (7, 8, 9)]
    write("images/a.png")
    films = open_collection(f"coco:{write('truth.json', coco(images=images, annotations=boxes))}", "all")
    assert films.boxes == {"a.png": (LabelBox("Nodule", 1, 2, 3, 4),)}
    assert films.problems == (
        "image_id 9: 1 box, and no such image",
        "a.png: named again; the first counts",
    )
    write("stage_2_train_labels.csv", "patientId,x,y,width,height,Target\na,,,,,0\na,1,2,3,4,1\n")
    write("stage_2_train_images/a.dcm")
    rsna = open_collection(f"rsna:{tmp_path}", "all")
    assert (labels(rsna.name), rsna.boxes) == ({"a": {"Lung Opacity": 0.0}}, {})
    assert rsna.problems == ("stage_2_train_labels.csv, line 3: expected the Target of a's first row, got another",)


@pytest.mark.parametrize("kind", ["rsna", "vindr", "chexpert", "coco"])
def test_a_folder_without_it(tmp_path: Path, kind: str) -> None:
    with pytest.raises(TrainError) as caught:
        open_collection(f"{kind}:{tmp_path}", "all")
    assert caught.value.reason == "data_missing"


def test_pictures_that_are_missing(write: Write, tmp_path: Path) -> None:
    write("stage_2_train_labels.csv", "patientId,x,y,width,height,Target\na,,,,,0\n")
    with pytest.raises(TrainError, match=r"expected pictures \(.*\) in .*stage_2_train_images, found none"):
        open_collection(f"rsna:{tmp_path}", "all")
