"""The SDK as a customer has it: unpacked anywhere, run without an environment, programs built from it alone.

The archive is built here with the parts that this machine has. What `make sdk` has put into dist/ is tried as well; the
one for 64-bit Arm under QEMU, by `make arm64`, as that takes minutes.
"""

from __future__ import annotations

import csv
import hashlib
import json
import os
import re
import shutil
import subprocess
import tarfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from msloc_edge import Localizer, __version__
from msloc_edge.maps.boxes import agreement, array_of
from msloc_edge.result import Result

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
DIST = ROOT / "dist"
SYSTEM = {
    "libc",
    "libdl",
    "libgcc_s",
    "libm",
    "libpthread",
    "librt",
    "libstdc++",
    "ld-linux-x86-64",
    "ld-linux-aarch64",
}
"""Libraries of the system that the SDK may need."""

NEWEST = {"GLIBC": (2, 35), "GLIBCXX": (3, 4, 30)}
"""Versions of Ubuntu 22.04 and JetPack 6, which packaging/README.md promises."""

DEB = DIST / f"msloc-edge-sdk_{__version__}_amd64.deb"

JPEG_2000 = "RG1_J2KI.dcm"
"""The one real film of a codec that DCMTK does not have."""


@pytest.fixture(scope="module")
def archive(capi: Any, structs: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The archive of this machine's parts: DCMTK, if any, is the system's, and not in it."""
    if not Path("/usr/include/stb/stb_image_write.h").exists():
        pytest.skip("the SDK's programs cannot be built here: no libstb-dev")
    folder = tmp_path_factory.mktemp("packages")
    run, configure = structs["run"], structs["configure"]
    epoch = {**os.environ, "SOURCE_DATE_EPOCH": "1700000000"}
    with structs["alone_in"](capi.build):
        try:
            configure(capi.build, "-DMSLOC_SDK=ON", "-DCMAKE_INSTALL_LIBDIR=lib")
            run("cmake", "--build", capi.build)
            run("cpack", "-G", "TGZ", "-B", folder / "first", cwd=capi.build, env=epoch)
            run("cpack", "-G", "TGZ", "-B", folder / "second", cwd=capi.build, env=epoch)
        finally:
            configure(capi.build, "-DMSLOC_SDK=OFF", "-UCMAKE_INSTALL_LIBDIR")
    first, second = (next((folder / name).glob("*.tar.gz")) for name in ("first", "second"))
    assert hashlib.sha256(first.read_bytes()).digest() == hashlib.sha256(second.read_bytes()).digest()
    return first


def shipped(machine: str) -> Path:
    """What `make sdk` made for a machine. Skips where it did not run."""
    path = DIST / f"msloc-edge-sdk-{__version__}-linux-{machine}.tar.gz"
    if not path.exists():
        pytest.skip(f"no {path.relative_to(ROOT)}: make sdk")
    return path


def unpacked(archive: Path, folder: Path) -> Path:
    with tarfile.open(archive) as content:
        content.extractall(folder)
    (sdk,) = folder.iterdir()
    return sdk


@pytest.fixture(scope="module", params=["built here", "shipped"])
def package(request: pytest.FixtureRequest) -> Path:
    """An archive for x86-64."""
    chosen: Path = request.getfixturevalue("archive") if request.param == "built here" else shipped("x86_64")
    return chosen


@pytest.fixture(scope="module")
def sdk(package: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return unpacked(package, tmp_path_factory.mktemp("moved to"))


@pytest.fixture(scope="module")
def dicom(package: Path, structs: dict[str, Any]) -> None:
    """Skips where the SDK has no DCMTK."""
    if package.parent != DIST and not structs["has_dcmtk"]():
        pytest.skip("no libdcmtk-dev here")


def output(*command: str | Path) -> str:
    """What a command prints, run without an environment from the root folder."""
    done = run(*command)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def run(*command: str | Path, folder: Path = Path("/")) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(word) for word in command], capture_output=True, text=True, env={}, cwd=folder)


def write_pgm(source: Path, folder: Path) -> Path:
    """A film of 8 or 16 bits as PGM."""
    pixels = np.asarray(Image.open(source))
    head = b"P5\n# a comment\n%d %d %d\n" % (*pixels.shape[::-1], np.iinfo(pixels.dtype).max)
    target = folder / f"{source.stem}.pgm"
    target.write_bytes(head + pixels.astype(pixels.dtype.newbyteorder(">")).tobytes())
    return target


def one_of_each_finding(nih: Path) -> list[Path]:
    """Real films, the first of each finding that radiologists have boxed."""
    with (nih / "BBox_List_2017.csv").open() as table:
        named = {row["Finding Label"]: row["Image Index"] for row in reversed(list(csv.DictReader(table)))}
    return [next((nih / "images").glob(f"{Path(name).stem}.*")) for name in sorted(set(named.values()))]


KINDS = ("phantoms", "phantoms as DICOM", "real films", "real films as DICOM")


@pytest.fixture(scope="module", params=KINDS)
def films(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[Path, Path]:
    """Files for msloc-infer -> those for Python: pictures go as PGM to the former."""
    folder, data = EXAMPLES, tmp_path_factory.mktemp("films")
    if request.param.startswith("real"):
        folder = request.getfixturevalue("shared_data")
    if request.param.endswith("DICOM"):
        return {film: film for film in sorted(folder.glob("dicom/*.dcm")) if film.name != JPEG_2000}
    pictures = one_of_each_finding(folder / "nih") if folder != EXAMPLES else sorted(folder.glob("png/*.png"))
    return {write_pgm(picture, data): picture for picture in pictures}


def lines_of(printed: str) -> dict[str, dict[str, Any]]:
    """Stem of a film -> its result line."""
    return {Path(line["input"]).stem: line for line in map(json.loads, printed.splitlines())}


def statuses_of(printed: str) -> dict[str, str]:
    """Stem of a film that was refused -> its status."""
    return {Path(name).stem: status for name, status in re.findall(r"^(\S+): (\w+): ", printed, re.MULTILINE)}


def compare(done: subprocess.CompletedProcess[str], films: Iterable[Path]) -> int:
    """Results of msloc-infer against Python's of the same films; returns how many boxes there were."""
    lines, statuses, count = lines_of(done.stdout), statuses_of(done.stderr), 0
    assert done.returncode == bool(statuses), done.stderr
    with Localizer("cxr-edge", "openvino") as python:
        for film in films:
            result = python.localize(film)
            if film.stem in statuses:
                assert statuses[film.stem] == result.refused
                continue
            count += compare_film(lines[film.stem], result)
    return count


def compare_film(line: dict[str, Any], result: Result) -> int:
    expected = json.loads(json.dumps(result.to_dict()))
    assert set(expected) - {"dicom"} == set(line)
    for key in ("schema", "profile", "model", "backend", "geometry", "refused", "warnings"):
        assert line[key] == expected[key]
    assert line["abnormal"] == pytest.approx(expected["abnormal"], abs=1e-4)
    for seen, finding in zip(line["findings"], result.findings, strict=True):
        assert (seen["label"], seen["positive"]) == (finding.label, finding.positive)
        assert seen["score"] == pytest.approx(finding.score, abs=1e-4)
        assert len(seen["boxes"]) == len(finding.boxes)
        boxes = np.array([[box[side] for side in "xywh"] for box in seen["boxes"]]).reshape(-1, 4)
        assert agreement(boxes, array_of(finding.boxes)) >= 0.99
    return sum(len(finding.boxes) for finding in result.findings)


def test_self_test(sdk: Path) -> None:
    printed = output(sdk / "bin" / "msloc-selftest")
    assert printed.splitlines()[-1] == "passed"
    assert "openvino" in printed


def test_films_as_python_localizes_them(sdk: Path, films: dict[Path, Path], request: pytest.FixtureRequest) -> None:
    if any(film.suffix == ".dcm" for film in films):
        request.getfixturevalue("dicom")
    assert compare(run(sdk / "bin" / "msloc-infer", *films), films.values()) > 0


def test_overlays(sdk: Path, tmp_path: Path) -> None:
    """Boxes are drawn in colour on the grey film, where there are any."""
    frames = [write_pgm(film, tmp_path) for film in sorted(EXAMPLES.glob("png/*.png"))]
    for stem, line in lines_of(output(sdk / "bin" / "msloc-infer", "--out", tmp_path / "out", *frames)).items():
        with Image.open(tmp_path / "out" / f"{stem}.overlay.png") as overlay:
            assert overlay.size == (1024, 1024)
            red, green, blue = np.asarray(overlay.convert("RGB")).transpose(2, 0, 1)
        assert bool(((red != green) | (green != blue)).any()) == any(found["positive"] for found in line["findings"])


def write_frame(film: Path, folder: Path) -> tuple[str | Path, ...]:
    """Writes the pixels of a DICOM file as a raw frame; returns what msloc-infer is told of it, but for the window."""
    stored = pytest.importorskip("pydicom").dcmread(film)
    raw = folder / f"{film.stem}.raw"
    raw.write_bytes(stored.pixel_array.astype("<u2").tobytes())
    assert stored.PhotometricInterpretation == "MONOCHROME1"
    return "--raw", f"{stored.Columns}x{stored.Rows}:{stored.BitsStored}", "--monochrome1", raw


def test_a_raw_frame_and_its_window(sdk: Path, tmp_path: Path) -> None:
    """The window decides: shown over its full range this phantom loses two of its four findings."""
    film = EXAMPLES / "dicom" / "phantom4000181.dcm"
    infer, frame = sdk / "bin" / "msloc-infer", write_frame(film, tmp_path)

    def positive(printed: str) -> list[str]:
        return [finding["label"] for finding in lines_of(printed)[film.stem]["findings"] if finding["positive"]]

    windowed = run(infer, "--window", "1886.5,2308.5", *frame)
    assert positive(windowed.stdout) == ["Atelectasis", "Mass", "Nodule", "Pneumonia"]
    assert compare(windowed, [film]) == 4
    assert positive(output(infer, *frame)) == ["Mass", "Nodule"]


def test_a_real_film_decoded_elsewhere(sdk: Path, shared_data: Path, tmp_path: Path) -> None:
    """JPEG 2000, which the SDK does not decode, as a raw frame: what Python finds in the file."""
    pytest.importorskip("openjpeg")
    film = shared_data / "dicom" / JPEG_2000
    assert statuses_of(run(sdk / "bin" / "msloc-infer", film).stderr) == {film.stem: "unsupported_codec"}
    frame = ("--window", "15000,30000", *write_frame(film, tmp_path))
    assert compare(run(sdk / "bin" / "msloc-infer", *frame), [film]) == 3


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        ((), 2, "usage: "),
        (("--raw", "8x8", "film"), 2, "usage: "),
        (("--raw", "8x8:17", "film"), 2, "usage: "),
        (("--window", "one", "film"), 2, "usage: "),
        (("none.dcm",), 1, "none.dcm: unreadable: "),
        (("--bundle", "/nowhere", "film"), 1, "/nowhere: bundle_missing: "),
        (("--raw", "64x64:8", "film"), 1, "film: unreadable: expected 4096 bytes of pixels, got 7"),
        (("film",), 1, "film: unreadable: expected a PGM"),
    ],
)
def test_refusals(arguments: tuple[str, ...], status: int, words: str, sdk: Path, tmp_path: Path) -> None:
    (tmp_path / "film").write_bytes(b"P5\n8 8\n")
    done = run(sdk / "bin" / "msloc-infer", *arguments, folder=tmp_path)
    assert (done.returncode, done.stdout) == (status, "")
    assert words in done.stderr


