"""Simulated lesions: profile, size, contrast, place, labels; what they leave alone; graded sets and the command."""

from __future__ import annotations

import json
import math
from collections import Counter
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner

from msloc_edge.errors import InputError, MslocError, TrainError
from msloc_edge.train.data import Films, open_collection
from msloc_edge.train.evaluate.truth import read_boxes
from msloc_edge.train.lesions import (
    DIAMETERS,
    KINDS,
    LABELS,
    SIZES,
    Inserter,
    graded,
    insert,
    kind_of,
    lung_fields,
)
from msloc_edge.train.lesions.__main__ import main
from msloc_edge.train.lesions.films import lesion_films
from msloc_edge.train.lesions.insertion import MIN_LESION, smallest
from msloc_edge.train.lesions.shape import DESIGNER, SPHERE, draw, half_radius, profile
from msloc_edge.train.phantom import generate

CLASSES = ("Consolidation", "Effusion", "Infiltration", "Mass", "Nodule", "Pneumonia")


def rng(*seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def phantom(size: int | tuple[int, int]) -> np.ndarray:
    return np.round(generate(3, size, ()).display() * 255).astype(np.uint8)


@pytest.fixture(scope="module")
def film() -> np.ndarray:
    return phantom(512)


@pytest.fixture(scope="module")
def grey() -> np.ndarray:
    """A film of mid-grey noise with bright stripes across, as of ribs: contrast can be measured on it to a level."""
    noise = rng(0).normal(118, 2, (512, 512))
    noise[np.arange(512) % 24 < 8] += 20
    return np.clip(np.round(noise), 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def lungs() -> np.ndarray:
    """Two upright ellipses, 210 x 380 px of 512, with room for every kind of lesion."""
    canvas = np.zeros((512, 512), np.uint8)
    for x in (130, 382):
        cv2.ellipse(canvas, (x, 256), (105, 190), 0, 0, 360, 1, cv2.FILLED)
    return canvas > 0


def normal_films(folder: Path, count: int) -> list[np.ndarray]:
    """Films of train_val without a finding."""
    rows = [line.split(",") for line in (folder / "Data_Entry_2017_v2020.csv").read_text().splitlines()]
    trained = set((folder / "train_val_list.txt").read_text().split())
    names = [row[0] for row in rows if row[1] == "No Finding" and row[0] in trained]
    paths = [path for name in names if (path := (folder / "images" / name).with_suffix(".jpg")).is_file()]
    return [cv2.imread(str(path), cv2.IMREAD_GRAYSCALE) for path in paths[:count]]


# Profile and shape


def test_profile_by_hand() -> None:
    # 1 - 0.6^2 = 0.64: its root is 0.8, its 3/2 power 0.512; 1 - 0.5^2 = 0.75.
    assert profile([0, 0.6, 1, 1.7], SPHERE).tolist() == pytest.approx([1, 0.8, 0, 0])
    assert profile([0, 0.6, 1, 1.7], DESIGNER).tolist() == pytest.approx([1, 0.512, 0, 0])
    assert profile(0.5, 1.0) == pytest.approx(0.75)


def test_half_contrast_radius_by_hand() -> None:
    assert half_radius(0.5) == pytest.approx(math.sqrt(0.75))  # (1 - 3/4)^(1/2) = 1/2
    assert half_radius(1.0) == pytest.approx(math.sqrt(0.5))
    for nu in (0.5, 0.7, 1.5, 2.0):
        assert profile(half_radius(nu), nu) == pytest.approx(0.5, abs=1e-6)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("diameter", [8.0, 24.0, 75.5, 160.0])
def test_a_drawing_has_the_size_asked_for(kind: str, diameter: float) -> None:
    for seed in range(12):
        drawing = draw(kind, diameter, 0.6, rng(seed))
        rows, columns = np.nonzero(drawing.body >= 0.5)
        longer = max(np.ptp(rows), np.ptp(columns)) + 1
        assert longer == pytest.approx(diameter, abs=1.6)
        assert drawing.body.max() == 1
        for part in (drawing.body, drawing.texture):
            assert part.min() >= 0
            border = np.concatenate([part[0], part[-1], part[:, 0], part[:, -1]])
            assert border.max() == 0


# Insertion


@pytest.mark.parametrize("kind", KINDS)
def test_same_seed_same_lesion(film: np.ndarray, kind: str) -> None:
    before = film.copy()
    (one, first), (two, second) = (insert(film, rng(5), kind) for _ in range(2))
    assert np.array_equal(one, two)
    assert (first.box, first.diameter, first.contrast) == (second.box, second.diameter, second.contrast)
    assert np.array_equal(first.mask, second.mask)
    assert not np.array_equal(one, insert(film, rng(6), kind)[0])
    assert np.array_equal(film, before)


@pytest.mark.parametrize("diameter", [20.0, 40.0, 90.0, 140.0])
@pytest.mark.parametrize("contrast", [0.06, 0.15, 0.3])
@pytest.mark.parametrize("kind", ["Nodule", "Mass"])
def test_size_and_contrast_are_what_was_asked_for(
    grey: np.ndarray, lungs: np.ndarray, kind: str, diameter: float, contrast: float
) -> None:
    out, lesion = insert(grey, rng(1), kind, diameter, contrast, lungs)
    assert (lesion.kind, lesion.diameter, lesion.contrast) == (kind, diameter, contrast)
    assert max(lesion.box[2:]) * 2 == pytest.approx(diameter, abs=3.5)
    added = out.astype(float) - grey
    assert added.max() / 255 == pytest.approx(contrast, abs=1.01 / 255)
    # What is measured: half of the contrast, smoothed over the rounding, is reached in the mask and not beyond it.
    if diameter >= 40:
        shown = cv2.GaussianBlur(added, (0, 0), 2) >= 0.5 * cv2.GaussianBlur(added, (0, 0), 2).max()
        mask = lesion.mask
        assert np.count_nonzero(shown & mask) / np.count_nonzero(shown | mask) > 0.75


@pytest.mark.parametrize("kind", KINDS)
def test_the_box_is_tight_around_the_mask(film: np.ndarray, kind: str) -> None:
    for seed in range(10):
        _, lesion = insert(film, rng(seed), kind)
        mask = lesion.mask
        assert mask.shape == film.shape
        rows, columns = np.nonzero(mask)
        assert lesion.box == (columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1)
        assert lesion.region.shape == lesion.box[:1:-1]


@pytest.mark.parametrize("kind", KINDS)
def test_pixels_beyond_the_lesion_stay_bit_for_bit(film: np.ndarray, kind: str) -> None:
    for seed in range(10):
        out, lesion = insert(film, rng(seed), kind)
        x, y, width, height = lesion.box
        # The profile ends at 1 / half_radius(2) = 1.85 times the half-contrast radius, spicules before.
        reach = 0.6 * max(width, height) + 8
        beyond = np.ones(film.shape, bool)
        top, left = max(0, round(y - reach)), max(0, round(x - reach))
        beyond[top : round(y + height + reach), left : round(x + width + reach)] = False
        assert np.array_equal(out[beyond], film[beyond])
        assert (out.astype(int) >= film).all()  # it only ever adds
        assert np.count_nonzero(out != film) > 0.5 * np.count_nonzero(lesion.mask)


def test_ribs_and_noise_stay_as_they_were(grey: np.ndarray, lungs: np.ndarray) -> None:
    """What is added is smooth: it neither follows the stripes and the noise under it nor brings any of its own."""
    for seed in range(6):
        out, lesion = insert(grey, rng(seed), "Mass", 140, 0.1, lungs)
        added = out.astype(float) - grey
        inside = cv2.erode(lesion.mask.astype(np.uint8), np.ones((15, 15))) > 0  # an edge is no grain
        assert np.count_nonzero(inside) > 400
        fine = (added - cv2.GaussianBlur(added, (0, 0), 2))[inside]
        assert fine.std() < 0.8  # the film's noise is 2, rounding is up to 0.5, the rest is texture
        plain = np.full_like(grey, 125)
        plain[0, 0] = 0  # or it would be refused as constant
        bare = insert(plain, rng(seed), "Mass", 140, 0.1, lungs)[0].astype(float) - plain
        assert np.abs(added - bare)[lesion.mask].mean() < 0.5  # the stripes are 20 high
        detail = [cv2.Laplacian(array.astype(float), cv2.CV_64F)[lesion.mask].std() for array in (out, grey)]
        assert detail[0] == pytest.approx(detail[1], rel=0.06)


def test_no_terraces(lungs: np.ndarray) -> None:
    """A faint lesion on a film without noise: neighbours of one shade of grey are mixed, not in bands."""
    ramp = np.tile(np.linspace(90, 140, 512), (512, 1)).astype(np.uint8)
    out, lesion = insert(ramp, rng(0), "Nodule", 100, 0.02, lungs)
    added = (out.astype(int) - ramp)[lesion.mask]
    assert added.max() <= 6
    values, counts = np.unique(np.abs(np.diff(added)), return_counts=True)
    assert counts[values == 1].sum() > 0.15 * added.size


@pytest.mark.parametrize("kind", KINDS)
def test_lesions_lie_in_the_lungs(grey: np.ndarray, lungs: np.ndarray, kind: str) -> None:
    sides = Counter()
    for seed in range(20):
        _, lesion = insert(grey, rng(seed), kind, lungs=lungs)
        mask = lesion.mask
        assert np.count_nonzero(mask & lungs) >= 0.95 * np.count_nonzero(mask)
        assert lesion.diameter == pytest.approx(max(lesion.box[2:]) * 2, rel=0.3 if kind == "Opacity" else 0.12)
        sides[lesion.box[0] < 256] += 1
    assert min(sides.values()) >= 3


def test_a_lesion_without_room_takes_the_best_place_and_ends_with_the_lung(grey: np.ndarray) -> None:
    narrow = np.zeros(grey.shape, bool)
    narrow[100:400, 200:230] = True
    out, lesion = insert(grey, rng(0), "Mass", 200, 0.2, narrow)
    mask = lesion.mask
    assert np.count_nonzero(mask & narrow) > 0.7 * np.count_nonzero(mask)
    assert lesion.box[2] < 50
    assert np.array_equal(out[:, :150], grey[:, :150])
    # A size that is drawn gives way instead.
    assert max(insert(grey, rng(0), "Mass", lungs=narrow)[1].box[2:]) < 110 * 512 / 1024 + 4


@pytest.mark.parametrize("kind", KINDS)
def test_drawn_sizes_and_contrasts_vary_within_their_range(film: np.ndarray, kind: str) -> None:
    fields = lung_fields(film)
    lesions = [insert(film, rng(seed), kind, lungs=fields)[1] for seed in range(40)]
    sizes = [lesion.diameter for lesion in lesions]
    assert SIZES[kind][2] <= min(sizes) < max(sizes) <= SIZES[kind][3]
    assert max(sizes) > 1.4 * min(sizes)
    contrasts = [lesion.contrast for lesion in lesions]
    assert 0.02 < min(contrasts) < 0.6 * max(contrasts) < 0.4


@pytest.mark.parametrize("shape", [(128, 128), (160, 128), (128, 200), (300, 512)])
def test_small_and_oblong_films(shape: tuple[int, int]) -> None:
    film = phantom(shape)
    for seed, kind in enumerate(KINDS * 3):
        out, lesion = insert(film, rng(seed), kind)
        assert out.shape == lesion.mask.shape == film.shape
        assert out.dtype == np.uint8
        assert max(lesion.box[2:]) >= MIN_LESION - 1.5
        assert lesion.diameter >= (smallest(kind, shape) or 0)


def test_smallest_by_hand() -> None:
    assert smallest("Nodule", (128, 128)) == 6 * 1024 / 128  # 48
    assert smallest("Nodule", (512, 400)) == SIZES["Nodule"][2]  # 6 px are 12 of 1024
    assert smallest("Opacity", (128, 128)) == SIZES["Opacity"][2]
    assert smallest("Nodule", (40, 40)) is None  # 6 px are 153.6 of 1024


@pytest.mark.parametrize(
    ("changes", "kind", "reason", "words"),
    [
        ({"film": np.zeros((200, 200), np.float32)}, InputError, "unsupported_pixels", "float32 (200, 200)"),
        ({"film": np.zeros((200, 200, 3), np.uint8)}, InputError, "unsupported_pixels", "uint8 (200, 200, 3)"),
        ({"film": [[1]]}, InputError, "unsupported_pixels", "list"),
        ({"film": np.eye(127, 300, dtype=np.uint8)}, InputError, "too_small", "300 x 127"),
        ({"film": np.full((200, 200), 9, np.uint8)}, InputError, "constant", "equal pixels"),
        ({"kind": "Tumor"}, TrainError, "option_invalid", "'Tumor'"),
        ({"diameter": 11.0}, TrainError, "option_invalid", "12 to 512"),
        ({"diameter": 600.0}, TrainError, "option_invalid", "600"),
        ({"diameter": math.nan}, TrainError, "option_invalid", "nan"),
        ({"contrast": 0.0}, TrainError, "option_invalid", "above 0"),
        ({"contrast": 1.5}, TrainError, "option_invalid", "1.5"),
        ({"contrast": math.nan}, TrainError, "option_invalid", "nan"),
        ({"lungs": np.ones((512, 511), bool)}, TrainError, "option_invalid", "(512, 511)"),
        ({"lungs": np.ones((512, 512), np.uint8)}, TrainError, "option_invalid", "uint8"),
        ({"lungs": np.zeros((512, 512), bool)}, TrainError, "option_invalid", "0 pixels"),
    ],
)
def test_bad_input(film: np.ndarray, changes: dict, kind: type[MslocError], reason: str, words: str) -> None:
    arguments = {"film": film, "kind": "Nodule", "rng": rng(0), **changes}
    with pytest.raises(kind) as caught:
        insert(**arguments)
    assert caught.value.reason == reason
    assert words in str(caught.value)


# Lung fields


def test_a_film_that_shows_no_lung_gets_the_usual_shape() -> None:
    mask = lung_fields(np.full((200, 300), 77, np.uint8))
    assert mask.shape == (200, 300)
    assert 0.15 < mask.mean() < 0.5
    assert mask[:, :150].mean() == pytest.approx(mask[:, 150:].mean(), abs=0.03)
    assert not mask[190:].any()
    assert lung_fields(rng(0).integers(0, 256, (256, 256)).astype(np.uint8)).any()


def test_dark_ellipses_are_found() -> None:
    film = np.full((512, 512), 180, np.uint8)
    truth = np.zeros((512, 512), np.uint8)
    for x in (160, 360):
        cv2.ellipse(truth, (x, 220), (70, 140), 0, 0, 360, 1, cv2.FILLED)
    film[truth > 0] = 60
    found = lung_fields(film)
    assert np.count_nonzero(found & (truth > 0)) / np.count_nonzero(found | (truth > 0)) > 0.85


def test_lung_fields_of_real_films(shared_data: Path) -> None:
    films = normal_films(shared_data / "nih", 40)
    assert len(films) == 40
    darker, areas = [], []
    for film in films:
        mask = lung_fields(film)
        areas.append(mask.mean())
        ring = cv2.dilate(mask.astype(np.uint8), np.ones((31, 31), np.uint8)).astype(bool) & ~mask
        darker.append(film[mask].mean() < film[ring].mean() - 5)
    assert min(areas) > 0.03
    assert max(areas) < 0.45
    assert np.mean(darker) >= 0.9


def test_lesions_in_real_films(shared_data: Path) -> None:
    noise = []
    for seed, film in enumerate(normal_films(shared_data / "nih", 24)):
        fields = lung_fields(film)
        out, lesion = insert(film, rng(seed), KINDS[seed % 3], lungs=fields)
        mask = lesion.mask
        assert np.count_nonzero(mask & fields) > 0.9 * np.count_nonzero(mask)
        fine = [cv2.Laplacian(array.astype(float), cv2.CV_64F)[mask].std() for array in (film, out)]
        noise.append(fine[1] / fine[0])
        assert 3 / 255 < (out.astype(int) - film).max() / 255 <= lesion.contrast + 1 / 255
    assert 0.97 < np.median(noise) < 1.06  # no film is told by its grain


# Labels


def labels(**known: float) -> np.ndarray:
    return np.array([known.get(name, 0.0) for name in CLASSES], np.float32)


def test_what_a_lesion_does_to_the_labels() -> None:
    assert set(LABELS) == set(KINDS)
    assert dict(LABELS["Nodule"]) == {"Nodule": 1}
    assert dict(LABELS["Mass"]) == {"Mass": 1}
    assert LABELS["Opacity"]["Infiltration"] == 1
    assert all(math.isnan(LABELS["Opacity"][name]) for name in ("Consolidation", "Pneumonia"))
    with pytest.raises(TypeError):
        LABELS["Nodule"] = {}  # type: ignore[index]


def test_normal_films_get_lesions_with_their_labels(film: np.ndarray) -> None:
    inserter, given = Inserter(CLASSES, 1.0), labels(Effusion=math.nan)
    seen = Counter()
    for seed in range(60):
        out, told = inserter(film, given, rng(seed))
        assert not np.array_equal(out, film)
        assert (told.dtype, told.shape) == (np.float32, given.shape)
        by_name = dict(zip(CLASSES, told.tolist(), strict=True))
        kinds = tuple(kind for kind in KINDS if by_name["Infiltration" if kind == "Opacity" else kind] == 1)
        assert 1 <= len(kinds) <= 2
        opaque = "Opacity" in kinds
        assert math.isnan(by_name["Consolidation"]) == math.isnan(by_name["Pneumonia"]) == opaque
        assert math.isnan(by_name["Effusion"])
        seen[kinds] += 1
    assert all(seen[kind,] >= 8 for kind in KINDS)
    assert sum(count for kinds, count in seen.items() if len(kinds) == 2) >= 1
    assert np.array_equal(given, labels(Effusion=math.nan), equal_nan=True)


@pytest.mark.parametrize("given", [{"Effusion": 1.0}, {"Mass": 1.0}, dict.fromkeys(CLASSES, math.nan)])
def test_other_films_are_returned_as_they_are(film: np.ndarray, given: dict[str, float]) -> None:
    before = labels(**given)
    for seed in range(10):
        out, told = Inserter(CLASSES, 1.0)(film, before, rng(seed))
        assert out is film
        assert told is before


def test_the_share_of_films_with_lesions(film: np.ndarray) -> None:
    inserter, small = Inserter(CLASSES), cv2.resize(film, (128, 128), interpolation=cv2.INTER_AREA)
    changed = sum(inserter(small, labels(), rng(seed))[0] is not small for seed in range(300))
    assert 60 < changed < 120  # 0.3 of 300 is 90, with a standard deviation of 8
    never = Inserter(CLASSES, 0.0)
    assert all(never(small, labels(), rng(seed))[0] is small for seed in range(20))


def test_the_inserter_hangs_on_its_generator_alone(film: np.ndarray) -> None:
    one, two = (Inserter(CLASSES, 1.0)(film, labels(), rng(9)) for _ in range(2))
    assert np.array_equal(one[0], two[0])
    assert np.array_equal(one[1], two[1], equal_nan=True)


def test_kinds_whose_label_is_not_trained_are_left_out(film: np.ndarray) -> None:
    inserter = Inserter(["Mass", "Pneumonia"], 1.0)
    for seed in range(10):
        assert inserter(film, np.zeros(2, np.float32), rng(seed))[1].tolist() == [1, 0]
    with pytest.raises(TrainError, match="Nodule, Mass, Infiltration"):
        Inserter(["Pneumonia"])
    for share in (-0.1, 1.1, math.nan):
        with pytest.raises(TrainError, match="share"):
            Inserter(CLASSES, share)


# Graded sets and the command line


def test_kind_of_a_diameter() -> None:
    assert [kind_of(diameter) for diameter in DIAMETERS] == ["Nodule"] * 4 + ["Mass"] * 2 + ["Opacity"]


def test_graded_copies_in_order(film: np.ndarray) -> None:
    films = [film, phantom(400)]
    made = list(graded(films, 3))
    assert [lesion.diameter for _, lesion in made] == list(DIAMETERS) * 2
    assert [out.shape for out, _ in made] == [(512, 512)] * 7 + [(400, 400)] * 7
    again = list(graded(films, 3))
    assert all(np.array_equal(a[0], b[0]) for a, b in zip(made, again, strict=True))
    # A copy is the same whatever others are asked for; another seed makes others.
    alone = next(iter(graded(films, 3, diameters=(DIAMETERS[2],))))
    assert np.array_equal(alone[0], made[2][0])
    assert not np.array_equal(next(iter(graded(films, 4, (DIAMETERS[2],))))[0], alone[0])
    assert {lesion.kind for _, lesion in graded([film], 0, (30, 140), kind="Nodule")} == {"Nodule"}
    assert {lesion.contrast for _, lesion in graded([film], 0, (30, 140), contrast=0.1)} == {0.1}


def test_graded_reads_files_and_refuses_what_is_none(film: np.ndarray, tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "film.png"), film)
    (read, _), (given, _) = next(iter(graded([tmp_path / "film.png"], 1))), next(iter(graded([film], 1)))
    assert np.array_equal(read, given)
    with pytest.raises(InputError, match="check the path"):
        next(iter(graded([tmp_path / "none.png"], 1)))
    with pytest.raises(InputError, match="100 x 100"):
        next(iter(graded([film[:100, :100]], 1)))


def test_command_line(film: np.ndarray, tmp_path: Path) -> None:
    source = tmp_path / "films"
    source.mkdir()
    for number in range(4):
        cv2.imwrite(str(source / f"{number}.png"), phantom((512, 400 + number)))
    (source / "notes.txt").write_text("not a film")
    runner = CliRunner()
    for name in ("one", "two"):
        result = runner.invoke(main, [str(source), "--out", str(tmp_path / name), "--seed", "7"])
        assert result.exit_code == 0, result.output
    lines = [json.loads(line) for line in (tmp_path / "one" / "truth.jsonl").read_text().splitlines()]
    assert [line["kind"] for line in lines] == ["Nodule", "Mass", "Opacity", "Nodule"]
    for line in lines:
        data = (tmp_path / "one" / line["file"]).read_bytes()
        assert data == (tmp_path / "two" / line["file"]).read_bytes()
        out, before = (
            cv2.imread(str(path), cv2.IMREAD_GRAYSCALE) for path in (tmp_path / "one" / line["file"], line["source"])
        )
        rows, columns = np.nonzero(out != before)
        box = line["box"]
        assert columns.min() <= box["x"] < box["x"] + box["w"] <= columns.max() + 1
        assert rows.min() <= box["y"] < box["y"] + box["h"] <= rows.max() + 1
    chosen = ["--kind", "Nodule", "--diameter", "40", "--contrast", "0.1"]
    assert runner.invoke(main, [str(source / "0.png"), "--out", str(tmp_path / "three"), *chosen]).exit_code == 0
    (line,) = [json.loads(text) for text in (tmp_path / "three" / "truth.jsonl").read_text().splitlines()]
    assert (line["kind"], line["diameter"], line["contrast"]) == ("Nodule", 40, 0.1)


def test_graded_films_are_ready_for_eval(release: type, tmp_path: Path) -> None:
    folder = tmp_path / "nih"
    names = [f"{number}_0.png" for number in range(40)]
    release(folder, {name: "No Finding" if name != "3_0.png" else "Mass" for name in names}).write()
    for name in names:
        cv2.imwrite(str(folder / "images" / name), phantom(512))
    arguments = [f"nih:{folder}", "--split", "train_val", "--limit", "4", "--graded", "--out", str(tmp_path / "out")]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    collection = open_collection(f"csv:{tmp_path / 'out' / 'films.csv'}", "all")
    assert len(collection.records) == 4 * (1 + len(DIAMETERS))
    assert {record.patient for record in collection.records} == {"0", "1", "2", "4"}  # 3 has a mass
    truth = read_boxes(tmp_path / "out" / "boxes.csv", collection.records)
    assert not truth.problems
    for record in collection.records:
        found = [label for label, value in record.labels.items() if value == 1]
        assert sorted(truth.regions.get(record.name, {})) == found
        assert len(found) == (0 if "-000-" in record.name else 1)
    opacity = next(record for record in collection.records if "-220-" in record.name)
    assert dict(opacity.labels) == {"Infiltration": 1, "Nodule": 0, "Mass": 0}  # a reader may say Pneumonia: unknown


def test_films_of_lesions_have_their_masks(film: np.ndarray) -> None:
    classes = ("Nodule", "Pneumonia", "Infiltration", "Edema")
    labels = np.array([[0, 0, 0, 0], [1, 0, 0, 0], [0, 0, np.nan, 0]], np.float32)
    pixels = np.stack([film] * 3)
    source = Films("nih:x", classes, pixels, labels, ("a", "b", "c"), ("p", "q", "r"))
    assert lesion_films([source], classes, least=film.shape[0] + 1) is None
    assert lesion_films([replace(source, source="phantom")], classes, least=1) is None
    made = lesion_films([source], classes, least=256, seed=3)
    assert made is not None
    assert made.masks is not None
    assert sorted(made.patients) == ["p", "p", "r", "r"]  # a nodule and an opacity in each normal film
    for row in range(len(made)):
        (label,) = made.masks(row)
        mask = made.masks(row)[label]
        changed = made.pixels[row] != film
        assert mask.any()
        assert (changed & mask).sum() > 0.5 * mask.sum()
        assert made.labels[row, classes.index(label)] == 1
        if label == "Infiltration":
            assert np.isnan(made.labels[row, 1])


def test_command_line_goes_on_after_a_bad_film(film: np.ndarray, tmp_path: Path) -> None:
    good, bad = tmp_path / "good.png", tmp_path / "bad.png"
    cv2.imwrite(str(good), film)
    bad.write_bytes(b"no film")
    runner, out = CliRunner(), tmp_path / "out"
    result = runner.invoke(main, [str(bad), str(good), str(tmp_path / "none.png"), "--out", str(out)])
    assert result.exit_code == 1
    assert "bad.png" in result.output
    assert "none.png" in result.output
    assert len((out / "truth.jsonl").read_text().splitlines()) == 1
    (tmp_path / "empty").mkdir()
    for arguments, words in (
        ([str(tmp_path / "empty")], "got none"),
        ([str(good), "--diameter", "3"], "expected a diameter"),
        ([str(good), "--contrast", "2"], "expected a contrast"),
        ([str(good), "--kind", "Tumor"], "Tumor"),
    ):
        result = runner.invoke(main, [*arguments, "--out", str(out)])
        assert result.exit_code == 2
        assert words in result.output
