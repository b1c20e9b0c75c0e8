"""One film's row of numbers, the priors, and the tables of a small evaluation, all worked by hand."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping

import numpy as np
import pytest
from rich.console import Console

from msloc_edge.train.data import Record
from msloc_edge.train.evaluate.against import compare
from msloc_edge.train.evaluate.cases import choose_cases, draw_case
from msloc_edge.train.evaluate.evidence import Evidence
from msloc_edge.train.evaluate.measure import (
    COLUMNS,
    FilmMaps,
    hits_peak,
    largest_box,
    mask_iou,
    measure_film,
    measure_map,
)
from msloc_edge.train.evaluate.page import eval_page
from msloc_edge.train.evaluate.priors import SIDE, Priors, box_map, frequency_map
from msloc_edge.train.evaluate.summary import Summary
from msloc_edge.train.evaluate.tables import grids, print_grids
from msloc_edge.train.evaluate.truth import TrueRegion, Truth
from msloc_edge.train.evaluate.write import metrics_csv, metrics_json

SIZE = (100, 200)  # the picture; its map is half as large


def field(*boxes: tuple[int, int, int, int], height: float = 1.0) -> np.ndarray:
    """[50, 100]: 0, and `height` within boxes (x, y, w, h)."""
    values = np.zeros((50, 100), np.float32)
    for x, y, w, h in boxes:
        values[y : y + h, x : x + w] = height
    return values


def measured(evidence: Evidence, *regions: TrueRegion) -> dict[str, list[float]]:
    row = measure_map(evidence, regions, SIZE, evidence.regions())
    return {name: row[part].tolist() for name, part in COLUMNS.items()}


def test_a_map_against_two_boxes() -> None:
    values = field((10, 10, 20, 20), (60, 10, 10, 10))
    values[12, 12] = 2
    row = measured(Evidence.above(values, 0.5), TrueRegion((20, 20, 40, 20)), TrueRegion((0, 60, 10, 10)))
    # Largest region (10, 10, 20, 20) of the map is (20, 20, 40, 40) of the picture: IoU 1/2, IoBB 1/2 with the first.
    assert row["blob_overlap"] == [0.5]
    assert row["blob_iou"] == row["blob_iobb"] == [1, 1, 1, 1, 0, 0, 0]
    assert row["pointing"] == [1]
    assert row["boxes"] == [2]
    # Wang: at 60 of 255 (.47) both regions, at 180 (1.41) the peak's one pixel: three boxes.
    assert row["wang_iou_hits"] == [1, 1, 0, 0]
    assert row["wang_iou_false"] == [2, 2, 3, 3]
    assert row["wang_iobb_hits"] == [1, 1, 1, 1, 1]  # the one pixel is wholly inside
    assert row["wang_iobb_false"] == [1, 1, 2, 2, 2]
    assert np.isnan(row["mask_iou"])


def test_a_map_below_its_threshold_finds_nothing_but_has_a_peak() -> None:
    row = measured(Evidence.above(field((10, 10, 20, 20)), 5.0), TrueRegion((20, 20, 40, 40)))
    assert (row["blob_overlap"], sum(row["blob_iou"]), row["pointing"]) == ([0], 0, [1])
    constant = measured(Evidence.above(field(), 5.0), TrueRegion((0, 0, 200, 100)))
    assert (constant["pointing"], sum(constant["wang_iou_hits"]), sum(constant["maxbox"])) == ([0], 0, 0)


def test_the_peak_is_the_centre_of_its_pixel() -> None:
    values = field((10, 10, 1, 1))  # centre at (21, 21) of the picture
    assert hits_peak(values, [TrueRegion((20.5, 20.5, 1, 1))], SIZE)
    assert hits_peak(values, [TrueRegion((21, 21, 1, 1))], SIZE)
    assert not hits_peak(values, [TrueRegion((20, 20, 1, 1))], SIZE)  # the right edge is outside


def test_masks() -> None:
    true = np.zeros(SIZE, np.uint8)
    true[20:60, 20:60] = 1
    true[20:40, 20:40] = 0  # an L
    region = TrueRegion.of_mask(true.astype(bool))
    assert region.box == (20, 20, 40, 40)
    assert not hits_peak(field((12, 12, 1, 1)), [region], SIZE)  # within the box, not within the mask
    assert hits_peak(field((25, 12, 1, 1)), [region], SIZE)
    assert mask_iou(field((10, 20, 20, 10)) - 0.5, [region], SIZE) == pytest.approx(200 / 300)
    assert mask_iou(field() - 0.5, [region], SIZE) == 0


def test_mask_iou_as_chexlocalize_has_it() -> None:
    """By hand: a map of 2 x 2 with a 4 in its corner, enlarged to 4 x 4 pixels, is 4 x (0, 1/4, 3/4, 1) along its first
    row and (1, 3/4, 1/4, 0) times that below. Above 1 are 3 and 4 of the first row, 9/4 and 3 of the second: the 1s
    are not."""
    values = np.array([[0, 4], [0, 0]], np.float32)
    true = np.zeros((4, 4), bool)
    true[0, 1:] = True
    assert mask_iou(values - 1, [TrueRegion.of_mask(true)], (4, 4)) == pytest.approx(2 / 5)
    assert mask_iou(values - 4, [TrueRegion.of_mask(true)], (4, 4)) == 0


def test_a_missing_map_is_a_miss() -> None:
    maps = FilmMaps(SIZE, {}, {}, lambda label: None, lambda label: {})
    film = measure_film("a", maps, {"Mass": [TrueRegion((0, 0, 9, 9))]}, ["Nodule"], "heatmaps")
    row = film.rows["heatmaps", "Mass"]
    assert row[COLUMNS["boxes"]] == 1
    assert np.nansum(row) == 1
    assert film.detections["Mass"][0].tolist() == [-np.inf]
    assert "Nodule" not in film.detections


def test_prior_maps() -> None:
    box = np.array([0.25, 0.5, 0.5, 0.25])
    evidence = Evidence.half_range(box_map(box))
    assert largest_box(evidence.regions()).tolist() == [[SIDE / 4, SIDE / 2, SIDE / 2, SIDE / 4]]
    row, column = divmod(int(evidence.values.argmax()), SIDE)
    assert (column + 0.5, row + 0.5) == pytest.approx((SIDE / 2, SIDE * 5 / 8), abs=0.51)
    counts = frequency_map(np.array([[0, 0, 0.5, 0.5], [0.25, 0.25, 0.5, 0.5]]))
    assert (counts[8, 8], counts[96, 96], counts[160, 160], counts[250, 250]) == (1, 2, 1, 0)


def test_a_box_is_never_scored_against_a_mean_that_it_is_part_of() -> None:
    regions = {
        "a": {"Mass": (TrueRegion((0, 0, 20, 20)),)},
        "b": {"Mass": (TrueRegion((100, 50, 40, 40)),)},
        "c": {"Mass": (TrueRegion((0, 0, 40, 40)),)},
    }
    truth = Truth("t", "boxes", regions, dict.fromkeys("abc", SIZE))
    priors = Priors(truth, {"a": "p1", "b": "p1", "c": "p2"})
    only_c = priors.evidence("a", "Mass")["class_mean_box"]
    assert largest_box(only_c.regions()).tolist() == [[0, 0, 0.2 * SIDE // 1, 0.4 * SIDE // 1]]
    mean = largest_box(priors.evidence("c", "Mass")["class_mean_box"].regions())[0] / SIDE
    assert mean.tolist() == pytest.approx([0.25, 0.25, 0.15, 0.3], abs=0.01)  # of a and b
    alone = Priors(truth.only("a", ["Mass"]), {"a": "p1"})
    assert list(alone.evidence("a", "Mass")) == ["random", "centre_prior"]
    noise = priors.evidence("a", "Mass")["random"].values
    assert (noise == priors.evidence("a", "Mass")["random"].values).all()
    assert (noise != priors.evidence("b", "Mass")["random"].values).any()
    assert (
        noise != Priors(truth, {"a": "p1", "b": "p1", "c": "p2"}, seed=1).evidence("a", "Mass")["random"].values
    ).any()


@pytest.fixture
def summary() -> Summary:
    return small_summary()


def small_summary(scores: Mapping[str, tuple[float, float]] | None = None) -> Summary:
    """Films a, b (patient p1), c (p2), d (p3). Masses: a is hit exactly, b and c are missed; the nodule of c is hit."""
    records = {
        "a": Record("a", None, "p1", {"Mass": 1.0, "Nodule": 0.0}, "PA", "F", 30),
        "b": Record("b", None, "p1", {"Mass": 1.0, "Nodule": 0.0}, "PA", "F", 31),
        "c": Record("c", None, "p2", {"Mass": 1.0, "Nodule": 1.0}, "AP", "M", 50),
        "d": Record("d", None, "p3", {"Mass": 0.0}, "AP", "M", None),
    }
    here = TrueRegion((20, 20, 40, 40))
    regions = {
        "a": {"Mass": (here,)},
        "b": {"Mass": (TrueRegion((160, 60, 10, 10)),)},
        "c": {"Mass": (TrueRegion((160, 60, 20, 20)),), "Nodule": (here,)},
    }
    scores = scores or {"a": (0.9, 0.1), "b": (0.8, 0.2), "c": (0.3, 0.7), "d": (0.4, 0.6)}
    evidence = Evidence.above(field((10, 10, 20, 20)), 0.5)

    def maps(name: str) -> FilmMaps:
        mine = dict(zip(("Mass", "Nodule"), scores[name], strict=True))
        called = {"half": {label: score >= 0.5 for label, score in mine.items()}}
        return FilmMaps(SIZE, mine, called, lambda label: evidence, lambda label: {"model_half_range": evidence})

    films = [
        measure_film(name, maps(name), regions.get(name, {}), ["Mass"] if name == "d" else [], "model")
        for name in "abcd"
    ]
    truth = Truth("t", "boxes", regions, dict.fromkeys("abc", SIZE))
    return Summary(films, records, truth, "model", resamples=200)


def test_roc_and_calibration_of_a_small_evaluation(summary: Summary) -> None:
    tables = summary.tables(("Mass", "Nodule"))
    # Masses .9 .8 .3 against .4: two of three above it. Nodules: .7 against .1 and .2, all found.
    assert tables["roc"]["per_class"]["Mass"][0] == pytest.approx(2 / 3, abs=1e-5)
    assert tables["roc"]["macro"][0] == pytest.approx(5 / 6, abs=1e-5)
    assert tables["roc"]["per_class"]["Mass"][-1] == 1
    # Gaps of masses: .9 .1, .8 .2, .3 .7, .4 .4, a bin each; of nodules .1 .1, .2 .2, .7 .3.
    assert values(tables["reliability"]["ece"], "Mass", "Nodule") == pytest.approx([0.275, 0.35, 0.2], abs=1e-5)
    assert [one["n"] for one in tables["reliability"]["bins"]["Mass"]] == [1, 1, 1, 1]


def test_paired_differences() -> None:
    """The second method has the same maps and other scores; it is the first's mirror image on masses."""
    first = small_summary()
    second = small_summary({"a": (0.1, 0.1), "b": (0.2, 0.2), "c": (0.7, 0.7), "d": (0.6, 0.6)})
    tables = compare(first, second, ("Mass", "Nodule"))
    auroc = tables["auroc"]
    assert (auroc["first"]["value"], auroc["second"]["value"]) == pytest.approx((5 / 6, (1 / 3 + 1) / 2), abs=1e-4)
    assert auroc["difference"]["per_class"]["Mass"]["value"] == pytest.approx(1 / 3, abs=1e-4)
    # The maps are the same, so the difference is 0 in every resample, though each figure has an interval of its own.
    pointing = tables["pointing"]["difference"]["per_class"]["Mass"]
    assert (pointing["value"], pointing["low"], pointing["high"], pointing["n"]) == (0, 0, 0, 3)
    assert tables["pointing"]["first"]["low"] < tables["pointing"]["first"]["high"]
    nothing = compare(first, first, ("Mass",))["auroc"]["difference"]
    assert (nothing["macro"]["value"], list(nothing["per_class"])) == (0, ["Mass"])


