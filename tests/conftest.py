"""Fixtures that several test files share."""

from __future__ import annotations

import contextlib
import fcntl
import functools
import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import settings

ROOT = Path(__file__).parents[1]

settings.register_profile("no-clock", deadline=None)  # a busy machine is no failure
settings.load_profile("no-clock")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The real films beside the checkout; a test that needs them is skipped where they are not."""
    folder = ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"the real films are not here: {folder}")
    return folder


@pytest.fixture(scope="session")
def script() -> Callable[[str], ModuleType]:
    """Loads a script that is in no package: script("tools/soup.py") -> its module; asked again, the same one."""

    @functools.cache
    def load(path: str) -> ModuleType:
        spec = importlib.util.spec_from_file_location(Path(path).stem, ROOT / path)
        assert spec
        assert spec.loader
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module  # dataclasses ask for it
        spec.loader.exec_module(module)
        return module

    return load


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Made films go to a folder of this session, never to the user's cache; models likewise."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MSLOC_CACHE", str(folder))
        patch.setenv("MSLOC_MODELS", str(tmp_path_factory.mktemp("models")))
        patch.setenv("XDG_DATA_HOME", str(tmp_path_factory.mktemp("data")))
        patch.delenv("MSLOC_TRUSTED_KEYS", raising=False)
        yield folder


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A store of models for this test alone; it is not there yet."""
    folder = tmp_path / "models"
    monkeypatch.setenv("MSLOC_MODELS", str(folder))
    return folder


@pytest.fixture(scope="session")
def stand_ins() -> Path:
    """The folder of what takes the place of CUDA's driver and of TensorRT."""
    return Path(__file__).parent / "stand_ins"


