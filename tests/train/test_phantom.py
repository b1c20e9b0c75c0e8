"""The digital chest phantom: physics, ground truth, determinism, files."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from msloc_edge.train.phantom import FINDINGS, Phantom, generate, write_dicom, write_png
from msloc_edge.train.phantom.film import draw_findings, stream
from msloc_edge.train.phantom.projection import attenuation, line_integral, transmit

SIZE = 128
# Bounds on box width and height, in 1/1024 of the film: the 5 % and 95 % quantiles of the NIH ChestX-ray14
# boxes, widened by half, as films differ in their field of view.
BOUNDS = {
    "Atelectasis": ((60, 420), (34, 270)),
    "Cardiomegaly": ((330, 720), (200, 640)),
    "Effusion": ((36, 480), (40, 680)),
    "Infiltration": ((76, 520), (85, 640)),
    "Mass": ((50, 400), (48, 400)),
    "Nodule": ((27, 180), (24, 190)),
    "Pneumonia": ((76, 520), (85, 640)),
    "Pneumothorax": ((54, 430), (38, 680)),
}


def tight_box(mask: np.ndarray) -> tuple[float, float, float, float]:
    rows, columns = np.nonzero(mask)
    return (columns.min(), rows.min(), columns.max() + 1 - columns.min(), rows.max() + 1 - rows.min())


def test_beer_lambert_of_a_known_slab() -> None:
    # By hand: 10 cm of soft tissue, 4 cm of lung and 0.5 cm of bone at 60 keV, from the NIST tables.
    expected = math.exp(-(0.2048 * 1.06 * 10 + 0.2053 * 0.26 * 4 + 0.3148 * 1.92 * 0.5))
    slab = [np.full((2, 3), t, np.float32) for t in (10.0, 4.0, 0.5)]
    assert transmit(line_integral(slab[0], slab[1], slab[2], 60.0)) == pytest.approx(expected, rel=1e-5)


def test_attenuation_falls_with_energy_and_orders_the_tissues() -> None:
    for material in ("soft", "lung", "bone"):
        assert attenuation(material, 60) > attenuation(material, 70) > attenuation(material, 80)
    assert attenuation("bone", 70) > attenuation("soft", 70) > attenuation("lung", 70)
    assert attenuation("soft", 80) == pytest.approx(0.1823 * 1.06)


def test_same_seed_same_bytes() -> None:
    a, b = generate(3, SIZE), generate(3, SIZE)
    assert a.stored.tobytes() == b.stored.tobytes()
    assert (a.window, a.view, a.pixel_spacing_mm) == (b.window, b.view, b.pixel_spacing_mm)
    first, second = ([(r.label, r.box, r.mask.tobytes()) for r in film.regions] for film in (a, b))
    assert first == second
    assert a.stored.tobytes() != generate(4, SIZE).stored.tobytes()


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**40))
def test_drawn_films_are_well_formed(seed: int) -> None:
    film = generate(seed, SIZE)
    assert film.stored.dtype == np.uint16
    assert film.stored.shape == (SIZE, SIZE)
    assert film.stored.max() <= 4095
    assert film.view in ("PA", "AP")
    assert film.photometric == "MONOCHROME2"
    assert film.seed == seed
    assert 2.0 < film.pixel_spacing_mm < 4.0
    shown = film.display()
    assert shown.dtype == np.float32
    assert shown.min() >= 0
    assert shown.max() <= 1
    assert shown.std() > 0.1  # a film, neither blank nor burnt out
    assert film.labels == {r.label for r in film.regions} <= set(FINDINGS)
    assert film.label_vector().tolist() == [float(name in film.labels) for name in FINDINGS]
    for region in film.regions:
        assert region.mask.shape == (SIZE, SIZE)
        assert region.mask.dtype == np.bool_
        assert region.box == tight_box(region.mask)


@pytest.mark.parametrize("label", FINDINGS)
def test_a_finding_changes_the_film_where_it_says(label: str) -> None:
    for seed in range(16):
        film, normal = generate(seed, SIZE, (label,)), generate(seed, SIZE, ())
        assert film.labels == {label}
        assert normal.regions == ()
        assert film.view == normal.view
        change = film.display() - normal.display()
        for region in film.regions:
            inside = float(change[region.mask].mean())
            assert inside < -0.03 if label == "Pneumothorax" else inside > 0.02, (seed, inside)
            (w0, w1), (h0, h1) = BOUNDS[label]
            width, height = (n * 1024 / SIZE for n in region.box[2:])
            assert w0 <= width <= w1, seed
            assert h0 <= height <= h1, seed


def test_findings_drawn_as_often_as_promised() -> None:
    drawn = [draw_findings(stream(seed, 1)) for seed in range(3000)]
    assert 0.26 < np.mean([not names for names in drawn]) < 0.34
    assert max(map(len, drawn)) == 3
    for name in FINDINGS:
        assert 0.13 < np.mean([name in names for names in drawn]) < 0.25


def test_cardiomegaly_widens_the_heart() -> None:
    film = generate(5, 256, ("Cardiomegaly",))
    (region,) = film.regions
    width_cm = region.box[2] * film.pixel_spacing_mm / 10
    assert 13 < width_cm < 23


def test_some_findings_are_bilateral() -> None:
    counts = {name: max(len(generate(seed, 64, (name,)).regions) for seed in range(24)) for name in FINDINGS}
    assert {name for name, count in counts.items() if count == 2} == {"Effusion", "Infiltration", "Nodule", "Pneumonia"}


def test_same_patient_at_other_sizes() -> None:
    large, small = generate(11, 256), generate(11, 128)
    assert large.labels == small.labels
    assert large.view == small.view
    halved = large.display().reshape(128, 2, 128, 2).mean((1, 3))
    assert np.corrcoef(halved.ravel(), small.display().ravel())[0, 1] > 0.97
    for a, b in zip(large.regions, small.regions, strict=True):
        assert np.allclose(np.divide(a.box, 2), b.box, atol=4)


@pytest.mark.parametrize("size", [(250, 204), (96, 160), (1300, 1060)])
def test_films_need_not_be_square(size: tuple[int, int]) -> None:
    film = generate(2, size, ("Effusion",))
    assert film.stored.shape == size
    assert film.display().shape == size
    assert all(r.mask.shape == size and r.box == tight_box(r.mask) for r in film.regions)


def test_both_photometric_interpretations_show_the_same() -> None:
    for seed in range(4):
        two, one = generate(seed, SIZE), generate(seed, SIZE, photometric="MONOCHROME1")
        assert np.array_equal(one.stored, 4095 - two.stored)
        assert np.abs(one.display() - two.display()).max() < 1e-4


def test_views() -> None:
    pa, ap = generate(7, SIZE, (), view="PA"), generate(7, SIZE, (), view="AP")
    assert (pa.view, ap.view) == ("PA", "AP")
    assert pa.stored.tobytes() != ap.stored.tobytes()
    assert {generate(seed, 64, ()).view for seed in range(12)} == {"PA", "AP"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"seed": -1}, "seed: expected"),
        ({"size": 8}, "size: expected sides of 64"),
        ({"size": (512, 100_000)}, "size: expected"),
        ({"findings": ("Flu",)}, "findings: expected one of Atelectasis.*got 'Flu'"),
        ({"findings": "Mass"}, "findings: expected"),
        ({"photometric": "RGB"}, "photometric: expected one of MONOCHROME1, MONOCHROME2, got 'RGB'"),
        ({"view": "LATERAL"}, "view: expected one of PA, AP"),
    ],
)
def test_bad_arguments_are_named(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        generate(**{"seed": 0, "size": 64, **arguments})


def test_png_holds_the_display(tmp_path: Path) -> None:
    import cv2

    film = generate(1, 64)
    write_png(film, tmp_path / "a.png")
    image = cv2.imread(str(tmp_path / "a.png"), cv2.IMREAD_UNCHANGED)
    assert image.dtype == np.uint16
    assert np.abs(image / 65535 - film.display()).max() < 1e-5


def shown_by(ds: object) -> np.ndarray:
    """A viewer's own reading of the DICOM file (PS3.3 C.11.2.1.2.1), to hold display() against."""
    x = ds.pixel_array.astype(float)
    y = np.clip((x - (float(ds.WindowCenter) - 0.5)) / (float(ds.WindowWidth) - 1) + 0.5, 0, 1)
    return 1 - y if ds.PhotometricInterpretation == "MONOCHROME1" else y


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_dicom_round_trip(tmp_path: Path, photometric: str) -> None:
    pydicom = pytest.importorskip("pydicom")
    film: Phantom = generate(9, (160, 128), photometric=photometric)
    for name in ("a.dcm", "b.dcm"):
        write_dicom(film, tmp_path / name)
    assert (tmp_path / "a.dcm").read_bytes() == (tmp_path / "b.dcm").read_bytes()
    ds = pydicom.dcmread(tmp_path / "a.dcm")
    assert np.array_equal(ds.pixel_array, film.stored)
    assert np.abs(shown_by(ds) - film.display()).max() < 1e-4
    assert (ds.Rows, ds.Columns, ds.BitsAllocated, ds.BitsStored, ds.HighBit) == (160, 128, 16, 12, 11)
    assert (ds.Modality, ds.ViewPosition, ds.PhotometricInterpretation) == ("DX", film.view, photometric)
    assert ds.file_meta.TransferSyntaxUID == "1.2.840.10008.1.2.1"
    assert float(ds.ImagerPixelSpacing[0]) == pytest.approx(film.pixel_spacing_mm, abs=1e-5)
    assert len(ds.SOPInstanceUID) <= 64
    assert ds.SOPInstanceUID.is_valid