def values(table: dict, *labels: str) -> list[float]:
    return [table["macro"]["value"], *(table["per_class"][label]["value"] for label in labels)]


def test_the_tables_of_a_small_evaluation(summary: Summary) -> None:
    tables = summary.tables(("Mass", "Nodule"))
    assert values(tables["auroc"], "Mass", "Nodule") == pytest.approx([5 / 6, 2 / 3, 1], abs=1e-4)
    assert tables["auroc"]["per_class"]["Nodule"]["n"] == 3  # of d nothing is known
    profile = tables["profiles"]["half"]
    assert values(profile["sensitivity"], "Mass", "Nodule") == pytest.approx([5 / 6, 2 / 3, 1], abs=1e-4)
    assert values(profile["specificity"], "Mass", "Nodule") == [1, 1, 1]
    hit = pytest.approx([2 / 3, 1 / 3, 1], abs=1e-4)
    assert values(tables["pointing"], "Mass", "Nodule") == hit
    assert values(tables["blob"]["iou"]["0.7"], "Mass", "Nodule") == hit
    assert values(tables["mean_iou"], "Mass", "Nodule") == hit
    assert values(tables["maxboxaccv2"], "Mass", "Nodule") == hit
    assert values(tables["wang"]["iou"]["0.1"]["accuracy"], "Mass", "Nodule") == hit
    # One box per map: two of the three mass maps miss. Over all four boxes.
    assert values(tables["wang"]["iou"]["0.1"]["afp"], "Mass", "Nodule") == [0.25, 0.5, 0]
    assert tables["wang"]["iou"]["0.1"]["published"]["accuracy"]["Mass"] == 0.4
    assert tables["mask_iou"] is None
    # Scores of the box: a .9 (true), b .8 (false), d .4 (false), c .3 (false); four films.
    curve = tables["froc"]["false_boxes_per_film"]
    assert [curve[rate]["per_class"]["Mass"]["value"] for rate in ("0.125", "2")] == pytest.approx(
        [1 / 3] * 2, abs=1e-4
    )
    assert tables["froc"]["films"]["Mass"] == {"with_boxes": 3, "without": 1}
    assert list(tables["rows"]) == ["model", "model_half_range"]
    assert values(tables["rows"]["model"]["pointing"], "Mass", "Nodule") == hit