@pytest.mark.usefixtures("dicom")
def test_ten_minutes(package: Path, tmp_path: Path) -> None:
    """The lines of docs/embedding.md as they stand, but for those of Python: these ask a package index."""
    if not shutil.which("pkg-config"):
        pytest.skip("no pkg-config here")
    page = (ROOT / "docs" / "embedding.md").read_text("utf-8")
    section = page.partition("## Ten minutes with the SDK")[2].partition("**In Python**")[0]
    commands = "\n".join(re.findall(r"^    (.*)", section.replace("/opt", f"{tmp_path}/opt"), re.MULTILINE))
    (tmp_path / package.name).symlink_to(package)
    (tmp_path / "opt").mkdir()
    done = subprocess.run(
        ["sh", "-exc", commands],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"]},
    )
    assert done.returncode == 0, done.stderr
    assert "\npassed\n" in done.stdout
    assert (tmp_path / "overlays" / "phantom4000181.overlay.png").exists()
    assert done.stdout.count("\nbox Pneumothorax 0.998") == 2  # in C by hand and by pkg-config
    assert done.stdout.count("\nPneumothorax 0.998") == 2  # in C++ by hand and by CMake


def needed(file: Path) -> tuple[set[str], dict[str, tuple[int, ...]]]:
    """Libraries that a file needs, and the newest versions of their symbols."""
    listing = subprocess.run(["readelf", "-dV", file], capture_output=True, text=True, check=True).stdout
    versions: dict[str, tuple[int, ...]] = {}
    for name, number in re.findall(r"Name: (GLIBC|GLIBCXX)_([\d.]+)", listing):
        versions[name] = max(versions.get(name, ()), tuple(map(int, number.split("."))))
    return {name.split(".so")[0] for name in re.findall(r"NEEDED.*\[(.*)\]", listing)}, versions


