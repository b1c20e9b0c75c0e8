"""The input gate: what it computes, what it passes, what it names; phantoms, drawn pictures and real films."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from msloc_edge.errors import WARNINGS, BundleError
from msloc_edge.imaging.gate import (
    REASONS,
    REFUSED,
    RULES,
    SIDE,
    InputGate,
    default_gate,
    parse_gate,
    read_gate,
    thumbnail,
    write_layer,
)
from msloc_edge.imaging.reading import read_frame
from msloc_edge.train.gate import drawn
from msloc_edge.train.phantom import generate

SIZES = [64, 128, 256, (480, 420), (200, 150), (420, 700)]
SEEDS = range(9_000_000, 9_000_006)


def numbers(bias: list[float], **entries: Any) -> dict[str, Any]:
    """The numbers of a gate without convolutions, which sees the same in every picture: softmax of `bias`."""
    head = write_layer(np.zeros((6, SIDE * SIDE), np.float32) + np.float32(1e-9), np.array(bias, np.float32))
    gate = {"reasons": list(REASONS), "thresholds": [0.1] * 5, "clipped": 0.5, "convolutions": [], "head": head}
    return gate | entries


def grey(share: float) -> np.ndarray:
    """A film of middle grey of which this share is white."""
    film = np.full((100, 100), 0.5, np.float32)
    film[: round(100 * share)] = 1
    return film


@pytest.fixture(scope="module")
def gate() -> InputGate:
    return default_gate()


# What it computes


def test_each_cell_of_the_thumbnail_is_the_mean_of_its_area() -> None:
    film = np.zeros((128, 96), np.float32)  # cells of 2 x 1.5 pixels
    film[:64, :2] = 1  # the first cell of a row whole, a third of the second: 0.5 of its 1.5 columns
    cells = thumbnail(film)
    dark = cells[-1, -1]
    assert cells.shape == (SIDE, SIDE)
    assert (cells[0, 1] - dark) / (cells[0, 0] - dark) == pytest.approx(1 / 3, abs=1e-5)
    assert (float(cells.mean()), float(cells.std())) == pytest.approx((0, 1), abs=1e-5)


def test_a_smaller_film_and_one_without_contrast_have_a_thumbnail() -> None:
    film = np.eye(32, dtype=np.float32)
    assert thumbnail(film) == pytest.approx(thumbnail(np.kron(film, np.ones((2, 2), np.float32))), abs=1e-5)
    assert thumbnail(np.full((80, 90), 0.3, np.float32)) == pytest.approx(np.zeros((SIDE, SIDE)), abs=1e-4)


def test_the_network_is_the_one_that_torch_fits() -> None:
    torch = pytest.importorskip("torch")
    from msloc_edge.train.gate.fit import gate_of, network

    torch.manual_seed(3)
    net = network().eval()
    film = generate(77, 128).display()
    found = gate_of(net, [film], clipped=0.4).probabilities(film)
    with torch.no_grad():
        expected = net(torch.from_numpy(thumbnail(film))[None, None]).softmax(1)[0].numpy()
    assert found == pytest.approx(expected, abs=0.02)  # weights of one byte
    assert found.sum() == pytest.approx(1, abs=1e-6)


def test_it_wakes_no_threads() -> None:
    """numpy's BLAS spins for milliseconds after a large product, on a core that the network needs."""
    used = "time.process_time() - time.thread_time()"
    lines = (
        "import time, numpy as np",
        "from msloc_edge.imaging.gate import default_gate",
        "film = np.random.default_rng(0).random((256, 256), dtype=np.float32)",
        "default_gate().judge(film), time.sleep(0.5)  # threads spin when a library is loaded, too",
        f"others = {used}",
        "for _ in range(20): default_gate().judge(film), time.sleep(0.01)",
        f"print({used} - others)",
    )
    limits = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    free = {name: value for name, value in os.environ.items() if name not in limits}
    words = [sys.executable, "-c", "\n".join(lines)]
    done = subprocess.run(words, capture_output=True, text=True, env=free, check=True)
    assert float(done.stdout) < 0.01  # seconds of other threads


@pytest.mark.parametrize(("seen", "reason"), [(0, ()), *((k + 1, (reason,)) for k, reason in enumerate(REASONS))])
def test_the_likeliest_reason_is_named_where_a_film_is_unlikely(seen: int, reason: tuple[str, ...]) -> None:
    bias = [0.0] * 6
    bias[seen] = 6  # the others have e^-6 of it: a film 0.0025
    assert parse_gate(numbers(bias)).judge(grey(0.1)) == reason
    assert parse_gate(numbers(bias, thresholds=[0.002] * 5)).judge(grey(0.1)) == ()


