"""Checks of backends and readers of films: which packages are here, and what they can do."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import Any

from msloc_edge.doctor.check import Check
from msloc_edge.doctor.system import output_of

PROBES = ("onnxruntime", "openvino", "tensorrt", "tensorrt_rtx", "cv2", "PIL", "pydicom")
"""Functions of `probes`, each with the name of the package that it imports."""

PATIENCE = 20.0
"""Seconds until an import counts as hanging; a small device reads a large package from a slow card."""

DICOM = "pip install 'msloc-edge[dicom]'"
CPU = "CPUExecutionProvider"

Answers = Mapping[str, Future[dict[str, Any]]]


def ask(probe: str) -> dict[str, Any]:
    """Answer of a probe, from a process of its own: a package that crashes or hangs takes only that along.

    Raises ModuleNotFoundError when the package is not installed, ImportError when it cannot be imported.
    """
    code = (
        f"import sys\nsys.path[:] = {sys.path!r}\n"  # what this process would import, not what lies in its folder
        f"import json\nfrom msloc_edge.doctor import probes\nprint('\\n' + json.dumps(probes.{probe}()))"
    )
    try:
        status, out, err = output_of([sys.executable, "-c", code], PATIENCE)
    except TimeoutError:
        raise ImportError(f"it hangs: no answer within {PATIENCE:g} s") from None
    if status < 0:
        raise ImportError(f"it crashes: {signal.strsignal(-status) or f'signal {-status}'}")
    if status > 0:
        words = (err.strip().splitlines() or [f"exit status {status}"])[-1]
        if words == f"ModuleNotFoundError: No module named '{probe}'":
            raise ModuleNotFoundError("not installed")
        raise ImportError(f"it fails: {words}")
    answer: dict[str, Any] = json.loads(out.splitlines()[-1])  # the last line: some packages greet
    return answer


def check_backends(answers: Answers, found: Mapping[str, Any]) -> list[Check]:
    """Check the backends: the default one must work, the others are optional."""
    from msloc_edge.backends import BACKENDS  # with it comes numpy, whose absence is to be one line, not the end

    installs = {name: entry.install for name, entry in BACKENDS.items()}
    return [
        _onnxruntime(answers["onnxruntime"], installs["onnxruntime"]),
        _package(
            *("backends", "openvino", answers["openvino"], "openvino", installs["openvino"]),
            lambda answer: f"{answer['version']}: {', '.join(answer['devices']) or 'no device'}",
        ),
        _torch(found, installs["torch"]),
        _tensorrt(answers["tensorrt"], found),
        _package(
            *("backends", "tensorrt_rtx", answers["tensorrt_rtx"], "tensorrt-rtx"),
            installs["tensorrt_rtx"] if found["gpus"] and not found["jetpack"] else None,
            lambda answer: str(answer["version"]),
        ),
    ]


def check_films(answers: Answers) -> list[Check]:
    """Check the readers of films: pictures must be readable, DICOM is optional."""
    scaling = _package(
        *("films", "opencv", answers["cv2"], "opencv-python-headless", "pip install opencv-python-headless"),
        lambda answer: str(answer["version"]),
        required=True,
    )
    return [*_pictures(answers["PIL"]), scaling, *_dicom(answers["pydicom"])]


def _package(
    group: str,
    name: str,
    answer: Future[dict[str, Any]],
    distribution: str,
    install: str | None,
    words: Callable[[dict[str, Any]], str],
    required: bool = False,
) -> Check:
    try:
        return Check(group, name, "ok", words(answer.result()))
    except ModuleNotFoundError as error:
        return Check(group, name, "failing" if required else "absent", str(error), install)
    except ImportError as error:
        again = f"pip install --force-reinstall {distribution}"
        return Check(group, name, "failing" if required else "warning", str(error), again)


def _onnxruntime(answer: Future[dict[str, Any]], install: str) -> Check:
    check = _package(
        *("backends", "onnxruntime", answer, "onnxruntime", install),
        lambda found: f"{found['version']}: {', '.join(found['providers']) or 'no provider'}",
        required=True,
    )
    if check.status == "ok" and CPU not in answer.result()["providers"]:
        return Check(check.group, check.name, "failing", f"{check.found}; {CPU} is missing", install)
    return check


def _torch(found: Mapping[str, Any], install: str) -> Check:
    """Check torch by its version alone: importing it takes longer than everything else here together."""
    version = found["versions"].get("torch")
    if not version:
        return Check("backends", "torch", "absent", "not installed", install)
    if found["gpus"] and version.endswith("+cpu"):
        again = "pip install --force-reinstall torch"
        return Check("backends", "torch", "warning", f"{version} is a build for CPUs, and there is a GPU", again)
    return Check("backends", "torch", "ok", f"{version} is installed (not loaded)")


def _tensorrt(answer: Future[dict[str, Any]], found: Mapping[str, Any]) -> Check:
    install = "pip install tensorrt-cu13" if found["gpus"] else None
    if found["jetpack"]:  # there it is a package of the system, which an ordinary virtual environment does not see
        install = "sudo apt install nvidia-jetpack; python3 -m venv --system-site-packages .venv"
    return _package("backends", "tensorrt", answer, "tensorrt", install, lambda answer: str(answer["version"]))


def _pictures(answer: Future[dict[str, Any]]) -> list[Check]:
    again = "pip install --force-reinstall pillow"
    check = _package(
        "films", "PNG, JPEG, TIFF", answer, "pillow", again, lambda found: f"pillow {found['version']}", True
    )
    lost = [name for name, works in answer.result()["formats"].items() if not works] if check.status == "ok" else []
    if lost:
        found = f"{check.found} does not read {', '.join(lost)}"
        return [Check(check.group, check.name, "failing", found, again)]
    return [check]


def _dicom(answer: Future[dict[str, Any]]) -> list[Check]:
    check = _package("films", "DICOM", answer, "pydicom", DICOM, lambda found: f"pydicom {found['version']}")
    decoders = answer.result()["decoders"].items() if check.status == "ok" else ()
    return [
        check,
        *(
            Check("films", f"DICOM {name}", "ok", f"by {by}")
            if by
            else Check("films", f"DICOM {name}", "warning", "no decoder: such films are refused", DICOM)
            for name, by in decoders
        ),
    ]
