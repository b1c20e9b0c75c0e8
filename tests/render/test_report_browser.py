"""The report in a real Chromium: what a reader sees, clicks and types. Skipped where there is no Chromium."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

import msloc_edge
from msloc_edge.render.panel import operating_point
from msloc_edge.render.report import Report
from msloc_edge.types import FilmGate, OperatingPoint

DRAWN = "document.body?.dataset.ready === '{}'"
HOSTILE = "<img src=x onerror=\"document.title='owned'\"></script><script>document.title='owned'</script>"


@pytest.fixture
def report(make_result, model, tmp_path: Path) -> Path:
    path = tmp_path / "report.html"
    grey = np.full((300, 400), 0.5, np.float32)
    with Report(path, "Morning round", model) as report:
        report.add(grey, make_result((300, 400), name="ward/normal.dcm"))
        boxes = {"Effusion": (40.0, 60.0, 120.0, 90.0), "Nodule": (250.0, 150.0, 60.0, 60.0)}
        links = {"overlay": "a b.overlay.png"}
        report.add(grey, make_result((300, 400), boxes, name="ward/two.dcm", warnings=("dicom.window_guessed",)), links)
        report.add(grey, make_result((300, 400), {"Mass": (10.0, 10.0, 50.0, 50.0)}, name=HOSTILE))
        report.add_failure(HOSTILE, "image.unreadable", HOSTILE)
    return path


@pytest.fixture
def opened(page, report: Path):
    page.open(report)
    page.wait(DRAWN.format(2))  # findings first: the film whose finding exceeds its threshold most
    yield page
    assert page.errors == []  # no error, no refused script or style, no request
    assert page.eval("document.title") == "Morning round"  # no hostile name has run


def texts(page, selector: str) -> list[str]:
    return page.eval(f"[...document.querySelectorAll({selector!r})].map((node) => node.textContent)")


def canvas(page, selector: str) -> np.ndarray:
    """The pixels of a canvas, [h, w, 4] RGBA; read from a copy, so that the page's own canvas stays as it is."""
    height, width, data = page.eval(f"""(() => {{
        const from = document.querySelector({selector!r}), copy = document.createElement('canvas');
        Object.assign(copy, {{ width: from.width, height: from.height }});
        const context = copy.getContext('2d', {{ willReadFrequently: true }});
        context.drawImage(from, 0, 0);
        return [copy.height, copy.width, [...context.getImageData(0, 0, copy.width, copy.height).data]];
    }})()""")
    return np.array(data).reshape(height, width, 4)


def test_the_chosen_film_and_its_findings(opened) -> None:
    assert texts(opened, "h1") == ["Morning round"]
    assert texts(opened, "#counts") == ["3 films · 2 with findings · 1 failed"]
    assert texts(opened, "#name") == ["two.dcm"]
    assert texts(opened, "#positive-title") == ["2 findings"]
    assert texts(opened, "#positive .label") == ["Effusion", "Nodule"]
    assert texts(opened, "#rest .label") == ["Mass"]
    assert texts(opened, "#warnings") == ["Note: dicom.window_guessed"]
    assert texts(opened, "#failures li p") == [HOSTILE]
    assert texts(opened, "#strip strong") == ["Stage 1: 0.25", "Stage 2: 0.75", "Their sum M"]
    assert opened.eval("document.querySelector('#links a').getAttribute('href')") == "a%20b.overlay.png"
    assert opened.eval("[...document.querySelectorAll('button, input, select')].every((e) => e.labels?.length || "
                       "e.textContent.trim() || e.ariaLabel)")  # fmt: skip