def test_subgroups(summary: Summary) -> None:
    groups = summary.tables(("Mass", "Nodule"))["subgroups"]
    assert list(groups["view"]) == ["AP", "PA"]
    assert groups["view"]["PA"]["pointing"]["value"] == 0.5
    assert groups["sex"]["M"]["films"] == 2
    assert list(groups["age"]) == ["under 40", "40-59"]
    # Pixels of 1024 on a film of 200: the boxes of b, c (mass), and of a and c (nodule) are 51, 102 and 205.
    assert {band: table["boxed_findings"] for band, table in groups["box_size"].items()} == {
        "under 40": 0,
        "40-80": 1,
        "80-160": 1,
        "over 160": 2,
    }


def test_an_interval_goes_over_patients(summary: Summary) -> None:
    figure = summary.tables(())["pointing"]["per_class"]["Mass"]
    assert (figure["low"], figure["high"]) == (0, 0.5)  # p1 has a hit and a miss in every draw, p2 a miss
    assert summary.patients == 3


def test_the_same_seed_gives_the_same_file(summary: Summary) -> None:
    assert metrics_json(summary.tables(("Mass",))) == metrics_json(summary.tables(("Mass",)))


@pytest.fixture
def metrics(summary: Summary) -> dict:
    run = {
        "what": {"name": "<script>"},
        "data": "d",
        "split": "test",
        "films": 4,
        "patients": 3,
        "boxes": 4,
        "intervals": "95%",
        "profile": "half",
        "film_thresholds": {"half": None},
        "problems": ["<b>"],
    }
    return {"schema": "x", "run": run, **summary.tables(("Mass", "Nodule"))}


