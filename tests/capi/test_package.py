"""The tree that `cmake --install` makes: found by CMake and pkg-config, run in place, moved, shipped with OpenVINO."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from msloc_edge.imaging.reading import read_frame
from msloc_edge.maps.boxes import agreement, array_of
from msloc_edge.pipeline import Localizer
from msloc_edge.train.phantom import generate
from msloc_edge.types import Frame

OPENVINO = ("libopenvino.so.*", "libopenvino_onnx_frontend.so.*", "libopenvino_intel_cpu_plugin.so", "libtbb.so.*")
"""Files of OpenVINO that a product ships for this library."""


@pytest.fixture(scope="module")
def prefix(capi: Any, structs: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("prefix")
    with structs["alone_in"](capi.build):
        structs["run"]("cmake", "--install", capi.build, "--prefix", folder)
    return folder


@pytest.fixture(scope="module")
def program(prefix: Path, structs: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """examples/embed, built by CMake against the installed package."""
    build = tmp_path_factory.mktemp("embed")
    source = structs["ROOT"] / "examples" / "embed"
    structs["run"]("cmake", "-G", "Ninja", "-S", source, "-B", build, f"-DCMAKE_PREFIX_PATH={prefix}")
    structs["run"]("cmake", "--build", build)
    return build / "localize"


@pytest.fixture(scope="module")
def python(bundle: Path) -> Iterator[Localizer]:
    with Localizer(bundle, "openvino") as localizer:
        yield localizer


def write_pgm(path: Path, pixels: np.ndarray, largest: int) -> Path:
    data = pixels.astype(">u2" if largest > 255 else np.uint8).tobytes()
    path.write_bytes(b"P5\n%d %d\n%d\n" % (*pixels.shape[::-1], largest) + data)
    return path


@pytest.fixture
def phantom(tmp_path: Path) -> tuple[Path, Frame]:
    """A film of 12 bits with findings, as PGM and as Python has it."""
    stored = generate(914, (400, 310), ["Mass", "Cardiomegaly"]).stored
    return write_pgm(tmp_path / "phantom.pgm", stored, 4095), Frame(stored, np.linspace(0, 1, 4096, dtype=np.float32))


def compare(printed: str, frame: Frame, python: Localizer) -> int:
    """Findings and boxes that the example printed against Python's; returns how many boxes there were."""
    lines = [line.split() for line in printed.splitlines()]
    findings = {word[1]: [float(number) for number in word[2:]] for word in lines if word[0] == "finding"}
    result = python.run([python.prepare(frame)])[0]
    positive = [finding for finding in result.findings if finding.positive]
    assert list(findings) == [finding.label for finding in positive]
    for finding in positive:
        assert finding.peak is not None
        assert findings[finding.label] == pytest.approx([finding.score, finding.peak.x, finding.peak.y], abs=1e-3)
        boxes = [[float(number) for number in word[3:]] for word in lines if word[:2] == ["box", finding.label]]
        assert agreement(np.array(boxes).reshape(-1, 4), array_of(finding.boxes)) >= 0.99
    return sum(word[0] == "box" for word in lines)


def test_installed_files(prefix: Path) -> None:
    names = (str(path.relative_to(prefix)) for path in prefix.rglob("*") if path.is_file())
    assert {re.sub(r"^lib/[a-z0-9_]+-linux-gnu/", "lib/", name) for name in names} == {
        "include/msloc_edge.h",
        "include/msloc_edge.hpp",
        *(f"lib/libmsloc_edge.so{version}" for version in ("", ".0", ".0.2.0")),
        "lib/pkgconfig/msloc_edge.pc",
        *(f"lib/cmake/msloc_edge/msloc_edgeConfig{part}.cmake" for part in ("", "Version", "-release")),
        "share/doc/msloc_edge/LICENSE",
    }


def test_example_on_a_phantom(
    program: Path, phantom: tuple[Path, Frame], bundle: Path, python: Localizer, structs: dict[str, Any]
) -> None:
    path, frame = phantom
    assert compare(structs["run"](program, bundle, path), frame, python) > 0