def test_boxes_and_outlines_lie_where_the_result_says(opened) -> None:
    film = opened.eval("(({x, y, width, height}) => [x, y, width, height])"
                       "(document.querySelector('#sheet img').getBoundingClientRect())")  # fmt: skip
    scale = film[2] / 400
    assert film[3] / 300 == pytest.approx(scale, rel=1e-3)
    for kind, tolerance in [("box", 0.5), ("outline", 4.5)]:  # a map pixel is 6.25 film pixels
        area = opened.eval(
            f"(({{left, top, right, bottom}}) => [left, top, right, bottom])([...document.querySelectorAll("
            f"'g.layer')].at(-1).querySelector('.{kind}.line').getBoundingClientRect())"
        )
        line = 1.6 / 2  # a bounding rectangle may or may not count the stroke
        expected = [film[0] + 40 * scale, film[1] + 60 * scale, film[0] + 160 * scale, film[1] + 150 * scale]
        assert area == pytest.approx(expected, abs=tolerance * scale + line)


def test_a_toggle_hides_a_finding_and_shows_it_again(opened) -> None:
    def shown() -> list[bool]:
        return opened.eval("[...document.querySelectorAll('#sheet .heat, #sheet g.layer, #sheet .tag')]"
                           ".map((e) => e.getBoundingClientRect().width > 0)")  # fmt: skip

    before = opened.screenshot()
    assert all(shown())
    assert len(shown()) == 6
    opened.click("#positive input[role=switch]")
    assert shown().count(False) == 3
    assert opened.screenshot() != before
    opened.key("1")
    assert all(shown())
    opened.click("#show-boxes")
    assert opened.eval("getComputedStyle(document.querySelector('.box')).display") == "none"
    opened.key("o")
    assert shown().count(False) == 6


def test_the_heat_is_absolute_and_the_slider_moves_it(opened) -> None:
    heat = canvas(opened, ".heat")
    red, green, blue, alpha = heat[16, 16].tolist()  # within the finding: 3 logits at a threshold of 1
    assert (red, green, blue) == pytest.approx((0x12, 0xB8, 0x86), abs=2)
    assert alpha == pytest.approx(0.85 * 255, abs=2)
    assert heat[5, 50, 3] == 0  # no evidence: the film alone

    def middle_of_the_finding() -> np.ndarray:
        x, y = opened.eval("(() => { const r = document.querySelector('#sheet').getBoundingClientRect();"
                           " return [r.x + r.width * 0.15, r.y + r.height * 0.4]; })()")  # fmt: skip
        image = cv2.imdecode(np.frombuffer(opened.screenshot(), np.uint8), cv2.IMREAD_COLOR)
        return image[int(y), int(x)].astype(int)

    tinted = middle_of_the_finding()
    opened.eval("document.querySelector('#opacity').focus()")
    opened.call("Input.dispatchKeyEvent", type="keyDown", key="Home", code="Home", windowsVirtualKeyCode=36)
    opened.wait("document.querySelector('#opacity').value === '0'")
    assert opened.eval("getComputedStyle(document.querySelector('.heat')).opacity") == "0"
    assert texts(opened, "#opacity-value") == ["0%"]
    bare = middle_of_the_finding()
    assert bare.tolist() == pytest.approx([128, 128, 128], abs=3)
    assert tinted.max() - tinted.min() > 40


def test_keys_choose_films_and_the_filter_narrows_them(opened) -> None:
    opened.key("ArrowDown")
    opened.wait(DRAWN.format(3))
    assert texts(opened, "#name") == ["script>"]  # the last part of a hostile path, as text
    assert opened.eval("document.querySelectorAll('img[onerror]').length") == 0
    opened.key("j")
    opened.wait(DRAWN.format(1))
    assert texts(opened, "#positive-title") == ["No finding"]
    assert opened.eval("document.querySelector('#method').hidden")
    assert opened.eval("location.hash") == "#1"
    opened.eval("(() => { const f = document.querySelector('#filter'); f.value = 'effusion';"
                " f.dispatchEvent(new Event('input')); })()")  # fmt: skip
    assert texts(opened, "#films li:not([hidden]) strong") == ["two.dcm"]
    opened.key("ArrowUp")
    opened.wait(DRAWN.format(2))