def test_operating_points_by_hand(summary: Summary) -> None:
    # Positive at 0.5: a and b Mass, c and d Nodule. d is normal; c has both, and a Nodule that is found.
    points = summary.tables(("Mass", "Nodule"))["operating_points"]
    assert list(points) == ["half"]
    rates = points["half"]
    assert (rates["films"], rates["normals"], rates["abnormals"]) == (4, 1, 3)
    assert (rates["normals_flagged"]["value"], rates["abnormal_flagged"]["value"]) == (1, 1)
    assert rates["sensitivity"]["per_class"]["Mass"]["value"] == pytest.approx(2 / 3, abs=1e-5)


def test_the_csv_has_every_figure(metrics: dict) -> None:
    rows = list(csv.DictReader(io.StringIO(metrics_csv(metrics))))
    found = {(row["metric"], row["label"]): row for row in rows}
    assert len(found) == len(rows) == json.dumps(metrics).count('"value"')
    assert found["pointing", "macro"]["value"] == "0.66667"
    assert found["wang.iou.0.1.afp", "Mass"]["n"] == "4"
    assert found["subgroups.view.PA.pointing", ""]["value"] == "0.5"
    assert found["maxboxaccv2.iou.0.3", "macro"]


def test_every_table_is_shown(metrics: dict) -> None:
    out = io.StringIO()
    print_grids(metrics, Console(file=out, width=250))
    titles = [grid.title for grid in grids(metrics)]
    assert titles[:6] == [
        "Operating points",
        "Findings",
        "Beside maps that know less",
        "The protocol of Wang et al. 2017",
        "Threshold profiles",
        "FROC",
    ]
    assert all(title in out.getvalue() for title in titles)
    assert "0.67 (" in out.getvalue()


