"""Collections on disk: the NIH release, csv files, what is wrong with either, and patients that no two splits share."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.progress import Progress

from msloc_edge.errors import TrainError
from msloc_edge.imaging.geometry import Geometry
from msloc_edge.imaging.reading import read_frame
from msloc_edge.train.data import (
    NIH_CLASSES,
    Films,
    excluded_names,
    films,
    open_collection,
    source_classes,
    split_films,
    training_films,
    validation_films,
)
from msloc_edge.train.data.collection import VALIDATION_SHARE, for_validation, patients_for_validation

SILENT = Progress(disable=True)
TRAIN_VAL = {
    "00000001_000.png": "No Finding",
    "00000001_001.png": "Mass|Nodule",
    "00000002_000.png": "Hernia",
    "00000003_000.png": "Effusion",
}
TEST = {"00000009_000.png": "Infiltration", "00000009_001.png": "No Finding"}


def reason(call: Callable[[], object]) -> str:
    with pytest.raises(TrainError) as caught:
        call()
    return caught.value.reason


def names(spec: str, split: str) -> list[str]:
    return [record.name for record in open_collection(spec, split).records]


@pytest.fixture(scope="module")
def nih(release: Any, tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("nih")
    boxes = [
        ("00000009_000.png", "Infiltrate", 512, 256, 128, 64),
        ("00000009_000.png", "Mass", 0, 0, 1024, 1024),
        ("00000009_000.png", "Mass", 1000, 10, 30, 20),
        ("00000009_000.png", "Mass", 10, 10, 0, 20),
        ("00000009_000.png", "Tumour", 10, 10, 20, 20),
        ("00000009_000.png", "Mass", 10, "x", 20, 20),
        ("00000042_000.png", "Mass", 10, 10, 20, 20),
    ]
    return f"nih:{release(folder, TRAIN_VAL, TEST, boxes).write()}"


def test_the_release(nih: str) -> None:
    found = open_collection(nih, "all")
    assert (found.name, found.classes) == (nih, NIH_CLASSES)
    assert [record.name for record in found.records] == [*TRAIN_VAL, *TEST]
    second = found.records[1]
    assert {label for label, value in second.labels.items() if value} == {"Mass", "Nodule"}
    assert len(second.labels) == 14
    assert (second.patient, second.view, second.sex, second.age) == ("00000001", "PA", "F", 57)
    assert second.path.stem == "00000001_001"
    assert not any(found.records[0].labels.values())


def test_official_lists(nih: str) -> None:
    assert names(nih, "train_val") == list(TRAIN_VAL)
    assert names(nih, "test") == list(TEST)
    train, validation = names(nih, "train"), names(nih, "validation")
    assert sorted([*train, *validation]) == list(TRAIN_VAL)
    assert ("00000001_000.png" in train) == ("00000001_001.png" in train)


def test_films_that_are_excluded(nih: str, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("00000001_000.png\n\n  00000003_000.png  \nno_such_film.png\n")
    (tmp_path / "b.txt").write_text("00000001_001.png")
    excluded = excluded_names([str(tmp_path / "a.txt"), str(tmp_path / "b.txt")])
    assert excluded == {"00000001_000.png", "00000001_001.png", "00000003_000.png", "no_such_film.png"}
    assert excluded_names([]) == frozenset()
    whole, kept = (
        {
            name
            for films in (
                training_films([nih], NIH_CLASSES, 64, 1, 0, SILENT, left_out)[0],
                training_films(["phantom"], NIH_CLASSES, 64, 1, 0, SILENT, left_out)[0],
            )
            for name in films.names
        }
        for left_out in (frozenset(), frozenset({"00000001_000.png"}))
    )
    assert whole - kept == {"00000001_000.png"}


def test_excluded_validation_films(release: Any, tmp_path: Path) -> None:
    ours = [f"{n:08d}" for n in range(100) if for_validation(f"{n:08d}")][:2]
    spec = f"nih:{release(tmp_path, {f'{one}_000.png': 'Mass' for one in ours}).write()}"
    (left,) = validation_films([spec], NIH_CLASSES, 64, 1, SILENT, frozenset({f"{ours[0]}_000.png"}))
    assert left.names == (f"{ours[1]}_000.png",)


@pytest.mark.parametrize("content", [None, b"\xff\xfe\x00"])
def test_a_list_of_excluded_films_that_cannot_be_read(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "list.txt").write_bytes(content)
    with pytest.raises(TrainError, match="expected a text file with names of films") as caught:
        excluded_names([str(tmp_path / "list.txt")])
    assert caught.value.reason == "data_missing"
    assert str(tmp_path / "list.txt") in str(caught.value)


def test_boxes_are_in_pixels_of_the_picture(nih: str) -> None:
    found = open_collection(nih, "test")
    box, whole = found.boxes["00000009_000.png"]  # pictures of 64 px, boxes of 1024
    assert (box.label, box.x, box.y, box.width, box.height) == ("Infiltration", 32, 16, 8, 4)
    assert (whole.label, whole.width, whole.height) == ("Mass", 64, 64)
    assert len(found.problems) == 4
    assert all(
        "00000009_000.png: expected a finding and a box within 1024 x 1024" in problem for problem in found.problems
    )
    assert "got Mass, 1000, 10, 30, 20" in found.problems[0]
    assert open_collection(nih, "train_val").problems == ()  # a box of another split, or of a film that is not here


@pytest.mark.parametrize(
    "layout",
    [
        {"images": "images_001/images"},
        {"images": "images_012/images", "suffix": ".jpg"},
        {"images": "images_001"},
        {"images": "images", "suffix": ".JPEG", "table": "Data_Entry_2017.csv"},
    ],
)
def test_layouts_of_the_release(release: Any, tmp_path: Path, layout: dict[str, str]) -> None:
    spec = f"nih:{release(tmp_path, TRAIN_VAL, TEST, **layout).write()}"
    assert names(spec, "all") == [*TRAIN_VAL, *TEST]
    assert len(training_films([spec], NIH_CLASSES, 64, 1, 0, SILENT)[0])


def test_what_cannot_be_used_is_named(release: Any, tmp_path: Path) -> None:
    rows = [
        ("00000004_000.png", "Tumour|Mass", 0, "00000004", "1", "F", "PA"),
        ("00000005_000.png", "Mass", 0, "00000005", "1", "F", "PA"),
        ("00000006_000.png", "Mass", 0, "", "1", "F", "PA"),
        ("00000007_000.png", "", 0, "00000007", "1", "F", "PA"),
        ("00000001_000.png", "Hernia", 0, "00000001", "1", "F", "PA"),
        ("", "", 0, "00000008", "1", "F", "PA"),
        ("00000008_000.png",),
    ]
    whole = [(*row, "2048", "2048", "0.1", "0.1") if len(row) > 1 else row for row in rows]
    folder = release(tmp_path, TRAIN_VAL, TEST, rows=whole).write()
    listed = [*TRAIN_VAL, *(f"0000000{n}_000.png" for n in (4, 5, 6, 7, 8))]
    (folder / "train_val_list.txt").write_text("\n".join(listed))
    (folder / "images" / "00000003_000.png").unlink()
    found = open_collection(f"nih:{folder}", "train_val")
    assert [record.name for record in found.records] == list(TRAIN_VAL)[:3]
    assert list(found.problems) == [
        "00000003_000.png: no picture",
        "00000004_000.png: expected labels of the 14 findings, got 'Tumour'",
        "00000005_000.png: no picture",
        "00000006_000.png: no patient",
        "00000007_000.png: expected labels of the 14 findings, got ''",
        "00000001_000.png: named again; the first counts",
        "Data_Entry_2017_v2020.csv, line 14: expected 11 cells, got 1",
        "00000008_000.png: no row in Data_Entry_2017_v2020.csv",
    ]
    assert (
        "a row without a name: expected labels of the 14 findings, got ''"
        in open_collection(f"nih:{folder}", "all").problems
    )


def test_a_patient_on_both_lists(release: Any, tmp_path: Path) -> None:
    folder = release(tmp_path, TRAIN_VAL, {**TEST, "00000001_007.png": "Mass"}).write()
    for split in ("train", "validation", "train_val", "test"):
        with pytest.raises(
            TrainError, match=r"patient 00000001 is in train_val_list\.txt and in test_list\.txt"
        ) as caught:
            open_collection(f"nih:{folder}", split)
        assert caught.value.reason == "data_invalid"


@pytest.mark.parametrize("missing", ["Data_Entry_2017_v2020.csv", "images", "train_val_list.txt", "test_list.txt"])
def test_a_release_that_lacks_something(release: Any, tmp_path: Path, missing: str) -> None:
    folder = release(tmp_path, TRAIN_VAL, TEST).write()
    (folder / missing).rename(tmp_path / "elsewhere")
    assert reason(lambda: open_collection(f"nih:{folder}", "train")) == "data_missing"


def test_a_table_without_its_columns(release: Any, tmp_path: Path) -> None:
    folder = release(tmp_path, TRAIN_VAL, TEST).write()
    (folder / "Data_Entry_2017_v2020.csv").write_text("Image Index,Patient ID\n1.png,1\n")
    with pytest.raises(TrainError, match="got Image Index, Patient ID; add 'Finding Labels'") as caught:
        open_collection(f"nih:{folder}", "train")
    assert caught.value.reason == "data_invalid"


def test_an_empty_split(release: Any, tmp_path: Path) -> None:
    one = next(f"{n:08d}" for n in range(100) if not for_validation(f"{n:08d}"))
    spec = f"nih:{release(tmp_path, {f'{one}_000.png': 'Mass'}).write()}"
    assert len(training_films([spec], NIH_CLASSES, 64, 1, 0, SILENT)[0]) == 1
    with pytest.raises(TrainError, match="expected films in this split, found none") as caught:
        validation_films([spec], NIH_CLASSES, 64, 1, SILENT)
    assert caught.value.reason == "data_missing"


@pytest.mark.parametrize("spec", ["nih", "nih:", "csv:", "mimic:x", "", ":", "phantom"])
def test_unknown_sources(spec: str) -> None:
    assert reason(lambda: open_collection(spec, "train")) == "option_invalid"


def test_unknown_split(nih: str) -> None:
    assert reason(lambda: open_collection(nih, "holdout")) == "option_invalid"


# csv


@pytest.fixture
def table(tmp_path: Path, picture: Callable[..., None]) -> Callable[[str], str]:
    """Writes a csv beside the pictures a.png .. f.png, and gives its spec."""
    for seed, name in enumerate("abcdef"):
        picture(tmp_path / "films" / f"{name}.png", seed)

    def write(text: str) -> str:
        (tmp_path / "films.csv").write_text(text)
        return f"csv:{tmp_path / 'films.csv'}"

    return write


def test_a_csv(table: Callable[[str], str]) -> None:
    spec = table(
        "image,patient,view,sex,age,Mass,Oedema\n"
        "films/a.png,p1,AP,M,61,1,0\n films/b.png , p1,,,,0.0,\nfilms/c.png,p2,,,unknown,-1,1.0\n"
    )
    found = open_collection(spec, "all")
    assert found.classes == source_classes([spec]) == ("Mass", "Oedema")
    assert [dict(record.labels) for record in found.records] == [{"Mass": 1, "Oedema": 0}, {"Mass": 0}, {"Oedema": 1}]
    first, second, third = found.records
    assert (first.patient, first.view, first.sex, first.age) == ("p1", "AP", "M", 61)
    assert (second.patient, second.view, second.sex, second.age) == ("p1", None, None, None)
    assert third.age is None
    assert found.problems == ()


def test_splits_of_a_csv(table: Callable[[str], str]) -> None:
    spec = table(
        "image,split,Mass\n"
        "films/a.png,train,1\nfilms/b.png,VAL,0\nfilms/c.png,valid,0\nfilms/d.png,test,0\nfilms/e.png,validation,0\n"
    )
    assert names(spec, "train") == ["films/a.png"]
    assert names(spec, "validation") == ["films/b.png", "films/c.png", "films/e.png"]
    assert names(spec, "train_val") == ["films/a.png", "films/b.png", "films/c.png", "films/e.png"]
    assert names(spec, "test") == ["films/d.png"]
    assert len(names(spec, "all")) == 5


def test_a_csv_without_splits_parts_its_patients(table: Callable[[str], str]) -> None:
    spec = table("image,Mass\n" + "".join(f"films/{name}.png,1\n" for name in "abcdef"))
    validation = names(spec, "validation")
    assert len(validation) == 2  # a third at most
    assert set(validation) >= set(filter(for_validation, names(spec, "all")))
    assert names(spec, "test") == []
    assert sorted(names(spec, "train") + validation) == names(spec, "train_val") == names(spec, "all")


def test_a_large_collection_is_parted_by_the_ids_alone() -> None:
    ids = [f"{n:05d}" for n in range(1000)]
    known = {patient: {("Mass", float(patient == "00999"))} for patient in ids}
    assert patients_for_validation(known) == set(filter(for_validation, ids))


@pytest.mark.parametrize(("patients", "positive", "expected"), [(0, 0, 0), (2, 1, 0), (30, 15, 10), (50, 25, 12)])
def test_a_small_collection_validates_on_more(patients: int, positive: int, expected: int) -> None:
    known = {f"{n}": {("Mass", float(n < positive))} for n in range(patients)}
    chosen = patients_for_validation(known)
    assert len(chosen) == expected
    assert chosen >= set(filter(for_validation, known)) or len(chosen) == patients // 3


def test_a_small_collection_validates_on_a_rare_finding() -> None:
    rare = max((f"{n}" for n in range(150)), key=lambda patient: hashlib.sha256(patient.encode()).digest())
    known = {f"{n}": {("Mass", float(n % 2)), ("Nodule", float(f"{n}" == rare))} for n in range(150)}
    assert len(patients_for_validation(known)) == 50  # the rare one is the last of all: out of reach
    known[sorted(known, key=lambda patient: hashlib.sha256(patient.encode()).digest())[40]] |= {("Nodule", 1.0)}
    chosen = patients_for_validation(known)
    assert len(chosen) == 41
    assert {("Nodule", 1.0), ("Nodule", 0.0)} <= set().union(*(known[patient] for patient in chosen))


def test_bad_rows_of_a_csv_are_named(table: Callable[[str], str]) -> None:
    spec = table(
        "image,split,Mass\nfilms/a.png,train,1\nfilms/b.png,train,yes\nfilms/z.png,train,1\n,train,1\nfilms/c.png,holdout,1\n"
    )
    found = open_collection(spec, "all")
    assert [record.name for record in found.records] == ["films/a.png"]
    assert list(found.problems) == [
        "films.csv, line 3: expected 1, 0 or nothing, and a split's name, got Mass 'yes'",
        "films/z.png: no picture",
        "films.csv, line 5: expected 1, 0 or nothing, and a split's name, got no image",
        "films.csv, line 6: expected 1, 0 or nothing, and a split's name, got split 'holdout'",
    ]


def test_rows_of_a_csv_that_do_not_fit_its_header(table: Callable[[str], str]) -> None:
    spec = table(
        "image,Mass,Oedema,\nfilms/a.png,1,0,\nfilms/b.png,1\nfilms/b,c.png,1,0\nfilms/d.png,1,0\n,,,\n\n  \n"
        "films/e.png,1,0,seen twice,\n"
    )
    found = open_collection(spec, "all")
    assert [record.name for record in found.records] == ["films/a.png", "films/d.png", "films/e.png"]
    assert found.problems == (
        "films.csv, line 3: expected 4 cells, got 2",
        "films.csv, line 4: expected 1, 0 or nothing, and a split's name, got Mass 'c.png'",
    )
    found = open_collection(table("image,Mass\nfilms/a.png,1\nfilms/b.png,1,0\n"), "all")
    assert found.problems == ("films.csv, line 3: expected 2 cells, got 3",)


def test_a_film_that_is_in_a_csv_twice(table: Callable[[str], str]) -> None:
    found = open_collection(table("image,Mass\nfilms/a.png,1\nfilms/b.png,1\n./films/a.png,0\n"), "all")
    assert [dict(record.labels) for record in found.records] == [{"Mass": 1}, {"Mass": 1}]
    assert found.problems == ("./films/a.png: named again; the first counts",)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "got an empty file; add 'image'"),
        ("file,Mass\na.png,1\n", "expected the columns image, got file, Mass; add 'image'"),
        ("image;Mass\na.png;1\n", "got image;Mass; save it with commas in place of semicolons"),
        ("image\tMass\na.png\t1\n", "save it with commas in place of tabs"),
        ("image,Mass,Oedema,Mass \nfilms/a.png,1,0,0\n", "expected each column once, got 'Mass' again"),
        ("image,patient,split,Mass\nfilms/a.png,p,train,1\nfilms/b.png,p,test,1\n", "keep one split"),
    ],
)
def test_a_csv_that_cannot_be_used(table: Callable[[str], str], text: str, words: str) -> None:
    spec = table(text)
    with pytest.raises(TrainError) as caught:
        open_collection(spec, "all")
    assert caught.value.reason == "data_invalid"
    assert words in caught.value.message


def test_a_csv_without_findings_is_not_trained_on(table: Callable[[str], str]) -> None:
    spec = table("image,patient\nfilms/a.png,1\n")
    assert open_collection(spec, "all").classes == ()
    assert reason(lambda: source_classes([spec])) == "data_invalid"


def test_a_csv_that_is_none(tmp_path: Path) -> None:
    assert reason(lambda: open_collection(f"csv:{tmp_path / 'none.csv'}", "all")) == "data_missing"
    assert reason(lambda: open_collection(f"csv:{tmp_path}", "all")) == "data_missing"
    (tmp_path / "latin.csv").write_bytes("image,Mass\nä.png,1\n".encode("latin-1"))
    assert reason(lambda: open_collection(f"csv:{tmp_path / 'latin.csv'}", "all")) == "data_invalid"
    (tmp_path / "null.csv").write_bytes(b'image,Mass\n"' + b"x" * 200_000 + b'",1\n')
    assert reason(lambda: open_collection(f"csv:{tmp_path / 'null.csv'}", "all")) == "data_invalid"


def test_a_csv_with_a_byte_order_mark(table: Callable[[str], str], tmp_path: Path) -> None:
    spec = table("")
    (tmp_path / "films.csv").write_text("image,Mass\nfilms/a.png,1\n", encoding="utf-8-sig")
    assert names(spec, "all") == ["films/a.png"]


# films in memory's reach


@pytest.fixture
def cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of this test alone."""
    monkeypatch.setenv("MSLOC_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "films"


def load(spec: str, side: int = 48, classes: tuple[str, ...] = ("Mass", "Oedema")) -> Films:
    return films.load_films(open_collection(spec, "all"), side, classes, SILENT)


TABLE = "image,patient,Mass\nfilms/a.png,p1,1\nfilms/b.png,p1,\nfilms/c.png,p2,0\n"


def test_labels_are_those_of_the_model(table: Callable[[str], str], cached: Path) -> None:
    spec = table("image,Pleural Thickening\nfilms/a.png,1\nfilms/b.png,0\n")
    (films,) = split_films([spec], "all", ("Mass", "Pleural_Thickening"), 48, 0, SILENT)
    np.testing.assert_array_equal(films.labels, [[np.nan, 1], [np.nan, 0]])
    with pytest.raises(TrainError, match="expected labels of Mass, Hernia, got Pleural Thickening") as caught:
        split_films([spec], "all", ("Mass", "Hernia"), 48, 0, SILENT)
    assert caught.value.reason == "data_invalid"


def test_films_are_letterboxed_pictures(table: Callable[[str], str], cached: Path, tmp_path: Path) -> None:
    loaded = load(table(TABLE))
    assert (len(loaded), loaded.side, loaded.classes) == (3, 48, ("Mass", "Oedema"))
    assert (loaded.names, loaded.patients) == (("films/a.png", "films/b.png", "films/c.png"), ("p1", "p1", "p2"))
    np.testing.assert_array_equal(loaded.labels, [[1, np.nan], [np.nan, np.nan], [0, np.nan]])
    assert isinstance(loaded.pixels, np.memmap)
    display = read_frame(tmp_path / "films" / "b.png").display()
    fitted = Geometry.fit((64, 64), (48, 48)).letterbox(display)
    assert np.array_equal(loaded.pixels[1], np.round(fitted * 255))
    assert loaded.masks is None


def test_no_film_is_kept_larger_than_it_is(table: Callable[[str], str], cached: Path) -> None:
    assert load(table(TABLE), side=512).side == 64


def test_films_are_decoded_once(
    table: Callable[[str], str], cached: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = table(TABLE)
    first = load(spec)
    assert len(list(cached.iterdir())) == 2
    with monkeypatch.context() as patch:
        patch.setattr(films, "_decode", lambda *_: pytest.fail("decoded again"))
        assert np.array_equal(load(spec).pixels, first.pixels)
        table(TABLE.replace("films/a.png,p1,1", "films/a.png,p1,0"))  # labels are not in the cache
        assert load(spec).labels[0, 0] == 0
    assert np.array_equal(load(spec, side=32).pixels.shape, (3, 32, 32))
    (tmp_path / "films" / "a.png").write_bytes((tmp_path / "films" / "d.png").read_bytes())
    assert not np.array_equal(load(spec).pixels, first.pixels)


def test_bad_pictures_are_named(table: Callable[[str], str], cached: Path, tmp_path: Path) -> None:
    spec = table(TABLE)
    content = (tmp_path / "films" / "b.png").read_bytes()
    (tmp_path / "films" / "b.png").write_bytes(content[: len(content) // 2])
    loaded = load(spec)
    assert loaded.names == ("films/a.png", "films/c.png")
    assert loaded.pixels.shape[0] == len(loaded.labels) == 2
    (problem,) = loaded.problems
    assert "b.png" in problem
    assert load(spec).problems == loaded.problems  # from the cache, too
    whole = read_frame(tmp_path / "films" / "c.png").display()
    assert np.array_equal(loaded.pixels[1], np.round(Geometry.fit((64, 64), (48, 48)).letterbox(whole) * 255))


def test_no_readable_picture(table: Callable[[str], str], cached: Path, tmp_path: Path) -> None:
    spec = table("image,Mass\nfilms/a.png,1\n")
    (tmp_path / "films" / "a.png").write_bytes(b"GIF89a")
    with pytest.raises(TrainError, match="no picture can be read; the first: ") as caught:
        load(spec)
    assert caught.value.reason == "data_missing"


def test_a_stopped_decoding_leaves_nothing(
    table: Callable[[str], str], cached: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = table(TABLE)

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(films, "_read", stop)
    with pytest.raises(KeyboardInterrupt):
        load(spec)
    assert list(cached.iterdir()) == []


# patients


@given(st.lists(st.text("0123456789", min_size=1, max_size=8), min_size=1, max_size=50))
def test_a_patient_is_on_one_side_everywhere(patients: list[str]) -> None:
    assert [for_validation(patient) for patient in patients] == [for_validation(patient) for patient in patients]


def test_share_of_validation_patients() -> None:
    share = np.mean([for_validation(f"{n:08d}") for n in range(1, 20_000)])
    assert share == pytest.approx(VALIDATION_SHARE, abs=0.01)


@settings(max_examples=25)
@given(st.dictionaries(st.integers(1, 40), st.tuples(st.integers(1, 3), st.booleans()), min_size=1))
def test_no_patient_on_two_sides(
    release: Any, tmp_path_factory: pytest.TempPathFactory, patients: dict[int, tuple[int, bool]]
) -> None:
    maker = release(tmp_path_factory.mktemp("patients"), {}, {})
    for patient, (count, test) in patients.items():
        films = {f"{patient:08d}_{n:03d}.png": "Mass" for n in range(count)}
        (maker.test if test else maker.train_val).update(films)
    check_disjoint(f"nih:{maker.write()}")


@pytest.mark.parametrize("name", ["nih", "nih128"])
def test_no_patient_of_the_real_films_is_on_two_sides(shared_data: Path, name: str) -> None:
    check_disjoint(f"nih:{shared_data / name}")


def test_two_real_collections_agree_on_their_patients(shared_data: Path) -> None:
    sides = [
        {split: patients(f"nih:{shared_data / name}", split) for split in ("train", "validation", "test")}
        for name in ("nih", "nih128")
    ]
    for split, others in (("train", ("validation", "test")), ("validation", ("train", "test"))):
        for other in others:
            assert not sides[0][split] & sides[1][other]
            assert not sides[1][split] & sides[0][other]


def patients(spec: str, split: str) -> set[str]:
    return {record.patient for record in open_collection(spec, split).records}


def check_disjoint(spec: str) -> None:
    records = {split: open_collection(spec, split).records for split in ("train", "validation", "train_val", "test")}
    train, validation, _, test = ({record.patient for record in found} for found in records.values())
    assert not train & validation
    assert not (train | validation) & test
    listed = set(Path(spec.removeprefix("nih:"), "test_list.txt").read_text().split())
    shown = {split: [record.name for record in found] for split, found in records.items()}
    assert listed.isdisjoint(shown["train_val"])
    assert set(shown["test"]) <= listed
    assert sorted([*shown["train"], *shown["validation"]]) == sorted(shown["train_val"])