def test_reading_a_value_and_how_a_map_came_about(opened) -> None:
    x, y = opened.eval("(() => { const r = document.querySelector('#sheet').getBoundingClientRect();"
                       " return [r.x + r.width * 0.15, r.y + r.height * 0.4]; })()")  # fmt: skip
    opened.move(x, y)
    opened.wait("document.querySelector('#readout').textContent.includes('Effusion map ≥ 1.99 logits')")
    opened.wait("document.querySelector('#tip').textContent.startsWith('Effusion: box at x 40, y 60')")
    opened.wait(
        "[...document.querySelectorAll('.grid')].map((e) => e.textContent).join() === '16 \u00d7 16,8 \u00d7 8,'"
    )
    # the frame cuts the letterbox off: 64 x 48 of 64 x 64, centred
    assert opened.eval("document.querySelector('.cells').style.top") == "-16.6667%"
    assert canvas(opened, ".cells")[:, :, 3].max() == pytest.approx(0.9 * 255, abs=2)
    opened.click("#weighted")
    opened.wait("document.querySelector('.cells').width === 16")  # drawn anew, now 0.25 * 3 logits
    assert canvas(opened, ".cells")[:, :, 3].max() == pytest.approx(0.9 * 0.75 * 128, abs=2)
    opened.click("#positive li:nth-child(2) .label")
    assert texts(opened, "#method-title") == ["How the map of Nodule came about"]
    opened.click("#about-open")
    assert opened.eval("document.querySelector('#about').open")
    assert len(texts(opened, "#relevance tr")) == 4


FIVE = ("Hernia", "Effusion", "Mass", "Nodule", "Edema")


@pytest.fixture
def gated(make_result, model, tmp_path: Path) -> Path:
    """Two films of a gated profile: one passes with four findings, one does not pass although its scores do."""
    path = tmp_path / "gated.html"
    grey = np.full((300, 400), 0.5, np.float32)
    boxes = {label: (20.0 + 70 * order, 100.0, 50.0, 50.0) for order, label in enumerate(FIVE[:4])}
    entries = {
        "operating_point": OperatingPoint("normal-90", 0.098),
        "labels": FIVE,
        "time": "2026-11-30T19:24:25+00:00",
    }
    passes, fails = FilmGate(0.62, 0.5), FilmGate(0.031, 0.5)
    found = make_result((300, 400), boxes, name="sick.dcm", gate=passes, **entries)
    # Hernia has the lowest score, and is third by how far it exceeds its threshold.
    hernia = replace(found.findings[0], score=0.02, threshold=0.01)
    model |= {
        "classes": list(FIVE),
        "map_thresholds": dict.fromkeys(FIVE, 1.0),
        "relevance": dict.fromkeys(FIVE, (0.25, 0.75)),
        "operating_point": ". ".join(operating_point(found.operating_point)),
        "show": 3,
    }
    with Report(path, "Evening round", model) as report:
        report.add(grey, make_result((300, 400), name="normal.dcm", gate=fails, **entries))
        report.add(grey, replace(found, findings=(hernia, *found.findings[1:])))
    return path


def test_a_gated_film(page, gated: Path) -> None:
    page.open(gated)
    page.wait(DRAWN.format(2))
    assert texts(page, "#positive-title") == ["4 findings"]
    assert texts(page, "#abnormal") == ["Film as a whole: 0.62, above 0.50"]
    assert texts(page, "#operating-point") == ["Profile normal-90. It flags about 1 normal film in 10 (measured)"]
    assert texts(page, "#positive .label") == ["Effusion", "Mass", "Hernia", "Nodule"]
    assert texts(page, "#positive .disc") == ["1", "2", "3", "4"]
    assert texts(page, "#rest .label") == ["Edema"]
    assert texts(page, "#films .chip")[:4] == ["Effusion 0.80", "Mass 0.70", "Hernia 0.020", "Nodule 0.60"]
    assert page.errors == []