def test_dicom_of_large_seeds_has_valid_uids(tmp_path: Path) -> None:
    pydicom = pytest.importorskip("pydicom")
    write_dicom(generate(2**63, 64), tmp_path / "a.dcm")
    assert pydicom.dcmread(tmp_path / "a.dcm").SOPInstanceUID.is_valid


def test_command_line(tmp_path: Path) -> None:
    testing = pytest.importorskip("click.testing")
    from msloc_edge.train.data import open_collection
    from msloc_edge.train.evaluate.truth import read_boxes
    from msloc_edge.train.phantom.__main__ import main

    run = testing.CliRunner().invoke
    arguments = ["--out", str(tmp_path), "--count", "2", "--seed", "5", "--size", "64", "--format", "png,dicom"]
    assert run(main, arguments).exit_code == 0
    lines = [json.loads(line) for line in (tmp_path / "truth.jsonl").read_text().splitlines()]
    assert [line["seed"] for line in lines] == [5, 5, 6, 6]
    assert all((tmp_path / line["file"]).is_file() for line in lines)
    film = generate(6, 64)
    assert lines[2]["labels"] == sorted(film.labels)
    collection = open_collection(f"csv:{tmp_path / 'films.csv'}", "all")
    assert [record.name for record in collection.records] == [line["file"] for line in lines]
    assert [label for label, value in collection.records[2].labels.items() if value] == lines[2]["labels"]
    truth = read_boxes(tmp_path / "boxes.csv", collection.records)
    assert not truth.problems
    assert truth.count == sum(len(line["regions"]) for line in lines)
    assert [tuple(r["box"].values()) for r in lines[2]["regions"]] == [r.box for r in film.regions]
    wrong = run(main, ["--out", str(tmp_path), "--format", "bmp"])
    assert wrong.exit_code == 2
    assert "expected png, dicom" in wrong.output
