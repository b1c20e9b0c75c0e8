"""What machine this is: on this one, and on others by their files, their nvidia-smi and their driver's library."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import pytest

from msloc_edge import __version__
from msloc_edge.doctor import machine as module
from msloc_edge.doctor.machine import environment, versions
from msloc_edge.doctor.system import output_of

H100 = "NVIDIA H100 80GB HBM3, 9.0, 81559 MiB, 550.54.15"


@pytest.fixture
def nvidia_smi(program: Callable[[str, str], Path]) -> Path:
    """The script that is found as nvidia-smi; a test writes it."""
    return program("nvidia-smi", "")


def file_under(root: Path, name: str, text: str) -> Path:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return root


def test_this_machine() -> None:
    found = environment()
    assert json.loads(json.dumps(found)) == found
    assert found["python"] == platform.python_version()
    assert found["cores"] == len(os.sched_getaffinity(0))
    assert found["memory"] == pytest.approx(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"), rel=0.01)
    assert found["versions"]["msloc-edge"] == __version__
    assert found["versions"]["numpy"] == metadata.version("numpy")
    assert found["cpu"] in Path("/proc/cpuinfo").read_text() or found["cpu"] == platform.machine()


def test_cores_are_those_of_this_process() -> None:
    core = min(os.sched_getaffinity(0))
    code = f"import os; os.sched_setaffinity(0, [{core}]); from msloc_edge.doctor.machine import environment as e"
    done = subprocess.run([sys.executable, "-c", f"{code}; print(e()['cores'])"], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("1\n", "")


def test_it_imports_the_standard_library_alone() -> None:
    code = (
        "import sys; from msloc_edge.doctor.machine import environment; environment()\n"
        "print(*{name.split('.')[0] for name in sys.modules})"
    )
    done = subprocess.run([sys.executable, "-S", "-c", code], capture_output=True, text=True, env=_with_path())
    assert done.stderr == ""
    allowed = {*sys.stdlib_module_names, "msloc_edge", "__main__"}
    assert set(done.stdout.split()) - allowed == set()


def _with_path() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}


def test_versions_of_what_is_installed() -> None:
    assert versions(["numpy", "no-such-package"]) == {"numpy": metadata.version("numpy")}


def test_an_empty_root(tmp_path: Path) -> None:
    found = environment(tmp_path)
    assert (found["board"], found["memory"], found["container"], found["virtual"]) == (None, None, None, False)
    assert found["cpu"]


@pytest.mark.parametrize(
    "text", ["", "\0\xff\n:::\n", "model name\nMemTotal: much kB\n# R (release)\nPackage: nvidia-jetpack"]
)
def test_files_that_say_nothing(tmp_path: Path, text: str) -> None:
    for name in ("proc/cpuinfo", "proc/meminfo", "etc/nv_tegra_release", "var/lib/dpkg/status"):
        file_under(tmp_path, name, text)
    (tmp_path / "proc/device-tree/model").mkdir(parents=True)
    found = environment(tmp_path)
    assert (found["board"], found["memory"], found["jetpack"]) == (None, None, None)


def test_a_small_board(tmp_path: Path) -> None:
    file_under(tmp_path, "proc/cpuinfo", "processor\t: 0\nFeatures\t: fp asimd\n")
    file_under(tmp_path, "proc/meminfo", "MemTotal:        7802156 kB\nMemFree: 1 kB\n")
    file_under(tmp_path, "proc/device-tree/model", "NVIDIA Jetson Orin Nano Developer Kit\0")
    found = environment(tmp_path)
    assert found["board"] == "NVIDIA Jetson Orin Nano Developer Kit"
    assert found["memory"] == 7802156 * 1024
    assert not found["virtual"]


@pytest.mark.parametrize(
    ("mark", "variable", "name"),
    [(".dockerenv", "", "docker"), ("run/.containerenv", "", "podman"), ("other", "lxc", "lxc"), ("other", "", None)],
)
def test_containers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mark: str, variable: str, name: str | None
) -> None:
    monkeypatch.setenv("container", variable)
    assert environment(file_under(tmp_path, mark, ""))["container"] == name


def test_a_virtual_machine(tmp_path: Path) -> None:
    file_under(
        tmp_path, "proc/cpuinfo", "model name : Some CPU\nflags\t\t: fpu hypervisor sse\n\nmodel name : Another\n"
    )
    found = environment(tmp_path)
    assert (found["cpu"], found["virtual"]) == ("Some CPU", True)


RELEASE = "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64, DATE: Wed Jan  8 2025\n"
STATUS = """Package: libc6
Status: install ok installed
Version: 2.35

Package: nvidia-jetpack
Status: {status}
Maintainer: NVIDIA Corporation
Version: 6.2+b77
Description: NVIDIA Jetpack Meta Package

