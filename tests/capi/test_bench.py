"""msloc_bench, which docs/embedding.md runs: it prints what a film of the shipped model costs. What, is not tested."""

from __future__ import annotations

import re
from typing import Any


def test_it_runs_on_the_shipped_model(capi: Any, structs: dict[str, Any]) -> None:
    root = structs["ROOT"]
    bench, film = capi.build / "tests" / "capi" / "msloc_bench", root / "examples" / "embed" / "film.pgm"
    printed = structs["run"](bench, root / "msloc_edge" / "bundle" / "models" / "cxr-edge", film, 600, 700, 1)
    opened, *lines = printed.splitlines()
    assert re.fullmatch(r"open \d+ ms, first result after \d+ ms", opened)
    parts = r"total [\d.]+ = preprocess [\d.]+ \+ network [\d.]+ \+ localize [\d.]+ ms; OpenVINO alone [\d.]+ ms"
    assert [bool(re.fullmatch(rf"600 x 700, (positive|all) classes: {parts}", line)) for line in lines] == [True, True]
