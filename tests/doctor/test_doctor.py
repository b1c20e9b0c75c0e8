"""The doctor's lines, each on a machine where what it asks about is well, absent, and broken."""

from __future__ import annotations

import os
import shlex
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from msloc_edge._files import temporary_beside
from msloc_edge.doctor import Check, Report, examine, packages, places
from msloc_edge.doctor.check import size
from msloc_edge.doctor.hardware import check_gpus, check_machine
from msloc_edge.doctor.machine import environment

IMPORTS = "raise ModuleNotFoundError(\"No module named '{name}'\", name='{name}')"
FAILS = "raise ImportError('libnvinfer.so.10: cannot open shared object file')"
NO_LIBRARY = "import ctypes; ctypes.CDLL('libno-such-thing.so.1')"
CRASHES = "import os; os.abort()"
HANGS = "import time; time.sleep(600)"


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Puts a package before the installed one of its name: package("openvino", source)."""

    def put(name: str, source: str) -> None:
        folder = tmp_path / "packages" / name
        folder.mkdir(parents=True)
        (folder / "__init__.py").write_text(source)
        monkeypatch.setattr(sys, "path", [str(folder.parent), *sys.path])

    return put


@pytest.fixture
def own_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_bundle: Path) -> Path:
    """The folder of shipped models, with a small one called cxr-edge that the test may change."""
    for home in ("msloc_edge.bundle.SHIPPED", "msloc_edge.bundle.bundle.SHIPPED"):
        monkeypatch.setattr(home, tmp_path / "shipped")
    return Path(shutil.copytree(tiny_bundle, tmp_path / "shipped" / "cxr-edge")).parent


def answered(probe: str) -> Future[dict[str, Any]]:
    """The answer of a probe, or its error, as `examine` gets it."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(packages.ask, probe)


@pytest.fixture(scope="module")
def answers() -> packages.Answers:
    """What the packages of this machine answer."""
    return {probe: answered(probe) for probe in packages.PROBES}


def line(checks: list[Check] | Report, name: str) -> Check:
    found = [check for check in (checks.checks if isinstance(checks, Report) else checks) if check.name == name]
    assert len(found) == 1, f"{len(found)} lines called {name}"
    return found[0]


@pytest.mark.parametrize(
    ("count", "words"),
    [
        (0, "0 bytes"),
        (999, "999 bytes"),
        (1000, "1.0 kB"),
        (1_234_000, "1.2 MB"),
        (81e9, "81.0 GB"),
        (2.5e15, "2500.0 TB"),
    ],
)
def test_sizes(count: float, words: str) -> None:
    assert size(int(count)) == words


def test_this_machine() -> None:
    report = examine()
    assert report.ok
    assert line(report, "onnxruntime").found.endswith("CPUExecutionProvider")
    assert "CPU" in line(report, "openvino").found
    assert line(report, "cxr-edge").status == "ok"
    names = ("JPEG baseline", "JPEG lossless", "JPEG-LS", "JPEG 2000", "RLE")
    assert [line(report, f"DICOM {name}").status for name in names] == ["ok"] * 5
    assert {check.group for check in report.checks} == {"machine", "gpu", "backends", "films", "models", "places"}
    assert report.to_dict()["environment"]["versions"] == environment()["versions"]
    assert all(check.fix for check in report.checks if check.status in ("warning", "failing"))


# packages


@pytest.mark.parametrize("probe", packages.PROBES)
def test_a_probe_names_the_package_it_imports(probe: str, package: Callable[[str, str], None]) -> None:
    package(probe, IMPORTS.format(name=probe))
    with pytest.raises(ModuleNotFoundError, match=r"^not installed$"):
        packages.ask(probe)