def check_files(sdk: Path) -> None:
    """Nothing but the system's oldest libraries is needed beside what is in it, and it names no folder of ours."""
    files = [*(sdk / "bin").iterdir(), *(path for path in (sdk / "lib").glob("*.so*") if not path.is_symlink())]
    inside = {path.name.split(".so")[0] for path in files}
    for file in files:
        names, versions = needed(file)
        assert names <= inside | SYSTEM, file
        assert all(newest <= NEWEST[name] for name, newest in versions.items()), (file, versions)
        assert str(ROOT).encode() not in file.read_bytes(), file


def test_it_needs_nothing_else() -> None:
    if not shutil.which("readelf"):
        pytest.skip("no readelf here: binutils is missing")
    archive = shipped("x86_64")
    with tarfile.open(archive) as content:
        names = content.getnames()
    assert sorted(names) == names, "in one order, whatever the file system"
    parts = {Path(name).name.split(".so")[0] for name in names if ".so" in name}
    cpu = "libopenvino_intel_cpu_plugin"
    assert parts == {
        "libmsloc_edge",
        "libopenvino",
        "libopenvino_onnx_frontend",
        "libopenvino_ir_frontend",
        "libtbb",
        cpu,
    }


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_shipped_files(machine: str, tmp_path: Path) -> None:
    if not shutil.which("readelf"):
        pytest.skip("no readelf here: binutils is missing")
    sdk = unpacked(shipped(machine), tmp_path)
    check_files(sdk)
    names = {str(path.relative_to(sdk)) for path in sdk.rglob("*") if path.is_file()}
    documents = "share/doc/msloc_edge"
    assert {f"{documents}/LICENSE", f"{documents}/embedding.md", f"{documents}/README.md"} < names
    assert {
        f"{documents}/sbom.cdx.json",
        f"{documents}/licences/openvino/LICENSE",
        f"{documents}/licences/stb.txt",
    } < names
    assert "share/msloc_edge/models/cxr-edge/model_card.md" in names


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root folder with the .deb for x86-64 and the system's C and C++ libraries, and nothing else."""
    shipped("x86_64")
    if not shutil.which("dpkg-deb"):
        pytest.skip("no dpkg-deb here")
    root = tmp_path_factory.mktemp("root")
    subprocess.run(["dpkg-deb", "--extract", DEB, root], check=True)
    libc = subprocess.run(["cc", "-print-file-name=libc.so.6"], capture_output=True, text=True, check=True).stdout
    (root / "lib64").mkdir()
    (root / "lib").symlink_to("lib64")
    for library in Path(libc.strip()).resolve().parent.glob("*.so.*"):
        if library.name.split(".so")[0] in SYSTEM:
            shutil.copy(library, root / "lib64")
    (root / "proc").mkdir()
    return root


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_deb(installed: Path, tmp_path: Path) -> None:
    """The same tree, in one place."""
    assert files_of(installed / "opt" / "msloc-edge") == files_of(unpacked(shipped("x86_64"), tmp_path))
    fields = subprocess.run(["dpkg-deb", "--field", DEB], capture_output=True, text=True, check=True).stdout
    assert "Architecture: amd64" in fields
    assert "Depends: libc6 (>= 2.35)" in fields


