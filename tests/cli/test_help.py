"""Help is complete and costs nothing: no engine is loaded for it."""

from __future__ import annotations

import subprocess
import sys

import pytest
from click.testing import CliRunner

from msloc_edge import __version__
from msloc_edge.cli import COMMANDS, group

HEAVY = ("torch", "triton", "tensorrt", "onnxruntime", "openvino", "cv2", "pydicom", "PIL", "sklearn", "onnx")

OPTIONS = {
    "infer": (
        *("--model", "--backend", "--device", "--out", "--write", "--profile", "--all-classes", "--batch"),
        *("--workers", "--frame", "--fail-fast", "--watch", "--quiet", "--help"),
    ),
    "train": (
        *("--out", "--resume", "--config", "--data", "--backbone", "--size", "--insert", "--epochs", "--batch", "--lr"),
        *("--init", "--seed", "--workers", "--help"),
    ),
    "calibrate": ("--data", "--split", "--exclude", "--out", "--version", "--quiet", "--help"),
    "eval": (
        *("--model", "--heatmaps", "--thresholds", "--scores", "--data", "--split", "--boxes", "--masks", "--map"),
        *("--out", "--backend", "--device", "--profile", "--limit", "--resamples", "--seed", "--batch", "--help"),
    ),
    "score": (
        *("--model", "--backend", "--device", "--profile", "--maps", "--batch", "--workers", "--threads", "--part"),
        *("--shard", "--retry", "--ray", "--select", "--against", "--quiet", "--help"),
    ),
    "export": ("bundle", "target", "check", "--help"),
    "export bundle": ("--name", "--model-version", "--metrics", "--fit-boxes", "--boxes", "--help"),
    "export target": (
        *("--target", "--precision", "--batch", "--calibration", "--keep-fp32", "--plugin", "--plugin-library"),
        *("--workspace", "--version-compatible", "--hardware-compatible", "--help"),
    ),
    "export check": ("--calibration", "--help"),
    "models": ("list", "show", "verify", "sign", "add", "remove", "--help"),
    "doctor": ("--model", "--json", "--help"),
    "selftest": ("--model", "--backend", "--device", "--quiet", "--help"),
    "bench": (
        *("--model", "--backend", "--device", "--threads", "--all-classes", "--generate", "--scope"),
        *("--films", "--seconds", "--warmup", "--batch", "--streams", "--rate", "--deadline", "--compare-classifier"),
        *("--cold", "--against"),
        *("--tolerance", "--json", "--html", "--quiet", "--help"),
    ),
}


def loaded(code: str) -> set[str]:
    """The heavy packages in sys.modules after `code`, in a fresh Python."""
    code += f"\nimport sys\nprint('LOADED', *(name for name in {HEAVY!r} if name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    return set(done.stdout.rpartition("LOADED")[2].split())


def run_main(*arguments: str) -> str:
    """Code that runs the entry point, and checks that it ended well."""
    return (
        "import sys\nfrom msloc_edge.cli import main\n"
        f"sys.argv = ['msloc-edge', *{arguments!r}]\n"
        "try:\n    main()\nexcept SystemExit as stop:\n    assert stop.code == 0, stop.code"
    )


def test_the_check_sees_a_loaded_engine() -> None:
    assert loaded("import cv2, onnxruntime") == {"cv2", "onnxruntime"}


@pytest.mark.parametrize(
    "code",
    [
        pytest.param("import msloc_edge", id="import"),
        pytest.param(run_main("--help"), id="--help"),
        pytest.param(run_main("--version"), id="--version"),
        *(pytest.param(run_main(*command.split(), "--help"), id=f"{command} --help") for command in OPTIONS),
    ],
)
def test_no_engine_is_loaded_for(code: str) -> None:
    assert loaded(code) == set()


def test_the_version() -> None:
    done = CliRunner().invoke(group, ["--version"])
    assert (done.exit_code, done.stdout) == (0, f"msloc-edge, version {__version__}\n")


@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_help_names_every_command(flag: str) -> None:
    done = CliRunner().invoke(group, [flag])
    assert done.exit_code == 0
    for command, summary in COMMANDS.items():
        assert f"  {command} " in done.stdout
        assert summary in done.stdout


@pytest.mark.parametrize("command", list(OPTIONS))
def test_help_lists_the_options(command: str) -> None:
    done = CliRunner().invoke(group, [*command.split(), "--help"])
    assert done.exit_code == 0
    words = done.stdout.replace(",", " ").split()
    assert [option for option in OPTIONS[command] if option not in words] == []


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["dream"], "No such command 'dream'"),
        (["infer"], "Missing argument 'INPUT...'"),
        (["infer", "a.png", "--dream"], "No such option"),
        (["--dream"], "No such option"),
    ],
)
def test_wrong_usage_is_2(arguments: list[str], says: str) -> None:
    done = CliRunner().invoke(group, arguments)
    assert done.exit_code == 2
    assert says in done.stderr
    assert done.stdout == ""
