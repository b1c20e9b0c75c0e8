"""Results to render, and a Chromium to look at reports with, driven over a pipe by the standard library alone."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from msloc_edge.imaging.geometry import Geometry
from msloc_edge.result import Result
from msloc_edge.types import Box, Finding, ModelId, Peak

LABELS = ("Effusion", "Mass", "Nodule")
RELEVANCE = (0.25, 0.75)


def build_result(
    size: tuple[int, int] = (80, 100),
    boxes: dict[str, tuple[float, float, float, float]] | None = None,
    name: str = "film.png",
    warnings: tuple[str, ...] = (),
    input_side: int = 64,
    labels: Sequence[str] = LABELS,
    **entries: Any,
) -> Result:
    """A result for a film of (height, width): each label of `boxes` is positive, and its map is 3 inside its box and
    -1 outside, in logit units, with two stages that add up to about that. `entries` replace its own."""
    geometry = Geometry.fit(size, (input_side, input_side))
    maps, stages, findings = {}, {}, []
    for order, label in enumerate(labels):
        box = (boxes or {}).get(label)
        peak = None
        if box is not None:
            x, y, w, h = box
            corners = geometry.to_input(np.array([[x, y], [x + w, y + h]]))
            (left, top), (right, bottom) = np.rint(corners).astype(int)
            whole = np.full((input_side, input_side), -1, np.float32)
            whole[top:bottom, left:right] = 3
            maps[label] = np.ascontiguousarray(whole[geometry.content])
            stages[label] = tuple(cv2.resize(whole, (side, side), interpolation=cv2.INTER_AREA) for side in (16, 8))
            peak = Peak(x + w / 2, y + h / 2, 3.0)
        score = 0.9 - 0.1 * order if box is not None else 0.05
        found = (Box(*box, score),) if box is not None else ()
        findings.append(Finding(label, score, 0.5, box is not None, RELEVANCE, peak, found))
    model = ModelId("tiny", "1.2.3", "ab" * 32)
    timing = {"infer": 1.25}
    made = Result(name, "cd" * 32, model, "onnxruntime", geometry, tuple(findings), warnings, timing, maps, stages)
    return replace(made, **entries)


@pytest.fixture
def make_result() -> Callable[..., Result]:
    return build_result


@pytest.fixture
def model() -> dict[str, Any]:
    return {
        "name": "tiny",
        "version": "1.2.3",
        "sha256": "ab" * 32,
        "classes": list(LABELS),
        "intended_use": "Research.",
        "map_thresholds": dict.fromkeys(LABELS, 1.0),
        "relevance": dict.fromkeys(LABELS, RELEVANCE),
    }


class Page:
    """One tab: evaluates, clicks, types, and remembers every error that the page logs."""

    def __init__(self, browser: Browser, session: str) -> None:
        self._browser, self._session = browser, session
        self.errors: list[str] = []
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **params: Any) -> Any:
        return self._browser.call(method, params, self._session, self._seen)

    def _seen(self, event: dict[str, Any]) -> None:
        method, params = event["method"], event["params"]
        if method == "Runtime.exceptionThrown":
            self.errors.append(json.dumps(params["exceptionDetails"]))
        elif method == "Log.entryAdded" and params["entry"]["level"] in ("warning", "error"):
            self.errors.append(params["entry"]["text"])
        elif method == "Runtime.consoleAPICalled" and params["type"] in ("warning", "error"):
            self.errors.append(json.dumps(params["args"]))
        elif method == "Network.requestWillBeSent":
            url = params["request"]["url"]
            if not url.startswith(("data:", "file:")):
                self.errors.append(f"asked for {url}")

    def open(self, path: Path, width: int = 1400, height: int = 900) -> None:
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        self.call("Page.navigate", url=path.as_uri())

    def eval(self, expression: str) -> Any:
        """The value of a JavaScript expression; a promise is awaited."""
        answer = self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def wait(self, expression: str) -> None:
        """Until the expression is true."""
        end = time.monotonic() + 20
        while not self.eval(expression):
            assert time.monotonic() < end, f"still not true: {expression}"
            time.sleep(0.02)

    def click(self, selector: str) -> None:
        """Press the mouse where the element is, as a user does."""
        x, y = self.eval(
            f"(() => {{ const e = document.querySelector({selector!r}); e.scrollIntoView({{block: 'nearest'}});"
            " const r = e.getBoundingClientRect(); return [r.x + r.width / 2, r.y + r.height / 2]; })()"
        )
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def move(self, x: float, y: float) -> None:
        self.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)

    def key(self, key: str) -> None:
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, text=key if len(key) == 1 else "")

    def screenshot(self) -> bytes:
        return base64.b64decode(self.call("Page.captureScreenshot")["data"])


class Browser:
    """Chromium behind --remote-debugging-pipe: JSON messages that end in a null byte, on its descriptors 3 and 4."""

    def __init__(self, program: str, profile: Path) -> None:
        (read_commands, self._commands), (self._events, write_events) = os.pipe(), os.pipe()
        # Out of the way first, so that neither dup2 in the child closes what the other needs.
        ends = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 10) for fd in (read_commands, write_events)]
        options = (
            "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
            " --disable-component-update --disable-sync --disable-dev-shm-usage --remote-debugging-pipe"
        )
        self.process = subprocess.Popen(
            [program, *options.split(), f"--user-data-dir={profile}"],
            preexec_fn=lambda: (os.dup2(ends[0], 3), os.dup2(ends[1], 4)),  # type: ignore[arg-type,return-value]
            close_fds=False,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for fd in (read_commands, write_events, *ends):
            os.close(fd)
        self._count, self._buffer = 0, b""

    def call(
        self, method: str, params: dict[str, Any], session: str = "", seen: Callable[[dict[str, Any]], None] = print
    ) -> Any:
        self._count += 1
        message = {"id": self._count, "method": method, "params": params}
        if session:
            message["sessionId"] = session
        os.write(self._commands, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._receive()
            if answer.get("id") == self._count:
                assert "error" not in answer, answer
                return answer["result"]
            if "method" in answer and answer.get("sessionId") == session and session:
                seen(answer)

    def _receive(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._events], [], [], 60)
            data = os.read(self._events, 1 << 20) if ready else b""
            assert data, "Chromium does not answer"
            self._buffer += data
        message, self._buffer = self._buffer.split(b"\0", 1)
        return json.loads(message)  # type: ignore[no-any-return]

    def tab(self) -> Page:
        target = self.call("Target.createTarget", {"url": "about:blank"})["targetId"]
        session = self.call("Target.attachToTarget", {"targetId": target, "flatten": True})["sessionId"]
        return Page(self, session)

    def close(self) -> None:
        try:
            self.call("Browser.close", {})
            self.process.wait(10)
        except (AssertionError, OSError, subprocess.TimeoutExpired):
            self.process.kill()
            self.process.wait(10)
        os.close(self._commands)
        os.close(self._events)


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    names = ("chromium", "chromium-browser", "google-chrome")
    program = next(filter(None, map(shutil.which, names)), None)
    if program is None:
        pytest.skip("no Chromium on PATH")
    browser = Browser(program, tmp_path_factory.mktemp("chromium"))
    yield browser
    browser.close()


@pytest.fixture
def page(browser: Browser) -> Page:
    return browser.tab()