@pytest.mark.parametrize(
    ("share", "enlarged", "rules"),
    [(0.5, 2.0, ()), (0.51, 1.0, ("clipped",)), (0.0, 2.01, ("low_resolution",)), (0.6, 3.0, RULES)],
)
def test_rules(share: float, enlarged: float, rules: tuple[str, ...]) -> None:
    assert parse_gate(numbers([6.0, 0, 0, 0, 0, 0])).judge(grey(share), enlarged) == rules


def test_every_reason_has_its_words() -> None:
    assert {*REASONS, *RULES, *REFUSED} <= set(WARNINGS)


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ({"reasons": ["rotated"]}, "with the reasons"),
        ({"thresholds": [0.1] * 4}, "a threshold of 0 to 1"),
        ({"thresholds": [0.1, 0.1, 0.1, 0.1, 1.5]}, "a threshold of 0 to 1"),
        ({"clipped": float("nan")}, "a share of clipped"),
        ({"convolutions": [{"scale": 1, "bias": [0.0], "weights": "00"}]}, "1 x 9 weights, got 1"),
        ({"head": {"scale": 1, "bias": [0.0] * 5, "weights": "00" * 5 * 4096}}, "6 outputs, got 5"),
        ({"head": {"scale": float("inf"), "bias": [0.0] * 6, "weights": "00" * 6 * 4096}}, "6 x 4096 weights"),
        ({"head": {"scale": 1, "bias": [0.0] * 6, "weights": "zz"}}, "hexadecimal"),
    ],
)
def test_numbers_that_are_no_gate(entries: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        parse_gate(numbers([0.0] * 6, **entries))


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"reasons": 3}'])
def test_a_file_that_holds_no_gate(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "gate.json").write_bytes(content)
    for path in (tmp_path / "gate.json", tmp_path / "none.json"):
        with pytest.raises(BundleError) as error:
            read_gate(path)
        assert error.value.reason == "bundle_damaged"
        assert str(path) in error.value.message


# What the gate that ships passes and names


@pytest.mark.parametrize("size", SIZES)
def test_phantoms_pass(gate: InputGate, size: int | tuple[int, int]) -> None:
    for seed in SEEDS:
        assert gate.judge(generate(seed, size).display()) == (), seed


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_a_phantom_on_its_side_or_upside_down(gate: InputGate, turns: int) -> None:
    films = [np.rot90(generate(seed, 256).display(), turns) for seed in SEEDS]
    assert [gate.judge(np.ascontiguousarray(film)) for film in films] == [("rotated",)] * len(films)


def test_a_phantom_as_a_negative(gate: InputGate) -> None:
    films = [1 - generate(seed, 256).display() for seed in SEEDS]
    assert ["polarity_suspect" in gate.judge(film) for film in films] == [True] * len(films)


@pytest.mark.parametrize("draw", [drawn.page, drawn.plot, drawn.texture, drawn.bones])
def test_other_pictures_do_not_pass(gate: InputGate, draw: Any) -> None:
    rng = np.random.default_rng(12345)  # others than those of the fit
    reasons = [gate.judge(draw(rng)) for _ in range(20)]
    refused = [bool(set(REFUSED) & set(codes)) for codes in reasons]
    assert sum(refused) >= 16, reasons  # a smooth ramp, or two blurred blobs, may pass


def test_real_films_pass(gate: InputGate, shared_data: Path) -> None:
    from msloc_edge.train.data.nih import read_nih

    aside = (Path(__file__).parents[2] / "benchmarks" / "nih-not-upright.txt").read_text().split()
    records = [r for r in read_nih(shared_data / "nih", "validation").records if r.name not in aside]
    judged = {r.name: gate.judge(read_frame(r.path).display()) for r in records[::3]}
    assert len(judged) >= 30
    assert {name: codes for name, codes in judged.items() if set(codes) & set(REFUSED)} == {}


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("nih/images/00021299_001.jpg", "rotated"),
        ("nih/images/00017625_000.jpg", "polarity_suspect"),
        ("nih/images/00017999_000.jpg", "polarity_suspect"),
    ],
)
def test_real_films_that_are_not_upright_or_negatives(
    gate: InputGate, shared_data: Path, name: str, reason: str
) -> None:
    assert reason in gate.judge(read_frame(shared_data / name).display())