Package: zlib1g
Status: install ok installed
Version: 1.2
"""


@pytest.mark.parametrize(
    ("release", "status", "expected"),
    [
        (RELEASE, "install ok installed", {"l4t": "36.4.3", "package": "6.2+b77"}),
        (RELEASE, "deinstall ok config-files", {"l4t": "36.4.3", "package": None}),
        ("", "install ok installed", {"l4t": None, "package": "6.2+b77"}),
        ("", "deinstall ok config-files", None),
    ],
)
def test_jetpack(tmp_path: Path, release: str, status: str, expected: dict[str, str | None] | None) -> None:
    file_under(tmp_path, "etc/nv_tegra_release", release)
    file_under(tmp_path, "var/lib/dpkg/status", STATUS.format(status=status))
    assert environment(tmp_path)["jetpack"] == expected


def test_no_nvidia_smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    found = environment()
    assert (found["nvidia_driver"], found["gpus"], found["nvidia_problem"]) == (None, [], None)


def test_gpus(nvidia_smi: Path) -> None:
    lines = f"{H100}\nOrin (nvgpu), [N/A], [N/A], 540.4.0\n"
    nvidia_smi.write_text(
        f'#!/bin/sh\n[ "$*" = "{" ".join(module.NVIDIA_SMI[1:])}" ] || exit 2\ncat <<END\n{lines}END\n'
    )
    found = environment()
    assert found["nvidia_driver"] == "550.54.15"
    assert found["gpus"] == [
        {"name": "NVIDIA H100 80GB HBM3", "sm": 90, "memory": 81559 * 2**20},
        {"name": "Orin (nvgpu)", "sm": None, "memory": None},
    ]
    assert found["nvidia_problem"] is None


@pytest.mark.parametrize(
    ("script", "says"),
    [
        ("#!/bin/sh\necho NVIDIA-SMI has failed; exit 9", "nvidia-smi says: NVIDIA-SMI has failed"),
        ("#!/bin/sh\necho lost it >&2; exit 9", "nvidia-smi says: lost it"),
        ("#!/bin/sh\necho No devices were found", "nvidia-smi says: No devices were found"),
        ("#!/bin/sh\nprintf '\\377\\000,a,b\\n,,,,\\n'", "nvidia-smi says: "),
        (f"#!/bin/sh\necho '{H100}'; exit 3", "nvidia-smi says: NVIDIA H100"),
        ("#!/bin/sh\nkill -9 $$", "nvidia-smi says: nothing, and exit status -9"),
        ("#!/bin/sh\n", "nvidia-smi says: nothing, and exit status 0"),
        ("#!/bin/sh\nexec sleep 600", "nvidia-smi: nvidia-smi gave no answer within 0.3 s"),
        ("\x7fELF no program", "nvidia-smi: [Errno 8] Exec format error"),
        ("#!/no/such/shell", None),
    ],
)
def test_nvidia_smi_that_gives_no_gpu(
    nvidia_smi: Path, monkeypatch: pytest.MonkeyPatch, script: str, says: str | None
) -> None:
    monkeypatch.setattr(module, "NVIDIA_PATIENCE", 0.3 if "sleep" in script else 10)
    nvidia_smi.write_text(script)
    found = environment()
    assert (found["nvidia_driver"], found["gpus"]) == (None, [])
    assert (found["nvidia_problem"] or "").startswith(says or "")
    assert bool(found["nvidia_problem"]) == bool(says)


def test_a_command_that_hangs_is_ended() -> None:
    start = time.monotonic()
    with pytest.raises(TimeoutError, match=r"sleep gave no answer within 0\.2 s"):
        output_of(["sleep", "599.25"], 0.2)
    assert time.monotonic() - start < 30
    commands = [_command(folder) for folder in Path("/proc").glob("[0-9]*")]
    assert b"sleep\x00599.25\x00" not in commands


def _command(process: Path) -> bytes:
    try:
        return (process / "cmdline").read_bytes()
    except OSError:
        return b""


def test_a_command_speaks() -> None:
    assert output_of(["sh", "-c", "echo out; echo err >&2; exit 3"], 60) == (3, "out\n", "err\n")


LIBCUDA = "int cuDriverGetVersion(int *version) { *version = 12060; return STATUS; }"


@pytest.mark.skipif(shutil.which("gcc") is None, reason="needs a C compiler")
@pytest.mark.parametrize(
    ("source", "expected"),
    [(LIBCUDA.replace("STATUS", "0"), "12.6"), (LIBCUDA.replace("STATUS", "100"), None), ("int other;", None)],
)
def test_cuda_by_the_library_of_the_driver(tmp_path: Path, source: str, expected: str | None) -> None:
    (tmp_path / "cuda.c").write_text(source)
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", tmp_path / "libcuda.so.1", tmp_path / "cuda.c"], check=True)
    code = "import json; from msloc_edge.doctor.machine import environment\nprint(json.dumps(environment()['cuda']))"
    env = os.environ | {"LD_LIBRARY_PATH": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env)
    assert (json.loads(done.stdout), done.stderr) == (expected, "")


def test_benchmarks_name_the_machine() -> None:
    """The keys that results of older versions have, and what was added since."""
    folder = Path(__file__).parents[2] / "benchmarks"
    code = "import json, machine; print(json.dumps(machine.environment('scipy')))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=folder, check=True)
    found = json.loads(done.stdout)
    assert {"cpu", "cores", "platform", "python", "versions", "command"} <= set(found)
    assert set(found) == {*environment(), "command"}
    assert found["versions"]["scipy"] == metadata.version("scipy")