def test_three_findings_are_on_at_first_and_the_others_a_click_away(page, gated: Path) -> None:
    def shown(selector: str) -> list[str]:
        return page.eval(f"[...document.querySelectorAll('#sheet {selector}')].filter((e) => "
                         "e.getBoundingClientRect().width > 0).map((e) => e.textContent)")  # fmt: skip

    page.open(gated)
    page.wait(DRAWN.format(2))
    assert shown(".tag") == ["1", "2", "3"]
    assert len(shown(".heat")) == len(shown("g.layer")) == 3
    assert page.eval("[...document.querySelectorAll('#positive input')].map((e) => e.checked)") == [True] * 3 + [False]
    page.click("#positive li:nth-child(4) input[role=switch]")
    assert shown(".tag") == ["1", "2", "3", "4"]
    page.key("1")
    assert shown(".tag") == ["2", "3", "4"]
    assert page.errors == []


def test_a_film_that_fails_the_gate(page, gated: Path) -> None:
    page.open(gated)
    page.wait(DRAWN.format(2))
    page.key("j")
    page.wait(DRAWN.format(1))
    assert texts(page, "#positive-title") == ["No finding"]
    assert texts(page, "#abnormal") == ["Film as a whole: 0.031, below 0.50"]
    assert texts(page, "#positive .label") == []
    assert len(texts(page, "#rest .label")) == 5
    assert page.errors == []


def test_the_profile_the_program_and_the_time(page, gated: Path) -> None:
    page.open(gated)
    page.wait(DRAWN.format(2))
    facts = dict(zip(texts(page, "#facts dt"), texts(page, "#facts dd"), strict=True))
    assert facts["Profile"] == "normal-90"
    assert facts["Program"] == f"msloc-edge {msloc_edge.__version__}"
    assert facts["Localized"] == "2026-11-30T19:24:25+00:00"
    about = dict(zip(texts(page, "#identity dt"), texts(page, "#identity dd"), strict=True))
    assert about["Operating point"] == "Profile normal-90. It flags about 1 normal film in 10 (measured)"
    assert page.errors == []


def test_a_score_above_its_threshold_that_is_no_finding_says_why(page, make_result, model, tmp_path: Path) -> None:
    made = make_result((300, 400), {"Mass": (10.0, 10.0, 50.0, 50.0)})
    findings = tuple(replace(found, positive=False, boxes=()) for found in made.findings)
    with Report(tmp_path / "why.html", "Why", model) as report:
        report.add(np.full((300, 400), 0.5, np.float32), replace(made, findings=findings))
    page.open(tmp_path / "why.html")
    page.wait(DRAWN.format(1))
    assert texts(page, "#rest .label") == ["Mass", "Effusion", "Nodule"]
    assert texts(page, "#rest li:nth-child(1) small") == ["no region"]
    assert texts(page, "#rest small") == ["no region"]
    assert page.eval("document.querySelectorAll('#rest .bar').length") == 2
    assert page.errors == []


def test_a_model_without_a_gate_has_no_line_for_it(opened) -> None:
    assert opened.eval("document.querySelector('#abnormal').hidden")
    assert texts(opened, "#operating-point") == [""]


@pytest.mark.parametrize("width", [600, 1400])
def test_no_sideways_scrolling(page, report: Path, width: int) -> None:
    page.open(report, width=width)
    page.wait(DRAWN.format(2))
    assert page.eval("document.documentElement.scrollWidth <= innerWidth")
    assert page.errors == []


def test_a_report_of_failures_alone(page, model, tmp_path: Path) -> None:
    with Report(tmp_path / "none.html", "Nothing", model) as report:
        report.add_failure("a.dcm", "corrupt", "no pixels")
    page.open(tmp_path / "none.html")
    page.wait("document.querySelector('#failures-title')?.textContent === '1 input failed'")
    assert page.eval("!document.querySelector('#none').hidden && document.querySelector('#film').hidden")
    assert page.errors == []