@pytest.fixture(scope="session")
def libcuda(stand_ins: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Builds a stand-in for the driver: libcuda(FILE) -> the folder of its libcuda.so.1."""
    if (compiler := shutil.which("cc")) is None:
        pytest.skip("no C compiler")

    def build(file: str) -> Path:
        folder = tmp_path_factory.mktemp("driver")
        command = [compiler, "-O2", "-shared", "-fPIC", "-o", folder / "libcuda.so.1", stand_ins / file, "-ldl"]
        subprocess.run(command, check=True)
        return folder

    return build


@pytest.fixture(scope="session")
def phantom_films() -> list[np.ndarray]:
    """Displayed films [H, W] in [0, 1]: normal, with findings, square and not, larger and smaller than the input."""
    from msloc_edge.train.phantom import generate

    sizes = [64, 96, 200, (128, 96), (90, 150)]
    films = [generate(seed, size).display() for seed, size in enumerate(sizes, start=50)]
    return [*films, generate(60, 80, ()).display()]


@pytest.fixture(scope="session")
def make_state() -> Callable[..., dict[str, Any]]:
    """A maker of calibrated checkpoints: make_state(backbone=, pool=, ...), as ModelConfig -> state."""
    return _calibrated_state


@pytest.fixture(scope="session")
def tiny_state() -> dict[str, Any]:
    """A calibrated checkpoint of a small edge network that finds something on most films; copy before changing it."""
    return _calibrated_state()


@pytest.fixture(scope="session")
def tiny_bundle(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Path:
    """The folder of the bundle exported from `tiny_state`; copy before changing it.

    An export takes seconds, so one is kept in build/ until the sources change; the first of several workers makes it.
    """
    kept = ROOT / "build" / "tests" / f"tiny-{_source_hash()}"
    kept.parent.mkdir(parents=True, exist_ok=True)
    with (kept.parent / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not kept.exists():
            from msloc_edge.export import export_bundle

            for old in kept.parent.glob("tiny-*"):
                shutil.rmtree(old)
            made = tmp_path_factory.mktemp("made") / "bundle"
            state, films = map(request.getfixturevalue, ("tiny_state", "phantom_films"))
            export_bundle(state, made, films, name="tiny")
            shutil.copytree(made, kept.with_suffix(".part"), dirs_exist_ok=True)
            kept.with_suffix(".part").rename(kept)
        return shutil.copytree(kept, tmp_path_factory.mktemp("tiny") / "bundle")


@pytest.fixture(scope="session")
def bundle_with(tmp_path_factory: pytest.TempPathFactory, tiny_bundle: Path) -> Callable[..., Path]:
    """Makes copies of `tiny_bundle`: bundle_with(temperature=1.0) replaces entries of the manifest, one of None goes.

    The other files are links: a test may remove them, but not write into them.
    """

    def make(**entries: Any) -> Path:
        folder = shutil.copytree(tiny_bundle, tmp_path_factory.mktemp("with") / "bundle", copy_function=os.link)
        manifest = json.loads((folder / "manifest.json").read_text()) | entries
        (folder / "manifest.json").unlink()
        manifest = {key: value for key, value in manifest.items() if value is not None}
        (folder / "manifest.json").write_text(json.dumps(manifest))
        return folder

    return make


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., str]]:
    """Serves bytes over HTTP on this machine: serve(data, promised=len(data), hang=False) -> URL.

    promised   the length that the answer states; None states none
    hang       send the data and then nothing more, on an open line, until the test ends
    """
    answers: dict[str, tuple[bytes, int | None, bool]] = {}
    over = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path not in answers:
                self.send_error(404)
                return
            data, promised, hang = answers[self.path]
            self.send_response(200)
            if promised is not None:
                self.send_header("Content-Length", str(promised))
            self.end_headers()
            with contextlib.suppress(ConnectionError):  # a client that has seen enough
                self.wfile.write(data)
                self.wfile.flush()
            if hang:
                over.wait()

        def log_message(self, *arguments: object) -> None:
            """Silent."""

    def answer(data: bytes, promised: int | None = -1, hang: bool = False) -> str:
        path = f"/{len(answers)}"
        answers[path] = (data, len(data) if promised == -1 else promised, hang)
        return f"http://127.0.0.1:{server.server_port}{path}"

    monkeypatch.setenv("no_proxy", "*")
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield answer
        over.set()
        server.shutdown()
        thread.join()


def _source_hash() -> str:
    """Of all that decides what the tiny bundle is: our sources, and the versions of the packages that write it."""
    found = hashlib.sha256(repr([metadata.version(name) for name in ("numpy", "onnx", "onnxscript", "torch")]).encode())
    for file in sorted(
        file for top in ("msloc_edge", "kernels", "export", "train") for file in (ROOT / top).rglob("*.py")
    ):
        found.update(str(file).encode() + file.read_bytes())
    found.update(Path(__file__).read_bytes())
    return found.hexdigest()[:16]


def _calibrated_state(
    backbone: str = "edge", pool: str = "avg", stages: str = "all", size: int = 64, seed: int = 0, **model: Any
) -> dict[str, Any]:
    """Seeded weights far from their start, batch statistics and thresholds from a few phantoms."""
    import torch

    from msloc_edge.kernels.fuse_cams.reference import fuse_cams
    from msloc_edge.model import ModelConfig, build
    from msloc_edge.train import TrainConfig
    from msloc_edge.train.checkpoint import SCHEMA
    from msloc_edge.train.phantom import FINDINGS, generate

    films = np.stack([generate(seed, size).display() for seed in range(16)])
    config = ModelConfig(FINDINGS, backbone, size=size, pool=pool, stages=stages, **model)
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(seed)
        net = build(config)
        for module in net.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.weight.uniform_(0.5, 1.5)
                module.bias.normal_(0, 0.2)
                module.momentum = None  # exact averages instead of running ones
        for classifier in net.head.classifiers:
            classifier.weight.normal_(0, 2 / classifier.in_channels**0.5)
        net.head.theta.normal_()
        net.head.bias.normal_(0, 0.5)
        net.train()(torch.from_numpy(films)[:, None])
        logits, cams = net.eval()(torch.from_numpy(films)[:, None])
        maps = fuse_cams(cams, net.head.relevance, (size, size))
    temperature = 1.7
    scores = torch.sigmoid(logits.double() / temperature).median(dim=0).values.tolist()
    thresholds = maps.transpose(0, 1).flatten(1).quantile(0.9, dim=1).tolist()
    return {
        "schema": SCHEMA,
        "config": TrainConfig(config, films=16, val_films=16, epochs=1).to_dict(),
        "epoch": 0,
        "best": 0.5,
        "model": net.state_dict(),
        "temperature": temperature,
        "profiles": {
            name: {"score": scores, "map": thresholds} for name in ("youden", "sensitivity-90", "specificity-95")
        },
        "films": {"phantom": 16},
        "calibration": {"scores": "16 films", "maps": dict.fromkeys(FINDINGS, "quantiles")},
        "validation": {
            "films": 16,
            "sources": ["phantom"],
            "auroc": dict.fromkeys(FINDINGS, 0.5),
            "map_iou": dict.fromkeys(FINDINGS, 0.1),
        },
    }