def test_deb_on_a_machine_without_anything_else(installed: Path) -> None:
    """No shell, no Python, no environment; /proc is how a program finds where it lies."""
    enter = ("unshare", "--user", "--map-root-user", "--mount", "sh", "-ec")
    into = f"mount --rbind /proc {installed}/proc && exec env -i $(command -v chroot) {installed} "
    if subprocess.run([*enter, "true"], capture_output=True).returncode:
        pytest.skip("no namespaces of its own here: unshare is refused")
    for program in ("msloc-selftest", "msloc-infer /opt/msloc-edge/share/msloc_edge/examples/phantom4000181.dcm"):
        done = subprocess.run([*enter, f"{into} /opt/msloc-edge/bin/{program}"], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    assert compare(done, [EXAMPLES / "dicom" / "phantom4000181.dcm"]) == 4


@pytest.mark.skipif(not os.environ.get("MSLOC_ARM64"), reason="minutes under QEMU: make arm64")
@pytest.mark.parametrize("cpu", ["cortex-a72", "neoverse-n1"])
def test_aarch64_under_qemu(cpu: str, films: dict[Path, Path], tmp_path: Path) -> None:
    if not shutil.which("qemu-aarch64"):
        pytest.skip("no qemu-aarch64 here: qemu-user is missing")
    sdk = unpacked(shipped("aarch64"), tmp_path)
    qemu = (shutil.which("qemu-aarch64") or "", "-L", "/usr/aarch64-linux-gnu", "-cpu", cpu)
    assert output(*qemu, sdk / "bin" / "msloc-selftest").splitlines()[-1] == "passed"
    assert compare(run(*qemu, sdk / "bin" / "msloc-infer", *films), films.values()) > 0
