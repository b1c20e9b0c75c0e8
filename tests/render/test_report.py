"""The report as a file: what is in it, that nothing can break out of it, and that it is whole or not there."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from msloc_edge.render.report import Report
from msloc_edge.types import FilmGate, OperatingPoint

HOSTILE = [
    "</script><script>document.title='owned'</script>.png",
    "<img src=x onerror=\"document.title='owned'\">.png",
    "<!--<script>.png",
    "__FILMS__ __JS__ __TITLE__ ${name}.png",
    "\"'&amp;\u2028\n\x00.png",
    "\udcff.png",  # a byte that is no character, as os.fsdecode gives it
]


class Blocks(HTMLParser):
    """The page as a browser divides it: JSON blocks by class, script and style texts, and every tag."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.json: dict[str, list[Any]] = {}
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, str] = {}
        self._open: tuple[str, dict[str, str | None]] = ("", {})
        self.feed(path.read_text(encoding="utf-8"))
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._open = (tag, dict(attrs))
        self.tags.append(self._open)

    def handle_endtag(self, tag: str) -> None:
        self._open = ("", {})

    def handle_data(self, data: str) -> None:
        tag, attributes = self._open
        if attributes.get("type") == "application/json":
            self.json.setdefault(str(attributes["class"]), []).append(json.loads(data))
        else:
            self.texts[tag] = self.texts.get(tag, "") + data


def film(height: int = 80, width: int = 100) -> np.ndarray:
    return np.random.default_rng(0).random((height, width), np.float32)


def decoded(uri: str) -> np.ndarray:
    image = cv2.imdecode(np.frombuffer(base64.b64decode(uri.split(",")[1]), np.uint8), cv2.IMREAD_UNCHANGED)
    assert image is not None
    return image