@pytest.mark.parametrize(
    ("source", "says"),
    [
        (FAILS, "it fails: ImportError: libnvinfer.so.10: cannot open shared object file"),
        (NO_LIBRARY, "it fails: OSError: libno-such-thing.so.1: cannot open shared object file"),
        (IMPORTS.format(name="numpy"), "it fails: ModuleNotFoundError: No module named 'numpy'"),
        ("def :", "it fails: SyntaxError"),
        ("raise SystemExit(4)", "it fails: exit status 4"),
        ("", "it fails: AttributeError"),
        (CRASHES, "it crashes: Aborted"),
        (HANGS, "it hangs: no answer within 0.5 s"),
    ],
)
def test_an_import_that_goes_wrong(
    source: str, says: str, package: Callable[[str, str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    if source == HANGS:
        monkeypatch.setattr(packages, "PATIENCE", 0.5)
    package("tensorrt", source)
    with pytest.raises(ImportError) as caught:
        packages.ask("tensorrt")
    assert str(caught.value).startswith(says)
    assert not isinstance(caught.value, ModuleNotFoundError)


def test_a_package_that_greets(package: Callable[[str, str], None]) -> None:
    package("tensorrt", "print('hello', end='')\n__version__ = '10.3.0'")
    assert packages.ask("tensorrt") == {"version": "10.3.0"}


def test_a_package_is_not_taken_from_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tensorrt.py").write_text("__version__ = 'mine'")
    (tmp_path / "json.py").write_text(FAILS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [folder for folder in sys.path if folder])
    with pytest.raises(ModuleNotFoundError):
        packages.ask("tensorrt")


@pytest.mark.parametrize("source", ["absent", FAILS, CRASHES])
@pytest.mark.parametrize(
    ("probe", "name", "optional"),
    [
        ("onnxruntime", "onnxruntime", False),
        ("cv2", "opencv", False),
        ("PIL", "PNG, JPEG, TIFF", False),
        ("openvino", "openvino", True),
        ("tensorrt", "tensorrt", True),
        ("tensorrt_rtx", "tensorrt_rtx", True),
        ("pydicom", "DICOM", True),
    ],
)
def test_what_must_be_there_and_what_may(
    probe: str, name: str, optional: bool, source: str, package: Callable[[str, str], None], answers: packages.Answers
) -> None:
    package(probe, IMPORTS.format(name=probe) if source == "absent" else source)
    broken = {**answers, probe: answered(probe)}
    report = Report((*packages.check_backends(broken, environment()), *packages.check_films(broken)), {})
    check = line(report, name)
    assert report.ok == optional
    assert check.status == ("failing" if not optional else "absent" if source == "absent" else "warning")
    assert {check.name for check in report.checks if check.status in ("warning", "failing")} <= {name}
    assert (check.fix or "").startswith("pip install") or (probe.startswith("tensorrt") and source == "absent")


def test_onnxruntime_without_its_cpu_provider(package: Callable[[str, str], None]) -> None:
    package("onnxruntime", "__version__ = '1'\ndef get_available_providers(): return ['CUDAExecutionProvider']")
    check = line(examine(), "onnxruntime")
    assert check.status == "failing"
    assert check.found == "1: CUDAExecutionProvider; CPUExecutionProvider is missing"


def test_pillow_without_jpeg(package: Callable[[str, str], None]) -> None:
    """What a Pillow built without libjpeg does: its encoder and decoder raise."""
    package(
        "PIL",
        "import sys\nsys.path.pop(0)\ndel sys.modules['PIL']\nimport PIL, PIL.JpegImagePlugin as jpeg\n"
        "jpeg.Image.SAVE.pop('JPEG')\n",
    )
    check = line(examine(), "PNG, JPEG, TIFF")
    assert check.status == "failing"
    assert check.found.endswith(" does not read JPEG")


def test_without_decoders_of_compressed_dicom(package: Callable[[str, str], None]) -> None:
    package("imagecodecs", IMPORTS.format(name="imagecodecs"))
    report = examine()
    assert line(report, "DICOM JPEG-LS") == Check(
        *("films", "DICOM JPEG-LS", "warning", "no decoder: such films are refused", "pip install 'msloc-edge[dicom]'")
    )
    assert report.ok


def test_without_numpy(package: Callable[[str, str], None]) -> None:
    """Everything here needs it, and still there are lines, not a traceback."""
    package("numpy", IMPORTS.format(name="numpy"))
    code = (
        f"import sys; sys.path[:] = {sys.path!r}; from msloc_edge.cli import main; sys.argv = ['m', 'doctor']; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "")
    assert "Traceback" not in done.stderr
    assert "stopped by ModuleNotFoundError: No module named 'numpy'" in done.stderr
    assert "fix: pip install --force-reinstall msloc-edge" in done.stderr
    assert "DICOM port" in done.stderr


# the machine

GPU = {"name": "NVIDIA H100 80GB HBM3", "sm": 90, "memory": 81559 * 2**20}


def test_a_machine_with_everything() -> None:
    found = environment() | {
        "board": "NVIDIA Jetson Orin Nano Developer Kit",
        "gpus": [GPU, {"name": "Orin (nvgpu)", "sm": None, "memory": None}],
        "nvidia_driver": "550.54.15",
        "cuda": "12.6",
        "jetpack": {"l4t": "36.4.3", "package": "6.2+b77"},
    }
    checks = check_gpus(found)
    assert {check.status for check in checks} == {"ok"}
    assert line(checks, "GPU").found == "NVIDIA H100 80GB HBM3, sm_90, 85.5 GB; Orin (nvgpu), SM not told"
    assert line(checks, "JetPack").found == "6.2+b77, Jetson Linux 36.4.3"
    assert line(check_machine(found), "processor").found.startswith("NVIDIA Jetson Orin Nano Developer Kit, ")


def test_a_machine_with_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    found = environment(tmp_path) | {"cuda": None}
    assert {check.status for check in check_gpus(found)} == {"absent"}
    assert "None" not in " ".join(check.found for check in check_machine(found))


def test_nvidia_smi_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = tmp_path / "nvidia-smi"
    script.write_text("#!/bin/sh\necho NVIDIA-SMI has failed; exit 9\n")
    script.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    report = examine()
    check = line(report, "NVIDIA driver")
    assert (check.status, check.found) == ("warning", "nvidia-smi says: NVIDIA-SMI has failed")
    assert report.ok


@pytest.mark.parametrize(
    ("torch", "gpus", "jetpack", "status", "tensorrt"),
    [
        (None, [], False, "absent", None),
        ("2.13.0+cpu", [], False, "ok", None),
        ("2.13.0+cpu", [GPU], False, "warning", "pip install tensorrt-cu13"),
        ("2.13.0", [GPU], False, "ok", "pip install tensorrt-cu13"),
        ("2.13.0", [], True, "ok", "sudo apt install nvidia-jetpack; python3 -m venv --system-site-packages .venv"),
    ],
)
def test_what_a_gpu_asks_for(
    torch: str | None,
    gpus: list[Any],
    jetpack: bool,
    status: str,
    tensorrt: str | None,
    answers: packages.Answers,
    package: Callable[[str, str], None],
) -> None:
    package("tensorrt", IMPORTS.format(name="tensorrt"))
    found = {"versions": {"torch": torch} if torch else {}, "gpus": gpus, "jetpack": {"l4t": "36"} if jetpack else None}
    checks = packages.check_backends({**answers, "tensorrt": answered("tensorrt")}, found)
    assert line(checks, "torch").status == status
    assert line(checks, "tensorrt").fix == tensorrt


# models


def test_models_that_are_whole(own_models: Path, tiny_bundle: Path) -> None:
    shutil.copytree(tiny_bundle, own_models / "second")
    checks = places.check_models(str(tiny_bundle))
    assert [(check.name, check.status) for check in checks] == [("cxr-edge", "ok"), ("second", "ok"), ("--model", "ok")]
    assert checks[0].found.startswith("tiny 0.1, ")


def test_a_shipped_model_that_changed_by_a_byte(own_models: Path, tiny_bundle: Path) -> None:
    shutil.copytree(tiny_bundle, own_models / "second")
    with (own_models / "cxr-edge" / "model.onnx").open("ab") as file:
        file.write(b"\0")
    report = examine()
    assert not report.ok
    assert line(report, "cxr-edge").status == "failing"
    assert line(report, "cxr-edge").found.startswith("[bundle_hash] ")
    assert line(report, "cxr-edge").fix == "pip install --force-reinstall msloc-edge"
    assert line(report, "second").status == "ok"


def test_no_shipped_model(own_models: Path) -> None:
    shutil.rmtree(own_models)
    check = line(places.check_models(None), "cxr-edge")
    assert check.status == "failing"
    assert check.found.startswith("[bundle_missing] ")


def test_an_installed_model_that_is_damaged_is_in_the_way_of_no_other(
    own_models: Path, tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MSLOC_MODELS", str(tmp_path / "store"))
    for name in ("mine", "torn"):
        shutil.copytree(tiny_bundle, tmp_path / "store" / name)
    (tmp_path / "store" / "torn" / "model.onnx").unlink()
    checks = {check.name: check for check in places.check_models(None)}
    assert checks["mine"].status == "ok"
    assert checks["torn"].status == "warning"
    assert "bundle_file_missing" in checks["torn"].found
    assert "msloc-edge models remove torn" in (checks["torn"].fix or "")


def test_a_named_model_that_is_no_bundle(tmp_path: Path, bundle_with: Callable[..., Path]) -> None:
    for model, reason in (
        (tmp_path, "bundle_file_missing"),
        (tmp_path / "none", "bundle_missing"),
        (bundle_with(schema="msloc-edge/bundle/9"), "bundle_schema"),
    ):
        check = line(places.check_models(str(model)), "--model")
        assert (check.status, check.found.split()[0]) == ("failing", f"[{reason}]")
        assert (check.fix or "").startswith("msloc-edge export ")


def test_a_folder_called_like_a_shipped_model_is_not_taken_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own_models: Path
) -> None:
    (tmp_path / "cxr-edge").mkdir()
    monkeypatch.chdir(tmp_path)
    assert line(places.check_models(None), "cxr-edge").status == "ok"


# places


def test_a_cache_that_is_not_there_yet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MSLOC_CACHE", str(tmp_path / "a" / "b"))
    check = line(places.check_folders(), "cache")
    assert check.status == "ok"
    assert check.found.startswith(f"{tmp_path}/a/b, ")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("below", ["", "deeper/still"])
def test_a_file_in_the_way_of_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, below: str) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MSLOC_CACHE", str(tmp_path / "file" / below))
    report = examine()
    check = line(report, "cache")
    assert not report.ok
    assert (check.status, check.found) == ("failing", f"{tmp_path / 'file' / below} cannot be written: Not a directory")
    assert check.fix
    assert line(report, "plan cache").status == "ok"


def test_a_user_without_a_home(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    for name in ("MSLOC_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Path, "home", no_home)
    checks = places.check_folders()
    assert line(checks, "cache").status == "failing"
    assert line(checks, "current folder").status == "ok"


def test_engine_plans(tmp_path: Path) -> None:
    assert places.check_plans(tmp_path / "none").found == "0 plans, 0 bytes"
    (tmp_path / "deeper").mkdir()
    (tmp_path / "one.plan").write_bytes(bytes(1500))
    (tmp_path / "one.json").write_text("{}")
    (tmp_path / "lock").write_text("")
    assert places.check_plans(tmp_path) == Check("places", "plan cache", "ok", "1 plan, 1.5 kB")
    (tmp_path / "deeper" / "two.plan").write_bytes(bytes(500))
    assert places.check_plans(tmp_path).found == "2 plans, 2.0 kB"


def test_engine_plans_that_are_not_whole(tmp_path: Path) -> None:
    folder = tmp_path / "my engines"
    folder.mkdir()
    (folder / "one.plan").write_bytes(bytes(7))
    (folder / "two.plan").write_bytes(b"")
    temporary_beside(folder / "three.plan").write_bytes(bytes(5))
    check = places.check_plans(folder)
    assert check.status == "warning"
    assert check.found.startswith("1 plan, 7 bytes; 2 files not whole")
    subprocess.run(shlex.split(check.fix or ""), check=True)
    assert places.check_plans(folder) == Check("places", "plan cache", "ok", "1 plan, 7 bytes")


def test_a_current_folder_that_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "gone"
    folder.mkdir()
    monkeypatch.chdir(folder)
    folder.rmdir()
    report = examine()
    assert line(report, "current folder").status == "warning"
    assert report.ok


def test_a_port_that_is_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        number = server.getsockname()[1]
        check = places.check_port(number)
        assert (check.status, check.found) == ("warning", f"{number} cannot be bound: Address already in use")
        assert str(number) in (check.fix or "")
    assert places.check_port(number).status == "ok"


def test_a_cache_that_no_system_can_have(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MSLOC_CACHE", "x" * 5000)
    check = line(places.check_folders(), "cache")
    assert check.status == "failing"
    assert check.found.endswith("cannot be written: File name too long")