def test_the_page_is_whole_offline_and_inert(metrics: dict, summary: Summary) -> None:
    cases = choose_cases(summary._films, "model", ("Mass", "Nodule"))
    assert [(case.label, case.rank, case.film, case.hit) for case in cases] == [
        ("Mass", "best", "a", True),
        ("Mass", "median", "c", False),
        ("Mass", "worst", "b", False),
        ("Nodule", "best", "c", True),
    ]
    evidence = Evidence.above(field((10, 10, 20, 20)), 0.5)
    picture = draw_case(np.full(SIZE, 0.5, np.float32), evidence, [TrueRegion((20, 20, 40, 40))])
    assert picture.shape == (150, 300, 3)
    text = eval_page(metrics, [(case, picture) for case in cases])
    assert text.count("data:image/jpeg") == 4
    assert text.count("data:image/svg+xml") == 3  # ROC, FROC, reliability
    assert "http://" not in text
    assert "https://" not in text
    assert "<script" not in text
    assert "&lt;script&gt;" in text


def test_a_case_shows_what_is_true_and_what_was_found() -> None:
    true = TrueRegion((20, 20, 40, 40))
    found = draw_case(np.zeros(SIZE, np.float32), Evidence.above(field((50, 10, 20, 20)), 0.5), [true])
    assert found[30, 30].tolist() == [134, 184, 18]  # a corner of the true box, 1.5 times as large
    assert found[89, 209].tolist() == [0, 163, 245]  # a corner of the box that was found
    assert found[60, 180][0] > 50  # the map
    without = draw_case(np.zeros(SIZE, np.float32), None, [true])
    assert not without[:, 150:].any()