def test_what_a_film_carries(make_result, model, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    result = make_result((80, 100), {"Mass": (30, 20, 20, 20)}, warnings=("dicom.window_guessed",))
    with Report(path, "Round", model) as report:
        report.add(film(), result, {"overlay": "a.overlay.png"})
    blocks = Blocks(path)
    assert blocks.json["report"] == [{"title": "Round", "model": json.loads(json.dumps(model))}]
    (card,), (page,) = blocks.json["card"], blocks.json["film"]
    assert card["name"] == "film.png"
    assert [f["label"] for f in card["positive"]] == ["Mass"]
    assert decoded(page["image"]).shape == (80, 100)
    assert page["links"] == {"overlay": "a.overlay.png"}
    assert {**result.to_dict(), "findings": 0}.items() <= {**page, "findings": 0}.items()

    plain, mass, _ = page["findings"]
    assert "map" not in plain  # not localized
    assert mass["map_threshold"] == 1.0
    index = decoded(mass["map"])
    assert index.shape == (51, 64)
    assert set(np.unique(index).tolist()) == {0, 255}  # -1 and 3 at a threshold of 1
    assert len(mass["stages"]) == 2
    for stage, map in zip(mass["stages"], result.stage_maps["Mass"], strict=True):
        levels = decoded(stage["image"]).astype(float)
        back = stage["low"] + (stage["high"] - stage["low"]) * levels / 255
        np.testing.assert_allclose(back, map, atol=(stage["high"] - stage["low"]) / 500)
        assert stage["mean"] == pytest.approx(float(map.mean()))


def test_a_film_carries_its_gate_and_how_far_each_finding_exceeds(make_result, model, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    boxes = {"Effusion": (0, 0, 20, 20), "Nodule": (60, 50, 20, 20)}
    gate, point = FilmGate(0.7, 0.4), OperatingPoint("normal-90", 0.098)
    result = make_result((80, 100), boxes, gate=gate, operating_point=point, time="2026-11-30T19:24:25+00:00")
    with Report(path, "Round", model) as report:
        report.add(film(), result)
    (card,), (page,) = Blocks(path).json["card"], Blocks(path).json["film"]
    assert page["abnormal"] == {"score": 0.7, "threshold": 0.4, "positive": True}
    assert (page["profile"], page["time"]) == ("normal-90", "2026-11-30T19:24:25+00:00")
    # scores 0.9, 0.05 and 0.7, each at 0.5, whose log-odds are 0
    assert [f["excess"] for f in page["findings"]] == pytest.approx(np.log([9, 1 / 19, 7 / 3]))
    assert [(f["label"], f["excess"]) for f in card["positive"]] == [
        ("Effusion", pytest.approx(np.log(9))),
        ("Nodule", pytest.approx(np.log(7 / 3))),
    ]


def test_large_films_are_scaled_down(make_result, model, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    with Report(path, "", model) as report:
        report.add(film(3000, 2500), make_result((3000, 2500), {"Mass": (0, 0, 500, 500)}, input_side=512))
    (page,), (card,) = Blocks(path).json["film"], Blocks(path).json["card"]
    assert decoded(page["image"]).shape == (1024, 853)
    assert decoded(card["thumb"]).shape == (112, 93)
    assert max(decoded(page["findings"][1]["map"]).shape) == 256


def test_the_page_asks_for_nothing_and_runs_only_its_own_script(make_result, model, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    with Report(path, "Round", model) as report:
        report.add(film(), make_result((80, 100), {"Mass": (30, 20, 20, 20)}))
    text = path.read_text()
    urls = set(re.findall(r"https?://[^\s\"'<>]*", re.sub(r"base64,[A-Za-z0-9+/=]+", "", text)))
    assert urls == {"http://www.w3.org/2000/svg"}  # the name of a namespace, which nobody fetches
    assert not re.search(r"@import|url\(|\bfetch\(|XMLHttpRequest|innerHTML|insertAdjacentHTML|eval\(", text)
    blocks = Blocks(path)
    for _, attributes in blocks.tags:
        assert not {"src", "style"} & set(attributes)
        assert not any(name.startswith("on") for name in attributes)
    policy = next(str(a["content"]) for _, a in blocks.tags if a.get("http-equiv"))
    assert policy.startswith("default-src 'none'; img-src data:;")
    assert "unsafe" not in policy
    for tag in ("script", "style"):
        digest = base64.b64encode(hashlib.sha256(blocks.texts[tag].encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_texts_stay_texts(make_result, model, tmp_path: Path, name: str) -> None:
    path = tmp_path / "report.html"
    model["intended_use"] = name
    with Report(path, name, model) as report:
        report.add(film(), make_result((80, 100), name=name, warnings=(name,)), {name: name})
        report.add_failure(name, name, name)
    with Report(tmp_path / "calm.html", "calm", model | {"intended_use": ""}) as report:
        report.add(film(), make_result((80, 100), name="calm"))
        report.add_failure("", "", "")
    blocks = Blocks(path)
    assert blocks.tags == Blocks(tmp_path / "calm.html").tags  # no tag more, no attribute more
    assert blocks.json["film"][0]["input"] == name
    assert blocks.json["card"][0]["name"] == name
    assert blocks.json["report"][0]["title"] == name
    assert blocks.json["failure"] == [{"input": name, "reason": name, "message": name}]


def test_numbers_that_json_does_not_know(make_result, model, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    model["map_thresholds"] = {"Mass": float("inf"), "Nodule": np.float32(1.5), "Effusion": float("nan")}
    model["relevance"] = {"Mass": np.array([0.5, 0.5], np.float32)}
    result = make_result((80, 100), {"Mass": (30, 20, 20, 20), "Nodule": (0, 0, 20, 20)})
    result.stage_maps["Nodule"][0][0, 0] = np.nan
    with Report(path, "", model) as report:
        report.add(film(), result)
    page = Blocks(path).json
    assert page["report"][0]["model"]["map_thresholds"] == {"Mass": None, "Nodule": 1.5, "Effusion": None}
    assert "map" not in page["film"][0]["findings"][1]
    assert "map" in page["film"][0]["findings"][2]


def test_the_same_films_give_the_same_bytes(make_result, model, tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).mkdir()
        with Report(tmp_path / name / "report.html", "Round", model) as report:
            report.add(film(), make_result((80, 100), {"Mass": (30, 20, 20, 20)}))
    assert (tmp_path / "a" / "report.html").read_bytes() == (tmp_path / "b" / "report.html").read_bytes()


def test_a_report_ends_whole_when_the_run_breaks_off(make_result, model, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    with pytest.raises(KeyboardInterrupt), Report(path, "Round", model) as report:  # noqa: PT012
        report.add(film(), make_result((80, 100)))
        report.add_failure("b.dcm", "corrupt", "no pixels")
        assert not path.exists()
        raise KeyboardInterrupt
    blocks = Blocks(path)
    assert len(blocks.json["film"]) == len(blocks.json["failure"]) == 1
    assert path.read_text().endswith("</html>\n")
    assert os.listdir(tmp_path) == ["report.html"]


def test_a_film_that_cannot_be_written_leaves_no_half_block(
    make_result, model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "report.html"
    report = Report(path, "Round", model)
    report.add_failure("a.dcm", "x", "first")
    real = report._file

    class Full:
        """A disk that takes ten bytes and then is full."""

        taken = False

        def __getattr__(self, name: str) -> Any:
            return getattr(real, name)

        def write(self, data: memoryview) -> int:
            if self.taken:
                raise OSError(28, "No space left on device")
            self.taken = True
            return real.write(data[:10])

    report._file = Full()  # type: ignore[assignment]
    with pytest.raises(OSError, match="No space left"):
        report.add_failure("b.dcm", "x", "second")
    report._file = real
    report.close()
    assert [f["message"] for f in Blocks(path).json["failure"]] == ["first"]


def test_closing(model, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    path.write_text("old")
    report = Report(path, "Round", model)
    assert path.read_text() == "old"
    report.close()
    report.close()
    assert "film" not in Blocks(path).json
    with pytest.raises(ValueError, match="closed"):
        report.add_failure("a", "b", "c")
    with pytest.raises(FileNotFoundError):
        Report(tmp_path / "missing" / "report.html", "", model)


def test_a_report_that_cannot_take_its_name_waits_for_the_next_run(model, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    path.mkdir()
    with pytest.raises(OSError, match="directory"):
        Report(path, "Round", model).close()
    assert sorted(os.listdir(tmp_path)) == [".report.html.part", "report.html"]


def test_many_films_are_several_pages(make_result, model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("msloc_edge.render.report.PAGE_FILMS", 2)
    with Report(tmp_path / "report.html", "Round", model) as report:
        for number in range(5):
            report.add(film(), make_result((80, 100), {}, name=f"{number}.png"))
            assert len(list(tmp_path.glob("report*.html"))) == (number) // 2  # finished ones are there at once
    pages = [Blocks(tmp_path / name).json for name in ("report.html", "report-2.html", "report-3.html")]
    assert [[film["input"] for film in page["film"]] for page in pages] == [
        ["0.png", "1.png"],
        ["2.png", "3.png"],
        ["4.png"],
    ]
    assert [page["pages"] for page in pages] == [
        [{"number": number, "last": number == 3, "name": "report", "suffix": ".html"}] for number in (1, 2, 3)
    ]
    assert len(list(tmp_path.iterdir())) == 3


@pytest.mark.parametrize("finished", [True, False])
def test_a_report_goes_on(make_result, model, tmp_path: Path, finished: bool) -> None:
    """After its end, or after a kill in the middle of a film: what is not known there, and half a film, go."""
    path = tmp_path / "report.html"
    report = Report(path, "Round", model)
    for name in ("a.png", "b.png"):
        report.add(film(), make_result((80, 100), {}, name=name))
    report.add_failure("bad.png", "truncated", "bad.png: cut")
    report.add(film(), make_result((80, 100), {}, name="unknown.png"))
    if finished:
        report.close()
    else:
        report._file.write(b'<script type="application/json" class="card">{"na')
        report._file.close()
    with Report(path, "Again", model, known=lambda record: record["input"] != "unknown.png") as report:
        report.add(film(), make_result((80, 100), {}, name="c.png"))
        report.add(film(), make_result((80, 100), {}, name="taken back.png"))
        report.remove()
    blocks = Blocks(path)
    assert [film["input"] for film in blocks.json["film"]] == ["a.png", "b.png", "c.png"]
    assert [card["name"] for card in blocks.json["card"]] == ["a.png", "b.png", "c.png"]
    assert [failure["input"] for failure in blocks.json["failure"]] == ["bad.png"]
    assert [(block["title"],) for block in blocks.json["report"]] == [("Again",)]
    assert len(blocks.json["pages"]) == 1
    assert os.listdir(tmp_path) == ["report.html"]