def test_example_on_a_real_film(
    program: Path, bundle: Path, python: Localizer, structs: dict[str, Any], shared_data: Path, tmp_path: Path
) -> None:
    boxes = 0
    for film in sorted(shared_data.glob("nih/images/*.jpg"))[:12]:  # the first of them pass the film gate
        frame = read_frame(film)
        assert frame.pixels.dtype == np.uint8
        boxes += compare(
            structs["run"](program, bundle, write_pgm(tmp_path / "f.pgm", frame.pixels, 255)), frame, python
        )
    assert boxes > 0


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"P5\n16 16\n255\n" + bytes(256), "too_small: expected at least 32 pixels a side, got 16 x 16"),
        (b"P5\n64 64\n255\n" + bytes(4096), "constant: "),
        (b"P5\n64 64\n255\n" + bytes(4095), "no binary PGM"),
        (b"P6\n64 64\n255\n" + bytes(3 * 4096), "no binary PGM"),
        (b"", "no binary PGM"),
    ],
)
def test_example_refuses(data: bytes, sentence: str, program: Path, bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "film.pgm").write_bytes(data)
    done = subprocess.run([program, bundle, tmp_path / "film.pgm"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "")
    assert sentence in done.stderr


def test_example_names_what_is_wrong_with_its_arguments(program: Path, bundle: Path, tmp_path: Path) -> None:
    def status_and_words(*arguments: str | Path) -> tuple[int, str]:
        done = subprocess.run([program, *arguments], capture_output=True, text=True)
        return done.returncode, done.stderr

    assert status_and_words()[0] == 2
    code, words = status_and_words(tmp_path / "none", "film.pgm")
    assert code == 1
    assert "bundle_missing: " in words
    code, words = status_and_words(bundle, "film.pgm", "none")
    assert code == 1
    assert "sensitivity-90" in words


def test_pkg_config(
    prefix: Path, phantom: tuple[Path, Frame], bundle: Path, structs: dict[str, Any], tmp_path: Path
) -> None:
    """The command of examples/README.md works, on a tree that was moved after installation."""
    if not shutil.which("pkg-config"):
        pytest.skip("no pkg-config here")
    moved = shutil.copytree(prefix, tmp_path / "moved", symlinks=True)
    env = {"PATH": "/usr/bin:/bin", "PKG_CONFIG_PATH": str(next(moved.rglob("pkgconfig")))}
    page = (structs["ROOT"] / "examples" / "README.md").read_text("utf-8")
    line = next(line.strip() for line in page.splitlines() if "pkg-config --cflags" in line)
    command = line.replace("-o localize", f"-o {shlex.quote(str(tmp_path / 'localize'))}")
    structs["run"]("sh", "-ec", command, cwd=structs["ROOT"], env=env)
    assert "finding Mass" in structs["run"](tmp_path / "localize", bundle, phantom[0])


def test_a_product_ships_openvino_beside_the_library(
    capi: Any, phantom: tuple[Path, Frame], bundle: Path, structs: dict[str, Any], tmp_path: Path
) -> None:
    """A tree that knows no path of this machine runs where it is moved to."""
    run, configure = structs["run"], structs["configure"]
    wheel = Path(pytest.importorskip("openvino").__file__).parent / "libs"
    with structs["alone_in"](capi.build):
        try:
            configure(capi.build, "-DMSLOC_RELOCATABLE=ON")
            run("cmake", "--install", capi.build, "--prefix", tmp_path / "staged")
        finally:
            configure(capi.build, "-DMSLOC_RELOCATABLE=OFF")
    (library,) = (tmp_path / "staged").rglob("libmsloc_edge.so")
    assert str(wheel).encode() not in library.read_bytes()
    for pattern in OPENVINO:
        for path in wheel.glob(pattern):
            shutil.copy(path, library.parent)
    (tmp_path / "staged" / "bin").mkdir()
    source = structs["ROOT"] / "examples" / "embed" / "localize.c"
    include = tmp_path / "staged" / "include"
    place = f"$ORIGIN/../{library.parent.relative_to(tmp_path / 'staged')}"
    program = tmp_path / "staged" / "bin" / "localize"
    run("cc", source, "-o", program, f"-I{include}", f"-L{library.parent}", "-lmsloc_edge", f"-Wl,-rpath,{place}")
    (tmp_path / "staged").rename(tmp_path / "elsewhere")
    seen = run(tmp_path / "elsewhere" / "bin" / "localize", bundle, phantom[0], env={"PATH": "/usr/bin"})
    assert "finding Mass" in seen


def test_a_static_library_is_refused_aloud(structs: dict[str, Any], tmp_path: Path) -> None:
    if tool := structs["missing_tool"]():
        pytest.skip(f"libmsloc_edge cannot be configured here: no {tool}")
    command = ["cmake", "-S", structs["ROOT"], "-B", tmp_path, "-DBUILD_SHARED_LIBS=OFF", "-DMSLOC_WITH_OPENVINO=OFF"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode != 0
    assert "libmsloc_edge is a shared library alone" in done.stderr


def test_options_of_a_linker_that_has_none(structs: dict[str, Any], tmp_path: Path) -> None:
    """What CMake would find with another linker than GNU's is given to it here."""
    found = ("MSLOC_LINKER_HAS_VERSION_SCRIPT", "MSLOC_LINKER_HAS_NO_UNDEFINED")
    for value, options in (("ON", 2), ("OFF", 0)):
        structs["configure"](tmp_path, *(f"-D{name}={value}" for name in found), "-DMSLOC_BUILD_TESTS=OFF")
        lines = (tmp_path / "build.ninja").read_text()
        assert sum(option in lines for option in ("--version-script", "--no-undefined")) == options
